"""Serves the requests: from the moment one comes in, step by step, to its one terminal event.

Engine thread. Owns what waits and what runs. The scheduler says who is in a step, `residency` who has to
leave the context for it, `mover` does that; here is what becomes of each request on the way.
"""

from collections.abc import Callable, Sequence
from typing import Final

from samovar.core import events
from samovar.core.chat import answered, open_reply
from samovar.core.errors import SamovarError
from samovar.core.events import WaitReason
from samovar.core.reasoning import KNOWN_TAGS, Reasoning, begins_inside
from samovar.core.request import FinishReason, Mismatch, Request, TierTokens
from samovar.core.settings import EngineSettings
from samovar.core.snapshot import ActiveRequest
from samovar.engine.backend import Backend, Batch, DecodeResult
from samovar.engine.control import CacheControl
from samovar.engine.costs import CostModel
from samovar.engine.grammar import grammar_of
from samovar.engine.mover import Mover
from samovar.engine.prompt import PromptBuilder
from samovar.engine.queueing import Queue
from samovar.engine.records import Records
from samovar.engine.residency import Residency
from samovar.engine.running import Running
from samovar.engine.scheduler import AGING_S, Job, Rank, StepPlan, plan_step
from samovar.engine.share import CAP_MS, Share
from samovar.engine.sleep import ModelChangedError, Sleep
from samovar.engine.slots import Slots
from samovar.engine.stream import TextStream
from samovar.kv.explain import Previous, explain
from samovar.kv.host_tier import HostTier
from samovar.kv.index import PrefixIndex, common_prefix
from samovar.kv.ledger import Ledger
from samovar.kv.planner import Plan, Source, make_plan

PROGRESS_S: Final = 0.1
TEXT_S: Final = 0.03
"""Tokens that come faster than this share an event: each wakes other threads, on the cores that decode."""
LONG_STEP_MS: Final = 25.0
LOOK_S: Final = 0.1
"""While nothing changes but that replies grow, those who wait are looked at this often."""
PREFIX_GAIN: Final = 16
"""Tokens that another request must be about to process, so that it is worth beginning to wait for them."""
CELLS_PART: Final = 0.10
"""Of a step of the focused chat: what the cells of others may cost it. What runs leaves a little later."""
CELLS_LEAVE: Final = 1.5
REPLY_CELLS: Final = 64
PATIENCE_S: Final = 60.0
"""Whoever has waited so long for the focused chat goes on beside it, whatever it takes."""

Emit = Callable[[str | None, events.Event], None]


class Serving:
    """All requests that have not ended: those that wait, and those that run.

    `has_news` tells whether a command waits to be read, `publish` sends the picture of the cache to all.
    While `abortable`, another thread may interrupt the step, which serves the requests `in_step`. Whoever
    changes what admission depends on (focus, limits, what the disk has) sets `changed`.
    """

    def __init__(
        self,
        backend: Backend,
        settings: EngineSettings,
        *,
        block_tokens: int,
        prompts: PromptBuilder,
        slots: Slots,
        index: PrefixIndex,
        host: HostTier,
        mover: Mover,
        ledger: Ledger,
        records: Records,
        residency: Residency,
        control: CacheControl,
        sleep: Sleep,
        emit: Emit,
        publish: Callable[[], None],
        has_news: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._block_tokens = block_tokens
        self._prompts = prompts
        self._slots = slots
        self._index = index
        self._host = host
        self._mover = mover
        self._ledger = ledger
        self._records = records
        self._residency = residency
        self._control = control
        self._sleep = sleep
        self._emit = emit
        self._publish = publish
        self._has_news = has_news
        self._reasoning_tags = (prompts.thinking,) if prompts.thinking else KNOWN_TAGS
        self._clock = clock
        self.waiting: list[Running] = []
        self.running: dict[str, Running] = {}
        self.abortable = False
        self.in_step: frozenset[str] = frozenset()
        self.changed = True
        self._arrivals = 0
        self._costs = CostModel()
        self._share = Share()
        self._queue = Queue(emit)
        self._inherited: dict[str, Rank] = {}
        self._foreign_cells = 0
        self._t_looked = 0.0

    # ---- who is there

    def has_open_chat(self, session: str) -> bool:
        """Whether a session's own request has not ended."""
        return any(r.request.session == session and not r.is_side_task for r in self.all())

    def all(self) -> list[Running]:
        """All requests that have not ended."""
        return [*self.waiting, *self.running.values()]

    def busy_chats(self) -> set[str]:
        """Sessions whose own request runs."""
        return {r.request.session for r in self.running.values() if not r.is_side_task}

    # ---- requests come in

    def submit(self, client: str, request: Request) -> None:
        """Take in a request. ModelChangedError, after the request has failed, if the host has to end."""
        self._arrivals += 1
        stop = request.stop + self._prompts.stop
        begun = open_reply(request.messages)
        stream = TextStream(stop, begun.content if begun else "")
        now = self._clock()
        running = Running(request, client, (), [], stream, self._arrivals, t_arrived=now)
        self._put_to_wait(running, now)
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

    # ---- who is how urgent

    def _own_rank(self, running: Running) -> Rank:
        if running.request.urgent:
            return Rank.FOCUSED
        if running.is_side_task:
            return Rank.SIDE_TASK
        return Rank.FOCUSED if running.request.session in self._residency.focused() else Rank.CHAT

    def _rank(self, running: Running) -> Rank:
        """Its class; whoever others wait for is as urgent as they are."""
        own = self._own_rank(running)
        return min(own, self._inherited.get(running.request.id, own))

    def _urgency(self, running: Running, now: float) -> tuple[int, int]:
        """What the lowest has comes first. Long waiting makes a side task as urgent as a chat, no more."""
        rank = self._rank(running)
        if rank is Rank.SIDE_TASK and running.total_wait_s(now) >= AGING_S:
            rank = Rank.CHAT
        return rank, running.arrival

    def _focused(self) -> list[Running]:
        """What runs of those whom the user looks at or waits for."""
        return [running for running in self.running.values() if self._rank(running) is Rank.FOCUSED]

    def others_share(self) -> float | None:
        """The part of the time that others get while the focused chat is served, None while it is not."""
        return self._share.others if self._focused() else None

    def active(self) -> tuple[ActiveRequest, ...]:
        """All that has not ended: what waits in its order, then what runs."""
        now = self._clock()
        waiting = sorted(self.waiting, key=lambda r: self._urgency(r, now))
        positions = {r.request.id: i for i, r in enumerate(waiting, 1)}
        return tuple(
            ActiveRequest(
                id=running.request.id,
                session=running.request.session,
                title=running.request.title,
                kind=running.request.kind,
                phase=running.phase,
                position=positions.get(running.request.id, 0),
                done=min(len(running.sequence.tokens), len(running.prompt)) if running.sequence else 0,
                total=len(running.prompt),
                generated=running.num_generated,
                waited_ms=1000 * running.total_wait_s(now),
                is_first=self._own_rank(running) is Rank.FOCUSED,
            )
            for running in (*waiting, *self.running.values())
        )

    # ---- who may run

    def admit(self) -> None:
        """Start waiting requests, most urgent first, as long as there is room and nobody suffers from it."""
        now = self._clock()
        if self.running and not self.changed and now - self._t_looked < LOOK_S:
            return
        self.changed, self._t_looked = False, now
        self._inherited = {}
        self._count_foreign()
        self._start_waiting(now)
        self._step_aside(now)
        waiting = sorted(self.waiting, key=lambda r: self._urgency(r, now))
        if waiting:
            costs = self._costs.at(self._mover.cells.highest)
            self._queue.tell(waiting, list(self.running.values()), self._focused(), costs, now)

    def _start_waiting(self, now: float) -> None:
        room = True
        for running in sorted(self.waiting, key=lambda r: self._urgency(r, now)):
            self._look_on_disk(running)
            if self.is_fetching(running):
                running.wait = WaitReason.DISK
                continue
            if not room:
                running.wait = WaitReason.ROOM
                continue
            while (reason := self._try_start(running)) is WaitReason.ROOM:
                # A more urgent request takes the room of a less urgent one, which goes on later.
                rank = self._urgency(running, now)[0]
                victims = [r for r in self.running.values() if self._urgency(r, now)[0] > rank]
                if not victims:
                    room = False
                    break
                self._requeue(max(victims, key=lambda r: self._urgency(r, now)))
            running.wait = reason

    def _count_foreign(self) -> None:
        """How many used cells are not the focused chats', nor of those who have waited long enough."""
        if self._backend.traits.family.whole_state:
            return
        focused = self._residency.focused()
        own = [
            sequence.seq
            for sequence in self._slots.used()
            if sequence.session in focused
            or (sequence.owner is not None and self._goes_on_anyway(self.running[sequence.owner]))
        ]
        cells = self._mover.cells
        self._foreign_cells = cells.num_used - cells.count_union(own)

    def _goes_on_anyway(self, running: Running) -> bool:
        """Whether its cells are no reason to leave: urgent, or the one that waited longest."""
        return self._rank(running) is Rank.FOCUSED or running is self._most_patient()

    def _most_patient(self) -> Running | None:
        """Of those who run after having waited for very long, the one that did so for the longest time."""
        patient = [r for r in self.running.values() if r.waited_s >= PATIENCE_S]
        return max(patient, key=lambda r: r.waited_s, default=None)

    def _cell_limit(self) -> float:
        """Cells that others may use while a focused request runs."""
        cell_ms = self._costs.cell_ms
        if cell_ms <= 0 or self._backend.traits.family.whole_state:
            return float("inf")
        return CELLS_PART * self._costs.at(self._mover.cells.highest).decode_step_ms / cell_ms

    def _is_light(self, running: Running, plan: Plan) -> bool:
        """Whether its cells would cost the focused chat little."""
        kept = plan.keep if plan.source is not Source.FRESH else 0
        growth = min(REPLY_CELLS, self._queue.tokens_left(running))
        return self._foreign_cells + len(running.known) - kept + growth <= self._cell_limit()

    def _step_aside(self, now: float) -> None:
        """While a focused request runs, what costs it too much leaves the context, the least urgent first."""
        while self._focused():
            self._count_foreign()
            if self._foreign_cells <= CELLS_LEAVE * self._cell_limit():
                return
            leaving = [r for r in self.running.values() if not self._goes_on_anyway(r)]
            if not leaving:
                return
            running = max(leaving, key=lambda r: self._urgency(r, now))
            self._requeue(running)
            running.wait = WaitReason.FOCUS

    def _reason_to_wait(self, running: Running, plan: Plan) -> WaitReason | None:
        """What a request had better wait for although there is room."""
        leader = self._leader(running, plan.resume)
        if leader is not None:
            rank = min(self._rank(running), self._rank(leader))
            self._inherited[leader.request.id] = rank
            return WaitReason.PREFIX
        if self._rank(running) is Rank.FOCUSED or not self._focused():
            return None
        if running.total_wait_s(self._clock()) >= PATIENCE_S and self._most_patient() is None:
            return None
        return None if self._is_light(running, plan) else WaitReason.FOCUS

    def _leader(self, running: Running, resume: int) -> Running | None:
        """Who is processing more of the same beginning right now than the `resume` tokens that are there."""
        family = self._backend.traits.family
        need = resume + (1 if running.wait is WaitReason.PREFIX else PREFIX_GAIN)
        head = running.known[:need]
        if need >= len(running.known):
            return None
        for other in self.running.values():
            if other.decoding or other.sequence is None or other.known[:need] != head:
                continue
            common = common_prefix(other.known, running.known[:-1])
            if not family.can_share:
                # Only what is captured on the way can be had.
                captured = other.request.store and not self._host.limits.off
                common -= common % self._block_tokens if captured else common
            if common >= need and len(other.sequence.tokens) < common:
                return other
        return None

    def _put_to_wait(self, running: Running, now: float) -> None:
        running.t_waiting = now
        running.wait = running.told = None
        self.waiting.append(running)
        self.changed = True

    def _end_wait(self, running: Running, now: float) -> None:
        self.waiting.remove(running)
        running.waited_s = running.total_wait_s(now)
        running.t_waiting = running.wait = None
        running.t_served = now
        self.changed = True

    def _look_on_disk(self, running: Running) -> None:
        """Ask, once, for what the disk has of a request's prompt.

        A chat that goes on where it stands in the context needs nothing, and does not wait for an answer.
        """
        disk = self._control.disk
        if disk is None or running.looked_on_disk:
            return
        running.looked_on_disk = True
        resident = self._slots.of_session(running.request.session)
        is_usable = resident is not None and (resident.exact is None or running.request.may_shift)
        goes_on = (
            resident is not None and is_usable and running.known[: len(resident.tokens)] == resident.tokens
        )
        if not (goes_on and resident is not None and resident.tokens):
            running.fetch = disk.fetch(running.request.session, running.known[:-1])

    @staticmethod
    def is_fetching(running: Running) -> bool:
        """Whether blocks for a request are on their way from disk; a disk that hangs is not waited for."""
        return running.fetch is not None and running.fetch.is_open and not running.fetch.is_late

    def _end_fetch(self, running: Running) -> float:
        """What was fetched is not needed any longer; the milliseconds that it took."""
        fetch, running.fetch = running.fetch, None
        if fetch is None or self._control.disk is None:
            return 0.0
        self._control.disk.release(fetch)
        return fetch.ms

    def _try_start(self, running: Running) -> WaitReason | None:
        """Start a request, or say what it has to wait for."""
        known, session = running.known, running.request.session
        family = self._backend.traits.family
        match = self._index.match(known, len(known) - 1)
        # Beside others it needs room to grow, or it would have to leave again after a few tokens.
        num_cells = self._backend.traits.num_cells
        reserve = min(256, num_cells // 8) if self.running else 1
        may_shift = running.request.may_shift and self._backend.traits.can_shift and not running.is_side_task
        if may_shift:
            self._residency.try_shift(session, known, match.num_tokens)
        while True:
            residents = self._residency.residents(
                session, side_task=running.is_side_task, may_shift=may_shift
            )
            plan = make_plan(known, session, residents, match, family)
            running.reusable = plan.resume
            reason = self._reason_to_wait(running, plan)
            if reason is not None:
                return reason
            if self._residency.make_room(plan, min(len(known) + reserve, num_cells)):
                break
            source = (
                self._slots.get(plan.slot) if plan.source is Source.SHARE and plan.slot is not None else None
            )
            if source is None or not source.idle:
                return WaitReason.ROOM
            # The idle sequence whose cells it would share is itself in the way.
            self._residency.leave(source)
        if not running.is_side_task:
            self._residency.drop_idle(plan.slot, session)
        arrival = self._residency.arrive(plan, known, session)
        sequence = arrival.sequence
        sequence.owner = running.request.id
        running.sequence = sequence
        if running.request.store and len(sequence.tokens) % self._block_tokens == 0:
            self._mover.capture_new(sequence)  # work ahead, for which nothing was evicted
        now = self._clock()
        self._end_wait(running, now)
        self.running[running.request.id] = running
        ms = arrival.ms + self._end_fetch(running)
        running.restore_ms += ms
        if not running.started:
            running.started = True
            running.t_started = max(running.t_arrived, now - ms / 1000)
            running.reused = TierTokens(arrival.kept, arrival.restored - arrival.from_disk, arrival.from_disk)
            if not running.is_side_task:
                running.ahead = self._ledger.ahead.asked(session, running.prompt, running.reused.total)
            running.sampler = self._backend.new_sampler(running.request.sampling, known, running.grammar)
            self._note_start(running)
            stats = running.stats()
            started = events.RequestStarted(running.request.id, session, stats, running.thinks)
            self._emit(running.client, started)
        self._count_foreign()
        return None

    def _note_start(self, running: Running) -> None:
        """Find out why no more was reused, and remember the prompt as the session's last one."""
        request, prompt = running.request, running.prompt
        record = self._records.get(request.session)
        previous = record.previous if record else None
        common = common_prefix(prompt, previous.tokens) if previous else 0
        found = explain(
            prompt,
            request.messages,
            running.reused.total,
            previous,
            common,
            cache_off=self._host.limits.off,
            other_model=any(
                m.tokens and m.tokenizer != self._backend.traits.tokenizer for m in request.messages
            ),
            grain=1 if self._backend.traits.family.can_trim else self._block_tokens,
            is_reasoning=self._is_reasoning,
        )
        if found is not None:
            words = self._words
            running.mismatch = Mismatch(
                found.pos, found.reason, words(found.before), words(found.cached), words(found.asked)
            )
        if record is not None and request.store:
            record.hits += running.reused.total > 0
            self._records.remember(request.session, Previous(request.messages, prompt))

    def _is_reasoning(self, tokens: Sequence[int]) -> bool:
        """Whether tokens begin with reasoning, or in the middle of it."""
        tags = self._prompts.thinking
        return tags is not None and begins_inside(self._prompts.text_of(tokens), tags)

    def _words(self, tokens: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self._spell(token) for token in tokens)

    def _spell(self, token: int) -> str:
        text = self._backend.piece(token).decode("utf-8", "replace")
        return text or self._prompts.control_text(token)

    def _requeue(self, running: Running) -> None:
        """Take a running request out of the context; it goes on from the cache when there is room again."""
        sequence = running.sequence
        assert sequence is not None
        if running.request.store:
            self._mover.capture_new(sequence, tail=True)
        now = self._clock()
        self._send_text(running, now)
        del self.running[running.request.id]
        sequence.owner = None
        running.sequence = None
        running.looked_on_disk = False
        self._residency.leave(sequence)
        self._put_to_wait(running, now)

    # ---- one step

    def step(self) -> None:
        """Process some tokens of what runs, and tell what came of it."""
        self._residency.compact(
            lambda s: not self._host.limits.off and (s.idle or self.running[s.owner or ""].request.store)
        )
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
        in_batch = [self.running[name] for name in (*plan.decode, *([plan.prefill] if plan.prefill else []))]
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
                        self._requeue(running)

    def _plan(self) -> StepPlan:
        now = self._clock()
        jobs = [
            Job(
                running.request.id,
                self._rank(running),
                running.arrival,
                running.decoding,
                running.todo,
                len(running.sequence.tokens) if running.sequence else 0,
                now - running.t_served,
            )
            for running in self.running.values()
        ]
        return plan_step(
            jobs,
            self._costs.at(self._mover.cells.highest),
            credit_ms=self._share.credit_ms,
            credit_cap_ms=CAP_MS,
            max_chunk=self._settings.prefill_chunk,
            budget_ms=self._settings.step_budget_ms,
            block_tokens=self._block_tokens,
        )

    def _fill(self, plan: StepPlan) -> tuple[Batch, dict[str, int]]:
        """The batch of a step, and the rows whose logits will be sampled."""
        batch = Batch()
        rows: dict[str, int] = {}
        for name in plan.decode:
            running = self.running[name]
            assert running.sequence is not None
            pos = len(running.sequence.tokens)
            rows[name] = batch.add(running.known[pos], pos, running.sequence.seq, True)
        if plan.prefill is not None:
            running = self.running[plan.prefill]
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
        if plan.prefill and not plan.decode:
            self._ledger.prefill.add(plan.chunk, seconds)
        elif not plan.prefill:
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
        walked = self._foreign_cells * self._costs.cell_ms if plan.decode and plan.focused_ms else 0.0
        walked = min(walked, max(0.0, (plan.focused_ms if plan.has_others else ms) / 2))
        alone = plan.focused_ms if plan.has_others else ms
        self._share.book(alone - walked, extra + walked)

    def _advance(self, plan: StepPlan, in_batch: list[Running], rows: dict[str, int]) -> None:
        """Book what was processed, sample, and capture the blocks that are now complete."""
        now = self._clock()
        # Somebody may wait for what was just read.
        self.changed = self.changed or plan.prefill is not None
        placed: list[tuple[int, int]] = []
        for running in in_batch:
            sequence = running.sequence
            assert sequence is not None
            count = plan.chunk if running.request.id == plan.prefill else 1
            placed.append((sequence.seq, count))
            running.t_served = now
            pos = len(sequence.tokens)
            if pos < len(running.prompt):
                running.processed += min(count, len(running.prompt) - pos)
            sequence.tokens.extend(running.known[pos : pos + count])
        self._mover.cells.place(placed)
        sampled = {running.request.id: self._sample(running, rows) for running in in_batch}
        for running in in_batch:
            sequence = running.sequence
            assert sequence is not None
            if running.request.store and len(sequence.tokens) % self._block_tokens == 0:
                self._mover.capture_new(sequence)
                if self._control.disk is not None:
                    self._control.disk.persist_if_tight(sequence.stored)
            reason = sampled[running.request.id]
            if reason is not None:
                self.finish(running, reason, running.error)
            elif running.request.id == plan.prefill and not running.decoding:
                self._tell_progress(running)

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
            self._send_text(running, now)
        if running.stream.stopped:
            return FinishReason.STOP
        if running.max_tokens is not None and running.num_generated >= running.max_tokens:
            return FinishReason.LENGTH
        if len(running.known) > self._backend.traits.num_cells:
            return FinishReason.CONTEXT_FULL
        return None

    def _send_text(self, running: Running, now: float) -> None:
        """Send what was generated since the last time."""
        running.t_sent = now
        if running.unsent_tokens or running.unsent_text:
            request = running.request
            self._emit(
                running.client,
                events.TokensGenerated(
                    request.id, request.session, running.unsent_text, running.unsent_tokens
                ),
            )
            running.unsent_text, running.unsent_tokens = "", 0

    def _tell_progress(self, running: Running) -> None:
        now = self._clock()
        if now - running.t_progress < PROGRESS_S:
            return
        running.t_progress = now
        rate = self._ledger.prefill.per_second
        total = len(running.prompt) - running.reused.total
        self._emit(
            running.client,
            events.PrefillProgressed(
                running.request.id,
                running.request.session,
                min(running.processed, total),
                total,
                1000 * running.todo / rate if rate else None,
            ),
        )

    def _relieve(self, in_batch: list[Running]) -> None:
        """The context is full: idle sequences go first, then the least urgent request waits, or ends."""
        idle = self._slots.idle()
        if idle:
            self._residency.leave(idle[0])
            return
        now = self._clock()
        least = max(self.running.values(), key=lambda r: self._urgency(r, now))
        if len(self.running) > 1:
            self._requeue(least)
        else:
            self.finish(least, FinishReason.CONTEXT_FULL)

    # ---- requests end

    def finish(self, running: Running, reason: FinishReason, error: str = "") -> None:
        """End a request, once: store its tail, free or keep its sequence, tell the client."""
        request, sequence = running.request, running.sequence
        if running in self.waiting:
            self._end_wait(running, self._clock())
        self.running.pop(request.id, None)
        self.changed = True
        if not self._focused():
            self._share.pause()
        self._end_fetch(running)
        if not running.stream.stopped:
            running.unsent_text += running.stream.finish()
        self._send_text(running, self._clock())
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
            self._queue.note_end(running.num_generated)
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
        if sequence is not None:
            if running.is_side_task or not request.store:
                self._residency.leave(sequence)
            self._residency.drop_idle()
        self._publish()
