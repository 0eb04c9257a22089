"""The engine thread: takes commands, serves requests step by step, keeps the context as focus wants it.

The only thread that touches the backend, the slots, the prefix index and the tiers. Other threads reach
it through `post`; it reaches them through `emit`, which must not block.
"""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from samovar.core import commands, events
from samovar.core.chat import answered, open_reply
from samovar.core.errors import SamovarError
from samovar.core.request import FinishReason, Mismatch, Request, TierTokens
from samovar.core.settings import EngineSettings
from samovar.engine.backend import Backend, Batch, DecodeResult
from samovar.engine.control import CacheControl
from samovar.engine.counting import Counting
from samovar.engine.disk import Disk, MakeSwapper
from samovar.engine.mover import Mover
from samovar.engine.prompt import PromptBuilder
from samovar.engine.records import Records
from samovar.engine.report import Reporter
from samovar.engine.residency import Residency
from samovar.engine.running import Running
from samovar.engine.scheduler import Job, Rank, StepCosts, StepPlan, plan_step
from samovar.engine.sleep import ModelChangedError, Sleep
from samovar.engine.slots import Slots
from samovar.engine.stream import TextStream
from samovar.kv.block import root_key
from samovar.kv.explain import Previous, explain
from samovar.kv.host_tier import HostTier, Limits
from samovar.kv.index import PrefixIndex, common_prefix
from samovar.kv.ledger import Ledger
from samovar.kv.planner import Source, make_plan

SNAPSHOT_S: Final = 0.5
PROGRESS_S: Final = 0.1
TEXT_S: Final = 0.03
"""Tokens that come faster than this share an event: each wakes other threads, on the cores that decode."""
LONG_STEP_MS: Final = 25.0
TICK_S: Final = 1.0
FLUSH_S: Final = 8.0

Emit = Callable[[str | None, events.Event], None]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A command with the connection it came from."""

    client: str
    command: commands.Command


@dataclass(frozen=True, slots=True)
class ClientGone:
    """A connection ended: its requests are cancelled, its focus is no more."""

    client: str


@dataclass(frozen=True, slots=True)
class DiskNews:
    """The swap thread has something to tell."""


class EngineLoop:
    """Serves all requests on one backend. `emit(client, event)` goes to one client, or to all (None)."""

    def __init__(
        self,
        backend: Backend,
        settings: EngineSettings,
        fingerprint: str,
        emit: Emit,
        available_bytes: Callable[[], int],
        block_tokens: int | None = None,
        make_swapper: MakeSwapper | None = None,
        sleep: Sleep | None = None,
    ) -> None:
        traits = backend.traits
        self._backend = backend
        self._settings = settings
        self._emit = emit
        self.block_tokens = block_tokens or settings.block_tokens
        self.index = PrefixIndex(root_key(fingerprint), self.block_tokens, partial=traits.family.can_trim)
        self.host = HostTier(Limits())
        self.slots = Slots(settings.num_slots)
        self.ledger = Ledger()
        self.mover = Mover(backend, self.slots, self.index, self.host, self.ledger)
        self.prompts = PromptBuilder(
            template=traits.template,
            tokenize=backend.tokenize,
            piece=backend.piece,
            control_tokens=traits.control_tokens,
            bos=traits.bos,
            eos=traits.eos,
            add_bos=traits.add_bos,
            tokenizer=traits.tokenizer,
        )
        self.sleep = sleep or Sleep(backend, settings.keep_alive_s, tell=lambda event: emit(None, event))
        self._reporter = Reporter(
            traits.name, self.slots, self.index, self.host, self.mover, self.ledger, self.sleep
        )
        self._counting = Counting(backend.tokenize, emit)
        self._inbox: queue.SimpleQueue[Envelope | ClientGone | DiskNews] = queue.SimpleQueue()
        self._abortable = False
        self._in_step: frozenset[str] = frozenset()
        self._stopping = False
        self._waiting: list[Running] = []
        self._running: dict[str, Running] = {}
        self._records = Records(self.index)
        self._residency = Residency(
            self.mover,
            self.slots,
            self.index,
            traits.family,
            oldest_pos=backend.oldest_pos,
            busy_chats=self._busy_chats,
            tell=lambda event: emit(None, event),
        )
        self._arrivals = 0
        self._costs = StepCosts()
        self._t_snapshot = 0.0
        self._control = CacheControl(
            mover=self.mover,
            slots=self.slots,
            index=self.index,
            host=self.host,
            records=self._records,
            residency=self._residency,
            tell=emit,
            is_busy=self._has_open_chat,
            available_bytes=available_bytes,
            vocab_size=traits.vocab_size,
        )
        self._control.is_asleep = lambda: self.sleep.asleep
        self._control.set_limits(settings.ram_limit, settings.token_limit)
        if make_swapper is not None:
            self._control.disk = Disk(
                make_swapper,
                index=self.index,
                host=self.host,
                mover=self.mover,
                ledger=self.ledger,
                tell=emit,
                wake=lambda: self._inbox.put(DiskNews()),
            )

    # ---- from other threads

    def post(self, message: Envelope | ClientGone) -> None:
        """Hand over a command. What the user waits for ends the step that is under way. Any thread."""
        self._inbox.put(message)
        if self._abortable and isinstance(message, Envelope) and self._interrupts(message):
            self._backend.interrupt()

    def _interrupts(self, message: Envelope) -> bool:
        """Whether a command is worth the step under way.

        Where cells can be trimmed an aborted step costs no more than itself. Elsewhere the state since the
        last block is lost, so only what concerns this very step, or the user's eyes, may end it.
        """
        cheap = self._backend.traits.family.can_trim
        match message.command:
            case commands.StopHost():
                return True
            case commands.Submit():
                return cheap
            case commands.Cancel(request_id):
                return cheap or request_id in self._in_step
            case commands.Focus(session):
                return cheap or session != self._residency.looks_at(message.client)
            case _:
                return False

    # ---- the thread

    @property
    def stopping(self) -> bool:
        """Whether the host is to end: `StopHost` came, or the model's file has changed."""
        return self._stopping

    def run(self) -> None:
        """Serve until `StopHost`. Every request that is still open then ends as cancelled."""
        while not self._stopping:
            self.serve_once(wait=True)
        for running in self._all():
            self._finish(running, FinishReason.CANCELLED, "The engine host was stopped.")
        self._counting.refuse_all()
        if self._control.disk is not None:
            self._control.disk.close(FLUSH_S)

    def serve_once(self, *, wait: bool) -> None:
        """Take the commands that are there, make one step. If idle, `wait` for a command, and tick."""
        self._backend.clear_interrupt()
        idle = not (self._running or self._counting.is_open) and all(map(self._is_fetching, self._waiting))
        self._take_commands(min(TICK_S, self.sleep.due_in_s()) if wait and idle else 0.0)
        if self._stopping:
            return
        if self._control.tick():
            self._publish()
        self._admit()
        if self._running:
            self._step()
            self.sleep.touch()
            if time.perf_counter() - self._t_snapshot > SNAPSHOT_S:
                self._publish()
        elif not self._waiting and not self._counting.is_open:
            self._tick()
        self._counting.count_slice()
        self.mover.keep_within_limits()

    def _tick(self) -> None:
        """What is due while nothing runs; called every second at least, so it must be cheap."""
        if self.sleep.due_in_s() == 0:
            for sequence in self.slots.used():
                self._residency.leave(sequence)
            self.sleep.fall_asleep()
            self._publish()

    def _take_commands(self, wait_s: float) -> None:
        try:
            message = self._inbox.get(timeout=wait_s) if wait_s > 0 else self._inbox.get_nowait()
            while True:
                self._handle(message)
                message = self._inbox.get_nowait()
        except queue.Empty:
            pass

    def _handle(self, message: Envelope | ClientGone | DiskNews) -> None:
        if isinstance(message, DiskNews):
            if self._control.disk is not None:
                self._control.disk.take_results()
            return
        if isinstance(message, ClientGone):
            self._residency.look_away(message.client)
            self._counting.drop(message.client)
            for running in self._all():
                if running.client == message.client:
                    self._finish(running, FinishReason.CANCELLED)
            self._residency.drop_idle()
            return
        client = message.client
        match message.command:
            case commands.Submit(request):
                self._submit(client, request)
            case commands.Cancel(request_id):
                for running in self._all():
                    if running.request.id == request_id:
                        self._finish(running, FinishReason.CANCELLED)
            case commands.Focus(session):
                self._residency.look_at(client, session)
                self._bring_in(session)
                self._publish()
            case commands.Rename(session, title):
                record = self._records.get(session)
                if record is not None:
                    record.title = title
                    self._publish()
            case commands.Forget(session):
                self._forget(session)
            case commands.SetKeepAlive(seconds):
                self.sleep.keep_alive_s = seconds
            case commands.Describe():
                self._publish(client)
            case commands.ListRequests():
                self._emit(client, events.RequestsListed(tuple(self.ledger.recent)))
            case commands.CountTokens(request_id) if self.sleep.asleep:
                self._counting.refuse(client, request_id)
            case commands.CountTokens(request_id, texts):
                self._counting.begin(client, request_id, texts)
            case commands.StopHost():
                self._stopping = True
            case commands.Hello():
                pass
            case command:
                self._control.handle(client, command)
                self._publish()

    # ---- focus

    def _bring_in(self, session: str | None) -> None:
        """Restore the session that the user now looks at, and drop the cells of those that nobody does.

        Looking at a chat does not wake the model; its next request does, and restores it.
        """
        if self.sleep.asleep:
            return
        if session is not None and not self._has_open_chat(session):
            self._control.bring_in(session)
        self._residency.drop_idle()

    def _has_open_chat(self, session: str) -> bool:
        return any(r.request.session == session and not r.is_side_task for r in self._all())

    def _all(self) -> list[Running]:
        """All requests that have not ended."""
        return [*self._waiting, *self._running.values()]

    def _busy_chats(self) -> set[str]:
        return {r.request.session for r in self._running.values() if not r.is_side_task}

    def _forget(self, session: str) -> None:
        for running in self._all():
            if running.request.session == session:
                self._finish(running, FinishReason.CANCELLED)
        for sequence in self.slots.idle():
            if sequence.session == session:
                self._residency.leave(sequence)
        self._control.forget(session)
        self._publish()

    # ---- requests come in

    def _submit(self, client: str, request: Request) -> None:
        if any(request.id == running.request.id for running in self._all()):
            self._emit(client, events.CommandRefused(f"A request with the id {request.id} is under way."))
            return
        self._arrivals += 1
        stop = request.stop + self.prompts.stop
        begun = open_reply(request.messages)
        stream = TextStream(stop, begun.content if begun else "")
        running = Running(request, client, (), [], stream, self._arrivals)
        self._waiting.append(running)
        num_cells = self._backend.traits.num_cells
        try:
            self.sleep.touch()
            if self.sleep.asleep:
                self.sleep.wake()
            asking, running.begun = self.prompts.parts(request.messages)
            prompt = (*asking, *running.begun)
            if not prompt:
                raise SamovarError("There is nothing to answer: the prompt is empty.")
            if len(prompt) >= num_cells:
                raise SamovarError(
                    f"The prompt has {len(prompt):,} tokens and the context only {num_cells:,}. "
                    "Shorten the message, start a new chat, or set a larger `context`."
                )
        except SamovarError as error:
            self._finish(running, FinishReason.FAILED, str(error))
            if isinstance(error, ModelChangedError):
                self._emit(None, events.HostStopping())
                self._stopping = True
            return
        running.prompt, running.known = prompt, list(prompt)
        running.max_tokens = request.max_tokens
        if request.store:
            self._records.open(request.session, request.title)

    def _rank(self, running: Running) -> Rank:
        if running.is_side_task:
            return Rank.SIDE_TASK
        return Rank.FOCUSED if running.request.session in self._residency.focused() else Rank.CHAT

    def _admit(self) -> None:
        """Start waiting requests, most urgent first, as long as there is room."""
        for running in sorted(self._waiting, key=lambda r: (self._rank(r), r.arrival)):
            self._look_on_disk(running)
            if self._is_fetching(running):
                continue
            while not self._try_start(running):
                # A more urgent request takes the room of a less urgent one, which goes on later.
                victims = [r for r in self._running.values() if self._rank(r) > self._rank(running)]
                if not victims:
                    return
                self._requeue(max(victims, key=lambda r: (self._rank(r), r.arrival)))

    def _look_on_disk(self, running: Running) -> None:
        """Ask, once, for what the disk has of a request's prompt.

        A chat that goes on where it stands in the context needs nothing, and does not wait for an answer.
        """
        disk = self._control.disk
        if disk is None or running.looked_on_disk:
            return
        running.looked_on_disk = True
        resident = self.slots.of_session(running.request.session)
        goes_on = resident is not None and running.known[: len(resident.tokens)] == resident.tokens
        if not (goes_on and resident is not None and resident.tokens):
            running.fetch = disk.fetch(running.request.session, running.known[:-1])

    @staticmethod
    def _is_fetching(running: Running) -> bool:
        """Whether blocks for a request are on their way from disk; a disk that hangs is not waited for."""
        return running.fetch is not None and running.fetch.is_open and not running.fetch.is_late

    def _end_fetch(self, running: Running) -> float:
        """What was fetched is not needed any longer; the milliseconds that it took."""
        fetch, running.fetch = running.fetch, None
        if fetch is None or self._control.disk is None:
            return 0.0
        self._control.disk.release(fetch)
        return fetch.ms

    def _try_start(self, running: Running) -> bool:
        known, session = running.known, running.request.session
        family = self._backend.traits.family
        match = self.index.match(known, len(known) - 1)
        # Beside others it needs room to grow, or it would have to leave again after a few tokens.
        num_cells = self._backend.traits.num_cells
        reserve = min(256, num_cells // 8) if self._running else 1
        while True:
            residents = self._residency.residents(session, side_task=running.is_side_task)
            plan = make_plan(known, session, residents, match, family)
            if self._residency.make_room(plan, min(len(known) + reserve, num_cells)):
                break
            source = (
                self.slots.get(plan.slot) if plan.source is Source.SHARE and plan.slot is not None else None
            )
            if source is None or not source.idle:
                return False
            # The idle sequence whose cells it would share is itself in the way.
            self._residency.leave(source)
        if not running.is_side_task:
            self._residency.drop_idle(plan.slot, session)
        arrival = self._residency.arrive(plan, known, session)
        sequence = arrival.sequence
        sequence.owner = running.request.id
        running.sequence = sequence
        self._waiting.remove(running)
        self._running[running.request.id] = running
        ms = arrival.ms + self._end_fetch(running)
        running.restore_ms += ms
        if not running.started:
            running.started = True
            running.t_started = max(running.t_arrived, time.perf_counter() - ms / 1000)
            running.reused = TierTokens(arrival.kept, arrival.restored - arrival.from_disk, arrival.from_disk)
            running.sampler = self._backend.new_sampler(running.request.sampling, known)
            self._note_start(running)
            stats = running.stats()
            self._emit(running.client, events.RequestStarted(running.request.id, session, stats))
        return True

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
            cache_off=self.host.limits.off,
            other_model=any(
                m.tokens and m.tokenizer != self._backend.traits.tokenizer for m in request.messages
            ),
            grain=1 if self._backend.traits.family.can_trim else self.block_tokens,
        )
        if found is not None:
            words = self._words
            running.mismatch = Mismatch(
                found.pos, found.reason, words(found.before), words(found.cached), words(found.asked)
            )
        if record is not None and request.store:
            record.hits += running.reused.total > 0
            self._records.remember(request.session, Previous(request.messages, prompt))

    def _words(self, tokens: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self._spell(token) for token in tokens)

    def _spell(self, token: int) -> str:
        text = self._backend.piece(token).decode("utf-8", "replace")
        return text or self.prompts.control_text(token)

    def _requeue(self, running: Running) -> None:
        """Take a running request out of the context; it goes on from the cache when there is room again."""
        sequence = running.sequence
        assert sequence is not None
        if running.request.store:
            self.mover.capture_new(sequence, tail=True)
        self._send_text(running, time.perf_counter())
        del self._running[running.request.id]
        sequence.owner = None
        running.sequence = None
        running.looked_on_disk = False
        self._residency.leave(sequence)
        self._waiting.append(running)

    # ---- one step

    def _step(self) -> None:
        self._residency.compact(
            lambda s: not self.host.limits.off and (s.idle or self._running[s.owner or ""].request.store)
        )
        plan = self._plan()
        batch, rows = self._fill(plan)
        expected = len(plan.decode) * self._costs.decode_step_ms + plan.chunk * self._costs.prefill_token_ms
        self._in_step = frozenset((*plan.decode, plan.prefill or ""))
        self._abortable = self._backend.traits.family.can_trim or expected > LONG_STEP_MS
        if self._abortable and not self._inbox.empty():
            # It came before the flag was set, so nothing would interrupt the step.
            self._abortable = False
            return
        start = time.perf_counter()
        result = self._backend.decode(batch)
        elapsed = time.perf_counter() - start
        self._abortable = False
        in_batch = [self._running[name] for name in (*plan.decode, *([plan.prefill] if plan.prefill else []))]
        match result:
            case DecodeResult.DONE:
                self._measure(plan, elapsed)
                self._advance(plan, in_batch, rows)
            case DecodeResult.NO_ROOM:
                self._relieve(in_batch)
            case DecodeResult.ABORTED | DecodeResult.FAILED:
                for running in in_batch:
                    assert running.sequence is not None
                    self.mover.undo(running.sequence)
                    if result is DecodeResult.FAILED:
                        self._finish(
                            running, FinishReason.FAILED, "llama.cpp could not process the prompt. Try again."
                        )
                    elif running.todo > 1 and not self._backend.traits.family.can_trim:
                        self._requeue(running)

    def _plan(self) -> StepPlan:
        jobs = [
            Job(
                running.request.id,
                self._rank(running),
                running.arrival,
                running.decoding,
                running.todo,
                len(running.sequence.tokens) if running.sequence else 0,
            )
            for running in self._running.values()
        ]
        return plan_step(
            jobs,
            self._costs,
            max_chunk=self._settings.prefill_chunk,
            budget_ms=self._settings.step_budget_ms,
            block_tokens=self.block_tokens,
        )

    def _fill(self, plan: StepPlan) -> tuple[Batch, dict[str, int]]:
        """The batch of a step, and the rows whose logits will be sampled."""
        batch = Batch()
        rows: dict[str, int] = {}
        for name in plan.decode:
            running = self._running[name]
            assert running.sequence is not None
            pos = len(running.sequence.tokens)
            rows[name] = batch.add(running.known[pos], pos, running.sequence.seq, True)
        if plan.prefill is not None:
            running = self._running[plan.prefill]
            assert running.sequence is not None
            pos = len(running.sequence.tokens)
            last = plan.chunk == running.todo
            for offset in range(plan.chunk):
                wanted = last and offset == plan.chunk - 1
                row = batch.add(running.known[pos + offset], pos + offset, running.sequence.seq, wanted)
            if last:
                rows[plan.prefill] = row
        return batch, rows

    def _measure(self, plan: StepPlan, seconds: float) -> None:
        if plan.prefill and not plan.decode:
            self.ledger.prefill.add(plan.chunk, seconds)
        elif not plan.prefill:
            self.ledger.decode.add(len(plan.decode), seconds)
        decode, prefill = self.ledger.decode.per_second, self.ledger.prefill.per_second
        self._costs = StepCosts(
            1000 / prefill if prefill else self._costs.prefill_token_ms,
            1000 / decode if decode else self._costs.decode_step_ms,
        )

    def _advance(self, plan: StepPlan, in_batch: list[Running], rows: dict[str, int]) -> None:
        """Book what was processed, sample, and capture the blocks that are now complete."""
        placed: list[tuple[int, int]] = []
        for running in in_batch:
            sequence = running.sequence
            assert sequence is not None
            count = plan.chunk if running.request.id == plan.prefill else 1
            placed.append((sequence.seq, count))
            pos = len(sequence.tokens)
            if pos < len(running.prompt):
                running.processed += min(count, len(running.prompt) - pos)
            sequence.tokens.extend(running.known[pos : pos + count])
        self.mover.cells.place(placed)
        sampled = {running.request.id: self._sample(running, rows) for running in in_batch}
        for running in in_batch:
            sequence = running.sequence
            assert sequence is not None
            if running.request.store and len(sequence.tokens) % self.block_tokens == 0:
                self.mover.capture_new(sequence)
                if self._control.disk is not None:
                    self._control.disk.persist_if_tight(sequence.stored)
            reason = sampled[running.request.id]
            if reason is not None:
                self._finish(running, reason)
            elif running.request.id == plan.prefill and not running.decoding:
                self._tell_progress(running)

    def _sample(self, running: Running, rows: dict[str, int]) -> FinishReason | None:
        """Draw the next token if this step gave logits for one; a reason if the reply ends here."""
        row = rows.get(running.request.id)
        if row is None:
            return None
        assert running.sampler is not None
        token = running.sampler.sample(row)
        now = time.perf_counter()
        if running.t_first is None:
            running.t_first = now
        running.t_last = now
        if self._backend.is_end(token):
            return FinishReason.STOP
        running.known.append(token)
        running.unsent_text += running.stream.push(self._backend.piece(token))
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
        now = time.perf_counter()
        if now - running.t_progress < PROGRESS_S:
            return
        running.t_progress = now
        rate = self.ledger.prefill.per_second
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
        idle = self.slots.idle()
        if idle:
            self._residency.leave(idle[0])
            return
        least = max(self._running.values(), key=lambda r: (self._rank(r), r.arrival))
        if len(self._running) > 1:
            self._requeue(least)
        else:
            self._finish(least, FinishReason.CONTEXT_FULL)

    # ---- requests end

    def _finish(self, running: Running, reason: FinishReason, error: str = "") -> None:
        """End a request, once: store its tail, free or keep its sequence, tell the client."""
        request, sequence = running.request, running.sequence
        if running in self._waiting:
            self._waiting.remove(running)
        self._running.pop(request.id, None)
        self._end_fetch(running)
        if not running.stream.stopped:
            running.unsent_text += running.stream.finish()
        self._send_text(running, time.perf_counter())
        reply = running.stream.text
        spelled = running.known[len(running.prompt) :][: running.stream.num_tokens_spelled()]
        if sequence is not None:
            sequence.owner = None
            if request.store:
                self.mover.capture_new(sequence, tail=True)
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
        if running.started:
            self.ledger.finished(request.session, request.title, stats, side_task=running.is_side_task)
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

    def _publish(self, client: str | None = None) -> None:
        """Send the picture of the cache to one client, or to all."""
        self._t_snapshot = time.perf_counter()
        snapshot = self._reporter.snapshot(
            self._records,
            frozenset(r.request.session for r in self._running.values()),
            len(self._running),
            len(self._waiting),
            self._control,
        )
        self._emit(client, events.CacheChanged(snapshot))
