"""Work ahead on the fake backend: what is left to do after Enter, who goes first, what it may not cost."""

from pathlib import Path

import pytest

from samovar.core import commands
from samovar.core.chat import ChatMessage
from samovar.core.request import FinishReason, MismatchReason
from samovar.core.snapshot import Tier
from tests.engine.fake_backend import Kind
from tests.engine.harness import BLOCK, Asked, Engine, system, user, words

every_kind = pytest.mark.parametrize("kind", Kind)
trimming = pytest.mark.parametrize("kind", [Kind.DENSE, Kind.WINDOW])

# What stands behind the words of a message in this template: its end, and the header of the reply.
END_TOKENS = len("\n") + 2 + len("assistant\n")


def chat_with_a_turn(engine: Engine, session: str = "s", own: int = 30) -> list[ChatMessage]:
    """A focused chat with one finished turn: its history."""
    engine.focus(session)
    history = [system(words(20))]
    engine.chat(session, history, words(own))
    return history


def prepare(
    engine: Engine, session: str, history: list[ChatMessage], text: str, *, complete: bool = False
) -> Asked:
    """Process a draft ahead, to its end."""
    asked = engine.prepare(session, [*history, user(text)], complete=complete)
    engine.drain()
    return asked


def totals(engine: Engine) -> tuple[int, int, int]:
    """Tokens processed ahead, used, wasted."""
    ahead = engine.loop.ledger.ahead
    return ahead.tokens, ahead.used_tokens, ahead.wasted_tokens


def typed(count: int, start: int = 5) -> list[str]:
    """A message of `count` words as it is typed, word by word."""
    return [words(end, start) for end in range(1, count + 1)]


# ---- what it is worth


@every_kind
def test_after_enter_only_the_end_of_the_prompt_is_processed(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    for draft in ["", *typed(20)]:
        assert prepare(engine, "s", history, draft).finished.reason is FinishReason.STOP
    asked = engine.chat("s", history, words(21, 5))
    assert asked.finished.stats.processed_tokens == END_TOKENS + 1
    tokens, used, wasted = totals(engine)
    assert (tokens, wasted) == (used, 0)
    assert asked.finished.stats.ahead_tokens == used > 20
    engine.check_all_ended()


@every_kind
@pytest.mark.parametrize("count", [3, 9, 13, 20])
def test_where_a_message_is_complete_one_token_is_left(kind: Kind, count: int) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    ahead = prepare(engine, "s", history, words(count), complete=True)
    assert ahead.finished.reason is FinishReason.STOP
    steps = engine.backend.num_steps
    asked = engine.chat("s", history, words(count), max_tokens=1)
    can_trim = kind.value.can_trim
    assert asked.finished.stats.processed_tokens == (1 if can_trim else END_TOKENS)
    assert engine.backend.num_steps - steps == 1 or not kind.value.can_capture_late
    engine.check_all_ended()


@every_kind
def test_typing_on_takes_back_no_more_than_the_end_of_the_prompt(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    drafts = typed(24)
    for number, draft in enumerate(drafts):
        is_sentence = number % 8 == 7
        if is_sentence:
            prepare(engine, "s", history, draft, complete=True)
        else:
            prepare(engine, "s", history, draft)
    _, _, wasted = totals(engine)
    assert wasted <= 2 * (END_TOKENS + 1), "the last one was right"
    asked = engine.chat("s", history, drafts[-1])
    tokens, used, wasted = totals(engine)
    assert wasted <= 2 * (END_TOKENS + 1)
    assert tokens == used + wasted
    assert asked.finished.stats.processed_tokens == (1 if kind.value.can_trim else END_TOKENS)
    engine.check_all_ended()


@every_kind
def test_the_last_tokens_of_a_prompt_take_one_step_even_across_a_blocks_end(kind: Kind) -> None:
    for count in range(30, 30 + BLOCK):
        engine = Engine(kind)
        engine.focus("s")
        history = [system(words(20))]
        prepare(engine, "s", history, words(count))
        steps = engine.backend.num_steps
        asked = engine.chat("s", history, words(count), max_tokens=1)
        assert asked.finished.stats.processed_tokens <= END_TOKENS + 2
        if kind.value.can_capture_late:
            assert engine.backend.num_steps - steps == 1
        engine.check_all_ended()


@pytest.mark.parametrize("count", range(30, 30 + BLOCK))
def test_a_block_whose_end_lies_within_a_step_is_captured_after_it(count: int) -> None:
    engine = Engine()
    engine.focus("s")
    messages = engine.talkative([system(words(20))], count, 4)
    prepare(engine, "s", messages[:-1], messages[-1].content)
    asked = engine.submit("s", messages)
    engine.serve_until(lambda: bool(asked.text))
    (sequence,) = engine.loop.slots.used()
    assert len(sequence.stored) == len(sequence.tokens) // BLOCK
    engine.check_all_ended()


@every_kind
def test_replies_are_the_same_with_and_without_work_ahead(kind: Kind) -> None:
    replies = []
    for is_on in (False, True):
        engine = Engine(kind)
        history = chat_with_a_turn(engine)
        for turn in range(3):
            for number, draft in enumerate(typed(9, turn) if is_on else ()):
                prepare(engine, "s", history, draft, complete=number % 3 == turn)
            replies.append(engine.chat("s", history, words(10, turn)).finished.reply)
        engine.check_all_ended()
    assert replies[:3] == replies[3:]


@every_kind
def test_the_end_of_a_turn_is_processed_when_the_reply_is_there(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    ended = prepare(engine, "s", history, "")
    assert ended.finished.stats.processed_tokens > 0
    again = prepare(engine, "s", history, "")
    assert (again.finished.reason, again.finished.stats.processed_tokens) == (FinishReason.STOP, 0)
    asked = engine.chat("s", history, words(1))
    assert asked.finished.stats.processed_tokens == END_TOKENS + 1


@every_kind
def test_a_system_prompt_is_processed_when_its_chat_is_made(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    history = [system(words(50))]
    assert prepare(engine, "s", history, "").finished.stats.processed_tokens > 50
    asked = engine.chat("s", history, words(1))
    assert asked.finished.stats.processed_tokens == END_TOKENS + 1
    mismatch = asked.finished.stats.mismatch
    assert mismatch is not None
    assert mismatch.reason is MismatchReason.NEW_CHAT


@trimming
def test_an_edit_costs_what_follows_it(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    prepare(engine, "s", history, words(12))
    before, _, _ = totals(engine)
    edited = words(8) + " h7 h6 h5"
    second = prepare(engine, "s", history, edited)
    assert second.finished.stats.processed_tokens == 3
    assert totals(engine) == (before + 3, 0, 4)
    asked = engine.chat("s", history, edited)
    assert asked.finished.stats.processed_tokens == END_TOKENS
    assert totals(engine) == (before + 3, before - 1, 4)
    engine.check_all_ended()


@pytest.mark.parametrize("kind", [Kind.HYBRID, Kind.RECURRENT])
def test_where_nothing_can_be_trimmed_an_edit_goes_back_to_the_end_of_the_reply(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    length = len(engine.context_of("s"))
    prepare(engine, "s", history, words(6))
    edited = words(3) + " h7 h6"
    second = prepare(engine, "s", history, edited)
    assert second.finished.stats.reused.total >= length
    asked = engine.chat("s", history, edited)
    assert asked.finished.stats.processed_tokens == END_TOKENS
    mismatch = asked.finished.stats.mismatch
    assert mismatch is not None
    assert mismatch.reason is MismatchReason.NEW_MESSAGE
    engine.check_all_ended()


@every_kind
def test_a_chat_that_nobody_reads_is_kept_in_whole_blocks(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("other")
    asked = prepare(engine, "s", [system(words(70))], "")
    assert asked.finished.reason is FinishReason.STOP
    assert asked.finished.stats.processed_tokens % BLOCK == 0
    assert asked.finished.stats.processed_tokens > 60
    assert engine.context_of("s") == []
    assert totals(engine)[2] == 0
    first = engine.ask("s", [system(words(70)), user(words(3))])
    assert first.finished.stats.reused.host == first.finished.stats.ahead_tokens == totals(engine)[1]
    again = prepare(engine, "s", [system(words(70))], "")
    assert again.finished.stats.processed_tokens == 0


# ---- who goes first


@every_kind
def test_it_waits_while_anything_else_runs_and_goes_on_afterwards(kind: Kind) -> None:
    engine = Engine(kind, num_cells=1000)
    engine.focus("s")
    ahead = engine.prepare("s", [system(words(20)), user(words(100))])
    engine.step(4)
    begun = totals(engine)[0]
    assert 0 < begun < 100
    other = engine.submit("other", engine.talkative([system(words(40))], 20, 8))
    while not other.ended:
        engine.step()
        assert totals(engine)[0] == begun
    engine.drain()
    assert ahead.finished.reason is FinishReason.STOP
    assert totals(engine)[0] > 100
    engine.check_all_ended()


@every_kind
def test_a_request_that_comes_in_the_middle_of_a_step_is_served_next(kind: Kind) -> None:
    engine = Engine(kind, num_cells=1000)
    engine.focus("s")
    engine.prepare("s", [system(words(20)), user(words(100))])
    engine.step(3)
    submitted: list[Asked] = []

    def submit() -> None:
        if not submitted:
            submitted.append(engine.submit("other", [user(words(4))]))

    engine.backend.before_decode = submit
    before = totals(engine)[0]
    engine.step(2)
    assert submitted[0].started is not None
    broken_off = totals(engine)[0] == before
    assert broken_off == kind.value.can_trim, "where a step can be taken back, it is broken off"
    engine.check_all_ended()


@every_kind
def test_a_draft_does_not_break_off_a_reply(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    asked = engine.submit("s2", engine.talkative([], 10, 12))
    engine.run_until_started(asked)
    engine.backend.before_decode = lambda: engine.post(
        commands.Submit(engine.prepare("s", [*history, user(words(2))]).request)
    )
    before = engine.backend.num_decoded
    engine.step()
    assert engine.backend.num_decoded > before
    engine.backend.before_decode = lambda: None
    engine.check_all_ended()


@every_kind
def test_the_chats_own_request_ends_it_and_takes_its_cells(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    ahead = engine.prepare("s", [*history, user(words(60))])
    engine.step(3)
    done = totals(engine)[0]
    assert done > 0
    asked = engine.chat("s", history, words(60))
    assert ahead.finished.reason is FinishReason.CANCELLED
    assert asked.finished.stats.ahead_tokens == done
    engine.submit("s", history)
    during = engine.prepare("s", [*history, user(words(3))])
    engine.step()
    assert during.finished.reason is FinishReason.CANCELLED, "what the reply leaves is not known"
    engine.check_all_ended()


@every_kind
def test_a_newer_draft_takes_the_place_of_an_older_one(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    drafts = [engine.prepare("s", [*history, user(text)]) for text in typed(5)]
    engine.drain()
    reasons = [draft.finished.reason for draft in drafts]
    assert reasons == [FinishReason.CANCELLED] * 4 + [FinishReason.STOP]


@every_kind
@pytest.mark.parametrize("how", ["cancel", "gone", "forget", "stop"])
def test_it_ends_once_however_it_ends(kind: Kind, how: str) -> None:
    engine = Engine(kind)
    ahead = engine.prepare("s", [system(words(100)), user("")], client="b")
    engine.step(2)
    match how:
        case "cancel":
            engine.post(commands.Cancel(ahead.request.id))
        case "gone":
            engine.client_gone("b")
        case "forget":
            engine.post(commands.Forget("s"))
        case _:
            engine.post(commands.StopHost())
            engine.loop.run()
    engine.step()
    assert ahead.finished.reason is FinishReason.CANCELLED
    assert engine.context_of("s") == []
    if how == "forget":
        assert engine.stored_blocks() == set()
        assert totals(engine)[0] == totals(engine)[2] > 0


# ---- what it may not cost


@every_kind
def test_it_never_evicts(kind: Kind) -> None:
    engine = Engine(kind, token_limit="150")
    history = chat_with_a_turn(engine, own=60)
    chat = engine.context_of("s")
    assert engine.loop.index.match(chat).num_tokens == len(chat)
    prepare(engine, "s", history, words(150))
    assert engine.loop.ledger.evictions == 0
    assert engine.loop.index.match(chat).num_tokens == len(chat)
    engine.chat("s", history, words(150))
    engine.check_all_ended()


@every_kind
def test_it_takes_no_room_of_a_chat_that_is_read(kind: Kind) -> None:
    engine = Engine(kind, num_slots=1)
    history = chat_with_a_turn(engine)
    before = engine.context_of("s")
    asked = prepare(engine, "other", [system(words(40))], "")
    assert asked.finished.reason is FinishReason.CANCELLED
    assert engine.context_of("s") == before
    engine.chat("s", history, words(3))
    engine.check_all_ended()


@every_kind
def test_a_changed_beginning_does_not_cost_a_chat_that_is_stored_nowhere_else(kind: Kind) -> None:
    engine = Engine(kind, ram_limit="off")
    history = chat_with_a_turn(engine)
    before = engine.context_of("s")
    asked = prepare(engine, "s", [system(words(20, 3))], words(4))
    assert asked.finished.reason is FinishReason.CANCELLED
    assert engine.context_of("s") == before
    engine.chat("s", history, words(3))
    engine.check_all_ended()


@every_kind
def test_requests_are_counted_as_if_nothing_had_been_prepared(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    before = engine.loop.ledger.totals()
    prepare(engine, "s", history, words(9))
    after = engine.loop.ledger.totals()
    assert (after.requests, after.processed_tokens) == (before.requests, before.processed_tokens)
    asked = engine.chat("s", history, words(5) + " h7")
    mismatch = asked.finished.stats.mismatch
    assert mismatch is not None
    assert mismatch.reason is MismatchReason.NEW_MESSAGE
    last = engine.loop.ledger.last
    assert last is not None
    assert last.stats == asked.finished.stats


@every_kind
def test_only_typing_wakes_the_model(kind: Kind) -> None:
    engine = Engine(kind, keep_alive_s=10.0)
    history = chat_with_a_turn(engine)
    engine.now += 100.0
    engine.step()
    assert engine.sleep.asleep
    assert prepare(engine, "s", history, "").finished.reason is FinishReason.CANCELLED
    assert engine.sleep.asleep
    assert prepare(engine, "s", history, words(3)).finished.reason is FinishReason.STOP
    assert not engine.sleep.asleep
    asked = engine.chat("s", history, words(4))
    assert asked.finished.stats.processed_tokens == END_TOKENS + 1
    engine.check_all_ended()


def test_what_no_user_says_cannot_be_prepared() -> None:
    engine = Engine()
    asked = engine.prepare("s", [system(words(3))])
    engine.drain()
    assert asked.finished.reason is FinishReason.FAILED
    assert asked.finished.error


@every_kind
def test_evicting_a_chat_ends_its_work_ahead(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    engine.focus("other")
    engine.focus("s")
    ahead = engine.prepare("s", [*history, user(words(60))])
    engine.step(3)
    engine.post(commands.Evict("s"))
    engine.step()
    assert ahead.finished.reason is FinishReason.CANCELLED
    assert engine.context_of("s") == []
    assert engine.stored_blocks() == set()
    asked = engine.chat("s", history, words(60))
    assert asked.finished.stats.reused.total == 0
    tokens, used, wasted = totals(engine)
    assert (used, wasted) == (0, tokens)
    engine.check_all_ended()


@every_kind
def test_a_pin_during_work_ahead_holds_what_comes_afterwards_too(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    ahead = engine.prepare("s", [*history, user(words(60))])
    engine.step(3)
    assert not ahead.ended
    engine.post(commands.Pin("s", True))
    engine.drain()
    assert ahead.finished.reason is FinishReason.STOP
    tokens = engine.context_of("s")
    engine.focus("other")
    assert engine.loop.index.match(tokens).num_tokens >= len(tokens) - BLOCK
    engine.post(commands.ClearTier(Tier.HOST))
    engine.step()
    assert engine.loop.index.match(tokens).num_tokens >= len(tokens) - BLOCK, "pinned blocks stay"
    engine.focus("s")
    engine.chat("s", history, words(60))
    engine.check_all_ended()


@every_kind
def test_without_a_cache_a_draft_is_prepared_where_its_chat_stands(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    ahead = engine.prepare("s", [*history, user(words(60))], complete=True)
    engine.step(3)
    assert not ahead.ended
    engine.post(commands.SetRamLimit("off"))
    engine.drain()
    assert engine.stored_blocks() == set()
    engine.chat("s", history, words(60))
    tokens, used, wasted = totals(engine)
    assert tokens == used + wasted
    engine.check_all_ended()


def test_what_nobody_looks_at_any_longer_is_not_prepared_where_nothing_can_be_kept() -> None:
    engine = Engine(Kind.DENSE, ram_limit="off")
    history = chat_with_a_turn(engine)
    ahead = engine.prepare("s", [*history, user(words(60))])
    engine.step(3)
    assert not ahead.ended
    done = totals(engine)[0]
    engine.focus("other")
    engine.drain()
    assert ahead.finished.reason is FinishReason.CANCELLED
    assert totals(engine)[0] == done
    engine.check_all_ended()


@every_kind
def test_a_chat_that_another_client_is_served_in_is_not_prepared(kind: Kind) -> None:
    engine = Engine(kind)
    history = chat_with_a_turn(engine)
    asked = engine.submit("s", engine.talkative(history, 9, 12), client="b")
    engine.run_until_started(asked)
    ahead = engine.prepare("s", [*history, user(words(5))], client="a")
    engine.step()
    assert ahead.finished.reason is FinishReason.CANCELLED
    assert not asked.ended
    engine.drain()
    other = engine.prepare("s", [*asked.history(), user(words(60))], client="a")
    engine.step(2)
    engine.post(commands.Cancel(other.request.id), client="b")
    engine.step()
    assert other.finished.reason is FinishReason.CANCELLED, "any front end may end what it knows the name of"
    engine.check_all_ended()


@trimming
def test_after_enter_cells_are_brought_down_behind_the_first_token(kind: Kind) -> None:
    engine = Engine(kind, num_cells=3000)
    big = engine.submit("big", engine.talkative([], 900, 90), max_tokens=None)
    engine.serve_until(lambda: bool(big.text))
    history = [system(words(20)), user(words(30))]
    first = engine.submit("s", history)
    engine.serve_until(lambda: bool(first.ended))
    engine.focus("s")
    engine.post(commands.Cancel(big.request.id))
    history.append(first.answer())
    messages = engine.talkative(history, 12, 4)
    prepare(engine, "s", history, messages[-1].content, complete=True)
    assert engine.loop.mover.cells.highest > 900
    asked = engine.submit("s", messages)
    engine.serve_until(lambda: bool(asked.text))
    assert not asked.ended
    assert engine.loop.mover.cells.highest > 900
    engine.step()
    assert engine.loop.mover.cells.highest < 400
    engine.check_all_ended()


# ---- from disk


@every_kind
@pytest.mark.parametrize("session", ["s", "other"], ids=["looked at", "elsewhere"])
def test_what_the_disk_has_is_not_processed_again(kind: Kind, session: str, tmp_path: Path) -> None:
    before = Engine(kind, disk=tmp_path)
    history = [system(words(20))]
    before.chat("s", history, words(60))
    before.close()
    engine = Engine(kind, disk=tmp_path)
    engine.seen |= before.seen
    engine.step()
    engine.focus("else")
    if session == "s":
        engine.loop._residency.look_at("a", "s")
    asked = prepare(engine, "s", history, words(3))
    stats = asked.finished.stats
    assert asked.finished.reason is FinishReason.STOP
    assert stats.reused.disk >= 5 * BLOCK
    assert stats.processed_tokens < 3 * BLOCK
    engine.chat("s", history, words(4))
    engine.check_all_ended()
    engine.close()


@every_kind
def test_nothing_leaves_ram_for_what_is_read_ahead(kind: Kind, tmp_path: Path) -> None:
    before = Engine(kind, disk=tmp_path)
    history = [system(words(20))]
    before.chat("s", history, words(60))
    before.close()
    engine = Engine(kind, disk=tmp_path, token_limit="100")
    engine.seen |= before.seen
    engine.step()
    own = chat_with_a_turn(engine, "own", own=40)
    chat = engine.context_of("own")
    evictions = engine.loop.ledger.evictions
    prepare(engine, "s", history, words(3))
    assert engine.loop.index.match(chat).num_tokens == len(chat)
    assert engine.loop.ledger.evictions == evictions
    engine.chat("own", own, words(3))
    engine.check_all_ended()
    engine.close()


@pytest.mark.parametrize("kind", Kind)
def test_a_request_that_is_cancelled_before_it_begins_leaves_nothing_of_what_was_prepared(kind: Kind) -> None:
    engine = Engine(kind)
    messages = [user(words(3 * BLOCK))]
    engine.prepare("unseen", messages)
    engine.step(3)
    assert [sequence.session for sequence in engine.loop.slots.used()] == ["unseen"]
    asked = engine.submit("unseen", messages)
    engine.post(commands.Cancel(asked.request.id))
    engine.step()
    assert not asked.started
    engine.check_nothing_is_held()
