"""Positions that are moved: what is saved by it, and that nobody else gets what is not exact."""

import pytest

from samovar.core import commands
from samovar.core.chat import ChatMessage
from samovar.core.request import FinishReason, MismatchReason
from samovar.kv.planner import MIN_MOVED, Cut, find_cut
from tests.engine.fake_backend import Kind
from tests.engine.harness import BLOCK, Asked, Engine, system, user, words


def long_chat(engine: Engine) -> list[ChatMessage]:
    """A focused chat of three turns."""
    engine.focus("s")
    history = [system(words(20))]
    for number in range(3):
        engine.chat("s", history, words(40, 3 + number))
    return history


def later_part(history: list[ChatMessage], text: str) -> list[ChatMessage]:
    """The chat without its first turn, and a new message."""
    return [history[0], *history[3:], user(text)]


def shifted(engine: Engine, history: list[ChatMessage], text: str = "go on") -> Asked:
    asked = engine.submit("s", later_part(history, text), may_shift=True)
    engine.drain()
    return asked


def test_turns_left_out_cost_only_what_is_new() -> None:
    engine = Engine(Kind.DENSE)
    history = long_chat(engine)
    asked = shifted(engine, history)
    stats = asked.finished.stats
    assert asked.finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert stats.processed_tokens <= 30, "the template around it, byte by byte"
    assert stats.reused.context == stats.prompt_tokens - stats.processed_tokens
    assert stats.mismatch is not None
    assert stats.mismatch.reason is MismatchReason.TURNS_LEFT_OUT
    (sequence,) = engine.loop.slots.used()
    assert sequence.exact is not None
    assert len(sequence.stored) * BLOCK <= sequence.exact, "what has moved is not stored"


def test_the_turn_after_it_goes_on_there() -> None:
    engine = Engine(Kind.DENSE)
    history = long_chat(engine)
    first = shifted(engine, history)
    again = engine.submit("s", [*first.history(), user("and on")], may_shift=True)
    engine.drain()
    assert again.finished.stats.processed_tokens <= 30


def test_a_draft_is_prepared_behind_what_has_moved() -> None:
    engine = Engine(Kind.DENSE)
    history = long_chat(engine)
    first = shifted(engine, history)
    messages = [*first.history(), user(words(9))]
    ahead = engine.prepare("s", messages, complete=True, may_shift=True)
    engine.drain()
    assert ahead.finished.reason is FinishReason.STOP
    assert 9 <= ahead.finished.stats.processed_tokens <= 40
    (sequence,) = engine.loop.slots.used()
    assert sequence.exact is not None
    assert len(sequence.stored) * BLOCK <= sequence.exact, "none of it is stored"
    again = engine.submit("s", messages, may_shift=True)
    engine.drain()
    assert again.finished.stats.processed_tokens == 1


def test_a_draft_that_may_not_shift_leaves_alone_what_has_moved() -> None:
    engine = Engine(Kind.DENSE)
    first = shifted(engine, long_chat(engine))
    before = engine.context_of("s")
    ahead = engine.prepare("s", [*first.history(), user(words(9))])
    engine.drain()
    assert ahead.finished.reason is FinishReason.CANCELLED
    assert engine.context_of("s") == before


@pytest.mark.parametrize("kind", Kind)
def test_a_request_that_may_not_shift_is_exact(kind: Kind) -> None:
    engine = Engine(kind)
    history = long_chat(engine)
    engine.focus("s")
    first = shifted(engine, history)
    after = engine.submit("s", [*first.history(), user("and on")])
    engine.drain()
    engine.check_ended(after)
    other = engine.ask("t", later_part(history, "and what else"))
    engine.check_ended(other)
    again = engine.ask("s", [*history, user("all of it")])
    engine.check_ended(again)


@pytest.mark.parametrize("kind", [Kind.WINDOW, Kind.HYBRID, Kind.RECURRENT])
def test_where_the_model_cannot_shift_all_is_processed(kind: Kind) -> None:
    engine = Engine(kind)
    asked = shifted(engine, long_chat(engine))
    engine.check_ended(asked)
    assert asked.finished.stats.processed_tokens > 60


def test_a_chat_that_has_left_the_context_is_processed() -> None:
    engine = Engine(Kind.DENSE)
    history = long_chat(engine)
    first = shifted(engine, history)
    engine.focus("t")
    engine.ask("t", [user(words(20))])
    engine.focus("s")
    again = engine.submit("s", [*first.history(), user("and on")], may_shift=True)
    engine.drain()
    engine.check_ended(again)


def test_cells_that_another_request_owns_too_are_not_moved() -> None:
    engine = Engine(Kind.DENSE)
    history = long_chat(engine)
    task = engine.submit("s", [*history, user("a title")], side_task=True, max_tokens=None)
    engine.run_until_started(task)
    asked = engine.submit("s", later_part(history, "go on"), may_shift=True)
    engine.run_until_started(asked)
    engine.post(commands.Cancel(task.request.id))
    engine.drain()
    engine.check_ended(asked)
    engine.check_ended(task)


def test_a_side_task_on_a_shifted_chat_is_exact() -> None:
    engine = Engine(Kind.DENSE)
    first = shifted(engine, long_chat(engine))
    task = engine.ask("s", [*first.history(), user("a title")], side_task=True)
    engine.check_ended(task)


def test_a_cut_is_found_where_it_pays() -> None:
    head, dropped, rest = list(range(20)), list(range(100, 160)), list(range(200, 260))
    new = [1, 2, 3]
    assert find_cut([*head, *rest, *new], [*head, *dropped, *rest]) == Cut(20, 80, 140)
    assert find_cut([*head, *rest, *new], [*head, *dropped, *rest, 7]) == Cut(20, 80, 140)
    assert find_cut([*head, *dropped, *rest, *new], [*head, *dropped, *rest]) is None
    short = rest[: MIN_MOVED - 1]
    assert find_cut([*head, *short, *new], [*head, *dropped, *short]) is None
    assert find_cut(head, [*head, *dropped]) is None
