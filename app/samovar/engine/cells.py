"""A mirror of which cells of the context are used by whom, for the cell map and for keeping cells compact.

llama.cpp has no public call that tells where cells lie. Its placement rule is simple, so the engine thread
repeats it here (`llama_kv_cache::find_slot`, `seq_rm` and `seq_cp` of the full-attention cache). Nothing
correct depends on it: a wrong mirror costs a needless or a missed compaction, or a request that waits or
is admitted too early, which llama.cpp then refuses.
"""

from collections.abc import Iterable, Sequence

from samovar.core.snapshot import FREE, SHARED, CellRun


class CellMirror:
    """`num_cells` cells, each with its number of owners; per sequence the cells in order of position."""

    def __init__(self, num_cells: int) -> None:
        self.num_cells = num_cells
        self._owners = bytearray(num_cells)
        self._cells: dict[int, list[int]] = {}
        self._head = 0
        self.num_used = 0

    @property
    def highest(self) -> int:
        """One past the highest used cell."""
        return len(self._owners.rstrip(b"\0"))

    def place(self, runs: Sequence[tuple[int, int]]) -> None:
        """One batch: for each sequence in turn, so many further positions get cells."""
        total = sum(count for _, count in runs)
        cell = 0 if self._head > self.num_used + 2 * total else self._head
        for seq, count in runs:
            mine = self._cells.setdefault(seq, [])
            for _ in range(count):
                cell = self._owners.find(0, cell)
                if cell < 0:
                    cell = self._owners.find(0)
                if cell < 0:
                    return
                self._owners[cell] = 1
                self.num_used += 1
                mine.append(cell)
                self._head = cell + 1

    def share(self, source: int, target: int, p0: int, p1: int) -> None:
        """`target`, which ends at `p0`, also owns the cells of positions `[p0, p1)` of `source`."""
        cells = self._cells.get(source, [])[p0:p1]
        for cell in cells:
            self._owners[cell] += 1
        self._cells.setdefault(target, []).extend(cells)

    def trim(self, seq: int, num_tokens: int) -> None:
        """Only the first `num_tokens` positions of `seq` stay."""
        cells = self._cells.get(seq, [])
        freed = []
        for cell in cells[num_tokens:]:
            self._owners[cell] -= 1
            if not self._owners[cell]:
                freed.append(cell)
        del cells[num_tokens:]
        if not cells:
            self._cells.pop(seq, None)
        self.num_used -= len(freed)
        if freed:
            self._head = min(self._head, *freed)

    def cut(self, seq: int, p0: int, p1: int) -> None:
        """Positions `[p0, p1)` of `seq` go, and those behind them move down."""
        cells = self._cells.get(seq, [])
        for cell in cells[p0:p1]:
            self._owners[cell] -= 1
            self.num_used -= not self._owners[cell]
        del cells[p0:p1]
        self._head = 0

    def count(self, seq: int) -> int:
        return len(self._cells.get(seq, ()))

    def count_union(self, sequences: Iterable[int]) -> int:
        """Cells that belong to at least one of `sequences`."""
        return len(set().union(*(self._cells.get(seq, ()) for seq in sequences)))

    def runs(self, names: dict[int, str]) -> tuple[CellRun, ...]:
        """Runs of neighbouring cells by owner, `names` maps sequences to session ids."""
        owner: list[str] = [FREE] * self.num_cells
        for seq, cells in self._cells.items():
            name = names.get(seq, FREE)
            for cell in cells:
                owner[cell] = SHARED if self._owners[cell] > 1 else name
        runs: list[CellRun] = []
        start = 0
        for cell in range(1, self.num_cells + 1):
            if cell == self.num_cells or owner[cell] != owner[start]:
                runs.append(CellRun(owner[start], cell - start))
                start = cell
        return tuple(runs)
