"""Tells those who wait where they stand, why, and for how long it may be. Engine thread."""

from collections.abc import Callable, Sequence
from typing import Final

from samovar.core import events
from samovar.core.events import WaitReason
from samovar.engine.costs import Mean
from samovar.engine.running import Running, Told
from samovar.engine.scheduler import StepCosts
from samovar.engine.share import SHARE

TELL_S: Final = 0.25
_USUAL_TOKENS: Final = 128
_USUAL_TASK_TOKENS: Final = 48
_LEAST_TOKENS: Final = 16
"""Still expected of a reply that is longer than the usual one."""


class Queue:
    """What a request is told while it waits. A wait of less than a step is not told of."""

    def __init__(self, emit: Callable[[str | None, events.Event], None]) -> None:
        self._emit = emit
        self._usual = Mean(_USUAL_TOKENS)
        self._usual_task = Mean(_USUAL_TASK_TOKENS)

    def note_end(self, running: Running) -> None:
        """A reply has ended by itself."""
        self._usual_of(running).add(running.num_generated)

    def _usual_of(self, running: Running) -> Mean:
        """Side tasks answer in fewer words than chats do."""
        return self._usual_task if running.is_side_task else self._usual

    def tokens_left(self, running: Running) -> int:
        """How many tokens a request will probably still generate."""
        left = max(_LEAST_TOKENS, int(self._usual_of(running).value) - running.num_generated)
        if running.max_tokens is None:
            return left
        return max(0, min(left, running.max_tokens - running.num_generated))

    def tell(
        self,
        waiting: Sequence[Running],
        at_work: Sequence[Running],
        focused: Sequence[Running],
        costs: StepCosts,
        now: float,
    ) -> None:
        """Tell `waiting`, the first one first, what has changed for them, at most every `TELL_S`.

        `at_work` are all that run, `focused` those of them for whose sake others wait.
        """
        writing_ms = costs.extra_decode_ms if len(at_work) > 1 else costs.decode_step_ms
        # They end one by one, so the first place is free after a part of all their work.
        before = sum(self._work_ms(running, costs, writing_ms) for running in at_work) / max(1, len(at_work))
        for position, running in enumerate(waiting, 1):
            estimate: float | None = before
            if running.wait is WaitReason.FOCUS:
                own = sum(self._work_ms(r, costs, costs.decode_step_ms) for r in focused)
                estimate = (1 + SHARE) * own
            elif running.wait is WaitReason.PREFIX:
                estimate = costs.prefill_token_ms * max((r.todo for r in at_work), default=0)
            elif running.wait is WaitReason.DISK:
                estimate = None
            before += self._work_ms(running, costs, writing_ms)
            if running.wait is None:
                continue
            news = Told(position, len(waiting), running.wait, now)
            told = running.told
            if told is None:
                # Not told yet: it has only come, and may be served at once.
                running.told = Told(0, 0, running.wait, now - TELL_S)
            elif now - told.t >= TELL_S and (news.position, news.num_waiting, news.reason) != (
                told.position,
                told.num_waiting,
                told.reason,
            ):
                running.told = news
                request = running.request
                self._emit(
                    running.client,
                    events.RequestQueued(
                        request.id, request.session, position, len(waiting), estimate, running.wait
                    ),
                )

    def _work_ms(self, running: Running, costs: StepCosts, writing_ms: float) -> float:
        reading = 0 if running.decoding else running.todo
        if running.sequence is None:
            reading -= running.reusable
        return max(0, reading) * costs.prefill_token_ms + self.tokens_left(running) * writing_ms
