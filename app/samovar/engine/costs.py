"""What steps take on this machine, learnt from those that were made. Pure; times in milliseconds."""

from typing import Final

from samovar.engine.scheduler import MAX_CHUNK_BESIDE, StepCosts

CELL_PART: Final = 2.8e-4
"""What a cell adds to a decode step, as a part of it, until it is known: measured, SmolLM2 on two cores."""
EXTRA_PART: Final = 0.7
BESIDE_PART: Final = 1.5
"""The same of a further sequence, as a part of a step, and of a token in a small chunk, of one in a large."""
_KEEP: Final = 0.98
_KEEP_LINE: Final = 0.998
_FEW: Final = 5
_OUTLIER: Final = 3.0
_PRIOR_CELLS: Final = 200.0


class Mean:
    """A mean that follows recent values. What is far above it counts for less: a busy machine, not a cost."""

    def __init__(self, default: float) -> None:
        self.value = default
        self.count = 0

    def add(self, value: float) -> None:
        if self.count >= _FEW:
            value = min(value, self.value + (_OUTLIER - 1) * max(self.value, 1.0))
        self.count += 1
        self.value += (value - self.value) * max(1 / self.count, 1 - _KEEP)


class DecodeCost:
    """The time of one sequence's decode step, which grows with the cells that attention walks over.

    Its level follows the last steps. Its slope is that of a line through many, since depth changes slowly;
    until they differ in depth, the usual part of a step counts like steps that lie `_PRIOR_CELLS` apart.
    """

    def __init__(self, default_ms: float) -> None:
        self._ms = Mean(default_ms)
        self._count = 0
        self._cells = 0.0
        self._weight = self._mean_cells = self._mean_ms = self._squares = self._products = 0.0

    def add(self, cells: int, ms: float) -> None:
        """A step of one token took `ms` with the highest used cell at `cells`."""
        if self._weight > _FEW:
            ms = min(ms, _OUTLIER * self._ms.value)
        self._ms.add(ms)
        self._count += 1
        self._cells += (cells - self._cells) * max(1 / self._count, 1 - _KEEP)
        self._weight = _KEEP_LINE * self._weight + 1
        away = cells - self._mean_cells
        self._mean_cells += away / self._weight
        self._mean_ms += (ms - self._mean_ms) / self._weight
        self._squares = _KEEP_LINE * self._squares + away * (cells - self._mean_cells)
        self._products = _KEEP_LINE * self._products + away * (ms - self._mean_ms)

    @property
    def cell_ms(self) -> float:
        """What one further cell costs."""
        prior = CELL_PART * self._ms.value
        if not self._weight:
            return prior
        variance, covariance = self._squares / self._weight, self._products / self._weight
        slope = (covariance + _PRIOR_CELLS**2 * prior) / (variance + _PRIOR_CELLS**2)
        return min(max(0.0, slope), 3 * prior)

    def at(self, cells: float) -> float:
        """What a step takes at that depth."""
        ms = self._ms.value
        return max(ms / 4, ms + self.cell_ms * (cells - self._cells)) if self._weight else ms


class CostModel:
    """Everything that is learnt, and the costs that follow for the next step."""

    def __init__(self) -> None:
        default = StepCosts()
        self._decode = DecodeCost(default.decode_step_ms)
        self._prefill = Mean(default.prefill_token_ms)
        self._extra = Mean(default.extra_decode_ms)
        self._beside = Mean(default.beside_token_ms)

    @property
    def cell_ms(self) -> float:
        """What each further used cell costs a decode step."""
        return self._decode.cell_ms

    def at(self, cells: int) -> StepCosts:
        """Costs while the highest used cell is `cells`. What was not seen yet follows from what was."""
        decode, prefill = self._decode.at(cells), self._prefill.value
        return StepCosts(
            prefill,
            decode,
            max(0.0, self._extra.value) if self._extra.count else EXTRA_PART * decode,
            self._beside.value if self._beside.count else BESIDE_PART * prefill,
        )

    def learn(self, num_decode: int, chunk: int, cells: int, ms: float) -> None:
        """A step took `ms`."""
        decode_ms = self._decode.at(cells)
        if not num_decode:
            if chunk > 1:
                self._prefill.add(ms / chunk)
            elif chunk:
                self._decode.add(cells, ms)
        elif not chunk and num_decode == 1:
            self._decode.add(cells, ms)
        elif not chunk:
            self._extra.add((ms - decode_ms) / (num_decode - 1))
        elif chunk <= MAX_CHUNK_BESIDE:
            others_ms = (num_decode - 1) * self.at(cells).extra_decode_ms
            self._beside.add(max(0.0, (ms - decode_ms - others_ms) / chunk))
