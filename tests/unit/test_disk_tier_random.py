"""Random operations on the disk tier, compared with a naive model of what it should hold."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from samovar.kv.disk_index import PastRow
from samovar.kv.disk_tier import Model
from samovar.kv.index import common_prefix
from tests.unit.disk_support import (
    HELD,
    Budget,
    Piece,
    blocks_in,
    chain,
    file_of,
    model_of,
    open_tier,
    put,
    serve,
    verify,
)

NUM_EXAMPLES: Final = 1000 if os.environ.get("SAMOVAR_SOAK") else 120
SESSIONS: Final = ("a", "b", "c")
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=14).map(tuple)
sessions = st.sampled_from(SESSIONS)


@dataclass(slots=True)
class Entry:
    """A block that should be there; `prompt` is all that it stands for, from the first token on."""

    piece: Piece
    prompt: tuple[int, ...]
    used: int
    owners: set[str] = field(default_factory=set)


class NaiveTier:
    """What the tier should do, by looking at everything each time."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.limit = 0
        self.entries: dict[bytes, Entry] = {}
        self.pinned: dict[str, bool] = {}
        self._clock = 0

    def children(self, key: bytes) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.piece.parent == key]

    def is_pinned(self, entry: Entry) -> bool:
        return any(self.pinned.get(owner) for owner in entry.owners)

    def tick(self) -> int:
        self._clock += 1
        return self._clock

    def make_room(self, more: int, spare: bytes | None = None) -> bool:
        if more * HELD > self.limit:
            return False
        while (len(self.entries) + more) * HELD > self.limit:
            leaves = [
                entry
                for entry in self.entries.values()
                if not self.children(entry.piece.key) and not self.is_pinned(entry)
            ]
            oldest = min(leaves, key=lambda entry: entry.used, default=None)
            if oldest is None or oldest.piece.key == spare:
                return False
            del self.entries[oldest.piece.key]
        return True

    def write(self, piece: Piece, prompt: tuple[int, ...], owner: str) -> bool:
        if piece.key in self.entries:
            self.touch([piece.key], owner)
            return True
        is_full = (len(self.entries) + 1) * HELD > self.limit
        if is_full and piece.start and piece.parent not in self.entries:
            return False
        if not self.make_room(1, piece.parent):
            return False
        new = self.entries[piece.key] = Entry(piece, prompt, self.tick(), {owner})
        if self.model.partial:
            for other in self.children(piece.parent):
                shorter = other.piece.tokens != piece.tokens[: len(other.piece.tokens)] or other is new
                if not shorter and not self.children(other.piece.key):
                    new.owners |= other.owners
                    del self.entries[other.piece.key]
        return True

    def touch(self, keys: list[bytes], owner: str) -> None:
        clock = self.tick()
        for key in keys:
            if key in self.entries:
                self.entries[key].used = clock
                self.entries[key].owners.add(owner)

    def forget(self, session: str) -> None:
        mine = [entry for entry in self.entries.values() if entry.owners == {session}]
        for entry in self.entries.values():
            entry.owners.discard(session)
        for entry in sorted(mine, key=lambda entry: -entry.piece.start):
            if not self.children(entry.piece.key):
                del self.entries[entry.piece.key]
        self.pinned.pop(session, None)
        self.make_room(0)

    def serve(self, prompt: tuple[int, ...]) -> int:
        """The longest prefix of a prompt that a block stands for, whose way from the root is there."""
        best = 0
        for entry in self.entries.values():
            common = common_prefix(entry.prompt, prompt)
            whole = all(piece.key in self.entries for piece in chain(entry.prompt, self.model))
            usable = self.model.partial or common == len(entry.prompt)
            if whole and usable and common > entry.piece.start:
                best = max(best, common)
        return best


class DiskMachine(RuleBasedStateMachine):
    """Sessions that come, go and are pinned, under a budget that changes."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="samovar-disk-")
        self.folder = Path(self._folder.name)
        self.budget = Budget()

    def teardown(self) -> None:
        self.tier.close()
        self._folder.cleanup()

    @initialize(partial=st.booleans(), blocks=st.integers(2, 12))
    def start(self, partial: bool, blocks: int) -> None:
        self.model = model_of(partial=partial)
        self.naive = NaiveTier(self.model)
        self.budget.num_bytes = self.naive.limit = blocks * HELD
        self.tier = open_tier(self.folder, self.model, self.budget)

    @rule(prompt=prompts, session=sessions)
    def write(self, prompt: tuple[int, ...], session: str) -> None:
        for piece in chain(prompt, self.model):
            whole = prompt[: piece.start + len(piece.tokens)]
            assert put(self.tier, piece, [session]) == self.naive.write(piece, whole, session)
            assert self.tier.usage()[0] <= max(self.budget.num_bytes, self._pinned_bytes())

    @rule(prompt=prompts)
    def read(self, prompt: tuple[int, ...]) -> None:
        expected = self.naive.serve(prompt)
        assert self.tier.count(prompt) == expected
        assert serve(self.tier, prompt, self.model) == expected

    @rule(prompt=prompts, session=sessions)
    def touch(self, prompt: tuple[int, ...], session: str) -> None:
        keys = [piece.key for piece in chain(prompt, self.model)]
        self.tier.touch(keys, session)
        self.naive.touch(keys, session)

    @rule(session=sessions)
    def forget(self, session: str) -> None:
        self.tier.forget(session)
        self.naive.forget(session)

    @rule(session=sessions, used=st.floats(0, 10))
    def remember(self, session: str, used: float) -> None:
        pinned = self.naive.pinned.setdefault(session, False)
        self.tier.remember(PastRow(session, "", b"", 0, used, pinned), 10)

    @rule(session=sessions, pinned=st.booleans())
    def pin(self, session: str, pinned: bool) -> None:
        self.tier.pin(session, pinned)
        if session in self.naive.pinned:
            self.naive.pinned[session] = pinned
        self.naive.make_room(0)

    @rule(blocks=st.integers(0, 12))
    def set_limit(self, blocks: int) -> None:
        self.budget.num_bytes = self.naive.limit = blocks * HELD
        self.tier.shrink()
        self.naive.make_room(0)

    @rule()
    def open_again(self) -> None:
        self.tier.close()
        self.tier = open_tier(self.folder, self.model, self.budget)

    @rule()
    def verify(self) -> None:
        found = verify(self.tier)
        assert (found.files, found.bad, found.orphans) == (len(self.naive.entries), 0, 0)

    @rule()
    def clear(self) -> None:
        kept = self.tier.clear()[2]
        entries = self.naive.entries
        for entry in sorted(entries.values(), key=lambda entry: -entry.piece.start):
            if not self.naive.is_pinned(entry) and not self.naive.children(entry.piece.key):
                del entries[entry.piece.key]
        assert kept == len(entries)

    @invariant()
    def holds_what_it_should(self) -> None:
        entries = self.naive.entries.values()
        num_tokens = sum(len(entry.piece.tokens) for entry in entries)
        assert self.tier.usage() == (HELD * len(entries), num_tokens, len(entries))
        assert blocks_in(self.folder) == sorted(file_of(self.folder, entry.piece) for entry in entries)
        assert self.tier.quarantined == 0

    def _pinned_bytes(self) -> int:
        """Bytes that no eviction may free: what is pinned, and what that stands on."""
        kept = [entry for entry in self.naive.entries.values() if self.naive.is_pinned(entry)]
        return HELD * len({piece.key for entry in kept for piece in chain(entry.prompt, self.model)})


def test_random_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    run_state_machine_as_test(
        DiskMachine,
        settings=settings(
            max_examples=NUM_EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
