"""Texts are counted beside what runs, a slice at a time, and only who asks is told."""

import pytest

from samovar.core import commands, events
from samovar.engine.counting import MAX_BYTES, SLICE_CHARACTERS, slice_end
from samovar.engine.loop import ClientGone
from tests.engine.fake_backend import FakeBackend, Kind
from tests.engine.harness import Engine, user, words

toy = FakeBackend(Kind.DENSE)


def counted(engine: Engine) -> dict[str, tuple[str | None, tuple[int, ...] | None]]:
    """Answers by request, with the client that each went to; none comes twice."""
    answers = [(client, e) for client, e in engine.events if isinstance(e, events.TokensCounted)]
    found = {event.request_id: (client, event.counts) for client, event in answers}
    assert len(found) == len(answers)
    return found


def count(engine: Engine, name: str, *texts: str, client: str = "a") -> None:
    engine.post(commands.CountTokens(name, texts), client)


def step_until_counted(engine: Engine, name: str) -> int:
    """Steps that it took."""
    for steps in range(1000):
        if name in counted(engine):
            return steps
        engine.step()
    raise AssertionError("no answer")


def test_every_text_is_counted_as_it_is_tokenized_and_only_the_asker_is_told() -> None:
    engine = Engine()
    texts = (words(30), "", "<|im_end|>", " ".join(words(2000).split()))
    count(engine, "some", *texts, client="b")
    step_until_counted(engine, "some")
    assert counted(engine) == {"some": ("b", tuple(len(toy.tokenize(text)) for text in texts))}


def test_nothing_to_count_is_answered_too() -> None:
    engine = Engine()
    count(engine, "none")
    engine.step()
    assert counted(engine) == {"none": ("a", ())}


def test_a_running_reply_goes_on_with_a_slice_between_its_steps() -> None:
    engine = Engine()
    asked = engine.submit("s", engine.talkative([], 10, 12), max_tokens=12)
    engine.run_until_started(asked)
    sizes: list[int] = []
    tokenize = engine.loop._counting._tokenize

    def spy(text: str) -> list[int]:
        sizes.append(len(text))
        return tokenize(text)

    engine.loop._counting._tokenize = spy
    count(engine, "long", "x" * 20 * SLICE_CHARACTERS)
    while not asked.ended:
        decoded, slices = engine.backend.num_decoded, len(sizes)
        engine.step()
        assert engine.backend.num_decoded > decoded, "the reply is not held up"
        assert len(sizes) - slices == 1
    assert max(sizes) <= SLICE_CHARACTERS
    step_until_counted(engine, "long")
    assert counted(engine)["long"] == ("a", (20 * SLICE_CHARACTERS,))
    engine.check_all_ended()


def test_a_short_text_is_not_held_up_by_a_long_one() -> None:
    engine = Engine()
    count(engine, "long", "x" * 100 * SLICE_CHARACTERS)
    count(engine, "short", words(5), client="b")
    assert step_until_counted(engine, "short") <= 3
    assert "long" not in counted(engine)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        pytest.param("x" * MAX_BYTES, True, id="as long as may be"),
        pytest.param("é" * MAX_BYTES, False, id="twice that in bytes"),
    ],
)
def test_more_than_a_megabyte_is_refused_at_once(text: str, known: bool) -> None:
    engine = Engine()
    count(engine, "big", text)
    engine.step()
    assert ("big" not in counted(engine)) == known
    if not known:
        assert counted(engine)["big"] == ("a", None)


def test_nobody_is_told_after_leaving() -> None:
    engine = Engine()
    count(engine, "long", "x" * 20 * SLICE_CHARACTERS, client="b")
    count(engine, "mine", "x" * 3 * SLICE_CHARACTERS)
    engine.step()
    engine.loop.post(ClientGone("b"))
    step_until_counted(engine, "mine")
    engine.step(30)
    assert set(counted(engine)) == {"mine"}


def test_without_a_model_nothing_is_counted_and_nothing_is_woken() -> None:
    engine = Engine(keep_alive_s=60.0)
    engine.ask("s", [user(words(10))])
    engine.now += 60.0
    engine.step()
    assert not engine.backend.loaded
    count(engine, "late", words(5))
    engine.step()
    assert counted(engine)["late"] == ("a", None)
    assert not engine.backend.loaded


def test_what_is_being_counted_is_counted_before_the_model_sleeps() -> None:
    engine = Engine(keep_alive_s=60.0)
    engine.ask("s", [user(words(10))])
    count(engine, "long", "x" * 5 * SLICE_CHARACTERS)
    engine.now += 60.0
    step_until_counted(engine, "long")
    assert counted(engine)["long"] == ("a", (5 * SLICE_CHARACTERS,))
    engine.step()
    assert not engine.backend.loaded


def test_an_engine_that_ends_answers() -> None:
    engine = Engine()
    count(engine, "long", "x" * 20 * SLICE_CHARACTERS)
    engine.step()
    engine.close()
    assert counted(engine)["long"] == ("a", None)


def test_a_long_text_is_cut_between_words() -> None:
    text = "some words, and more " * 1000
    pos, ends = 0, []
    while pos < len(text):
        end = slice_end(text, pos)
        assert pos < end <= pos + SLICE_CHARACTERS
        ends.append(end)
        pos = end
    assert all(text[end] == " " and text[end - 1].isalpha() and text[end + 1].isalpha() for end in ends[:-1])
