"""What those who wait are told: guesses from what goes before them."""

from samovar.core.chat import ChatMessage, Role
from samovar.core.events import Event, RequestQueued, WaitReason
from samovar.core.request import Request, RequestKind
from samovar.engine.queueing import TELL_S, Queue
from samovar.engine.running import Running
from samovar.engine.scheduler import StepCosts
from samovar.engine.stream import TextStream

COSTS = StepCosts(prefill_token_ms=1.0, decode_step_ms=10.0, extra_decode_ms=10.0)


def running(name: str, kind: RequestKind = RequestKind.SIDE_TASK, generated: int = 0) -> Running:
    """A request that has read its prompt of one token, and has written so many."""
    request = Request(name, "s", (ChatMessage(Role.USER, "x"),), kind)
    return Running(request, "client", (1,), [1] * (1 + generated), TextStream(), 0)


def test_a_side_task_is_expected_to_be_as_long_as_side_tasks_were() -> None:
    queue = Queue(lambda _client, _event: None)
    chat_before = queue.tokens_left(running("chat", RequestKind.CHAT))
    for _ in range(50):
        queue.note_end(running("ended", generated=20))
    assert queue.tokens_left(running("task")) == 20
    assert queue.tokens_left(running("chat", RequestKind.CHAT)) == chat_before


def test_the_first_place_is_free_when_one_of_those_at_work_has_ended() -> None:
    told: list[Event] = []
    queue = Queue(lambda _client, event: told.append(event))
    waiting = [running(name) for name in ("first", "second")]
    for one in waiting:
        one.wait = WaitReason.ROOM
    at_work = [running(str(i), generated=1) for i in range(4)]
    for now in (0.0, TELL_S):
        queue.tell(waiting, at_work, [], COSTS, now)
    estimates = [event.estimate_ms for event in told if isinstance(event, RequestQueued)]
    work = [10.0 * queue.tokens_left(one) for one in at_work]
    assert len(estimates) == 2
    assert estimates[0] is not None
    assert max(work) <= estimates[0] <= max(work) + 10, "as one of the four takes, not as all of them"
    assert estimates[1] is not None
    assert estimates[1] > estimates[0]
