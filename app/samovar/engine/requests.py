"""All requests that have not ended, those that wait and those that run, and how urgent each one is.

Engine thread. Who moves from one to the other is `admission`'s to say.
"""

from collections.abc import Callable

from samovar.core.snapshot import ActiveRequest
from samovar.engine.running import Running
from samovar.engine.scheduler import AGING_S, Rank


class OpenRequests:
    """`looked_at` are the sessions that some front end shows.

    Whoever changes what admission depends on (focus, limits, what the disk has) sets `changed`. `inherited`
    are the ranks of those who wait for a request, by its id.
    """

    def __init__(self, looked_at: Callable[[], set[str]]) -> None:
        self._looked_at = looked_at
        self.waiting: list[Running] = []
        self.running: dict[str, Running] = {}
        self.inherited: dict[str, Rank] = {}
        self.changed = True

    def all(self) -> list[Running]:
        """Those that wait and those that run."""
        return [*self.waiting, *self.running.values()]

    def has_open_chat(self, session: str) -> bool:
        """Whether a session's own request has not ended."""
        return any(r.request.session == session and not r.is_side_task for r in self.all())

    def busy_chats(self) -> set[str]:
        """Sessions whose own request runs."""
        return {r.request.session for r in self.running.values() if not r.is_side_task}

    def put_to_wait(self, running: Running, now: float) -> None:
        """It waits from now on, and has not been told so."""
        running.t_waiting = now
        running.wait = running.told = None
        self.waiting.append(running)
        self.changed = True

    def end_wait(self, running: Running, now: float) -> None:
        """It waits no longer."""
        self.waiting.remove(running)
        running.waited_s = running.total_wait_s(now)
        running.t_waiting = running.wait = None
        running.t_served = now
        self.changed = True

    def own_rank(self, running: Running) -> Rank:
        """Its class, whoever waits for it."""
        if running.request.urgent:
            return Rank.FOCUSED
        if running.is_side_task:
            return Rank.SIDE_TASK
        return Rank.FOCUSED if running.request.session in self._looked_at() else Rank.CHAT

    def rank(self, running: Running) -> Rank:
        """Its class; whoever others wait for is as urgent as they are."""
        own = self.own_rank(running)
        return min(own, self.inherited.get(running.request.id, own))

    def urgency(self, running: Running, now: float) -> tuple[int, int]:
        """What has the lowest comes first. Long waiting makes a side task as urgent as a chat, no more."""
        rank = self.rank(running)
        if rank is Rank.SIDE_TASK and running.total_wait_s(now) >= AGING_S:
            rank = Rank.CHAT
        return rank, running.arrival

    def in_line(self, now: float) -> list[Running]:
        """Those that wait, most urgent first."""
        return sorted(self.waiting, key=lambda r: self.urgency(r, now))

    def focused(self) -> list[Running]:
        """What runs of those whom the user looks at or waits for."""
        return [running for running in self.running.values() if self.rank(running) is Rank.FOCUSED]

    def active(self, now: float) -> tuple[ActiveRequest, ...]:
        """All that has not ended: what waits in its order, then what runs."""
        waiting = self.in_line(now)
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
                is_first=self.own_rank(running) is Rank.FOCUSED,
            )
            for running in (*waiting, *self.running.values())
        )
