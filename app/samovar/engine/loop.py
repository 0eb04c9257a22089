"""The engine thread: takes commands, has requests served step by step, keeps the context as focus wants it.

The only thread that touches the backend, the slots, the prefix index and the tiers. Other threads reach
it through `post`; it reaches them through `emit`, which must not block.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from samovar.core import commands, events
from samovar.core.request import FinishReason, Request, RequestKind
from samovar.core.settings import EngineSettings
from samovar.engine.admission import Admission
from samovar.engine.backend import Backend
from samovar.engine.control import CacheControl
from samovar.engine.costs import CostModel
from samovar.engine.counting import Counting
from samovar.engine.disk import Disk, MakeSwapper
from samovar.engine.mover import Mover
from samovar.engine.parts import Parts
from samovar.engine.preparing import Preparing
from samovar.engine.prompt import PromptBuilder
from samovar.engine.queueing import Queue
from samovar.engine.records import Records
from samovar.engine.report import Reporter
from samovar.engine.requests import OpenRequests
from samovar.engine.residency import Residency
from samovar.engine.serving import Serving
from samovar.engine.sleep import ModelChangedError, Sleep
from samovar.engine.slots import Slots
from samovar.engine.telling import Emit, Telling
from samovar.kv.block import root_key
from samovar.kv.host_tier import HostTier, Limits
from samovar.kv.index import PrefixIndex
from samovar.kv.ledger import Ledger

SNAPSHOT_S: Final = 0.5
TICK_S: Final = 1.0
FLUSH_S: Final = 8.0


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
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        traits = backend.traits
        self._backend = backend
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self.block_tokens = block_tokens or settings.block_tokens
        self.index = PrefixIndex(root_key(fingerprint), self.block_tokens, partial=traits.family.can_trim)
        self.host = HostTier(Limits())
        self.slots = Slots(settings.num_slots)
        self.ledger = Ledger()
        self.mover = Mover(backend, self.slots, self.index, self.host, self.ledger)
        self.prompts = PromptBuilder.of(backend)
        self.sleep = sleep or Sleep(backend, settings.keep_alive_s, tell=lambda event: emit(None, event))
        self._reporter = Reporter(
            traits.name, self.slots, self.index, self.host, self.mover, self.ledger, self.sleep
        )
        self._counting = Counting(backend.tokenize, emit)
        self._inbox: SimpleQueue[Envelope | ClientGone | DiskNews] = SimpleQueue()
        self._stopping = False
        self._records = Records(self.index)
        self.requests = OpenRequests(lambda: self._residency.focused())
        self._residency = Residency(
            self.mover,
            self.slots,
            self.index,
            traits.family,
            oldest_pos=backend.oldest_pos,
            busy_chats=self.requests.busy_chats,
            tell=lambda event: emit(None, event),
        )
        self._t_snapshot = 0.0
        self._control = CacheControl(
            mover=self.mover,
            slots=self.slots,
            index=self.index,
            host=self.host,
            records=self._records,
            residency=self._residency,
            tell=emit,
            is_busy=self.requests.has_open_chat,
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
        costs, queue = CostModel(), Queue(emit)
        telling = Telling(
            backend, self.prompts, self.block_tokens, self.host, self.ledger, self._records, emit
        )
        parts = Parts(
            backend,
            self.block_tokens,
            self.slots,
            self.index,
            self.host,
            self.mover,
            self.ledger,
            self._residency,
            self._control,
        )
        self.admission = Admission(
            self.requests, parts, costs=costs, queue=queue, telling=telling, clock=clock
        )
        self.serving = Serving(
            self.requests,
            self.admission,
            parts,
            settings,
            prompts=self.prompts,
            records=self._records,
            sleep=self.sleep,
            costs=costs,
            queue=queue,
            telling=telling,
            emit=emit,
            publish=self._publish,
            has_news=self._has_news,
            clock=clock,
        )
        self.preparing = Preparing(
            parts,
            settings,
            prompts=self.prompts,
            sleep=self.sleep,
            emit=emit,
            publish=self._publish,
            has_news=self._has_news,
        )

    # ---- from other threads

    def post(self, message: Envelope | ClientGone) -> None:
        """Hand over a command. What the user waits for ends the step that is under way. Any thread."""
        self._inbox.put(message)
        abortable = self.serving.abortable or self.preparing.abortable
        if abortable and isinstance(message, Envelope) and self._interrupts(message):
            self._backend.interrupt()

    def _has_news(self) -> bool:
        """Whether a command waits to be read."""
        return not self._inbox.empty()

    def _interrupts(self, message: Envelope) -> bool:
        """Whether a command is worth the step under way.

        Where cells can be trimmed an aborted step costs no more than itself. Elsewhere the state since the
        last block is lost, so only what concerns this very step, or the user's eyes, may end it.
        """
        cheap = self._backend.traits.family.can_trim
        match message.command:
            case commands.StopHost():
                return True
            case commands.Submit(request):
                is_waited_for = request.urgent or request.kind is RequestKind.CHAT
                is_more = self.preparing.abortable and request.kind is not RequestKind.PREPARE
                return cheap and (is_waited_for or is_more)
            case commands.Cancel(request_id):
                return cheap or request_id in self.serving.in_step
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
        for running in self.requests.all():
            self.serving.finish(running, FinishReason.CANCELLED, "The engine host was stopped.")
        self.preparing.cancel(lambda _: True, "The engine host was stopped.")
        self._counting.refuse_all()
        if self._control.disk is not None:
            self._control.disk.close(FLUSH_S)

    def serve_once(self, *, wait: bool) -> None:
        """Take the commands that are there, make one step. If idle, `wait` for a command, and tick."""
        self._backend.clear_interrupt()
        requests = self.requests
        busy = requests.running or self._counting.is_open or not all(r.is_fetching for r in requests.waiting)
        busy = busy or self._may_prepare()
        self._take_commands(min(TICK_S, self.sleep.due_in_s()) if wait and not busy else 0.0)
        if self._stopping:
            return
        if self._control.tick():
            self._publish()
        self.admission.admit()
        if self.requests.running:
            self.serving.step()
            self.sleep.touch()
            if time.perf_counter() - self._t_snapshot > SNAPSHOT_S:
                self._publish()
        elif self._may_prepare():
            self.preparing.step()
            if time.perf_counter() - self._t_snapshot > SNAPSHOT_S:
                self._publish()
        elif not (self.requests.waiting or self.preparing.works or self._counting.is_open):
            self._tick()
        self._counting.count_slice()
        self.mover.keep_within_limits()

    def _may_prepare(self) -> bool:
        """Whether there is work to do ahead, and nothing else."""
        return self.preparing.is_ready and not (self.requests.running or self.requests.waiting)

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
        except Empty:
            pass

    def _handle(self, message: Envelope | ClientGone | DiskNews) -> None:
        self.requests.changed = True
        if isinstance(message, DiskNews):
            if self._control.disk is not None:
                self._control.disk.take_results()
            return
        if isinstance(message, ClientGone):
            self._residency.look_away(message.client)
            self._counting.drop(message.client)
            for running in self.requests.all():
                if running.client == message.client:
                    self.serving.finish(running, FinishReason.CANCELLED)
            self.preparing.cancel(lambda work: work.client == message.client)
            self._residency.drop_idle()
            return
        client = message.client
        match message.command:
            case commands.Submit(request):
                self._submit(client, request)
            case commands.Cancel(request_id):
                for running in self.requests.all():
                    if running.request.id == request_id:
                        self.serving.finish(running, FinishReason.CANCELLED)
                self.preparing.cancel(lambda work: work.request.id == request_id)
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
                if isinstance(command, commands.Evict):
                    self.preparing.cancel(lambda work: work.session == command.session)
                self._control.handle(client, command)
                self._publish()

    def _submit(self, client: str, request: Request) -> None:
        ids = {running.request.id for running in self.requests.all()}
        if request.id in ids | {work.request.id for work in self.preparing.works}:
            self._emit(client, events.CommandRefused(f"A request with the id {request.id} is under way."))
            return
        try:
            if request.kind is RequestKind.PREPARE:
                is_chat_open = self.requests.has_open_chat(request.session)
                self.preparing.submit(client, request, is_chat_open=is_chat_open)
            else:
                self.preparing.make_way(request)
                self.serving.submit(client, request)
        except ModelChangedError:
            self._emit(None, events.HostStopping())
            self._stopping = True

    # ---- focus

    def _bring_in(self, session: str | None) -> None:
        """Restore the session that the user now looks at, and drop the cells of those that nobody does.

        Looking at a chat does not wake the model; its next request does, and restores it.
        """
        if self.sleep.asleep:
            return
        if session is not None and not self.requests.has_open_chat(session):
            self._control.bring_in(session)
        self._residency.drop_idle()

    def _forget(self, session: str) -> None:
        for running in self.requests.all():
            if running.request.session == session:
                self.serving.finish(running, FinishReason.CANCELLED)
        self.preparing.cancel(lambda work: work.session == session)
        self.ledger.ahead.forget(session)
        for sequence in self.slots.idle():
            if sequence.session == session:
                self._residency.leave(sequence)
        self._control.forget(session)
        self._publish()

    def _publish(self, client: str | None = None) -> None:
        """Send the picture of the cache to one client, or to all."""
        self._t_snapshot = time.perf_counter()
        snapshot = self._reporter.snapshot(
            self._records,
            frozenset(r.request.session for r in self.requests.running.values()),
            (*self.requests.active(self._clock()), *self.preparing.active()),
            self.serving.others_share(),
            self._control,
        )
        self._emit(client, events.CacheChanged(snapshot))
