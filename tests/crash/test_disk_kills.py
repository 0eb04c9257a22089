"""`kill -9` of the host at random moments while it writes, evicts and restores: the disk tier stays sound."""

import asyncio
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from samovar.core import commands, events
from samovar.core.chat import GREEDY, ChatMessage, Role
from samovar.core.request import Request
from samovar.core.settings import EngineSettings
from samovar.core.snapshot import Tier
from tests.crash.conftest import FrontEnd, Site, gone, hosts, kill
from tests.model.conftest import tiny

pytestmark = [pytest.mark.model, pytest.mark.timeout(3000)]

NUM_KILLS: Final = 200 if os.environ.get("SAMOVAR_SOAK") else 10
NUM_CHATS: Final = 6
REPLY_TOKENS: Final = 12


def prompt(number: int) -> tuple[ChatMessage, ...]:
    """Chats with a common beginning, some hundred tokens each."""
    own = " ".join(f"Line {line} of letter {number} tells of tea and snow." for line in range(30))
    return (
        ChatMessage(Role.SYSTEM, "You answer letters. " * 40),
        ChatMessage(Role.USER, own),
    )


@pytest.fixture
def disk_site(smollm2: Path) -> Iterator[Site]:
    """Hosts of a tiny hybrid whose RAM holds about two of the chats and whose disk about four."""
    settings = EngineSettings(
        str(tiny("lfm2", smollm2)),
        context_tokens=2048,
        ram_limit="500KiB",
        disk_limit="900KiB",
        keep_alive_s=-1.0,
        block_tokens=64,
    )
    with tempfile.TemporaryDirectory(prefix="samovar-kill-") as folder:
        yield Site(Path(folder), settings, Path(folder))
        for process in hosts():
            process.kill()


async def ask(front_end: FrontEnd, number: int, name: str) -> events.RequestFinished:
    """One greedy reply in a chat."""
    since = len(front_end.events)
    front_end.send(commands.Focus(f"chat {number}"))
    front_end.send(
        commands.Submit(
            Request(name, f"chat {number}", prompt(number), sampling=GREEDY, max_tokens=REPLY_TOKENS)
        )
    )
    return await end_of(front_end, name, since)


async def end_of(front_end: FrontEnd, name: str, since: int) -> events.RequestFinished:
    return await front_end.wait_for(
        events.RequestFinished, lambda event: event.request_id == name, since=since
    )


async def cold_replies(site: Site) -> list[str]:
    """What the model answers where nothing is kept."""
    settings = msgspec.structs.replace(site.settings, ram_limit="off", disk_limit="off")
    cold = Site(site.folder / "cold", settings, site.folder / "cold")
    cold.folder.mkdir()
    async with cold.front_end() as front_end:
        replies = [await ask(front_end, number, f"cold {number}") for number in range(NUM_CHATS)]
        processes = hosts()
        front_end.send(commands.StopHost())
        await gone(processes)
    assert all(reply.stats.reused.total == 0 for reply in replies)
    return [reply.reply for reply in replies]


async def test_killed_at_random_moments_the_disk_stays_sound(disk_site: Site) -> None:
    dice = random.Random(20261122)
    expected = await cold_replies(disk_site)
    async with disk_site.front_end() as front_end:
        for number in range(NUM_KILLS):
            since = len(front_end.events)
            for part in range(3):
                chat = dice.randrange(NUM_CHATS)
                request = Request(
                    f"{number}.{part}", f"chat {chat}", prompt(chat), sampling=GREEDY, max_tokens=REPLY_TOKENS
                )
                front_end.send(commands.Submit(request))
            if dice.random() < 0.2:
                front_end.send(commands.ClearTier(dice.choice([Tier.HOST, Tier.DISK])))
            await front_end.wait_for(events.RequestStarted, since=since)
            await asyncio.sleep(dice.uniform(0.0, 0.4))  # the moment is what is drawn here
            pid = front_end.client.host_pid
            assert pid is not None
            kill(pid)
            await front_end.wait_for(events.HostLost, since=since)
            for part in range(3):
                name = f"{number}.{part}"
                end = await end_of(front_end, name, since)
                if not end.error:
                    chat = int(end.session.removeprefix("chat "))
                    assert end.reply == expected[chat]

        replies = [await ask(front_end, number, f"first {number}") for number in range(NUM_CHATS)]
        again = [await ask(front_end, number, f"again {number}") for number in range(NUM_CHATS)]
        assert [reply.reply for reply in replies] == expected
        assert [reply.reply for reply in again] == expected
        assert sum(reply.stats.reused.disk for reply in [*replies, *again]) > 0
        front_end.send(commands.VerifyDisk())
        verified = await front_end.wait_for(events.DiskVerified)
        assert (verified.bad, verified.orphans, verified.problem) == (0, 0, "")
        assert verified.files > 0
        front_end.send(commands.Describe())
        changed = front_end.of(events.CacheChanged)[-1]
        assert changed.snapshot.disk.quarantined == 0
        assert changed.snapshot.disk.limit_bytes is not None
        assert 0 < changed.snapshot.disk.bytes <= changed.snapshot.disk.limit_bytes
        assert changed.snapshot.totals.evictions > 0
        processes = hosts()
        front_end.send(commands.StopHost())
        await gone(processes)
