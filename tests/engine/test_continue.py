"""A reply that was cut is gone on with as if nothing had happened, and costs next to nothing."""

import pytest

from samovar.core import commands
from samovar.core.chat import ChatMessage
from samovar.core.request import FinishReason, MismatchReason
from samovar.kv.index import common_prefix
from tests.engine.fake_backend import Kind, cold_reply
from tests.engine.harness import Asked, Engine, system, user, words

every_kind = pytest.mark.parametrize("kind", Kind)
trimming = pytest.mark.parametrize("kind", [Kind.DENSE, Kind.WINDOW])


def cut(engine: Engine, num_tokens: int = 20) -> Asked:
    """A reply of a longer one that ends at its `num_tokens`th token, and in a whole character."""
    for start in range(100):
        messages = [system(words(20)), user(words(30, start))]
        prompt = engine.loop.prompts.build(messages)
        whole = cold_reply(engine.kind, prompt, 2 * num_tokens)
        if len(whole) == 2 * num_tokens and engine.loop.prompts.text_of(whole[:num_tokens])[-1] != "\ufffd":
            asked = engine.ask("s", messages, max_tokens=num_tokens)
            assert asked.finished.reason is FinishReason.LENGTH
            assert len(asked.finished.tokens) == num_tokens
            return asked
    raise AssertionError("no such message")


@every_kind
def test_it_is_the_reply_that_an_uncut_one_would_have_been_and_processes_one_token(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    first = cut(engine)
    more = engine.ask("s", first.history(), max_tokens=20)
    assert more.finished.stats.processed_tokens == 1
    assert more.finished.stats.mismatch is None
    whole = cold_reply(kind, first.prompt, 40)
    assert [*first.finished.tokens, *more.finished.tokens] == whole[: 20 + len(more.finished.tokens)]
    assert more.finished.begun == first.finished.tokens
    assert more.history()[:-1] == first.history()[:-1]
    assert more.history()[-1].content == first.finished.reply + more.finished.reply
    engine.check_all_ended()


@every_kind
def test_it_comes_from_ram_as_well(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    first = cut(engine)
    engine.focus("other")
    engine.ask("other", [user(words(40, 5))])
    assert engine.context_of("s") == []
    more = engine.ask("s", first.history())
    assert more.finished.stats.processed_tokens == 1
    engine.check_all_ended()


@every_kind
def test_a_reply_that_was_stopped_goes_on(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    asked = engine.submit("s", engine.talkative([system(words(20))], 30, 40), max_tokens=None)
    while len(asked.text) < 30:
        engine.step()
        engine.loop.serving._telling.send_text(engine.loop.requests.running[asked.request.id], 0.0)
    engine.post(commands.Cancel(asked.request.id))
    engine.drain()
    assert asked.finished.reason is FinishReason.CANCELLED
    more = engine.ask("s", asked.history())
    assert more.finished.stats.processed_tokens <= (2 if kind.value.can_trim else 16 + 2)
    engine.check_all_ended()


@trimming
def test_a_reply_cut_inside_a_character_goes_on_in_front_of_it(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    for start in range(100):
        messages = [user(words(30, start))]
        whole = cold_reply(kind, engine.loop.prompts.build(messages), 40)
        halves = [
            i for i in range(1, len(whole)) if engine.backend.piece(whole[i - 1])[-1:] in (b"\x9f", b"\xc3")
        ]
        if not halves:
            continue
        first = engine.ask("s", messages, max_tokens=halves[-1])
        assert len(first.finished.tokens) < halves[-1], "the half is no part of the reply"
        more = engine.ask("s", first.history())
        assert more.prompt == first.prompt + first.finished.tokens
        assert more.finished.stats.processed_tokens <= 2
        engine.check_all_ended()
        return
    raise AssertionError("no reply with a part of a character")


def stopped_inside_a_token(engine: Engine) -> Asked:
    """A reply that ended at a stop string that is a part of a token's text."""
    for start in range(100):
        messages = [user(words(30, start))]
        prompt = engine.loop.prompts.build(messages)
        text = engine.loop.prompts.text_of(cold_reply(engine.kind, prompt, 40))
        if (place := text.find("3", 10)) > 0 and text[place - 2] == " ":
            asked = engine.ask("s", messages, max_tokens=None, stop=("3",))
            if asked.finished.reply == text[:place]:
                return asked
    raise AssertionError("no such reply")


@trimming
def test_a_reply_cut_by_a_stop_string_goes_on_where_its_text_ends(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    first = stopped_inside_a_token(engine)
    more = engine.ask("s", first.history())
    assert engine.loop.prompts.text_of(more.finished.begun) == first.finished.reply
    in_context = first.prompt + first.finished.tokens
    assert common_prefix(more.prompt, in_context) == len(in_context)
    assert more.finished.stats.processed_tokens <= 3
    mismatch = more.finished.stats.mismatch
    assert mismatch is None or mismatch.reason is MismatchReason.NEW_MESSAGE
    engine.check_all_ended()


@every_kind
def test_a_stop_string_that_began_before_ends_it(kind: Kind) -> None:
    engine = Engine(kind)
    first = cut(engine)
    text = engine.loop.prompts.text_of(cold_reply(kind, first.prompt, 40))
    end = len(first.finished.reply)
    more = engine.ask("s", first.history(), stop=(text[end - 1 : end + 1],))
    assert (more.finished.reason, more.finished.reply) == (FinishReason.STOP, "")
    assert more.history()[-1].content == first.finished.reply
    engine.check_all_ended()


@every_kind
def test_the_turn_behind_it_has_a_new_message_and_repeats_the_rest(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    more = engine.ask("s", cut(engine).history(), max_tokens=4)
    after = engine.chat("s", more.history(), words(10, 3))
    stats = after.finished.stats
    assert stats.reused.total >= len(more.prompt) + len(more.finished.tokens) - 1
    assert stats.mismatch is not None
    assert stats.mismatch.reason is MismatchReason.NEW_MESSAGE
    engine.check_all_ended()


@every_kind
def test_what_is_remembered_of_the_chat_has_one_whole_reply(kind: Kind) -> None:
    engine = Engine(kind)
    more = engine.ask("s", cut(engine).history(), max_tokens=4)
    record = engine.loop._records.get("s")
    assert record is not None
    assert record.previous is not None
    remembered = [(message.role, message.content) for message in record.previous.messages]
    assert remembered == [(message.role, message.content) for message in more.history()]


@trimming
def test_a_stop_string_of_several_tokens_is_no_change_of_history(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    first = cut(engine)
    pieces = [engine.backend.piece(token) for token in first.finished.tokens]
    place = next(i for i in range(5, 18) if all(piece[:1] == b" " for piece in pieces[i : i + 3]))
    stop = b"".join(pieces[place : place + 3]).decode()
    stopped = engine.ask("s", list(first.request.messages), max_tokens=None, stop=(stop,))
    assert len(stopped.finished.tokens) < stopped.finished.stats.generated_tokens - 1
    after = engine.chat("s", stopped.history(), words(3))
    assert after.finished.stats.mismatch is not None
    assert after.finished.stats.mismatch.reason is MismatchReason.NEW_MESSAGE


@every_kind
def test_a_reply_whose_tokens_nobody_knows_goes_on_once_and_is_known_then(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    written = ChatMessage(cut(engine).answer().role, " a0 b1 ")
    messages = [system(words(20)), user(words(30, 1)), written]
    more = engine.ask("s", messages, max_tokens=6)
    assert more.finished.begun == tuple(engine.backend.tokenize(" a0 b1 "))
    after = engine.chat("s", more.history(), words(3))
    assert after.finished.stats.reused.total >= len(more.prompt) + len(more.finished.tokens) - 1
    engine.check_all_ended()


@every_kind
def test_an_empty_reply_is_a_new_one(kind: Kind) -> None:
    engine = Engine(kind)
    messages = [system(words(20)), user(words(30))]
    plain = engine.ask("s", messages)
    empty = engine.ask("s", [*messages, ChatMessage(plain.answer().role, "")])
    assert empty.prompt == plain.prompt
    assert empty.finished.reply == plain.finished.reply
    assert empty.finished.begun == ()
    engine.check_all_ended()


def test_a_reply_that_fills_the_context_cannot_go_on() -> None:
    engine = Engine(num_cells=160)
    first = engine.ask("s", engine.talkative([], 100, 60), max_tokens=None)
    assert first.finished.reason is FinishReason.CONTEXT_FULL
    more = engine.ask("s", first.history())
    assert more.finished.reason is FinishReason.FAILED
    assert "context" in more.finished.error
    assert more.answer() == first.answer(), "nothing of it is lost"
