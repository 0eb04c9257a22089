"""Serves the requests: from the moment one comes in, step by step, to its one terminal event.

Engine thread. `admission` says who runs, the scheduler who of them is in a step; here the steps are made, and
what comes of them is sampled, captured and told.
"""

from collections.abc import Callable
from typing import Final

from samovar.core import events
from samovar.core.chat import answered, open_reply
from samovar.core.errors import SamovarError
from samovar.core.reasoning import KNOWN_TAGS, Reasoning
from samovar.core.request import FinishReason, Request
from samovar.core.settings import EngineSettings
from samovar.engine.admission import Admission
from samovar.engine.backend import Batch, DecodeResult
from samovar.engine.costs import CostModel
from samovar.engine.grammar import grammar_of
from samovar.engine.parts import Parts
from samovar.engine.prompt import PromptBuilder
from samovar.engine.queueing import Queue
from samovar.engine.records import Records
from samovar.engine.requests import OpenRequests
from samovar.engine.running import Running
from samovar.engine.scheduler import SHORT_TAIL, Job, StepPlan, plan_step
from samovar.engine.share import CAP_MS, Share
from samovar.engine.sleep import ModelChangedError, Sleep
from samovar.engine.slots import ContextSequence
from samovar.engine.stream import TextStream
from samovar.engine.telling import TEXT_S, Emit, Telling
from samovar.kv.explain import Previous

LONG_STEP_MS: Final = 25.0


class Serving:
    """Takes requests in, makes steps, ends them.

    `has_news` tells whether a command waits to be read, `publish` sends the picture of the cache to all.
    While `abortable`, another thread may interrupt the step, which serves the requests `in_step`.
    """

    def __init__(
        self,
        requests: OpenRequests,
        admission: Admission,
        parts: Parts,
        settings: EngineSettings,
        *,
        prompts: PromptBuilder,
        records: Records,
        sleep: Sleep,
        costs: CostModel,
        queue: Queue,
        telling: Telling,
        emit: Emit,
        publish: Callable[[], None],
        has_news: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._requests = requests
        self._admission = admission
        self._backend = parts.backend
        self._settings = settings
        self._block_tokens = parts.block_tokens
        self._prompts = prompts
        self._slots = parts.slots
        self._host = parts.host
        self._mover = parts.mover
        self._ledger = parts.ledger
        self._records = records
        self._residency = parts.residency
        self._control = parts.control
        self._sleep = sleep
        self._costs = costs
        self._queue = queue
        self._telling = telling
        self._emit = emit
        self._publish = publish
        self._has_news = has_news
        self._reasoning_tags = (prompts.thinking,) if prompts.thinking else KNOWN_TAGS
        self._clock = clock
        self.abortable = False
        self.in_step: frozenset[str] = frozenset()
        self._arrivals = 0
        self._share = Share()

    # ---- requests come in

    def submit(self, client: str, request: Request) -> None:
        """Take in a request. ModelChangedError, after the request has failed, if the host has to end."""
        self._arrivals += 1
        stop = request.stop + self._prompts.stop
        begun = open_reply(request.messages)
        stream = TextStream(stop, begun.content if begun else "")
        now = self._clock()
        running = Running(request, client, (), [], stream, self._arrivals, t_arrived=now)
        self._requests.put_to_wait(running, now)
        num_cells = self._backend.traits.num_cells
        try:
            self._sleep.touch()
            if self._sleep.asleep:
                self._sleep.wake()
            running.grammar = grammar_of(request, self._backend)
            asking, running.begun = self._prompts.parts(request.messages)
            if running.grammar and not running.begun:
                asking = self._prompts.without_thinking(asking)
            running.thinks = self._prompts.opens_thinking(asking)
            running.reasoning = Reasoning(thinks=running.thinks, tags=self._reasoning_tags)
            running.reasoning.push(begun.content if begun else "")
            prompt = (*asking, *running.begun)
            if not prompt:
                raise SamovarError("There is nothing to answer: the prompt is empty.")
            if len(prompt) >= num_cells:
                raise SamovarError(
                    f"The prompt has {len(prompt):,} tokens and the context only {num_cells:,}. "
                    "Shorten the message, start a new chat, or set a larger `context`."
                )
        except SamovarError as error:
            self.finish(running, FinishReason.FAILED, str(error))
            if isinstance(error, ModelChangedError):
                raise
            return
        running.prompt, running.known = prompt, list(prompt)
        running.max_tokens = request.max_tokens
        if request.store:
            self._records.open(request.session, request.title)

    def others_share(self) -> float | None:
        """The part of the time that others get while the focused chat is served, None while it is not."""
        return self._share.others if self._requests.focused() else None

    # ---- one step

    def step(self) -> None:
        """Process some tokens of what runs, and tell what came of it."""
        if not any(r.t_first is None and r.todo <= SHORT_TAIL for r in self._requests.focused()):
            # A first token that is a step away is not kept waiting.
            self._residency.compact(self._may_reload)
        plan = self._plan()
        batch, rows = self._fill(plan)
        self.in_step = frozenset((*plan.decode, plan.prefill or ""))
        self.abortable = self._backend.traits.family.can_trim or plan.expected_ms > LONG_STEP_MS
        if self.abortable and self._has_news():
            # It came before the flag was set, so nothing would interrupt the step.
            self.abortable = False
            return
        cells = self._mover.cells.highest
        start = self._clock()
        result = self._backend.decode(batch)
        elapsed = self._clock() - start
        self.abortable = False
        in_batch = [
            self._requests.running[name] for name in (*plan.decode, *([plan.prefill] if plan.prefill else []))
        ]
        match result:
            case DecodeResult.DONE:
                self._measure(plan, cells, elapsed)
                self._advance(plan, in_batch, rows)
            case DecodeResult.NO_ROOM:
                self._relieve(in_batch)
            case DecodeResult.ABORTED | DecodeResult.FAILED:
                for running in in_batch:
                    assert running.sequence is not None
                    self._mover.undo(running.sequence)
                    if result is DecodeResult.FAILED:
                        self.finish(
                            running, FinishReason.FAILED, "llama.cpp could not process the prompt. Try again."
                        )
                    elif running.todo > 1 and not self._backend.traits.family.can_trim:
                        self._admission.requeue(running)

    def _may_reload(self, sequence: ContextSequence) -> bool:
        if self._host.limits.off:
            return False
        return sequence.owner is None or self._requests.running[sequence.owner].request.store

    def _plan(self) -> StepPlan:
        now = self._clock()
        jobs = [
            Job(
                running.request.id,
                self._requests.rank(running),
                running.arrival,
                running.decoding,
                running.todo,
                len(running.sequence.tokens) if running.sequence else 0,
                now - running.t_served,
            )
            for running in self._requests.running.values()
        ]
        return plan_step(
            jobs,
            self._costs.at(self._mover.cells.highest),
            credit_ms=self._share.credit_ms,
            credit_cap_ms=CAP_MS,
            max_chunk=self._settings.prefill_chunk,
            budget_ms=self._settings.step_budget_ms,
            block_tokens=self._block_tokens,
            may_cross=self._backend.traits.family.can_capture_late,
        )

    def _fill(self, plan: StepPlan) -> tuple[Batch, dict[str, int]]:
        """The batch of a step, and the rows whose logits will be sampled."""
        batch = Batch()
        rows: dict[str, int] = {}
        for name in plan.decode:
            running = self._requests.running[name]
            assert running.sequence is not None
            pos = len(running.sequence.tokens)
            rows[name] = batch.add(running.known[pos], pos, running.sequence.seq, True)
        if plan.prefill is not None:
            running = self._requests.running[plan.prefill]
            assert running.sequence is not None
            pos = len(running.sequence.tokens)
            last = plan.chunk == running.todo
            for offset in range(plan.chunk):
                wanted = last and offset == plan.chunk - 1
                row = batch.add(running.known[pos + offset], pos + offset, running.sequence.seq, wanted)
            if last:
                rows[plan.prefill] = row
        return batch, rows

    def _measure(self, plan: StepPlan, cells: int, seconds: float) -> None:
        """Learn from a step, made with the highest used cell at `cells`, and book who had its time."""
        ms = 1000 * seconds
        if plan.prefill and not plan.decode and plan.chunk > 1:
            self._ledger.prefill.add(plan.chunk, seconds)
        elif plan.decode and not plan.prefill:
            self._ledger.decode.add(len(plan.decode), seconds)
        self._costs.learn(len(plan.decode), plan.chunk, cells, ms)
        if plan.focused_ms is None:
            self._share.pause()
            return
        extra = 0.0
        if plan.has_others:
            # What the machine did besides is not theirs to pay.
            expected = plan.expected_ms - plan.focused_ms
            extra = min(ms - plan.focused_ms, 3 * expected + 1)
        # Their cells slow every token of the focused down, whether they are in the step or not.
        walked = (
            self._admission.foreign_cells * self._costs.cell_ms if plan.decode and plan.focused_ms else 0.0
        )
        walked = min(walked, max(0.0, (plan.focused_ms if plan.has_others else ms) / 2))
        alone = plan.focused_ms if plan.has_others else ms
        self._share.book(alone - walked, extra + walked)

    def _advance(self, plan: StepPlan, in_batch: list[Running], rows: dict[str, int]) -> None:
        """Book what was processed, sample, and capture the blocks that are now complete."""
        now = self._clock()
        # Somebody may wait for what was just read.
        self._requests.changed = self._requests.changed or plan.prefill is not None
        placed: dict[int, int] = {}
        for running in in_batch:
            sequence = running.sequence
            assert sequence is not None
            count = plan.chunk if running.request.id == plan.prefill else 1
            placed[sequence.seq] = count
            running.t_served = now
            pos = len(sequence.tokens)
            if pos < len(running.prompt):
                running.processed += min(count, len(running.prompt) - pos)
            sequence.tokens.extend(running.known[pos : pos + count])
        self._mover.cells.place(list(placed.items()))
        sampled = {running.request.id: self._sample(running, rows) for running in in_batch}
        for running in in_batch:
            sequence = running.sequence
            assert sequence is not None
            # Where a step ends beyond the end of a block, that can be captured here too.
            if running.request.store and len(sequence.tokens) % self._block_tokens < placed[sequence.seq]:
                self._mover.capture_new(sequence)
                if self._control.disk is not None:
                    self._control.disk.persist_if_tight(sequence.stored)
            reason = sampled[running.request.id]
            if reason is not None:
                self.finish(running, reason, running.error)
            elif running.request.id == plan.prefill and not running.decoding:
                self._telling.tell_progress(running, now)

    def _sample(self, running: Running, rows: dict[str, int]) -> FinishReason | None:
        """Draw the next token if this step gave logits for one; a reason if the reply ends here."""
        row = rows.get(running.request.id)
        if row is None:
            return None
        assert running.sampler is not None
        try:
            token = running.sampler.sample(row)
        except SamovarError as error:
            running.error = str(error)
            return FinishReason.FAILED
        now = self._clock()
        ms = 0.0 if running.t_first is None else 1000 * (now - running.t_last)
        if running.t_first is None:
            running.t_first = now
        running.t_last = now
        if self._backend.is_end(token):
            return FinishReason.STOP
        running.known.append(token)
        text = running.stream.push(self._prompts.piece(token))
        running.note_text(text, ms)
        running.unsent_text += text
        running.unsent_tokens += 1
        if now - running.t_sent >= TEXT_S:
            self._telling.send_text(running, now)
        if running.stream.stopped:
            return FinishReason.STOP
        if running.max_tokens is not None and running.num_generated >= running.max_tokens:
            return FinishReason.LENGTH
        if len(running.known) > self._backend.traits.num_cells:
            return FinishReason.CONTEXT_FULL
        return None

    def _relieve(self, in_batch: list[Running]) -> None:
        """The context is full: idle sequences go first, then the least urgent request waits, or ends."""
        idle = self._slots.idle()
        if idle:
            self._residency.leave(idle[0])
            return
        now = self._clock()
        least = max(self._requests.running.values(), key=lambda r: self._requests.urgency(r, now))
        if len(self._requests.running) > 1:
            self._admission.requeue(least)
        else:
            self.finish(least, FinishReason.CONTEXT_FULL)

    # ---- requests end

    def finish(self, running: Running, reason: FinishReason, error: str = "") -> None:
        """End a request, once: store its tail, free or keep its sequence, tell the client."""
        request, sequence = running.request, running.sequence
        if running in self._requests.waiting:
            self._requests.end_wait(running, self._clock())
        self._requests.running.pop(request.id, None)
        self._requests.changed = True
        if not self._requests.focused():
            self._share.pause()
        self._admission.end_fetch(running)
        if not running.stream.stopped:
            running.unsent_text += running.stream.finish()
        self._telling.send_text(running, self._clock())
        reply = running.stream.text
        spelled = running.known[len(running.prompt) :][: running.stream.num_tokens_spelled()]
        if sequence is not None:
            sequence.owner = None
            if request.store:
                self._mover.capture_new(sequence, tail=True)
                if reason is not FinishReason.FAILED:
                    num_loose = max(0, len(sequence.tokens) - len(running.prompt) - len(spelled))
                    self._records.remember(
                        request.session,
                        Previous(answered(request.messages, reply), tuple(sequence.tokens), num_loose),
                    )
            running.sequence = None
        if running.sampler is not None:
            running.sampler.close()
        stats = running.stats()
        if running.num_generated and reason is not FinishReason.CANCELLED:
            self._queue.note_end(running)
        if running.started:
            self._ledger.finished(request.session, request.title, stats, side_task=running.is_side_task)
            if request.store:
                self._control.save_turn(request.session)
        self._emit(
            running.client,
            events.RequestFinished(
                request.id,
                request.session,
                reason,
                reply,
                tuple(spelled),
                self._backend.traits.tokenizer,
                stats,
                error,
                running.begun,
            ),
        )
        if sequence is not None and (running.is_side_task or not request.store):
            self._residency.leave(sequence)
        # Also where it never began: what was prepared for it may be all that is left.
        self._residency.drop_idle()
        self._publish()
