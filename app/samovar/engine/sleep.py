"""Frees the model and the context while nobody asks for anything, and loads them again. Engine thread.

What is cached stays: the prefix index, the tiers, what is known of each session. The loop says when nothing
needs the context any more; this keeps the clock and does it.
"""

import math
import time
from collections.abc import Callable
from typing import Final

from samovar.core import events
from samovar.core.errors import SamovarError
from samovar.engine.backend import Backend

STAGE: Final = "waking the model"
FIRST_PATIENCE_S: Final = 30.0
"""A model that nobody has asked anything yet stays so long at least: it was just loaded for somebody."""


class ModelChangedError(SamovarError):
    """The file is not the one whose state is cached: this host can serve nothing any more."""


def _nothing() -> None:
    pass


class Sleep:
    """Whether the model is loaded, since when nobody has needed it, and what loading it takes.

    `check` raises SamovarError where the model must not be loaded again. `ready` is told when waking ends,
    however it does, so that front ends end their progress. `wake_ms` is what loading took last.
    """

    def __init__(
        self,
        backend: Backend,
        keep_alive_s: float,
        *,
        tell: Callable[[events.Event], None],
        ready: events.HostReady | None = None,
        check: Callable[[], None] = _nothing,
        wake_ms: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self.keep_alive_s = keep_alive_s
        self._tell = tell
        self._ready = ready
        self._check = check
        self._clock = clock
        self._t_needed = clock()
        self._was_needed = False
        self.asleep = False
        self.wake_ms = wake_ms

    def touch(self) -> None:
        """The model is needed now."""
        self._t_needed = self._clock()
        self._was_needed = True

    def due_in_s(self) -> float:
        """Seconds until it may sleep if nothing comes; infinite if it never may, or sleeps."""
        if self.asleep or self.keep_alive_s < 0:
            return math.inf
        patience = self.keep_alive_s if self._was_needed else max(self.keep_alive_s, FIRST_PATIENCE_S)
        return max(0.0, self._t_needed + patience - self._clock())

    def fall_asleep(self) -> None:
        """Free the model and the context, from which every sequence has gone."""
        self._backend.unload()
        self.asleep = True

    def wake(self) -> None:
        """Load the model again; SamovarError if that fails, and it sleeps on."""
        start = time.perf_counter()
        self._report(0.0)
        try:
            self._check()
            self._backend.reload(self._report)
            self.asleep = False
            self.wake_ms = 1000 * (time.perf_counter() - start)
        finally:
            if self._ready is not None:
                self._tell(self._ready)

    def _report(self, fraction: float) -> None:
        self._tell(events.LoadingProgressed(STAGE, fraction))
