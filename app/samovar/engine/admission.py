"""Who may start: room in the context, what others' cells cost the focused chat, common beginnings, the disk.

Engine thread. Brings requests into the context and takes them out again; `residency` says who leaves for it,
`mover` does it.
"""

from collections.abc import Callable
from typing import Final

from samovar.core.events import WaitReason
from samovar.core.request import TierTokens
from samovar.engine.costs import CostModel
from samovar.engine.parts import Parts
from samovar.engine.queueing import Queue
from samovar.engine.requests import OpenRequests
from samovar.engine.running import Running
from samovar.engine.scheduler import Rank
from samovar.engine.telling import Telling
from samovar.kv.index import common_prefix
from samovar.kv.planner import Plan, Source, make_plan

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


class Admission:
    """Moves requests between those that wait and those that run.

    `foreign_cells` are the used cells that are not the focused chats', as last counted.
    """

    def __init__(
        self,
        requests: OpenRequests,
        parts: Parts,
        *,
        costs: CostModel,
        queue: Queue,
        telling: Telling,
        clock: Callable[[], float],
    ) -> None:
        self._requests = requests
        self._backend = parts.backend
        self._block_tokens = parts.block_tokens
        self._slots = parts.slots
        self._index = parts.index
        self._host = parts.host
        self._mover = parts.mover
        self._ledger = parts.ledger
        self._residency = parts.residency
        self._control = parts.control
        self._costs = costs
        self._queue = queue
        self._telling = telling
        self._clock = clock
        self.foreign_cells = 0
        self._coming_cells = 0  # of these requests, once they have read their prompts
        self._t_looked = 0.0

    def admit(self) -> None:
        """Start waiting requests, most urgent first, as long as there is room and nobody suffers from it."""
        now = self._clock()
        if self._requests.running and not self._requests.changed and now - self._t_looked < LOOK_S:
            return
        self._requests.changed, self._t_looked = False, now
        self._requests.inherited = {}
        self._count_foreign()
        self._start_waiting(now)
        self._step_aside(now)
        waiting = self._requests.in_line(now)
        if waiting:
            costs = self._costs.at(self._mover.cells.highest)
            self._queue.tell(
                waiting, list(self._requests.running.values()), self._requests.focused(), costs, now
            )

    def _start_waiting(self, now: float) -> None:
        room = True
        for running in self._requests.in_line(now):
            self._look_on_disk(running)
            if running.is_fetching:
                running.wait = WaitReason.DISK
                continue
            if not room:
                running.wait = WaitReason.ROOM
                continue
            while (reason := self._try_start(running)) is WaitReason.ROOM:
                # A more urgent request takes the room of a less urgent one, which goes on later.
                rank = self._requests.urgency(running, now)[0]
                victims = [
                    r for r in self._requests.running.values() if self._requests.urgency(r, now)[0] > rank
                ]
                if not victims:
                    room = False
                    break
                self.requeue(max(victims, key=lambda r: self._requests.urgency(r, now)))
            running.wait = reason

    def _count_foreign(self) -> None:
        """How many cells are not the focused chats', nor of those who have waited long enough."""
        if self._backend.traits.family.whole_state:
            return
        focused = self._residency.focused()
        guests = [
            running
            for running in self._requests.running.values()
            if running.request.session not in focused and not self._goes_on_anyway(running)
        ]
        names = {running.request.id for running in guests}
        own = [
            sequence.seq
            for sequence in self._slots.used()
            if sequence.session in focused or (sequence.owner is not None and sequence.owner not in names)
        ]
        cells = self._mover.cells
        self.foreign_cells = cells.num_used - cells.count_union(own)
        self._coming_cells = sum(running.todo for running in guests)

    def _goes_on_anyway(self, running: Running) -> bool:
        """Whether its cells are no reason to leave: urgent, or the one that waited longest."""
        return self._requests.rank(running) is Rank.FOCUSED or running is self._most_patient()

    def _most_patient(self) -> Running | None:
        """Of those who run after having waited for very long, the one that did so for the longest time."""
        patient = [r for r in self._requests.running.values() if r.waited_s >= PATIENCE_S]
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
        cells = self.foreign_cells + self._coming_cells + len(running.known) - kept + growth
        return cells <= self._cell_limit()

    def _step_aside(self, now: float) -> None:
        """While a focused request runs, what costs it too much leaves the context, the least urgent first."""
        while self._requests.focused():
            self._count_foreign()
            if self.foreign_cells + self._coming_cells <= CELLS_LEAVE * self._cell_limit():
                return
            leaving = [r for r in self._requests.running.values() if not self._goes_on_anyway(r)]
            if not leaving:
                return
            running = max(leaving, key=lambda r: self._requests.urgency(r, now))
            self.requeue(running)
            running.wait = WaitReason.FOCUS

    def _reason_to_wait(self, running: Running, plan: Plan) -> WaitReason | None:
        """What a request had better wait for although there is room."""
        leader = self._leader(running, plan.resume)
        if leader is not None:
            rank = min(self._requests.rank(running), self._requests.rank(leader))
            self._requests.inherited[leader.request.id] = rank
            return WaitReason.PREFIX
        if self._requests.rank(running) is Rank.FOCUSED or not self._requests.focused():
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
        for other in self._requests.running.values():
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

    def end_fetch(self, running: Running) -> float:
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
        reserve = min(256, num_cells // 8) if self._requests.running else 1
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
        self._requests.end_wait(running, now)
        self._requests.running[running.request.id] = running
        ms = arrival.ms + self.end_fetch(running)
        running.restore_ms += ms
        if not running.started:
            running.started = True
            running.t_started = max(running.t_arrived, now - ms / 1000)
            running.reused = TierTokens(arrival.kept, arrival.restored - arrival.from_disk, arrival.from_disk)
            if not running.is_side_task:
                running.ahead = self._ledger.ahead.asked(session, running.prompt, running.reused.total)
            running.sampler = self._backend.new_sampler(running.request.sampling, known, running.grammar)
            self._telling.tell_start(running)
        self._count_foreign()
        return None

    def requeue(self, running: Running) -> None:
        """Take a running request out of the context; it goes on from the cache when there is room again."""
        sequence = running.sequence
        assert sequence is not None
        if running.request.store:
            self._mover.capture_new(sequence, tail=True)
        now = self._clock()
        self._telling.send_text(running, now)
        del self._requests.running[running.request.id]
        sequence.owner = None
        running.sequence = None
        running.looked_on_disk = False
        self._residency.leave(sequence)
        self._requests.put_to_wait(running, now)
