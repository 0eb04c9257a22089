"""Counters since the host started, and the rates that "time saved" is computed from."""

import time
from collections import deque
from typing import Final

from samovar.core.request import RequestStats
from samovar.core.snapshot import LastRequest, Totals
from samovar.kv.ahead import Ahead

MAX_RECENT: Final = 200


class Rate:
    """A running mean of tokens per second, weighted towards recent work."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self._tokens = self._tokens * 0.95 + tokens
        self._seconds = self._seconds * 0.95 + seconds

    @property
    def per_second(self) -> float | None:
        return self._tokens / self._seconds if self._seconds > 0 else None


class Ledger:
    """What the cache has done. Owned by the engine thread."""

    def __init__(self) -> None:
        self.ahead = Ahead()
        self.prefill = Rate()
        self.decode = Rate()
        self.last: LastRequest | None = None
        self.recent: deque[LastRequest] = deque(maxlen=MAX_RECENT)
        self.swaps_in = self.swaps_out = self.evictions = self.not_stored = 0
        self.swap_in_ms = self.swap_out_ms = 0.0
        self.disk_reads = self.disk_writes = self.disk_evictions = self.quarantined = 0
        self.disk_read_ms = self.disk_write_ms = 0.0
        self._taken = Totals()
        self._requests = self._hits = 0
        self._prompt = self._reused = self._processed = self._generated = 0
        self._saved_ms = 0.0

    def finished(self, session: str, title: str, stats: RequestStats, *, side_task: bool = False) -> None:
        """Count one ended request; time saved is reused tokens at this machine's own prefill rate."""
        self._requests += 1
        self._hits += stats.reused.total > 0
        # Of a request that was stopped while it was read, only what was served counts.
        self._prompt += min(stats.prompt_tokens, stats.reused.total + stats.processed_tokens)
        self._reused += stats.reused.total
        self._processed += stats.processed_tokens
        self._generated += stats.generated_tokens
        rate = self.prefill.per_second
        if rate:
            self._saved_ms += max(0.0, 1000 * stats.reused.total / rate - stats.restore_ms)
        self.last = LastRequest(session, title, stats, time.time(), side_task)
        self.recent.appendleft(self.last)

    def totals(self) -> Totals:
        return Totals(
            requests=self._requests,
            hits=self._hits,
            prompt_tokens=self._prompt,
            reused_tokens=self._reused,
            processed_tokens=self._processed,
            generated_tokens=self._generated,
            saved_ms=self._saved_ms,
            swaps_in=self.swaps_in,
            swaps_out=self.swaps_out,
            evictions=self.evictions,
            not_stored=self.not_stored,
            swap_in_ms=self.swap_in_ms,
            swap_out_ms=self.swap_out_ms,
            disk_reads=self.disk_reads,
            disk_writes=self.disk_writes,
            disk_read_ms=self.disk_read_ms,
            disk_write_ms=self.disk_write_ms,
            disk_evictions=self.disk_evictions,
            quarantined=self.quarantined,
            ahead_tokens=self.ahead.tokens,
            ahead_used_tokens=self.ahead.used_tokens,
            ahead_wasted_tokens=self.ahead.wasted_tokens,
        )

    def new_totals(self) -> Totals:
        """What was counted since `take_new`."""
        return self.totals() - self._taken

    def take_new(self) -> Totals:
        """What was counted since the last call, to be added to the counters that last for ever."""
        new = self.new_totals()
        self._taken = self._taken + new
        return new
