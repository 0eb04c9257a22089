"""The state of one request inside the engine. Engine thread."""

import time
from dataclasses import dataclass, field

from samovar.core.events import WaitReason
from samovar.core.reasoning import Phase, Reasoning
from samovar.core.request import Mismatch, Request, RequestKind, RequestStats, TierTokens
from samovar.core.snapshot import ActivePhase
from samovar.engine.backend import Sampler
from samovar.engine.disk import Fetch
from samovar.engine.slots import ContextSequence
from samovar.engine.stream import TextStream


@dataclass(frozen=True, slots=True)
class Told:
    """What a front end knows of a request that waits, and since when."""

    position: int
    num_waiting: int
    reason: WaitReason
    t: float


@dataclass(slots=True, eq=False)
class Running:
    """A request from its arrival to its end.

    `known` are the prompt, which ends in what was `begun` of the reply, and all tokens generated so far. What
    `sequence` does not hold of them yet is still to be processed: many tokens during prefill, one while
    decoding, many again after a swap.
    """

    request: Request
    client: str
    prompt: tuple[int, ...]
    known: list[int]
    stream: TextStream
    arrival: int
    begun: tuple[int, ...] = ()
    sequence: ContextSequence | None = None
    sampler: Sampler | None = None
    grammar: str = ""
    error: str = ""
    thinks: bool = False
    reasoning: Reasoning = field(default_factory=Reasoning)
    thinking_tokens: int = 0
    thinking_ms: float = 0.0
    open_tokens: int = 0  # which may turn out to be thinking, or not
    max_tokens: int | None = None
    started: bool = False
    t_arrived: float = field(default_factory=time.perf_counter)
    t_waiting: float | None = None
    waited_s: float = 0.0
    wait: WaitReason | None = None
    reusable: int = 0
    told: Told | None = None
    t_served: float = 0.0
    t_started: float | None = None
    t_first: float | None = None
    t_last: float = 0.0
    reused: TierTokens = field(default_factory=TierTokens)
    processed: int = 0
    ahead: int = 0
    restore_ms: float = 0.0
    mismatch: Mismatch | None = None
    fetch: Fetch | None = None
    looked_on_disk: bool = False
    t_progress: float = 0.0
    unsent_text: str = ""
    unsent_tokens: int = 0
    t_sent: float = 0.0

    @property
    def num_generated(self) -> int:
        return len(self.known) - len(self.prompt)

    @property
    def todo(self) -> int:
        """Tokens that are known but not in the context."""
        return len(self.known) - (len(self.sequence.tokens) if self.sequence else 0)

    @property
    def decoding(self) -> bool:
        """Whether the next step only processes the token generated last."""
        return self.num_generated > 0 and self.todo == 1

    @property
    def is_side_task(self) -> bool:
        return self.request.kind is RequestKind.SIDE_TASK

    @property
    def is_fetching(self) -> bool:
        """Whether blocks for it are on their way from disk; a disk that hangs is not waited for."""
        return self.fetch is not None and self.fetch.is_open and not self.fetch.is_late

    def note_text(self, text: str, ms: float) -> None:
        """Count one token, which took `ms` and let `text` be shown, as thinking or not."""
        before, phase = self.reasoning.phase, self.reasoning.push(text)
        if phase is Phase.ANSWER and before is Phase.OPEN:
            self.open_tokens = 0
        elif phase is Phase.OPEN and before is Phase.OPEN:
            self.open_tokens += 1
        elif phase is not Phase.ANSWER or before is not Phase.ANSWER:
            self.thinking_tokens += 1 + self.open_tokens
            self.thinking_ms += ms
            self.open_tokens = 0

    @property
    def phase(self) -> ActivePhase:
        """How far it is, as a front end is told."""
        if self.sequence is None:
            return ActivePhase.QUEUED
        return ActivePhase.WRITING if self.decoding else ActivePhase.READING

    def total_wait_s(self, now: float) -> float:
        """How long it has waited so far, all times together."""
        return self.waited_s + (now - self.t_waiting if self.t_waiting is not None else 0.0)

    def stats(self) -> RequestStats:
        """What it has cost so far. The rate counts decode steps: tokens after the first."""
        first_ms = rate = None
        if self.t_first is not None:
            first_ms = 1000 * (self.t_first - self.t_arrived)
            if self.num_generated > 1 and self.t_last > self.t_first:
                rate = (self.num_generated - 1) / (self.t_last - self.t_first)
        start = self.t_started if self.t_started is not None else self.t_arrived
        prefill_end = self.t_first if self.t_first is not None else start
        return RequestStats(
            prompt_tokens=len(self.prompt),
            reused=self.reused,
            processed_tokens=self.processed,
            generated_tokens=self.num_generated,
            queued_ms=max(0.0, 1000 * (start - self.t_arrived)),
            restore_ms=self.restore_ms,
            prefill_ms=max(0.0, 1000 * (prefill_end - start) - self.restore_ms),
            first_token_ms=first_ms,
            tokens_per_second=rate,
            mismatch=self.mismatch,
            thinking_tokens=self.thinking_tokens,
            thinking_ms=self.thinking_ms,
            ahead_tokens=self.ahead,
        )
