"""What stays in the context: the focused chats and what runs. Everything else leaves, to come back later.

Engine thread. Decides who leaves; `mover` does it. Idle sequences slow every decode step, so that being in
the context is a privilege of what the user looks at.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from samovar.core import events
from samovar.engine.mover import Arrival, Mover
from samovar.engine.slots import ContextSequence, Slots
from samovar.kv.family import Family
from samovar.kv.index import PrefixIndex, common_prefix
from samovar.kv.planner import Plan, Resident, Source, find_cut, make_plan

COMPACT_S: Final = 1.0


class Residency:
    """Owns the focus of all front ends. `busy_chats` are the sessions whose own request runs."""

    def __init__(
        self,
        mover: Mover,
        slots: Slots,
        index: PrefixIndex,
        family: Family,
        *,
        oldest_pos: Callable[[int], int],
        busy_chats: Callable[[], set[str]],
        tell: Callable[[events.Event], None],
    ) -> None:
        self._mover = mover
        self._slots = slots
        self._index = index
        self._family = family
        self._oldest_pos = oldest_pos
        self._busy_chats = busy_chats
        self._tell = tell
        self._focus: dict[str, str | None] = {}
        self._t_compacted = 0.0

    # ---- focus

    def look_at(self, client: str, session: str | None) -> None:
        """A front end now shows this session."""
        self._focus[client] = session

    def look_away(self, client: str) -> None:
        """A front end has gone."""
        self._focus.pop(client, None)

    def looks_at(self, client: str) -> str | None:
        return self._focus.get(client)

    def focused(self) -> set[str]:
        """The sessions that some front end shows."""
        return {session for session in self._focus.values() if session is not None}

    def bring_in(self, session: str, tokens: Sequence[int], read_ms: float = 0.0) -> None:
        """Restore a session, which ended at `tokens`, for the user who now looks at it.

        `read_ms` went by already while it was read from disk.
        """
        in_context = max((len(s.tokens) for s in self._slots.idle() if s.session == session), default=0)
        if in_context >= len(tokens):
            return
        match = self._index.match(tokens)
        plan = make_plan(tokens, session, self.residents(session), match, self._family, whole=True)
        if plan.resume and self.make_room(plan, plan.resume):
            self.drop_idle(plan.slot, session)
            self.arrive(plan, tokens, session, read_ms)

    def residents(self, session: str, *, side_task: bool = False, may_shift: bool = False) -> list[Resident]:
        """The context as planning for `session` sees it: a focused chat's cells are that chat's alone.

        What is not exact any more is seen by a request of the same session that `may_shift`.
        """
        focused = self.focused()
        return [
            Resident(
                s.seq,
                s.session,
                s.tokens if may_shift and s.session == session else s.tokens[: s.num_exact],
                busy=not s.idle or (s.session in focused and (side_task or s.session != session)),
                oldest_pos=self._oldest_pos(s.seq) if self._family.window else 0,
            )
            for s in self._slots.used()
        ]

    # ---- who leaves

    def drop_idle(self, spare: int | None = None, arriving: str | None = None) -> None:
        """Drop idle sequences but the focused sessions' own, one for each.

        What is about to arrive in `arriving` takes or shares the sequence `spare`, and replaces that
        session's others. They leave first, so that its cells come to lie low.
        """
        focused = self.focused()
        kept = self._busy_chats()
        if arriving is not None:
            kept.add(arriving)
        for sequence in reversed(self._slots.idle()):
            if sequence.seq == spare:
                continue
            if sequence.session in focused and sequence.session not in kept:
                kept.add(sequence.session)
                continue
            self.leave(sequence)

    def leave(self, sequence: ContextSequence) -> None:
        """Drop one sequence's cells; what it held is in the cache already."""
        start = time.perf_counter()
        num_bytes = sum(block.num_bytes for block in sequence.stored)
        session = sequence.session
        num_tokens = self._mover.leave(sequence)
        elapsed_ms = 1000 * (time.perf_counter() - start)
        self._tell(events.SwapFinished(session, False, num_tokens, num_bytes, elapsed_ms))

    def make_room(self, plan: Plan, num_cells: int) -> bool:
        """Make sure that a slot and `num_cells` cells are there for `plan`, at the cost of idle sequences."""
        for sequence in self._slots.idle():
            if self.has_room(plan, num_cells):
                break
            if sequence.seq != plan.slot:
                self.leave(sequence)
        return self.has_room(plan, num_cells)

    def has_room(self, plan: Plan, num_cells: int) -> bool:
        """Whether a slot and `num_cells` cells are there for `plan`."""
        # A block that is used in part stands in the context whole for a moment.
        num_cells = max([num_cells, *(step.block.end for step in plan.steps)])
        if plan.source is Source.TAKE:
            assert plan.slot is not None
            return num_cells - len(self._slots.get(plan.slot).tokens) <= self._free_cells()
        return self._slots.num_free > 0 and num_cells - plan.keep <= self._free_cells()

    def try_shift(self, session: str, prompt: Sequence[int], at_least: int) -> None:
        """Let the session's idle sequence become a longer beginning of `prompt` by moving positions.

        Does nothing where more than that, `at_least` tokens, can be had exactly, or where another sequence
        owns cells that would move: what they share are equal tokens from the start on.
        """
        sequence = max(
            (s for s in self._slots.idle() if s.session == session), key=lambda s: len(s.tokens), default=None
        )
        cut = find_cut(prompt, sequence.tokens) if sequence is not None else None
        if sequence is None or cut is None or cut.num_left <= at_least:
            return
        others = (s for s in self._slots.used() if s is not sequence)
        if all(common_prefix(other.tokens, sequence.tokens) <= cut.p1 for other in others):
            self._mover.shift(sequence, cut)

    def arrive(self, plan: Plan, tokens: Sequence[int], session: str, read_ms: float = 0.0) -> Arrival:
        """Carry out a plan for which there is room."""
        arrival = self._mover.arrive(plan, tokens, session)
        if arrival.restored:
            ms = arrival.ms + read_ms
            self._tell(
                events.SwapFinished(session, True, arrival.restored, arrival.num_bytes, ms, arrival.from_disk)
            )
        return arrival

    def compact(self, may_reload: Callable[[ContextSequence], bool]) -> None:
        """Attention walks up to the highest used cell: bring what lies high down again.

        At most once a second, and only where `may_reload` allows it for every sequence.
        """
        cells, now = self._mover.cells, time.perf_counter()
        if now - self._t_compacted < COMPACT_S or not self._family.can_trim:
            return
        if cells.highest > cells.num_used + cells.num_used // 2 + 256:
            used = self._slots.used()
            if all(may_reload(sequence) for sequence in used):
                self._t_compacted = now
                self._mover.reload(sorted(used, key=lambda s: s.idle))

    def _free_cells(self) -> int:
        return self._mover.cells.num_cells - self._mover.cells.num_used
