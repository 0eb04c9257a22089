"""What a model's memory allows: the differences between families that planning has to know."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Rules of one model's memory.

    `can_trim`: any suffix of a sequence may be dropped and a block restored in part (attention only).
    Recurrent and hybrid states exist at the end of a sequence alone, so they resume at block ends.
    `can_share`: two sequences may own the same cells. Sliding-window caches never recycle shared cells,
    so there every sequence gets its own.
    `window`: tokens a sliding window covers, 0 without one.
    `whole_state`: every blob holds the complete state (recurrent without attention), so the last block
    of a chain is enough.
    """

    can_trim: bool = True
    can_share: bool = True
    window: int = 0
    whole_state: bool = False

    @property
    def can_capture_late(self) -> bool:
        """Whether a block can be captured whatever has been processed behind its end."""
        return self.can_trim and not self.window

    def can_resume(self, pos: int, oldest_pos: int) -> bool:
        """Whether a sequence whose oldest position still held is `oldest_pos` may go on from `pos`.

        A rollback without the window's cells would decode with wrong logits and no error.
        """
        return oldest_pos <= max(0, pos - self.window) if self.window else True
