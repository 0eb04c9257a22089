"""Many requests over many chats under tight budgets: limits, memory and reuse stay what they claim to be."""

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from samovar.core import commands, events
from samovar.core.chat import GREEDY, ChatMessage, Role
from samovar.core.request import Request
from samovar.core.settings import EngineSettings
from samovar.core.snapshot import CacheSnapshot
from samovar.engine.loop import EngineLoop
from samovar.engine.start import available_bytes, load
from samovar.kv.index import common_prefix
from tests.crash.conftest import FrontEnd, Site, gone, hosts

pytestmark = [pytest.mark.model, pytest.mark.timeout(7200)]

SOAK: Final = bool(os.environ.get("SAMOVAR_SOAK"))
NUM_REQUESTS: Final = 2000 if SOAK else 25
NUM_CHATS: Final = 60 if SOAK else 8
TOKEN_BYTES: Final = 23040  # SmolLM2, f16
CHAT_TOKENS: Final = 300
NEED_BYTES: Final = NUM_CHATS * CHAT_TOKENS * TOKEN_BYTES
RAM_BYTES: Final = NEED_BYTES // 10
DISK_BYTES: Final = NEED_BYTES // 2
CONTEXT: Final = 1024


@pytest.fixture
def soak_site(smollm2: Path) -> Iterator[Site]:
    settings = EngineSettings(
        str(smollm2),
        context_tokens=CONTEXT,
        ram_limit=str(RAM_BYTES),
        disk_limit=str(DISK_BYTES),
        keep_alive_s=-1.0,
        block_tokens=64,
    )
    with tempfile.TemporaryDirectory(prefix="samovar-soak-") as folder:
        yield Site(Path(folder), settings, Path(folder))
        for process in hosts():
            process.kill()


class Oracle:
    """Knows every token sequence that the host has ever had in its context."""

    def __init__(self, model: Path, probe_dir: Path) -> None:
        settings = EngineSettings(str(model), context_tokens=128, num_slots=1)
        loaded = load(settings, probe_dir, lambda _stage, _fraction: None)
        self._prompts = EngineLoop(
            loaded.backend, settings, "", lambda _client, _event: None, available_bytes
        ).prompts
        self._seen: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def prompt(self, messages: tuple[ChatMessage, ...]) -> tuple[int, ...]:
        return self._prompts.build(messages)

    def longest(self, tokens: tuple[int, ...]) -> int:
        """The longest prefix of `tokens` that was there before."""
        near = self._seen.get(tokens[:80], [])
        far = max((common_prefix(tokens[:80], key) for key in self._seen), default=0)
        return max([far, *(common_prefix(tokens, other) for other in near)])

    def add(self, tokens: tuple[int, ...]) -> None:
        self._seen.setdefault(tokens[:80], []).append(tokens)


def snapshot_of(front_end: FrontEnd) -> CacheSnapshot:
    return front_end.of(events.CacheChanged)[-1].snapshot


def check_budgets(snapshot: CacheSnapshot) -> None:
    assert snapshot.host.limit_bytes == RAM_BYTES
    assert snapshot.host.bytes <= RAM_BYTES
    assert snapshot.disk.bytes <= DISK_BYTES
    if snapshot.disk.blocks:
        assert snapshot.disk.limit_bytes == DISK_BYTES


async def test_budgets_memory_and_reuse_hold(soak_site: Site, smollm2: Path, probe_dir: Path) -> None:
    dice = random.Random(7)
    oracle = Oracle(smollm2, probe_dir)
    letter = " ".join(f"Sentence {n} is about the garden." for n in range(12))
    histories: list[tuple[ChatMessage, ...]] = [
        (ChatMessage(Role.SYSTEM, f"You are helper number {number % 5}. {letter}"),)
        for number in range(NUM_CHATS)
    ]
    reused = asked = 0
    async with soak_site.front_end() as front_end:
        await front_end.wait_for(events.HostReady)
        (host,) = hosts()
        base = 0
        for number in range(NUM_REQUESTS):
            chat = dice.randrange(NUM_CHATS)
            text = (
                f"Message {number} about {dice.choice(['tea', 'snow', 'rain', 'ink'])}: " + "and so on. " * 8
            )
            messages = (*histories[chat], ChatMessage(Role.USER, text))
            if len(oracle.prompt(messages)) > CHAT_TOKENS:
                messages = (histories[chat][0], ChatMessage(Role.USER, text))
            prompt = oracle.prompt(messages)
            name, since = f"r{number}", len(front_end.events)
            if dice.random() < 0.5:
                front_end.send(commands.Focus(f"chat {chat}"))
            request = Request(name, f"chat {chat}", messages, sampling=GREEDY, max_tokens=4)
            front_end.send(commands.Submit(request))
            end = await front_end.wait_for(events.RequestFinished, since=since)
            assert not end.error
            stats = end.stats
            assert stats.prompt_tokens == len(prompt)
            assert stats.reused.total <= min(oracle.longest(prompt), len(prompt) - 1)
            assert stats.reused.total + stats.processed_tokens == len(prompt)
            oracle.add((*prompt, *end.tokens))
            histories[chat] = (*messages, ChatMessage(Role.ASSISTANT, end.reply, end.tokens, end.tokenizer))
            reused += stats.reused.total
            asked += len(prompt)
            for event in front_end.events[since:]:
                if isinstance(event, events.CacheChanged):
                    check_budgets(event.snapshot)
            resident = host.memory_info().rss
            counted = snapshot_of(front_end).host.bytes
            # What the host takes with a model and a used context, and nothing kept but that.
            base = base or resident - counted
            assert resident <= 1.1 * (base + counted) + 64 * 1024 * 1024
            del front_end.events[: max(0, len(front_end.events) - 200)]
            del front_end.times[: max(0, len(front_end.times) - 200)]
        last = snapshot_of(front_end)
        assert last.totals.evictions > 0
        assert last.totals.disk_reads > 0
        assert last.totals.disk_evictions > 0 or not SOAK
        assert last.totals.quarantined == 0
        front_end.send(commands.VerifyDisk())
        verified = await front_end.wait_for(events.DiskVerified)
        assert (verified.bad, verified.orphans, verified.problem) == (0, 0, "")
        sys.stdout.write(
            f"hit ratio {reused / asked:.3f} over {NUM_REQUESTS} requests, host {resident >> 20}"
            f" MiB; {last.totals.disk_reads} blocks read, {last.totals.disk_writes} written,"
            f" {last.totals.evictions} evicted from RAM, {last.totals.disk_evictions} from disk\n"
        )
        assert reused / asked > 0.3
        processes = hosts()
        front_end.send(commands.StopHost())
        await gone(processes)


async def test_lowering_the_ram_limit_gives_the_memory_back(smollm2: Path, probe_dir: Path) -> None:
    """From 1 GiB to 128 MiB while full; without soaking from 96 to 16 MiB."""
    full, low = (1 << 30, 128 << 20) if SOAK else (96 << 20, 16 << 20)
    settings = EngineSettings(
        str(smollm2),
        context_tokens=8192,
        kv_type_k="f32",  # twice the bytes for the same work
        kv_type_v="f32",
        ram_limit=str(full),
        disk_limit="off",
        keep_alive_s=-1.0,
    )
    with tempfile.TemporaryDirectory(prefix="samovar-soak-") as folder:
        async with Site(Path(folder), settings, probe_dir).front_end() as front_end:
            number = 0
            while not (seen := front_end.of(events.CacheChanged)) or (
                seen[-1].snapshot.host.bytes < full - (8 << 20)
            ):
                since = len(front_end.events)
                text = f"Letter {number}. " + " ".join(f"Line {n} of letter {number}." for n in range(250))
                request = Request(
                    f"r{number}",
                    f"s{number}",
                    (ChatMessage(Role.USER, text),),
                    sampling=GREEDY,
                    max_tokens=1,
                )
                front_end.send(commands.Submit(request))
                end = await front_end.wait_for(events.RequestFinished, since=since)
                assert not end.error
                number += 1
            (host,) = hosts()
            before, counted = host.memory_info().rss, snapshot_of(front_end).host.bytes
            assert counted >= full - (8 << 20)
            since = len(front_end.events)
            front_end.send(commands.SetRamLimit(str(low)))
            await front_end.wait_for(
                events.CacheChanged, lambda event: event.snapshot.host.limit_bytes == low, since=since
            )
            after = host.memory_info().rss
            assert snapshot_of(front_end).host.bytes <= low
            assert before - after >= 0.9 * (counted - low)
            front_end.send(commands.StopHost())
            await gone([host])
