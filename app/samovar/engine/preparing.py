"""Work ahead: prompts that nobody waits for are processed while nothing else is to do.

Engine thread. Between two steps nothing here owns anything: what has been processed stands in an idle
sequence of its session, as a chat's own cells do between two turns. So whoever needs its room takes it as any
other idle sequence's, a chat's next request finds it in place, and afterwards the work is gone on with, from
what is left. Nothing is evicted for it, and no cells are given up that could not be brought back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from samovar.core import events
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.request import FinishReason, Request, RequestKind, RequestStats, TierTokens
from samovar.core.settings import EngineSettings
from samovar.core.snapshot import ActivePhase, ActiveRequest
from samovar.engine.backend import Batch, DecodeResult
from samovar.engine.disk import Fetch
from samovar.engine.parts import Parts
from samovar.engine.prompt import PromptBuilder
from samovar.engine.scheduler import SHORT_TAIL
from samovar.engine.sleep import ModelChangedError, Sleep
from samovar.engine.slots import ContextSequence
from samovar.kv.index import common_prefix
from samovar.kv.planner import Plan, Source, make_plan

UNBROKEN_TOKENS: Final = 16
"""Of a step that cannot be broken off without losing a state: a chat's request may have to wait for it."""
MEASURED_TOKENS: Final = 32
"""Shorter steps say nothing about how fast a prompt is read."""

Emit = Callable[[str | None, events.Event], None]


@dataclass(slots=True, eq=False)
class Work:
    """One `PREPARE`. `tokens` are found when its turn comes; `sequence` is where it was when last seen."""

    request: Request
    client: str
    tokens: list[int] | None = None
    sequence: ContextSequence | None = None
    reused: TierTokens | None = None
    processed: int = 0
    fetch: Fetch | None = None
    t_arrived: float = field(default_factory=time.perf_counter)

    @property
    def session(self) -> str:
        return self.request.session

    @property
    def is_fetching(self) -> bool:
        return self.fetch is not None and self.fetch.is_open and not self.fetch.is_late

    @property
    def num_done(self) -> int:
        """Tokens in place, as far as is known."""
        return (self.reused.total if self.reused else 0) + self.processed


class Preparing:
    """All `PREPARE` requests that have not ended: one of a session at most.

    `abortable` as in `Serving`; `has_news` tells whether a command waits to be read.
    """

    def __init__(
        self,
        parts: Parts,
        settings: EngineSettings,
        *,
        prompts: PromptBuilder,
        sleep: Sleep,
        emit: Emit,
        publish: Callable[[], None],
        has_news: Callable[[], bool],
    ) -> None:
        self._backend = parts.backend
        self._family = parts.backend.traits.family
        self._max_chunk = settings.prefill_chunk
        self._block_tokens = parts.block_tokens
        self._prompts = prompts
        self._slots = parts.slots
        self._index = parts.index
        self._host = parts.host
        self._mover = parts.mover
        self._ledger = parts.ledger
        self._residency = parts.residency
        self._control = parts.control
        self._sleep = sleep
        self._emit = emit
        self._publish = publish
        self._has_news = has_news
        self.works: list[Work] = []
        self.abortable = False

    # ---- requests come and go

    @property
    def is_ready(self) -> bool:
        """Whether a step would get somewhere."""
        return any(not work.is_fetching for work in self.works)

    def active(self) -> tuple[ActiveRequest, ...]:
        """What has not ended, for the picture of the cache."""
        now = time.perf_counter()
        return tuple(
            ActiveRequest(
                work.request.id,
                work.session,
                work.request.title,
                RequestKind.PREPARE,
                ActivePhase.QUEUED if work.sequence is None else ActivePhase.READING,
                done=work.num_done,
                total=len(work.tokens) if work.tokens is not None else 0,
                waited_ms=1000 * (now - work.t_arrived) if work.sequence is None else 0.0,
            )
            for work in self.works
        )

    def submit(self, client: str, request: Request, *, is_chat_open: bool) -> None:
        """Take in a `PREPARE`, which replaces the session's last one. ModelChangedError as `Serving.submit`.

        While the session's own request is under way (`is_chat_open`), what it leaves is not known.
        """
        for work in [work for work in self.works if work.session == request.session]:
            self._finish(work, FinishReason.CANCELLED, keep=True)
        work = Work(request, client)
        self.works.append(work)
        if not request.messages or request.messages[-1].role is not Role.USER:
            self._finish(work, FinishReason.FAILED, "Only what a user's message follows can be prepared.")
            return
        is_typing = bool(request.messages[-1].content.strip())
        if is_chat_open or (self._sleep.asleep and not is_typing):
            self._finish(work, FinishReason.CANCELLED)
            return
        if is_typing:
            self._sleep.touch()
        if self._sleep.asleep:
            try:
                self._sleep.wake()
            except SamovarError as error:
                self._finish(work, FinishReason.FAILED, str(error))
                if isinstance(error, ModelChangedError):
                    raise

    def make_way(self, request: Request) -> None:
        """Another request comes: a chat takes over its own cells, others find the rest of them gone."""
        for work in self.works[:]:
            if work.session == request.session:
                if request.kind is RequestKind.CHAT:
                    self._finish(work, FinishReason.CANCELLED, keep=True)
            elif work.session not in self._residency.focused():
                sequence = self._in_place(work)
                if sequence is not None:
                    self._residency.leave(sequence)

    def cancel(self, wanted: Callable[[Work], bool], error: str = "") -> None:
        """End those that `wanted` accepts."""
        for work in self.works[:]:
            if wanted(work):
                self._finish(work, FinishReason.CANCELLED, error)

    def _finish(self, work: Work, reason: FinishReason, error: str = "", *, keep: bool = False) -> None:
        """End one, once. Its cells stay if its chat is looked at, or `keep` says that somebody takes them."""
        self.works.remove(work)
        self._end_fetch(work)
        stats = RequestStats(
            prompt_tokens=len(work.tokens or ()),
            reused=work.reused or TierTokens(),
            processed_tokens=work.processed,
            prefill_ms=1000 * (time.perf_counter() - work.t_arrived),
        )
        request, tokenizer = work.request, self._backend.traits.tokenizer
        self._emit(
            work.client,
            events.RequestFinished(request.id, request.session, reason, "", (), tokenizer, stats, error),
        )
        if work.sequence is not None:
            if not keep:
                self._residency.drop_idle()
            self._publish()

    def _end_fetch(self, work: Work) -> None:
        fetch, work.fetch = work.fetch, None
        if fetch is not None and self._control.disk is not None:
            self._control.disk.release(fetch)

    # ---- one step

    def step(self) -> None:
        """Process some tokens of the most useful work, of the chat that is looked at before others."""
        focused = self._residency.focused()
        ready = [work for work in self.works if not work.is_fetching]
        work = min(ready, key=lambda work: work.session not in focused)
        if work.tokens is None:
            self._begin(work)
            return
        sequence = self._in_place(work) or self._bring_in(work)
        if sequence is None:
            return
        todo = len(work.tokens) - len(sequence.tokens)
        if todo:
            self._process(work, sequence, work.tokens, self._chunk(len(sequence.tokens), todo))
        else:
            self._finish(work, FinishReason.STOP)

    def _begin(self, work: Work) -> None:
        """Find out what there is to do, and ask for what the disk has of it."""
        messages = work.request.messages
        try:
            if work.request.complete and self._family.can_trim:
                tokens = list(self._prompts.build(messages)[:-1])
            else:
                tokens = list(self._prompts.stable_prefix(messages))
        except SamovarError as error:
            self._finish(work, FinishReason.FAILED, str(error))
            return
        session = work.session
        is_looked_at = session in self._residency.focused()
        if not is_looked_at:
            # Its cells leave again: only whole blocks outlast that.
            del tokens[len(tokens) - len(tokens) % self._block_tokens :]
        work.tokens = tokens
        idle = [s.tokens for s in self._slots.idle() if s.session == session]
        if self._leaves_nothing(work) or len(tokens) >= self._backend.traits.num_cells:
            self._finish(work, FinishReason.CANCELLED)
        elif (
            any(common_prefix(tokens, other) == len(tokens) for other in idle)
            or not tokens
            or (not is_looked_at and self._index.match(tokens).num_tokens == len(tokens))
        ):
            self._finish(work, FinishReason.STOP)
        elif self._control.disk is not None and not any(other == tokens[: len(other)] for other in idle):
            work.fetch = self._control.disk.fetch(session, tokens, may_evict=False)

    def _leaves_nothing(self, work: Work) -> bool:
        """Whether all that it does is lost with its cells, which nobody keeps."""
        is_stored = work.request.store and not self._host.limits.off
        return not is_stored and work.session not in self._residency.focused()

    def _in_place(self, work: Work) -> ContextSequence | None:
        """The sequence that it has got to, if nobody else has taken or changed it since."""
        sequence, tokens = work.sequence, work.tokens
        if sequence is None or tokens is None or not any(sequence is s for s in self._slots.idle()):
            return None
        is_same = sequence.session == work.session and sequence.tokens == tokens[: len(sequence.tokens)]
        return sequence if is_same else None

    def _bring_in(self, work: Work) -> ContextSequence | None:
        """Put in place what is there of its prompt; it ends where that would cost anybody anything."""
        tokens, session = work.tokens, work.session
        assert tokens is not None
        match = self._index.match(tokens)
        may_shift = work.request.may_shift and self._backend.traits.can_shift
        residents = self._residency.residents(session, may_shift=may_shift)
        plan = make_plan(tokens, session, residents, match, self._family, whole=True)
        if self._leaves_nothing(work) or not self._is_safe(plan, session):
            self._finish(work, FinishReason.CANCELLED)
            return None
        self._residency.drop_idle(plan.slot, session)
        if not self._residency.has_room(plan, len(tokens)):
            self._finish(work, FinishReason.CANCELLED)
            return None
        arrival = self._residency.arrive(plan, tokens, session)
        self._end_fetch(work)
        work.sequence = arrival.sequence
        if work.reused is None:
            work.reused = TierTokens(arrival.kept, arrival.restored - arrival.from_disk, arrival.from_disk)
        return arrival.sequence

    def _is_safe(self, plan: Plan, session: str) -> bool:
        """Whether all that a request once asked for in this session stays, or can be brought back.

        Where a sequence cannot be trimmed, or only within its window, whatever is added may have to be taken
        back by a restore.
        """
        trims_freely = self._family.can_trim and not self._family.window
        for sequence in self._slots.idle():
            if sequence.session != session:
                continue
            num_asked = self._ledger.ahead.first_of(session, sequence.tokens)
            taken = plan.source is Source.TAKE and plan.slot == sequence.seq
            if taken and trims_freely and plan.keep >= num_asked:
                continue
            if self._index.match(sequence.tokens[:num_asked]).num_tokens < num_asked:
                return False
        return True

    def _chunk(self, pos: int, todo: int) -> int:
        """Tokens of the next step: as `plan_step` cuts them, so that what is resumed has the same pieces."""
        if self._family.can_capture_late and todo <= min(SHORT_TAIL, self._max_chunk):
            return todo
        chunk = min(
            todo, self._max_chunk - pos % self._max_chunk, self._block_tokens - pos % self._block_tokens
        )
        return chunk if self._family.can_trim else min(chunk, UNBROKEN_TOKENS)

    def _process(self, work: Work, sequence: ContextSequence, tokens: list[int], chunk: int) -> None:
        pos = len(sequence.tokens)
        batch = Batch()
        for offset in range(chunk):
            batch.add(tokens[pos + offset], pos + offset, sequence.seq, False)
        self.abortable = self._family.can_trim
        if self._has_news():
            self.abortable = False
            return
        start = time.perf_counter()
        result = self._backend.decode(batch)
        elapsed = time.perf_counter() - start
        self.abortable = False
        match result:
            case DecodeResult.DONE:
                if chunk >= MEASURED_TOKENS:
                    self._ledger.prefill.add(chunk, elapsed)
                self._mover.cells.place([(sequence.seq, chunk)])
                sequence.tokens.extend(tokens[pos : pos + chunk])
                work.processed += chunk
                self._ledger.ahead.processed(work.session, sequence.tokens, pos)
                if work.request.store and not self._try_capture(sequence, chunk):
                    self._finish(work, FinishReason.CANCELLED)
                elif len(sequence.tokens) == len(tokens):
                    self._finish(work, FinishReason.STOP)
            case DecodeResult.ABORTED:
                self._mover.undo(sequence)
            case DecodeResult.NO_ROOM:
                self._finish(work, FinishReason.CANCELLED)
            case DecodeResult.FAILED:
                self._mover.undo(sequence)
                self._finish(work, FinishReason.FAILED, "llama.cpp could not process the prompt.")

    def _try_capture(self, sequence: ContextSequence, chunk: int) -> bool:
        """Store the block that `chunk` tokens completed if there is room; whether the rest may follow.

        What has only states or windows at its ends cannot make up for a block that was missed: there the
        session's next request has to get the chance to store this one.
        """
        if len(sequence.tokens) % self._block_tokens >= chunk or self._host.limits.off:
            return True
        self._mover.capture_new(sequence, evict=False)
        can_follow = self._family.can_trim and not self._family.window
        return can_follow or len(sequence.stored) * self._block_tokens == len(sequence.tokens)
