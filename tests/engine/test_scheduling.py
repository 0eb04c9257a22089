"""Who is served when: the focused chat's share, ageing, followers of a common beginning, the queue.

The clock is the fake machine's: a step takes what it would take on one.
"""

import itertools
from collections.abc import Callable

import pytest

from samovar.core import commands, events
from samovar.core.chat import ChatMessage
from samovar.core.events import RequestQueued, WaitReason
from samovar.core.request import FinishReason
from samovar.core.snapshot import ActivePhase, CacheSnapshot
from samovar.engine.admission import PATIENCE_S
from tests.engine.fake_backend import Kind
from tests.engine.harness import BLOCK, Asked, Engine, system, user, words

REPLY = 60
BOUND = 1.25


def slow(kind: Kind = Kind.DENSE, *, num_cells: int = 4000, ram_limit: str = "unlimited") -> Engine:
    """An engine on a small processor: every token of a step costs nearly as much as the first."""
    engine = Engine(kind, num_cells=num_cells, num_slots=8, ram_limit=ram_limit)
    engine.machine.decode_ms, engine.machine.extra_ms, engine.machine.token_ms = 14.0, 10.0, 6.0
    engine.machine.cell_ms = 0.0036
    return engine


def focused_chat(engine: Engine, count: int = 100) -> list[ChatMessage]:
    """A message whose answer is long, in the chat that the user looks at."""
    engine.focus("focused")
    return engine.talkative([], count, REPLY)


def ms_per_token(asked: Asked) -> float:
    rate = asked.finished.stats.tokens_per_second
    assert rate is not None
    return 1000 / rate


def queue_events(engine: Engine, asked: Asked) -> list[RequestQueued]:
    return [e for _, e in engine.events if isinstance(e, RequestQueued) and e.request_id == asked.request.id]


def reasons(engine: Engine, asked: Asked) -> list[WaitReason]:
    """Why it waited, without repetition."""
    return [reason for reason, _ in itertools.groupby(e.reason for e in queue_events(engine, asked))]


def last_snapshot(engine: Engine) -> CacheSnapshot:
    found = [e.snapshot for _, e in engine.events if isinstance(e, events.CacheChanged)]
    return found[-1]


def describe(engine: Engine) -> CacheSnapshot:
    engine.post(commands.Describe())
    engine.step()
    return last_snapshot(engine)


def end(engine: Engine, *asked: Asked) -> None:
    engine.serve_until(lambda: all(one.ended for one in asked))


def has_text(asked: Asked) -> Callable[[], bool]:
    return lambda: bool(asked.text)


# ---- the focused chat's share


@pytest.mark.parametrize("count", [3, 40])
def test_side_tasks_on_the_focused_chat_take_their_share_and_no_more(count: int) -> None:
    engine = slow()
    messages = focused_chat(engine)
    alone = engine.ask("focused", messages, max_tokens=REPLY)
    again = engine.submit("focused", messages, max_tokens=REPLY)
    engine.serve_until(has_text(again))
    tasks = [
        engine.submit("focused", [*messages, user(words(count, i))], max_tokens=100, side_task=True)
        for i in range(4)
    ]
    shares = []
    while not again.ended:
        shares.append(describe(engine).others_share)
    assert ms_per_token(again) <= BOUND * ms_per_token(alone)
    assert any(task.started for task in tasks), "they have had their share"
    assert max(share or 0.0 for share in shares) > 0.05
    assert ms_per_token(again) > 1.03 * ms_per_token(alone)
    end(engine, *tasks)
    assert describe(engine).others_share is None
    engine.check_all_ended()


def test_short_chats_and_prompts_beside_keep_the_bound_too() -> None:
    engine = slow()
    messages = focused_chat(engine)
    alone = engine.ask("focused", messages, max_tokens=REPLY)
    for turn in range(3):
        again = engine.submit("focused", messages, max_tokens=REPLY)
        others = [engine.submit(f"s{turn}{i}", [user(words(60, i))], max_tokens=20) for i in range(4)]
        end(engine, again)
        assert ms_per_token(again) <= BOUND * ms_per_token(alone)
        end(engine, *others)
    engine.check_all_ended()


def test_where_further_sequences_cost_nothing_nobody_waits_for_a_turn() -> None:
    engine = Engine(num_cells=2000, num_slots=8)
    messages = focused_chat(engine)
    first = engine.submit("focused", messages, max_tokens=REPLY)
    engine.serve_until(has_text(first))
    tasks = [
        engine.submit("focused", [*messages, user(words(3, i))], max_tokens=5, side_task=True)
        for i in range(4)
    ]
    end(engine, *tasks)
    assert not first.ended
    engine.check_all_ended()


def test_a_chat_whose_cells_would_slow_the_focused_one_waits_for_its_end() -> None:
    engine = slow()
    messages = focused_chat(engine)
    first = engine.submit("focused", messages, max_tokens=REPLY)
    engine.serve_until(has_text(first))
    heavy = engine.submit("heavy", [user(words(1000))], max_tokens=5)
    light = engine.submit("light", [user(words(40, 5))], max_tokens=5)
    end(engine, first)
    assert light.started
    assert heavy.started is None
    assert reasons(engine, heavy) == [WaitReason.FOCUS]
    estimates = [e.estimate_ms for e in queue_events(engine, heavy)]
    assert all(estimate is not None and 0 < estimate < 60_000 for estimate in estimates)
    end(engine, heavy, light)
    engine.check_all_ended()


def test_what_runs_and_is_heavy_leaves_when_the_focused_chat_begins_and_goes_on_afterwards() -> None:
    engine = slow()
    heavy = engine.submit("heavy", engine.talkative([], 1000, 30), max_tokens=30)
    engine.serve_until(has_text(heavy))
    first = engine.submit("focused", focused_chat(engine), max_tokens=REPLY)
    engine.serve_until(has_text(first))
    assert [s.session for s in engine.loop.slots.used()] == ["focused"]
    written = heavy.text
    end(engine, first)
    assert heavy.text == written
    end(engine, heavy)
    assert heavy.finished.stats.processed_tokens == len(heavy.prompt), "nothing of it was read again"
    engine.check_all_ended()


def test_a_side_task_that_leaves_nothing_behind_begins_anew_after_it_had_to_leave() -> None:
    engine = slow()
    task = engine.submit("heavy", [user(words(1000))], max_tokens=5, side_task=True)
    engine.serve_until(lambda: task.started is not None)
    engine.step(4)
    assert not task.text
    first = engine.submit("focused", focused_chat(engine), max_tokens=REPLY)
    engine.serve_until(has_text(first))
    assert [s.session for s in engine.loop.slots.used()] == ["focused"]
    end(engine, first)
    assert reasons(engine, task) == [WaitReason.FOCUS]
    end(engine, task)
    assert task.finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert task.finished.stats.processed_tokens > len(task.prompt), "some of it was read twice"
    assert engine.loop.index.match(task.prompt).num_tokens < BLOCK, "nothing of it is in the cache"
    engine.check_all_ended()


def test_whoever_has_waited_very_long_for_the_focused_chat_goes_on_beside_it() -> None:
    engine = slow()
    messages = focused_chat(engine)
    engine.machine.decode_ms = 2000.0
    first = engine.submit("focused", messages, max_tokens=None)
    engine.serve_until(has_text(first))
    since = engine.machine.now
    heavy = [engine.submit(f"heavy{i}", [user(words(1500, i))], max_tokens=5) for i in range(2)]
    engine.serve_until(lambda: heavy[0].started is not None)
    assert PATIENCE_S <= engine.machine.now - since < PATIENCE_S + 10
    assert not first.ended
    assert heavy[1].started is None, "one at a time"
    engine.post(commands.Cancel(first.request.id))
    engine.check_all_ended()


# ---- classes


def test_a_focus_change_makes_a_chat_the_first() -> None:
    engine = slow()
    first = engine.submit("focused", focused_chat(engine), max_tokens=REPLY)
    other = engine.submit("other", [user(words(1000))], max_tokens=5)
    engine.serve_until(has_text(first))
    assert other.started is None
    engine.focus("other")
    assert other.started
    assert not first.ended
    assert {a.session: a.is_first for a in describe(engine).active} == {"focused": False, "other": True}
    engine.check_all_ended()


def test_somebody_waits_for_an_urgent_side_task_so_it_goes_with_the_focused_chat() -> None:
    engine = slow()
    messages = focused_chat(engine)
    first = engine.submit("focused", messages, max_tokens=REPLY)
    engine.serve_until(has_text(first))
    idle = engine.submit("focused", [*messages, user(words(40))], max_tokens=5, side_task=True)
    urgent = engine.submit(
        "focused", [*messages, user(words(40, 1))], max_tokens=5, side_task=True, urgent=True
    )
    end(engine, urgent)
    assert not first.ended
    assert not idle.text
    assert [a.is_first for a in describe(engine).active if a.id == idle.request.id] == [False]
    engine.check_all_ended()


def test_a_side_task_is_served_under_a_stream_of_chats() -> None:
    engine = slow()
    number = itertools.count()

    def ask() -> Asked:
        i = next(number)
        return engine.submit(f"s{i}", [user(words(300, i) + f" {i}")], max_tokens=3)

    chats = [ask(), ask()]
    task = engine.submit("t", [user(words(60, 3))], max_tokens=3, side_task=True)
    while not task.ended:
        chats = [*(chat for chat in chats if not chat.ended), *(ask() for chat in chats if chat.ended)]
        engine.step()
        assert len(engine.asked) < 200, "the side task starves"
    engine.check_all_ended()


def test_a_side_task_that_has_waited_for_a_slot_is_not_thrown_out_for_fresh_chats() -> None:
    engine = Engine(num_cells=2000, num_slots=2)
    engine.machine.token_ms = 20.0
    number = itertools.count()

    def ask() -> Asked:
        i = next(number)
        return engine.submit(f"s{i}", [user(words(100, i) + f" {i}")], max_tokens=3)

    chats = [ask() for _ in range(4)]
    task = engine.submit("t", [user(words(60, 3))], max_tokens=3, side_task=True)
    while not task.ended:
        chats = [*(chat for chat in chats if not chat.ended), *(ask() for chat in chats if chat.ended)]
        engine.step()
        assert len(engine.asked) < 200, "the side task starves"
    engine.check_all_ended()


# ---- a common beginning


def followers(engine: Engine, count: int = 3) -> list[Asked]:
    common = [system(words(200)), user(words(20))]
    return [engine.submit(f"f{i}", [*common[:1], user(words(20, i))], max_tokens=4) for i in range(count)]


@pytest.mark.parametrize("kind", Kind)
def test_requests_with_a_common_beginning_process_it_once(kind: Kind) -> None:
    engine = Engine(kind, num_cells=2000)
    asked = followers(engine)
    engine.check_all_ended()
    processed = [one.finished.stats.processed_tokens for one in asked]
    assert processed[0] == len(asked[0].prompt)
    grain = 0 if kind is Kind.DENSE else BLOCK
    assert max(processed[1:]) <= 45 + grain, "only what is its own"


@pytest.mark.parametrize("kind", Kind)
def test_equal_requests_process_their_prompt_once(kind: Kind) -> None:
    engine = Engine(kind, num_cells=2000, num_slots=4)
    messages = [user(words(200))]
    asked = [engine.submit("s", messages, max_tokens=4) for _ in range(4)]
    engine.check_all_ended()
    processed = sorted(one.finished.stats.processed_tokens for one in asked)
    assert sum(processed) <= len(asked[0].prompt) + 3 * (BLOCK if kind is not Kind.DENSE else 1)


@pytest.mark.parametrize("kind", Kind)
def test_where_the_first_one_is_cancelled_the_next_one_goes_on_from_there(kind: Kind) -> None:
    engine = Engine(kind, num_cells=2000)
    asked = followers(engine)
    engine.serve_until(lambda: asked[0].started is not None)
    engine.step(5)
    assert asked[1].started is None
    engine.post(commands.Cancel(asked[0].request.id))
    engine.step()
    assert asked[0].finished.reason is FinishReason.CANCELLED
    assert asked[1].started is not None
    engine.check_all_ended()
    total = sum(one.finished.stats.processed_tokens for one in asked)
    assert total <= len(asked[0].prompt) + 2 * (40 + BLOCK)


@pytest.mark.parametrize("kind", Kind)
def test_without_a_cache_only_cells_can_be_waited_for(kind: Kind) -> None:
    engine = Engine(kind, num_cells=2000, ram_limit="off")
    asked = followers(engine)
    engine.step(3)
    assert [one.started is not None for one in asked] == [True, *[kind is not Kind.DENSE] * 2]
    engine.check_all_ended()


def test_whoever_the_focused_chat_waits_for_is_as_urgent() -> None:
    engine = slow()
    task = engine.submit("other", [system(words(200)), user("a")], max_tokens=40, side_task=True)
    engine.run_until_started(task)
    chats = [engine.submit(f"s{i}", [user(words(300, 5 + i))], max_tokens=3) for i in range(2)]
    engine.focus("focused")
    first = engine.submit("focused", [system(words(200)), user("b")], max_tokens=4)
    engine.run_until_started(first)
    assert not any(chat.text for chat in chats)
    end(engine, first)
    assert first.finished.stats.reused.total > 200
    engine.check_all_ended()


# ---- the queue


def test_who_waits_is_told_its_place_and_every_change_of_it() -> None:
    engine = Engine(num_cells=2000, num_slots=1)
    engine.machine.decode_ms = 300.0
    asked = [engine.submit(f"s{i}", engine.talkative([], 30 + i, 8), max_tokens=8) for i in range(4)]
    engine.check_all_ended()
    assert queue_events(engine, asked[0]) == []
    for number, one in enumerate(asked[1:], 1):
        told = queue_events(engine, one)
        positions = [position for position, _ in itertools.groupby(e.position for e in told)]
        assert positions == list(range(number, 0, -1))
        assert told[-1].reason is WaitReason.ROOM
        assert all(e.estimate_ms is not None for e in told)
    first = [queue_events(engine, one)[0].estimate_ms or 0.0 for one in asked[1:]]
    assert sorted(first) == first, "who stands behind waits longer"
    assert first[0] < first[2]


def test_the_queue_is_told_no_more_often_than_one_can_read() -> None:
    engine = Engine(num_cells=2000, num_slots=1)
    for i in range(12):
        engine.submit(f"s{i}", [user(words(10, i))], max_tokens=2)
    last = engine.submit("last", [user("x")], max_tokens=2)
    since = engine.machine.now
    engine.check_all_ended()
    assert len(queue_events(engine, last)) <= 1 + 4 * (engine.machine.now - since)


def test_the_snapshot_tells_of_all_that_has_not_ended() -> None:
    engine = Engine(num_cells=2000, num_slots=1)
    first = engine.submit("s0", engine.talkative([], 30, 20), max_tokens=20)
    second = engine.submit("s1", [user(words(30))], max_tokens=5, side_task=True)
    engine.run_until_started(first)
    reading = {a.id: a for a in describe(engine).active}[first.request.id]
    assert (reading.phase, reading.total) == (ActivePhase.READING, len(first.prompt))
    assert 0 < reading.done < reading.total
    engine.serve_until(has_text(first))
    snapshot = describe(engine)
    active = {a.id: a for a in snapshot.active}
    assert (snapshot.num_running, snapshot.num_waiting) == (1, 1)
    assert active[first.request.id].phase is ActivePhase.WRITING
    assert active[first.request.id].generated > 0
    waits = active[second.request.id]
    assert (waits.phase, waits.position, waits.generated) == (ActivePhase.QUEUED, 1, 0)
    assert waits.waited_ms > 0
    engine.check_all_ended()
    assert describe(engine).active == ()


# ---- ends


def test_a_cancelled_request_frees_its_slot_at_once_in_every_state() -> None:
    engine = slow()
    engine.focus("focused")
    messages = engine.talkative([], 100, 90)
    first = engine.submit("focused", messages, max_tokens=None)
    engine.serve_until(has_text(first))
    waits_for_focus = engine.submit("heavy", [user(words(1000, 3))])
    reads = engine.submit("t", [user(words(150, 1))], side_task=True)
    engine.run_until_started(reads)
    follows = engine.submit("u", [user(words(150, 1) + " long")], side_task=True)
    more = engine.talkative(messages, 5, 60)
    writes = engine.submit("focused", more, max_tokens=None, side_task=True, urgent=True)
    engine.serve_until(has_text(writes))
    engine.step(10)
    assert reasons(engine, waits_for_focus) == [WaitReason.FOCUS]
    assert reasons(engine, follows) == [WaitReason.PREFIX]
    assert reads.started
    assert not reads.text
    for asked in (waits_for_focus, follows, reads, writes, first):
        engine.post(commands.Cancel(asked.request.id))
        engine.step()
        assert asked.finished.reason is FinishReason.CANCELLED
        names = {s.owner for s in engine.loop.slots.used()}
        assert asked.request.id not in names
        assert all(a.id != asked.request.id for a in last_snapshot(engine).active)
    assert [s.session for s in engine.loop.slots.used()] == ["focused"]
    assert engine.loop.slots.num_free == engine.loop.slots.num_slots - 1
    engine.check_all_ended()


def test_twenty_side_tasks_at_once_all_end() -> None:
    engine = slow(num_cells=600)
    messages = focused_chat(engine)
    first = engine.submit("focused", messages, max_tokens=REPLY)
    tasks = [
        engine.submit("focused", [*messages, user(words(10, i))], max_tokens=6, side_task=True)
        for i in range(20)
    ]
    end(engine, first)
    engine.check_all_ended()
    assert sum(task.finished.stats.processed_tokens for task in tasks) <= 20 * 40
