"""What the others may cost those whom the user looks at: a credit of time, kept in milliseconds. Pure."""

from typing import Final

SHARE: Final = 0.2
"""Of the time that the focused would take alone. They stay within 1.25 times that, with room for errors."""
CAP_MS: Final = 300.0
RECENT: Final = 0.99


class Share:
    """Credit that grows while the focused are served, and pays for what others add to their steps.

    It starts at nothing whenever the focused begin to be served, so that the bound holds for short replies
    too; a debt stays. More than `CAP_MS` is never saved up, so that there are no long hiccups.
    """

    def __init__(self) -> None:
        self.credit_ms = 0.0
        self._extra_ms = 0.0
        self._total_ms = 0.0

    def pause(self) -> None:
        """No focused request is served now."""
        self.credit_ms = min(self.credit_ms, 0.0)
        self._extra_ms = self._total_ms = 0.0

    def book(self, alone_ms: float, extra_ms: float) -> None:
        """A step was made: what it would have taken the focused alone, and what others added."""
        self.credit_ms = min(CAP_MS, self.credit_ms + SHARE * alone_ms - extra_ms)
        self._extra_ms = RECENT * self._extra_ms + extra_ms
        self._total_ms = RECENT * self._total_ms + alone_ms + extra_ms

    @property
    def others(self) -> float | None:
        """The part of the time that the others had of late, None while no focused request is served."""
        return max(0.0, self._extra_ms / self._total_ms) if self._total_ms > 0 else None
