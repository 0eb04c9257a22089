"""Fetches from disk that meet one another, that nobody waits for any longer, or that fail."""

import errno
import functools
import os
from pathlib import Path

import pytest

from samovar.core import commands
from samovar.core.chat import ChatMessage
from samovar.core.settings import EngineSettings
from samovar.engine.limits import disk_limit
from samovar.engine.loop import EngineLoop
from samovar.engine.swapper import Folder, Swapper
from samovar.kv.block import root_key
from samovar.kv.disk_tier import DiskTier, Model
from tests.engine.harness import BLOCK, Engine, user, words

NUM_BLOCKS = 6


class DiskEngine(Engine):
    """The loop with a disk tier; the swap thread is a real one."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        settings = EngineSettings(
            "fake.gguf", num_slots=4, block_tokens=BLOCK, prefill_chunk=16, ram_limit="unlimited"
        )
        model = Model("fingerprint", root_key("fingerprint"), BLOCK, True, "fake", "fake.gguf", "w", "b")
        where = Folder(folder, model, disk_limit, lambda _path: "w")
        self.loop = EngineLoop(
            self.backend,
            settings,
            "fingerprint",
            self._emit,
            lambda: 1 << 30,
            make_swapper=functools.partial(Swapper, where, settings.disk_limit),
        )

    def serve_until_quiet(self) -> None:
        """Serve until all has ended and the swap thread has no fetch left; it wakes the loop."""
        disk = self.loop._control.disk
        assert disk is not None
        while self.busy or disk._fetches:
            self.loop.serve_once(wait=True)

    def serve_until_open(self) -> None:
        """Serve until the tier's past has been taken over."""
        while self.loop._records.get("s") is None:
            self.loop.serve_once(wait=True)

    @property
    def problem(self) -> str:
        assert self.loop._control.disk is not None
        return self.loop._control.disk.state.problem

    def close(self) -> None:
        assert self.loop._control.disk is not None
        self.loop._control.disk.close(30)


def stored_chat(folder: Path) -> list[ChatMessage]:
    """A chat of some blocks that an earlier host has left on disk."""
    first = DiskEngine(folder)
    messages = [user(words(NUM_BLOCKS * BLOCK))]
    asked = first.submit("s", messages)
    first.serve_until_quiet()
    first.close()
    return [*messages, asked.answer(), user(words(3, 5))]


def test_opening_and_asking_a_chat_reads_each_block_once(tmp_path: Path) -> None:
    messages = stored_chat(tmp_path)
    engine = DiskEngine(tmp_path)
    engine.serve_until_open()
    engine.post(commands.Focus("s"))
    asked = engine.submit("s", messages)
    engine.serve_until_quiet()
    num_stored = sum(len(block.tokens) for block in engine.loop.index if block.end <= len(asked.prompt))
    assert asked.finished.stats.reused.total >= NUM_BLOCKS * BLOCK
    assert asked.finished.stats.reused.disk >= NUM_BLOCKS * BLOCK
    assert engine.loop.ledger.disk_reads <= num_stored // BLOCK + 1, "nothing is read twice"
    engine.close()


def test_what_a_cancelled_request_fetched_is_not_held_for_ever(tmp_path: Path) -> None:
    messages = stored_chat(tmp_path)
    engine = DiskEngine(tmp_path)
    engine.serve_until_open()
    asked = engine.submit("s", messages)
    engine.loop.serve_once(wait=False)
    engine.post(commands.Cancel(asked.request.id))
    engine.serve_until_quiet()
    assert not asked.finished.stats.generated_tokens
    assert [block.key for block in engine.loop.index if block.users] == []
    engine.close()


def test_a_full_disk_is_read_all_the_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = stored_chat(tmp_path)
    engine = DiskEngine(tmp_path)
    engine.serve_until_open()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    engine.submit("other", [user(words(40, 3))])
    while not engine.problem:
        engine.loop.serve_once(wait=True)
    assert "full" in engine.problem
    asked = engine.submit("s", messages)
    engine.serve_until_quiet()
    assert asked.finished.stats.reused.disk >= NUM_BLOCKS * BLOCK
    engine.close()


def test_a_swap_thread_that_breaks_answers_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = stored_chat(tmp_path)
    engine = DiskEngine(tmp_path)
    engine.serve_until_open()

    def broken(*_args: object) -> None:
        raise RuntimeError("nobody foresaw this")

    with monkeypatch.context() as patch:
        patch.setattr(DiskTier, "find", broken)
        asked = engine.submit("s", messages)
        engine.serve_until_quiet()
    assert not asked.finished.error
    assert asked.finished.stats.reused.disk == 0
    assert "broke" in engine.problem
    assert engine.loop._control.disk is not None
    assert engine.loop._control.disk._swapper._thread.is_alive()
    engine.close()
