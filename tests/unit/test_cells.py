"""The mirror of the context's cells against a plain copy of llama.cpp's rules."""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from samovar.core.snapshot import FREE, SHARED, CellRun
from samovar.engine.cells import CellMirror

NUM_CELLS = 40
SCRATCH = 4


class NaiveCells:
    """`llama_kv_cache` of one stream without a window: `find_slot`, `apply_ubatch`, `seq_rm`, `seq_cp`."""

    def __init__(self) -> None:
        self.cells: list[dict[int, int]] = [{} for _ in range(NUM_CELLS)]  # sequence → position
        self.head = 0

    @property
    def used(self) -> int:
        return sum(bool(cell) for cell in self.cells)

    def find_slot(self, num_tokens: int) -> list[int] | None:
        head = 0 if self.head > self.used + 2 * num_tokens else self.head
        found: list[int] = []
        tested = 0
        while True:
            if head + 1 > NUM_CELLS:
                tested += NUM_CELLS - head
                head = 0
                continue
            index = head
            head += 1
            tested += 1
            if not self.cells[index]:
                found.append(index)
            if len(found) == num_tokens:
                return found
            if tested >= NUM_CELLS:
                return None

    def decode(self, tokens: list[tuple[int, int]]) -> None:
        slot = self.find_slot(len(tokens))
        assert slot is not None
        for index, (seq, pos) in zip(slot, tokens, strict=True):
            self.cells[index] = {seq: pos}
        self.head = slot[-1] + 1

    def seq_rm(self, seq: int, p0: int) -> None:
        new_head = NUM_CELLS
        for index, cell in enumerate(self.cells):
            if cell.get(seq, -1) >= p0:
                del cell[seq]
                if not cell and new_head == NUM_CELLS:
                    new_head = index
        if new_head != NUM_CELLS and new_head < self.head:
            self.head = new_head

    def seq_cp(self, source: int, target: int, p0: int, p1: int) -> None:
        for cell in self.cells:
            if p0 <= cell.get(source, -1) < p1:
                cell[target] = cell[source]

    def cut(self, seq: int, p0: int, p1: int) -> None:
        """`seq_rm` of a range, then `seq_add` of what follows, which looks for room from the start again."""
        for cell in self.cells:
            if p0 <= cell.get(seq, -1) < p1:
                del cell[seq]
            elif cell.get(seq, -1) >= p1:
                cell[seq] -= p1 - p0
        self.head = 0

    def of(self, seq: int) -> list[int]:
        return [i for _, i in sorted((cell[seq], i) for i, cell in enumerate(self.cells) if seq in cell)]


class CellsMachine(RuleBasedStateMachine):
    """What the engine does with cells: batches, restores through scratch, sharing, trimming."""

    def __init__(self) -> None:
        super().__init__()
        self.naive = NaiveCells()
        self.mirror = CellMirror(NUM_CELLS)

    @rule(
        counts=st.lists(
            st.tuples(st.integers(0, 3), st.integers(1, 12)), min_size=1, max_size=4, unique_by=lambda x: x[0]
        )
    )
    def decode(self, counts: list[tuple[int, int]]) -> None:
        if sum(count for _, count in counts) > NUM_CELLS - self.naive.used:
            return
        tokens = [(seq, len(self.naive.of(seq)) + i) for seq, count in counts for i in range(count)]
        self.naive.decode(tokens)
        self.mirror.place(counts)

    @rule(seq=st.integers(0, 3), count=st.integers(1, 12), part=st.integers(1, 12))
    def restore(self, seq: int, count: int, part: int) -> None:
        if count > NUM_CELLS - self.naive.used:
            return
        end = len(self.naive.of(seq))
        self.naive.decode([(SCRATCH, end + i) for i in range(count)])
        self.naive.seq_cp(SCRATCH, seq, end, end + min(part, count))
        self.naive.seq_rm(SCRATCH, 0)
        self.mirror.place([(SCRATCH, count)])
        self.mirror.share(SCRATCH, seq, 0, min(part, count))
        self.mirror.trim(SCRATCH, 0)

    @rule(origin=st.integers(0, 3), into=st.integers(0, 3), count=st.integers(1, 30))
    def share(self, origin: int, into: int, count: int) -> None:
        if not self.naive.of(into) and origin != into:
            self.naive.seq_cp(origin, into, 0, count)
            self.mirror.share(origin, into, 0, count)

    @rule(seq=st.integers(0, 3), keep=st.integers(0, 20))
    def trim(self, seq: int, keep: int) -> None:
        self.naive.seq_rm(seq, keep)
        self.mirror.trim(seq, keep)

    @rule(seq=st.integers(0, 3), p0=st.integers(0, 20), count=st.integers(1, 10))
    def cut(self, seq: int, p0: int, count: int) -> None:
        length = len(self.naive.of(seq))
        if p0 + count <= length:
            self.naive.cut(seq, p0, p0 + count)
            self.mirror.cut(seq, p0, p0 + count)

    @invariant()
    def same_cells(self) -> None:
        assert self.mirror.num_used == self.naive.used
        assert self.mirror.highest == max(
            (i + 1 for i, cell in enumerate(self.naive.cells) if cell), default=0
        )
        for seq in range(SCRATCH + 1):
            assert self.mirror._cells.get(seq, []) == self.naive.of(seq)
            assert self.mirror.count(seq) == len(self.naive.of(seq))

    @invariant()
    def runs_cover_the_context(self) -> None:
        runs = self.mirror.runs({seq: f"s{seq}" for seq in range(SCRATCH)})
        owners = [run.owner for run in runs for _ in range(run.num_cells)]
        expected = [
            FREE if not cell else SHARED if len(cell) > 1 else f"s{next(iter(cell))}"
            for cell in self.naive.cells
        ]
        assert owners == expected
        assert all(a.owner != b.owner for a, b in itertools.pairwise(runs))


def test_the_mirror_follows_llama_cpp() -> None:
    run_state_machine_as_test(
        CellsMachine, settings=settings(max_examples=100, stateful_step_count=40, deadline=None)
    )


@pytest.mark.parametrize("count", [1, 5])
def test_a_full_mirror_stays_sane(count: int) -> None:
    mirror = CellMirror(4)
    mirror.place([(0, 3)])
    mirror.place([(1, count)])
    assert mirror.num_used <= 4
    mirror.trim(0, 0)
    mirror.trim(1, 0)
    assert mirror.runs({}) == (CellRun(FREE, 4),)
