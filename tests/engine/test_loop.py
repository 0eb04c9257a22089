"""The engine loop on a fake backend whose replies depend on every cell: exactness, reuse, room, endings."""

import pytest

from samovar.core import commands, events
from samovar.core.chat import ChatMessage
from samovar.core.request import FinishReason, TierTokens
from samovar.core.snapshot import CacheSnapshot
from samovar.engine.backend import DecodeResult
from tests.engine.fake_backend import Kind
from tests.engine.harness import BLOCK, Asked, Engine, system, user, words

every_kind = pytest.mark.parametrize("kind", Kind)
trimming = pytest.mark.parametrize("kind", [Kind.DENSE, Kind.WINDOW])
at_ends_only = pytest.mark.parametrize("kind", [Kind.HYBRID, Kind.RECURRENT])


def new_chat(engine: Engine, session: str, shared: int = 20, own: int = 30) -> list[ChatMessage]:
    """A session with one finished turn: its history."""
    history = [system(words(shared))]
    engine.chat(session, history, words(own, ord(session[-1])))
    return history


def new_tokens(asked: Asked, before: Asked) -> int:
    """Tokens of a prompt beyond what stood in the context when `before` ended: its last token did not."""
    end = before.finished
    in_context = len(before.prompt) + end.stats.generated_tokens - (end.reason is FinishReason.LENGTH)
    return len(asked.prompt) - in_context


# ---- what a turn costs


@every_kind
def test_a_turn_processes_only_what_is_new(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    history = [system(words(20))]
    first = engine.chat("s", history, words(30))
    assert first.finished.stats.reused == TierTokens()
    second = engine.chat("s", history, words(10, 3))
    assert second.finished.stats.processed_tokens == new_tokens(second, first)
    assert second.finished.stats.reused.host == 0
    engine.check_all_ended()


@every_kind
def test_a_turn_after_a_focus_change_costs_no_more(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s0")
    history = [system(words(20))]
    first = engine.chat("s0", history, words(60))
    engine.focus("s1")
    assert engine.context_of("s0") == []
    new_chat(engine, "s1")
    engine.focus("s0")
    assert len(engine.context_of("s0")) == len(first.prompt) + len(new_cells(first))
    second = engine.chat("s0", history, words(10, 3))
    assert second.finished.stats.processed_tokens == new_tokens(second, first)
    engine.check_all_ended()


def new_cells(asked: Asked) -> range:
    end = asked.finished
    return range(end.stats.generated_tokens - (end.reason is FinishReason.LENGTH))


@every_kind
def test_without_a_focus_change_command_the_prompt_is_restored_by_its_request(kind: Kind) -> None:
    engine = Engine(kind)
    history = [system(words(20))]
    first = engine.chat("s0", history, words(60))
    assert engine.context_of("s0") == [], "nobody looks at it"
    second = engine.chat("s0", history, words(10, 3))
    stats = second.finished.stats
    assert stats.reused == TierTokens(host=len(second.prompt) - new_tokens(second, first))
    engine.check_all_ended()


@every_kind
def test_many_chats_in_turn_share_the_system_prompt_in_ram(kind: Kind) -> None:
    engine = Engine(kind, num_cells=2000)
    histories = {f"s{i}": [system(words(64))] for i in range(5)}
    for name, history in histories.items():
        engine.focus(name)
        engine.chat(name, history, words(40, ord(name[-1])))
    shared = [block for block in engine.loop.index if block.start == 0]
    assert len(shared) == 1
    for turn in range(2):
        for name, history in histories.items():
            engine.focus(name)
            asked = engine.chat(name, history, words(5, turn))
            assert asked.finished.stats.processed_tokens < 30
    engine.check_all_ended()


@trimming
def test_an_edited_message_costs_what_follows_it(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s")
    history = [system(words(20))]
    engine.chat("s", history, words(60))
    second = engine.chat("s", history, words(20, 1))
    edited = engine.ask("s", [*history[:3], user(words(3) + words(20, 2))])
    common = next(i for i, (x, y) in enumerate(zip(edited.prompt, second.prompt, strict=False)) if x != y)
    assert edited.finished.stats.reused.total == common
    back = engine.ask("s", list(second.request.messages))
    assert back.finished.stats.processed_tokens == 1, "both branches are kept"
    engine.check_all_ended()


@at_ends_only
def test_an_edited_message_costs_from_the_last_block_end(kind: Kind) -> None:
    engine = Engine(kind)
    history = [system(words(20))]
    first = engine.chat("s", history, words(60))
    edited = engine.ask("s", [history[0], user(words(50) + words(9, 2))])
    common = next(i for i, (x, y) in enumerate(zip(edited.prompt, first.prompt, strict=False)) if x != y)
    assert edited.finished.stats.reused.total == common // BLOCK * BLOCK
    engine.check_all_ended()


@every_kind
def test_a_fork_pays_only_for_its_own_tokens(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s0")
    history = [system(words(20))]
    first = engine.chat("s0", history, words(60))
    forked = engine.ask("s1", [*history, user(words(10, 5))])
    assert forked.finished.stats.processed_tokens == new_tokens(forked, first)
    assert len(engine.context_of("s0")) == len(first.prompt) + len(new_cells(first)), "left as it was"
    engine.check_all_ended()


def test_a_fork_shares_the_cells_of_the_chat_it_came_from() -> None:
    engine = Engine(Kind.DENSE)
    engine.focus("s0")
    history = new_chat(engine, "s0", own=60)
    before = engine.backend.num_used()
    forked = engine.submit("s1", [*history, user(words(10, 5))])
    engine.run_until_started(forked)
    assert forked.started is not None
    assert forked.started.stats.reused == TierTokens(context=before)
    assert engine.backend.num_used() <= before + 16
    engine.check_all_ended()


@every_kind
def test_interleaved_requests_do_not_touch_each_other(kind: Kind) -> None:
    engine = Engine(kind, num_cells=2000)
    for name in ("s0", "s1", "s2", "s3"):
        engine.submit(name, [system(words(30)), user(words(40, ord(name[-1])))], max_tokens=30)
        engine.step(2)
    assert len(engine.loop.slots.used()) == 4
    engine.check_all_ended()


# ---- RAM


@every_kind
@pytest.mark.parametrize("limit", ["off", "4KiB", "20KiB"])
def test_replies_are_the_same_with_little_or_no_ram(kind: Kind, limit: str) -> None:
    engine = Engine(kind, ram_limit=limit)
    for _ in range(2):
        for name in ("s0", "s1"):
            engine.focus(name)
            new_chat(engine, name, own=60)
    engine.check_all_ended()


@every_kind
def test_limits_can_change_while_a_reply_is_generated(kind: Kind) -> None:
    engine = Engine(kind)
    new_chat(engine, "s0", own=60)
    engine.submit("s0", [system(words(20)), user(words(100, 48))], max_tokens=40)
    for limit in ("off", "unlimited", "8KiB", "auto", "off"):
        engine.step(3)
        engine.post(commands.SetRamLimit(limit))
        engine.step(3)
        assert engine.loop.host.limits.off == (limit == "off")
    engine.check_all_ended()


def test_a_chat_in_the_context_is_captured_once_there_is_ram_for_it() -> None:
    engine = Engine(ram_limit="off")
    engine.focus("s0")
    history = [system(words(20))]
    first = engine.chat("s0", history, words(80, 3))
    engine.post(commands.SetRamLimit("auto"))
    engine.step()
    assert engine.stored_blocks()
    engine.focus("s1")
    engine.focus("s0")
    again = engine.chat("s0", history, words(4, 5)).finished.stats
    assert again.reused.total >= first.finished.stats.prompt_tokens
    engine.check_all_ended()


def test_the_hit_ratio_counts_only_what_was_served() -> None:
    engine = Engine()
    engine.focus("s0")
    asked = engine.submit("s0", [user(words(200, 7))], max_tokens=4)
    engine.run_until_started(asked)
    engine.post(commands.Cancel(asked.request.id))
    engine.step()
    totals = engine.loop.ledger.totals()
    assert totals.prompt_tokens == totals.reused_tokens + totals.processed_tokens
    assert totals.prompt_tokens < asked.finished.stats.prompt_tokens
    engine.check_all_ended()


def test_a_bad_limit_is_refused_and_changes_nothing() -> None:
    engine = Engine(ram_limit="1MiB")
    for command in (
        commands.SetRamLimit("a lot"),
        commands.SetTokenLimit("many"),
        commands.SetTokenLimit("²"),
        commands.SetTokenLimit("9" * 5000),
    ):
        engine.post(command)
        engine.step()
        refused = [event for _, event in engine.events if isinstance(event, events.CommandRefused)]
        assert len(refused) == 1
        engine.events.clear()
    assert engine.loop.host.limits.max_bytes == 1 << 20
    assert engine.loop.host.limits.max_tokens is None


@every_kind
def test_a_failing_restore_costs_time_and_nothing_else(kind: Kind) -> None:
    engine = Engine(kind)
    history = new_chat(engine, "s0", own=80)
    engine.backend.fail_loads = 1
    asked = engine.chat("s0", history, words(5))
    assert asked.finished.stats.reused.total < 40
    again = engine.chat("s0", history, words(5, 1))
    assert again.finished.stats.processed_tokens < 30, "captured anew"
    engine.check_all_ended()


@every_kind
def test_a_block_that_cannot_be_restored_is_forgotten_with_what_follows_it(kind: Kind) -> None:
    engine = Engine(kind)
    new_chat(engine, "s0", own=80)
    num_blocks = len(engine.loop.index)
    engine.backend.fail_loads = 1
    engine.focus("s0")
    # A recurrent model needs its last block alone; elsewhere the first one is the one that fails.
    assert len(engine.loop.index) == (num_blocks - 1 if kind is Kind.RECURRENT else 0)
    engine.check_all_ended()


@every_kind
def test_a_prompt_asked_again_leaves_one_token_to_process(kind: Kind) -> None:
    engine = Engine(kind)
    messages = [system(words(20)), user(words(40))]
    first = engine.ask("s0", messages, max_tokens=1)
    again = engine.ask("s0", messages, max_tokens=1)
    done = len(first.prompt) - 1 if not kind.has_state else (len(first.prompt) - 1) // BLOCK * BLOCK
    assert again.finished.stats.reused.total == done
    engine.check_all_ended()


def test_a_full_context_is_no_reason_to_distrust_a_block() -> None:
    engine = Engine(Kind.DENSE, num_cells=150)
    asked = engine.ask("s0", [user(words(90))], max_tokens=2)
    stored = engine.stored_blocks()
    # 8 of the first block's tokens are shared cells; the whole block has no room beside the long prompt.
    engine.focus("s0")
    long = engine.submit("s1", [user(words(40, 3))], max_tokens=2)
    engine.check_all_ended()
    assert long.finished.reason is not FinishReason.FAILED
    assert stored <= engine.stored_blocks()
    again = engine.ask("s0", list(asked.request.messages), max_tokens=2)
    assert again.finished.stats.processed_tokens == 1


# ---- stopping


@every_kind
@pytest.mark.parametrize("step", range(1, 16, 2))
def test_a_cancelled_request_ends_at_once_and_its_work_is_kept(kind: Kind, step: int) -> None:
    engine = Engine(kind)
    messages = [system(words(20)), user(words(80))]
    asked = engine.submit("s0", messages, max_tokens=30)
    engine.step(step)
    engine.post(commands.Cancel(asked.request.id))
    engine.step()
    assert asked.finished.reason is FinishReason.CANCELLED
    again = engine.ask("s0", messages, max_tokens=30)
    done = min(len(asked.prompt) - 1, asked.finished.stats.processed_tokens)
    if not kind.has_state or done < len(asked.prompt) - 1:
        assert again.finished.stats.reused.total >= done
    engine.check_all_ended()


@every_kind
def test_requests_of_a_gone_client_end(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s0", client="b")
    mine = engine.submit("s1", [user(words(50))])
    theirs = [engine.submit(f"s{i}", [user(words(50, i))], client="b") for i in (0, 2)]
    engine.step(3)
    engine.client_gone("b")
    engine.step()
    assert [asked.finished.reason for asked in theirs] == [FinishReason.CANCELLED] * 2
    engine.check_all_ended()
    assert mine.finished.reason is not FinishReason.CANCELLED
    assert engine.loop.slots.used() == []


@every_kind
@pytest.mark.parametrize("steps", [0, 2, 5, 9, 12])
def test_an_aborted_step_is_made_good(kind: Kind, steps: int) -> None:
    engine = Engine(kind, num_cells=2000)
    engine.submit("s0", [system(words(20)), user(words(70))], max_tokens=20)
    engine.submit("s1", [system(words(20)), user(words(70, 1))], max_tokens=20)
    engine.step(steps)
    for _ in range(4):
        engine.abort_next()
        engine.step(2)
    engine.check_all_ended()


@every_kind
def test_a_failed_step_ends_its_requests_only(kind: Kind) -> None:
    engine = Engine(kind)
    history = new_chat(engine, "s1")
    asked = engine.submit("s0", [user(words(70))])
    engine.step(3)
    engine.abort_next(DecodeResult.FAILED)
    engine.step()
    assert asked.finished.reason is FinishReason.FAILED
    assert asked.finished.error
    engine.chat("s1", history, words(5))
    engine.check_all_ended()


def test_a_command_that_comes_before_a_long_step_does_not_wait_for_it() -> None:
    engine = Engine()
    asked = engine.submit("s0", [user(words(100))])
    engine.step()
    plan = engine.loop.serving._plan

    def cancel_meanwhile() -> object:
        engine.post(commands.Cancel(asked.request.id))
        return plan()

    engine.loop.serving._plan = cancel_meanwhile  # type: ignore[method-assign,assignment]
    before = engine.backend.num_decoded
    engine.step()
    engine.loop.serving._plan = plan  # type: ignore[method-assign]
    engine.step()
    assert asked.finished.reason is FinishReason.CANCELLED
    assert engine.backend.num_decoded == before


def test_two_requests_with_one_id_do_not_mix() -> None:
    engine = Engine()
    asked = engine.submit("s0", [user(words(40))])
    engine.post(commands.Submit(asked.request), client="b")
    engine.step(2)
    assert [type(e) for client, e in engine.events if client == "b"] == [events.CommandRefused]
    engine.check_all_ended()


# ---- room


@every_kind
def test_more_requests_than_slots_take_turns(kind: Kind) -> None:
    engine = Engine(kind, num_slots=2)
    asked = [engine.submit(f"s{i}", [user(words(30, i))]) for i in range(5)]
    engine.check_all_ended()
    assert all(a.finished.reason in (FinishReason.STOP, FinishReason.LENGTH) for a in asked)


@every_kind
def test_replies_that_outgrow_the_context_together_take_turns(kind: Kind) -> None:
    engine = Engine(kind, num_cells=160)
    asked = [engine.submit(f"s{i}", [user(words(30, i))], max_tokens=None) for i in range(3)]
    engine.check_all_ended()
    assert {a.finished.reason for a in asked} <= {FinishReason.STOP, FinishReason.CONTEXT_FULL}


@every_kind
def test_a_reply_ends_when_the_context_is_full(kind: Kind) -> None:
    for seed in range(30):
        engine = Engine(kind, num_cells=64)
        asked = engine.ask("s0", [user(words(40, seed))], max_tokens=None)
        engine.check_all_ended()
        if asked.finished.reason is FinishReason.CONTEXT_FULL:
            assert len(asked.prompt) + asked.finished.stats.generated_tokens == 65
            return
    raise AssertionError("no reply was long enough")


def test_a_prompt_longer_than_the_context_is_refused_with_advice() -> None:
    engine = Engine(num_cells=64)
    asked = engine.ask("s0", [user(words(80))])
    assert asked.finished.reason is FinishReason.FAILED
    assert "Shorten" in asked.finished.error


@every_kind
@pytest.mark.parametrize("good", [0, 1, 3])
def test_what_was_restored_before_a_failure_is_kept(kind: Kind, good: int) -> None:
    engine = Engine(kind)
    history = new_chat(engine, "s0", own=80)
    engine.backend.good_loads, engine.backend.fail_loads = good, 1
    asked = engine.chat("s0", history, words(5))
    if kind in (Kind.DENSE, Kind.HYBRID):  # elsewhere one load brings all, or the window may be incomplete
        assert asked.finished.stats.reused.total == good * BLOCK
    engine.check_all_ended()


@every_kind
@pytest.mark.parametrize("num_slots", [1, 4])
def test_a_focused_idle_chat_does_not_keep_others_out(kind: Kind, num_slots: int) -> None:
    engine = Engine(kind, num_cells=160, num_slots=num_slots)
    engine.focus("s0")
    engine.ask("s0", [system(words(10)), user(words(90))], max_tokens=2)
    assert engine.context_of("s0")
    other = engine.ask("s1", [system(words(10)), user(words(90, 4))], max_tokens=2)
    side = engine.ask("s0", [system(words(10)), user(words(80, 5))], side_task=True)
    engine.check_all_ended()
    assert other.finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert side.finished.reason in (FinishReason.STOP, FinishReason.LENGTH)


@every_kind
def test_the_focused_chat_takes_the_place_of_a_side_task(kind: Kind) -> None:
    engine = Engine(kind, num_slots=1)
    engine.focus("s0")
    side = engine.submit("s0", engine.talkative([], 60, 20), side_task=True, max_tokens=50)
    engine.step(8)
    chat = engine.submit("s0", [user(words(20))], max_tokens=5)
    engine.run_until_started(chat)
    while not chat.ended:
        assert not side.ended
        engine.step()
    engine.check_all_ended()


def test_a_window_that_a_failed_restore_left_incomplete_is_not_used() -> None:
    engine = Engine(Kind.WINDOW, ram_limit="off", chunk=4)
    messages = [system(words(20)), user(words(120))]
    engine.focus("s0")
    stopped = engine.submit("s0", messages)
    engine.step(25)
    engine.post(commands.Cancel(stopped.request.id))
    engine.step()
    assert len(engine.context_of("s0")) == 100, "beyond a block's end"
    engine.post(commands.SetRamLimit("unlimited"))
    engine.ask("s1", messages)
    engine.backend.fail_loads = 1
    asked = engine.ask("s0", messages)
    engine.check_all_ended()
    assert asked.finished.stats.reused.total == 0


def test_the_cells_of_an_old_branch_leave_when_the_new_one_starts() -> None:
    engine = Engine(Kind.RECURRENT)
    engine.focus("s0")
    new_chat(engine, "s0")
    engine.submit("s0", [system(words(30, 7)), user(words(40, 1))])
    engine.step(2)
    assert len(engine.loop.slots.used()) == 1
    engine.check_all_ended()


# ---- side tasks


@every_kind
def test_a_side_task_leaves_the_focused_chat_as_it_was(kind: Kind) -> None:
    engine = Engine(kind)
    engine.focus("s0")
    history = new_chat(engine, "s0", own=60)
    cells, stored = engine.context_of("s0"), engine.stored_blocks()
    for session in ("s0", "side"):
        side = engine.submit(session, [*history, user(words(8, 6))], side_task=True)
        while not side.ended:
            engine.step()
            assert [s.tokens for s in engine.loop.slots.idle() if s.session == "s0"] == [cells]
    assert engine.context_of("s0") == cells
    assert engine.stored_blocks() == stored
    assert [row.session for row in snapshot(engine).prompts] == ["s0"]
    engine.check_all_ended()


@every_kind
def test_a_chat_comes_into_the_context_while_its_side_task_runs(kind: Kind) -> None:
    engine = Engine(kind)
    history = new_chat(engine, "s0", own=60)
    side = engine.submit("s0", engine.talkative(history, 40, 10), side_task=True, max_tokens=40)
    engine.step(2)
    assert not side.ended
    engine.focus("s0")
    assert engine.context_of("s0")
    engine.check_all_ended()


def snapshot(engine: Engine) -> CacheSnapshot:
    engine.post(commands.Describe())
    engine.step()
    return [event.snapshot for _, event in engine.events if isinstance(event, events.CacheChanged)][-1]


# ---- forgetting


@every_kind
def test_a_deleted_chat_leaves_nothing_behind(kind: Kind) -> None:
    engine = Engine(kind)
    history = new_chat(engine, "s0", own=60)
    shared = {block.key for block in engine.loop.index}
    engine.ask("s1", [*history, user(words(40, 3))])
    engine.ask("s1", [*history[:1], user(words(60, 4))])
    engine.focus("s1")
    engine.post(commands.Forget("s1"))
    engine.step()
    assert engine.stored_blocks() <= shared | tails_of(engine)
    assert engine.context_of("s1") == []
    engine.post(commands.Forget("s0"))
    engine.step()
    assert engine.stored_blocks() == set()
    engine.check_all_ended()


def tails_of(engine: Engine) -> set[bytes]:
    return {block.key for block in engine.loop.index if "s0" in block.sessions}


@every_kind
def test_forgetting_a_chat_ends_its_requests(kind: Kind) -> None:
    engine = Engine(kind)
    asked = engine.submit("s0", [user(words(60))])
    engine.step(4)
    engine.post(commands.Forget("s0"))
    engine.step()
    assert asked.finished.reason is FinishReason.CANCELLED
    assert engine.stored_blocks() == set()
    engine.check_all_ended()


# ---- compaction


def lying_high(engine: Engine, num_chats: int) -> list[Asked]:
    """Chats with a common system prompt whose cells lie above those of a chat that has just left."""
    big = engine.submit("big", engine.talkative([], 900, 50), max_tokens=None)
    shared = [system(words(200))]
    chats = [
        engine.submit(f"s{i}", engine.talkative(shared, 5 + i, 60), max_tokens=60) for i in range(num_chats)
    ]
    while any(not asked.text for asked in chats):
        engine.step()
    assert engine.loop.mover.cells.highest > 900
    engine.post(commands.Cancel(big.request.id))
    return chats


def test_compaction_keeps_shared_cells_shared() -> None:
    engine = Engine(Kind.DENSE, num_cells=3000)
    chats = lying_high(engine, 3)
    engine.step()
    assert engine.loop.mover.cells.highest < 400
    assert engine.backend.num_used() < 400, "the system prompt once"
    engine.check_all_ended()
    assert [asked.finished.stats.generated_tokens for asked in chats] == [60] * 3


def test_compaction_leaves_alone_what_it_could_not_bring_back() -> None:
    engine = Engine(Kind.DENSE, num_cells=3000, ram_limit="20KiB")
    (asked,) = lying_high(engine, 1)
    engine.step()
    assert engine.loop.mover.cells.highest > 900
    engine.check_all_ended()
    assert asked.finished.stats.processed_tokens + asked.finished.stats.reused.total == len(asked.prompt)


def test_tokens_that_come_fast_share_an_event_but_the_first_is_shown_at_once() -> None:
    engine = Engine()
    engine.machine.decode_ms = engine.machine.token_ms = 0.0
    asked = engine.ask("s", [user(words(30))], max_tokens=9)
    counts = [e.num_tokens for _, e in engine.events if isinstance(e, events.TokensGenerated)]
    assert len(counts) == 2
    assert counts[0] == 1
    assert sum(counts) == asked.finished.stats.generated_tokens
    assert asked.text == asked.finished.reply
    engine.check_all_ended()


def test_tokens_that_come_slowly_have_an_event_each() -> None:
    engine = Engine()
    engine.machine.decode_ms = 50.0
    asked = engine.ask("s", [user(words(30))], max_tokens=9)
    counts = [e.num_tokens for _, e in engine.events if isinstance(e, events.TokensGenerated)]
    assert counts == [1] * asked.finished.stats.generated_tokens
