"""The end of the context: the oldest messages are summarized, left out, or the user is told in time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from samovar.chats import changes
from samovar.chats.answers import CONTEXT_FULL
from samovar.chats.chat import Chat, Phase
from samovar.chats.command_desk import CommandDesk
from samovar.chats.draft_keeper import unsent_text
from samovar.chats.meter import ContextUse
from samovar.chats.side_tasks import TaskState
from samovar.chats.slash import parse
from samovar.config import Config
from samovar.core.chat import SUMMARY_HEAD, Role
from samovar.core.commands import Cancel, CountTokens
from samovar.core.errors import SamovarError
from samovar.core.events import (
    HostFailed,
    HostLost,
    HostReady,
    HostStopping,
    RequestStarted,
    TokensCounted,
)
from samovar.core.request import FinishReason, Request, RequestStats
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import MessageState
from samovar.tui.entries import chat_entries, message_entries
from samovar.tui.widgets.context_meter import context_meters
from tests.tui.desk import Desk, until
from tests.tui.fake_client import MODEL
from tests.tui.support import station

CONTEXT = 1000
SUMMARY = "They spoke of words."


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path / "chats.db", Config(system_prompt="Be brief."))
    await made.chats.load()
    made.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=CONTEXT)))
    yield made
    await made.close()


def size(request: Request) -> int:
    """What the fake engine says that a prompt takes."""
    return sum(len(message.content) // 3 + 8 for message in request.messages)


async def turn(desk: Desk, chat: Chat, text: str, reply: str = "word " * 30) -> Request:
    await desk.chats.send(chat, text)
    return await answer(desk, chat, reply)


async def answer(desk: Desk, chat: Chat, reply: str = "word " * 30) -> Request:
    """Let the running reply end, with the figures of its prompt."""
    assert chat.reply is not None
    request_id = chat.reply.request_id
    await until(lambda: any(one.id == request_id for one in desk.client.requests))
    request = next(one for one in desk.client.requests if one.id == request_id)
    stats = RequestStats(prompt_tokens=size(request), generated_tokens=len(reply) // 3)
    row = chat.reply.row
    assert row is not None
    desk.client.finish(request, reply, stats=stats, tokens=())
    desk.hear()
    await until(lambda: desk.store.messages.message(row.id).state is MessageState.COMPLETE)
    return request


async def fill(desk: Desk, chat: Chat, num_turns: int = 6) -> None:
    """Turns of about 120 tokens each; past the mark (525 tokens) with the fifth one."""
    for number in range(num_turns):
        await turn(desk, chat, f"{number} " + "word " * 30)


def summaries(desk: Desk) -> list[Request]:
    """The summaries that have been asked for."""
    return [
        request
        for request in desk.client.side_requests
        if "conversation so far in at most" in request.messages[-1].content
    ]


async def summarize(
    desk: Desk, chat: Chat, text: str = SUMMARY, reason: FinishReason = FinishReason.STOP
) -> None:
    """Let the summary that is being written end so."""
    request = summaries(desk)[-1]
    before = len(chat.compactions)
    stats = RequestStats(prompt_tokens=size(request), generated_tokens=len(text) // 3)
    desk.client.finish(
        request, text, reason, stats=stats, error="out of luck" * (reason is FinishReason.FAILED)
    )
    desk.hear()
    await until(lambda: not desk.chats.compacting.is_running(chat))
    if text == SUMMARY and reason is FinishReason.STOP:
        assert len(chat.compactions) > before


async def test_the_oldest_part_is_summarized_ahead_of_time_and_stands_for_itself_then(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    (task,) = summaries(desk)
    last_turn = desk.client.requests[-1]
    assert task.messages[:-1] == last_turn.messages[: len(task.messages) - 1], "a beginning of the chat"
    assert task.messages[-1].role is Role.USER
    assert not task.store
    assert not task.urgent
    assert len(task.messages) < len(last_turn.messages), "the last turns stay as they are"
    await summarize(desk, chat, f"  {SUMMARY}\n")
    num_summarized = chat.compactions[0].num_messages
    request = await turn(desk, chat, "and now?")
    assert request.messages[0].content == f"Be brief.\n\n{SUMMARY_HEAD}\n{SUMMARY}"
    assert len(request.messages) == 1 + 10 - num_summarized + 1
    assert request.messages[-1].content == "and now?"
    assert len(desk.store.path(chat.id)) == 12, "all of it stays readable"
    assert not any("no longer sent" in str(change) for change in desk.told)
    runs = [run for run in desk.chats.tasks.runs if run.spec.name == "compact"]
    assert [(run.state, run.result) for run in runs] == [(TaskState.DONE, SUMMARY)]


async def test_the_new_prompt_is_processed_ahead_and_is_what_the_next_turn_sends(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    await summarize(desk, chat)
    await until(lambda: desk.client.prepared and SUMMARY in desk.client.prepared[-1].messages[0].content)
    ahead = desk.client.prepared[-1]
    request = await turn(desk, chat, "and now?")
    assert request.messages[: len(ahead.messages) - 1] == ahead.messages[:-1]


async def test_a_summary_survives_a_restart_and_reaches_other_windows(desk: Desk, tmp_path: Path) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    other = Desk(tmp_path / "chats.db", Config())
    await other.chats.load()
    other.chats.show(chat.id)
    await until(lambda: other.chats.shown.path)
    await summarize(desk, chat)
    await until(lambda: other.chats.shown.compactions == chat.compactions)
    await other.close()


async def test_a_summary_of_a_summary_covers_it(desk: Desk) -> None:
    chat = desk.chats.shown
    for number in range(16):
        await turn(desk, chat, f"{number} " + "word " * 30)
        if desk.chats.compacting.is_running(chat):
            await summarize(desk, chat, f"summary {len(chat.compactions)}")
    assert len(chat.compactions) >= 2
    request = desk.client.requests[-1]
    first, second = summaries(desk)[:2]
    assert second.messages[0].content.endswith("summary 0")
    assert "earlier summary" in second.messages[-1].content
    assert "earlier summary" not in first.messages[-1].content
    assert chat.compactions[1].num_messages > chat.compactions[0].num_messages
    assert sum(1 for one in request.messages if one.role is Role.SYSTEM) == 1
    most = max(size(one) for one in desk.client.requests)
    assert most <= CONTEXT * 3 // 4
    assert not any("no longer sent" in str(change) for change in desk.told)


@pytest.mark.parametrize(
    ("text", "reason", "said", "is_hopeless"),
    [
        ("", FinishReason.STOP, "wrote nothing", True),
        ("<think>Well, well.", FinishReason.STOP, "wrote nothing", True),
        ("on and on and on and", FinishReason.LENGTH, "cut off", True),
        ("So. " * 400, FinishReason.STOP, "no shorter", True),
        ("", FinishReason.FAILED, "out of luck", False),
        ("They", FinishReason.HOST_LOST, "the engine stopped", False),
    ],
)
async def test_a_summary_that_fails_changes_nothing_and_is_told_once(
    desk: Desk, text: str, reason: FinishReason, said: str, is_hopeless: bool
) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    await summarize(desk, chat, text, reason)
    assert chat.compactions == ()
    assert desk.store.compactions.of(chat.id) == ()
    await turn(desk, chat, "short")
    if is_hopeless:
        assert len(summaries(desk)) == 1, "the same request would bring the same"
    else:
        assert len(summaries(desk)) == 2, "tried again later"
        await summarize(desk, chat, text, reason)
    told = [str(change) for change in desk.told if "could not be summarized" in str(change)]
    assert len(told) == 1
    assert said in told[0]


async def test_a_summary_that_was_cut_off_ends_with_its_last_sentence(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    request = summaries(desk)[-1]
    desk.client.finish(request, "They spoke of words. And then", FinishReason.LENGTH)
    desk.hear()
    await until(lambda: chat.compactions)
    assert chat.compactions[0].summary == "They spoke of words."


async def test_a_chat_that_is_edited_meanwhile_stays_as_it_is(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    first = (chat.path or [])[0]
    desk.chats.branches.begin_edit(chat, first.id)
    await desk.chats.send(chat, "another beginning")
    await answer(desk, chat)
    await summarize(desk, chat, SUMMARY, FinishReason.LENGTH)  # whole sentences: good by itself
    assert chat.compactions == ()
    assert desk.store.compactions.of(chat.id) == ()
    assert (await turn(desk, chat, "go on")).messages[0].content == "Be brief."


async def test_deleting_the_chat_ends_its_summary(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    task = summaries(desk)[-1]
    desk.chats.delete(chat.id)
    assert Cancel(task.id) in desk.client.sent
    await summarize(desk, chat, "", FinishReason.CANCELLED)
    assert not any("could not be summarized" in str(change) for change in desk.told)


async def test_a_message_without_room_waits_for_the_summary(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    await desk.chats.send(chat, "long " * 130)
    assert chat.reply is not None
    assert chat.reply.phase is Phase.SUMMARIZING
    assert len(summaries(desk)) == 1, "the one that runs will do"
    num_requests = len(desk.client.requests)
    await summarize(desk, chat)
    await until(lambda: len(desk.client.requests) > num_requests)
    request = await answer(desk, chat)
    assert SUMMARY in request.messages[0].content
    assert request.messages[-1].content == "long " * 130


async def test_a_message_without_room_has_a_summary_made(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "chats.db", Config())
    await desk.chats.load()
    desk.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=CONTEXT)))
    chat = desk.chats.shown
    await fill(desk, chat, 4)
    assert summaries(desk) == [], "not ahead of time"
    await desk.chats.send(chat, "long " * 200)
    await until(lambda: summaries(desk))
    (task,) = summaries(desk)
    assert task.urgent
    await summarize(desk, chat)
    assert SUMMARY in (await answer(desk, chat)).messages[0].content
    await desk.close()


async def test_without_a_summary_the_oldest_turns_are_left_out_and_the_user_is_told(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    await desk.chats.send(chat, "long " * 130)
    await summarize(desk, chat, "", FinishReason.FAILED)
    request = await answer(desk, chat)
    assert request.messages[0].content == "Be brief."
    assert len(request.messages) < 12
    assert size(request) <= CONTEXT * 3 // 4
    assert any("no summary could be made: the first" in str(change) for change in desk.told)
    await desk.chats.send(chat, "and more")
    await summarize(desk, chat, "", FinishReason.FAILED)
    following = await answer(desk, chat)
    assert size(following) <= CONTEXT * 3 // 4, "what was left out does not come back"


async def test_a_reply_that_waits_for_a_summary_can_be_stopped(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "chats.db", Config())
    await desk.chats.load()
    desk.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=CONTEXT)))
    chat = desk.chats.shown
    await fill(desk, chat, 4)
    await desk.chats.send(chat, "long " * 200)
    await until(lambda: summaries(desk))
    (task,) = summaries(desk)
    desk.chats.stop(chat)
    assert chat.reply is None
    await until(lambda: Cancel(task.id) in desk.client.sent)
    await until(lambda: desk.store.path(chat.id)[-1].state is MessageState.STOPPED)
    assert len(desk.client.requests) == 4, "the message itself was never sent"
    await desk.close()


async def test_compact_undo_and_compact_again(desk: Desk) -> None:
    chat = desk.chats.shown
    commands = CommandDesk(desk.chats)
    with pytest.raises(SamovarError, match="nothing to summarize"):
        await commands.run(parse("/compact"))
    await fill(desk, chat, 4)
    running = asyncio.create_task(commands.run(parse("/compact")))
    await until(lambda: summaries(desk))
    assert summaries(desk)[0].urgent
    await summarize(desk, chat)
    assert (await running).startswith("summarized: ")
    assert "sent in full again" in await commands.run(parse("/undo"))
    request = await turn(desk, chat, "a")
    assert request.messages[0].content == "Be brief."
    assert "stands again" in await commands.run(parse("/compact"))
    request = await turn(desk, chat, "b")
    assert SUMMARY in request.messages[0].content
    assert [one.is_undone for one in desk.store.compactions.of(chat.id)] == [False]


async def test_what_the_user_has_undone_is_not_done_again_ahead_of_time(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    await summarize(desk, chat)
    await CommandDesk(desk.chats).run(parse("/undo"))
    await turn(desk, chat, "short")
    assert len(summaries(desk)) == 1


async def test_a_message_that_fits_nowhere_is_not_stored_and_comes_back(desk: Desk) -> None:
    chat = desk.chats.shown
    sending = asyncio.create_task(desk.chats.send(chat, "word " * 900))
    await until(lambda: desk.client.of(CountTokens))
    counting = desk.client.of(CountTokens)[-1]
    desk.chats.handle(TokensCounted(counting.request_id, (1200, 3)))
    await sending
    (failed,) = [change for change in desk.told if type(change).__name__ == "SendFailed"]
    assert "1,208 tokens" in str(failed)
    assert "holds 1,000" in str(failed)
    assert not chat.in_store
    assert desk.store.sessions() == []
    assert desk.client.requests == []


async def test_where_the_chat_stops_the_user_hears_the_choices_before_sending(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "chats.db", Config(context_full="stop"))
    await desk.chats.load()
    desk.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=CONTEXT)))
    chat = desk.chats.shown
    await fill(desk, chat, 8)
    sending = asyncio.create_task(desk.chats.send(chat, "word " * 120))
    await until(lambda: desk.client.of(CountTokens))
    desk.chats.handle(TokensCounted(desk.client.of(CountTokens)[-1].request_id, (121, 3)))
    await sending
    (failed,) = [change for change in desk.told if type(change).__name__ == "SendFailed"]
    assert "will not fit" in str(failed)
    assert "/compact" in str(failed)
    assert "/set context_full shift" in str(failed)
    assert len(desk.store.path(chat.id)) == 16
    assert summaries(desk) == []
    await desk.close()


async def test_the_meter_shows_what_is_used_and_what_the_draft_adds(desk: Desk) -> None:
    chat = desk.chats.shown
    await turn(desk, chat, "one", "1" * 300)
    request = desk.client.requests[-1]
    use = desk.chats.meter.context_use(chat)
    assert use is not None
    assert use.used_tokens == size(request) + 100
    assert (use.total_tokens, use.forecast_tokens) == (CONTEXT, use.used_tokens)
    chat.draft = "word " * 500
    desk.chats.meter.draft_changed(chat)
    await until(lambda: desk.client.of(CountTokens))
    desk.chats.handle(TokensCounted(desk.client.of(CountTokens)[-1].request_id, (901,)))
    await until(lambda: "ContextChanged" in desk.names())

    def forecast() -> int:
        found = desk.chats.meter.context_use(chat)
        assert found is not None
        return found.forecast_tokens

    await until(lambda: forecast() == use.used_tokens + 901 + 8)
    full = desk.chats.meter.context_use(chat)
    assert full is not None
    assert full.is_filling
    assert full.is_full


async def test_the_mark_of_a_summary_stands_where_it_ends_and_can_be_unfolded(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    await summarize(desk, chat)
    entries = chat_entries(chat, 0.0)
    (place,) = [place for place, entry in enumerate(entries) if entry.role == "summary"]
    (made,) = chat.compactions
    assert entries[place - 1].id == str(made.upto_id)
    assert len([entry for entry in entries if entry.is_message]) == 12, "messages above stay"
    mark = entries[place]
    assert mark.meta == ((f"{made.num_messages} messages · {made.tokens_before} → 6 tokens", "faint"),)
    assert mark.attachments[0].text == SUMMARY
    await desk.chats.compacting.undo(chat)
    assert not any(entry.role == "summary" for entry in chat_entries(chat, 0.0))


@pytest.mark.parametrize(
    ("used", "forecast", "color"), [(100, 120, "secondary"), (800, 900, "brass"), (800, 980, "red")]
)
def test_the_meters_colour_says_how_full_the_context_is(used: int, forecast: int, color: str) -> None:
    long, short = context_meters(ContextUse(used, forecast, 1000, 525, 968))
    assert long.plain.startswith(short.plain)
    assert long.plain.count("━") == 12
    assert str(short.spans[0].style) == f"${color}"
    assert context_meters(None) == []


async def test_a_long_message_is_sent_at_once_where_the_engine_cannot_count_it(desk: Desk) -> None:
    chat = desk.chats.shown
    sending = asyncio.create_task(desk.chats.send(chat, "word " * 900))
    await until(lambda: desk.client.of(CountTokens))
    desk.chats.handle(TokensCounted(desk.client.of(CountTokens)[-1].request_id, None))
    await sending
    assert len(desk.client.requests) == 1, "a guess is no reason to refuse it"
    await answer(desk, chat)
    desk.chats.handle(HostLost("gone"))
    await desk.chats.send(chat, "other " * 900)
    assert len(desk.client.of(CountTokens)) == 1, "an engine that is not there is not asked"
    assert [message.content for message in desk.store.path(chat.id)][-2] == "other " * 900


async def test_what_is_far_too_long_is_refused_without_a_count(desk: Desk) -> None:
    chat = desk.chats.shown
    sending = asyncio.create_task(desk.chats.send(chat, "word " * 9000))
    await until(lambda: desk.client.of(CountTokens))
    desk.chats.handle(TokensCounted(desk.client.of(CountTokens)[-1].request_id, None))
    await sending
    assert desk.store.sessions() == []
    assert "SendFailed" in desk.names()


@pytest.mark.parametrize("by_chat", [False, True])
async def test_without_side_tasks_nothing_is_summarized_and_the_user_is_told(
    tmp_path: Path, by_chat: bool
) -> None:
    desk = Desk(tmp_path / "chats.db", Config(side_tasks="on" if by_chat else "off"))
    await desk.chats.load()
    desk.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=CONTEXT)))
    chat = desk.chats.shown
    if by_chat:
        desk.chats.profile.set_settings(chat, SessionSettings(side_tasks=False))
    await fill(desk, chat, 5)
    await desk.chats.send(chat, "long " * 130)
    request = await answer(desk, chat)
    assert len(request.messages) < 12
    assert summaries(desk) == []
    assert any("context is full: the first" in str(change) for change in desk.told)
    running = asyncio.create_task(CommandDesk(desk.chats).run(parse("/compact")))
    await until(lambda: summaries(desk))
    await summarize(desk, chat)
    assert (await running).startswith("summarized"), "who asks for it gets it"
    await desk.close()


@pytest.mark.parametrize("thinks", [False, True])
async def test_the_thinking_before_a_summary_is_no_part_of_it(desk: Desk, thinks: bool) -> None:
    chat = desk.chats.shown
    model = msgspec.structs.replace(MODEL, context_tokens=CONTEXT, thinking=("<think>", "</think>"))
    desk.chats.handle(HostReady(model))
    await fill(desk, chat, 5)
    request = summaries(desk)[-1]
    assert request.max_tokens is not None
    assert request.max_tokens > CONTEXT // 4, "there is room to think"
    stats = RequestStats(prompt_tokens=size(request), generated_tokens=207, thinking_tokens=200)
    desk.client.push(RequestStarted(request.id, chat.id, stats, thinks=thinks))
    reply = f"{'' if thinks else '<think>'}Well, well.</think>\n{SUMMARY}"
    desk.client.finish(request, reply, stats=stats)
    desk.hear()
    await until(lambda: chat.compactions)
    assert (chat.compactions[0].summary, chat.compactions[0].tokens_after) == (SUMMARY, 7)


async def test_a_reply_that_was_cut_is_not_summarized_while_it_can_be_gone_on_with(desk: Desk) -> None:
    chat = desk.chats.shown
    await turn(desk, chat, "one")
    await desk.chats.send(chat, "two")
    request = desk.client.requests[-1]
    stats = RequestStats(prompt_tokens=size(request), generated_tokens=600)
    desk.client.finish(request, "word " * 400, FinishReason.LENGTH, stats=stats, tokens=())
    desk.hear()
    await until(lambda: not chat.is_busy)
    with pytest.raises(SamovarError, match="nothing to summarize"):
        await CommandDesk(desk.chats).run(parse("/compact"))


async def test_two_windows_make_one_summary(desk: Desk, tmp_path: Path) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 4)
    other = Desk(tmp_path / "chats.db", Config())
    await other.chats.load()
    other.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=CONTEXT)))
    other.chats.show(chat.id)
    await until(lambda: other.chats.shown.path)
    running = [
        asyncio.create_task(CommandDesk(window.chats).run(parse("/compact"))) for window in (desk, other)
    ]
    await until(lambda: summaries(desk) and summaries(other))
    await summarize(desk, chat)
    await summarize(other, other.chats.shown, "The same in other words.")
    await asyncio.gather(*running)
    (made,) = desk.store.compactions.of(chat.id)
    assert made.summary == SUMMARY
    assert other.chats.shown.compactions == (made,)
    assert "sent in full again" in await CommandDesk(other.chats).run(parse("/undo"))
    assert other.chats.compacting.undoable(other.chats.shown) is None
    await other.close()


async def test_undoing_a_summary_ends_the_next_one(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    await summarize(desk, chat)
    await fill(desk, chat, 3)
    task = summaries(desk)[-1]
    assert desk.chats.compacting.is_running(chat)
    await CommandDesk(desk.chats).run(parse("/undo"))
    assert Cancel(task.id) in desk.client.sent


async def test_a_long_chat_waits_for_the_model_to_know_what_fits(desk: Desk, tmp_path: Path) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    other = Desk(tmp_path / "chats.db", Config(context_full="shift"))
    await other.chats.load()
    other.chats.show(chat.id)
    await until(lambda: other.chats.shown.path)
    await other.chats.send(other.chats.shown, "long " * 130)
    reply = other.chats.shown.reply
    assert reply is not None
    assert reply.phase is Phase.WAITING
    assert other.client.requests == []
    other.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=CONTEXT)))
    await until(lambda: other.client.requests)
    assert size(other.client.requests[0]) <= CONTEXT * 3 // 4
    assert other.client.requests[0].messages[0].content == "Be brief."
    await other.close()


@pytest.mark.parametrize("event", [HostFailed("no model"), HostStopping()])
async def test_without_a_model_a_long_chat_is_sent_as_it_is(
    desk: Desk, tmp_path: Path, event: HostFailed | HostStopping
) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    other = Desk(tmp_path / "chats.db", Config())
    await other.chats.load()
    other.chats.show(chat.id)
    await until(lambda: other.chats.shown.path)
    await other.chats.send(other.chats.shown, "long " * 130)
    other.chats.handle(event)
    await until(lambda: other.client.requests)
    await other.close()


async def test_the_meter_grows_with_the_reply(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "one")
    request = desk.client.requests[-1]

    def used() -> int:
        found = desk.chats.meter.context_use(chat)
        assert found is not None
        return found.used_tokens

    desk.client.begin(request, RequestStats(prompt_tokens=40))
    desk.hear()
    assert used() == 40
    desk.client.say(request, "a", "b", "c")
    desk.hear()
    assert used() == 43
    stats = RequestStats(prompt_tokens=40, generated_tokens=4)
    desk.client.finish(request, "abcd", stats=stats)
    desk.hear()
    assert used() == 44


async def test_the_meter_can_be_drawn_as_soon_as_the_model_is_known(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "chats.db", Config(system_prompt="Be brief."))
    await desk.chats.load()
    known: list[bool] = []

    def hear(change: changes.Change) -> None:
        if isinstance(change, changes.HostChanged):
            known.append(desk.chats.meter.context_use(desk.chats.shown) is not None)

    desk.chats._notify = hear
    desk.chats.handle(HostReady(MODEL))
    assert known == [True]
    await desk.close()


async def test_a_system_prompt_is_counted_before_a_message_is_refused_for_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "chats.db", Config(system_prompt="incomprehensibilities " * 60))
    await desk.chats.load()
    desk.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=CONTEXT)))
    sending = asyncio.create_task(desk.chats.send(desk.chats.shown, "word " * 600))
    await until(lambda: desk.client.of(CountTokens))
    counting = desk.client.of(CountTokens)[-1]
    assert counting.texts == ("word " * 600, "incomprehensibilities " * 60)
    desk.chats.handle(TokensCounted(counting.request_id, (601, 181)))
    await sending
    assert len(desk.client.requests) == 1, "by a guess it would not have fitted"
    await answer(desk, desk.chats.shown)
    await desk.close()


@pytest.mark.parametrize("context", [512, 1024])
async def test_a_small_context_is_outgrown_many_times(tmp_path: Path, context: int) -> None:
    desk = Desk(tmp_path / "chats.db", Config(system_prompt="Be brief."))
    await desk.chats.load()
    desk.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=context)))
    chat = desk.chats.shown
    for number in range(40):
        await desk.chats.send(chat, f"{number} " + "word " * 12)
        if chat.reply is not None and chat.reply.phase is Phase.SUMMARIZING:
            await summarize(desk, chat)
        await answer(desk, chat, "word " * 14)
        if desk.chats.compacting.is_running(chat):
            await summarize(desk, chat)
    assert max(size(request) for request in desk.client.requests) <= context * 3 // 4
    assert len(chat.compactions) >= 3
    assert not any("no longer sent" in str(change) for change in desk.told)
    await desk.close()


async def test_an_edit_that_is_left_while_it_is_counted_is_sent_and_safe_meanwhile(desk: Desk) -> None:
    chat = desk.chats.shown
    await turn(desk, chat, "one")
    chat.draft = "a draft"
    desk.chats.branches.begin_edit(chat, (chat.path or [])[0].id)
    chat.draft = ""
    sending = asyncio.create_task(desk.chats.send(chat, "word " * 600))
    await until(lambda: desk.client.of(CountTokens))
    assert "word " * 600 in unsent_text(chat), "what is stored for the case of a crash"
    desk.chats.branches.cancel_edit(chat)
    desk.chats.handle(TokensCounted(desk.client.of(CountTokens)[-1].request_id, (601, 3)))
    await sending
    assert chat.draft == "a draft"
    assert desk.client.requests[-1].messages[-1].content == "word " * 600
    await answer(desk, chat)


def used(desk: Desk, chat: Chat) -> ContextUse:
    found = desk.chats.meter.context_use(chat)
    assert found is not None
    return found


def marks(desk: Desk, chat: Chat) -> list[tuple[int, str]]:
    """What is said of messages that are no longer sent, with the number of messages above it."""
    entries = chat_entries(chat, 0.0, used(desk, chat).left_out)
    return [
        (sum(entry.is_message for entry in entries[:place]) - 1, entry.meta[0][0])
        for place, entry in enumerate(entries)
        if entry.role == "left out"
    ]


def notices(desk: Desk) -> list[str]:
    told = [change.text for change in desk.told if isinstance(change, changes.Noticed)]
    return [text for text in told if "no longer sent" in text]


async def opened(tmp_path: Path, config: Config, template_tokens: tuple[int, int] = (0, 0)) -> Desk:
    desk = Desk(tmp_path / "chats.db", config)
    await desk.chats.load()
    model = msgspec.structs.replace(MODEL, context_tokens=CONTEXT, template_tokens=template_tokens)
    desk.chats.handle(HostReady(model))
    return desk


async def test_a_window_that_moves_is_what_the_meter_counts_and_the_mark_shows(tmp_path: Path) -> None:
    desk = await opened(tmp_path, Config(context_full="shift", system_prompt="Be brief."))
    chat = desk.chats.shown
    steps = set[int]()
    for number in range(24):
        request = await turn(desk, chat, f"{number} " + "word " * 30)
        num_left_out = 2 * number + 2 - len(request.messages)
        steps |= {num_left_out} if num_left_out else set()
        told = [(num_left_out, f"the {num_left_out} messages above are no longer sent")]
        assert marks(desk, chat) == (told if num_left_out else [])
        after = size(request) + 50
        assert used(desk, chat).used_tokens <= after + 1
        assert not used(desk, chat).is_full
        await desk.chats.send(chat, "short")
        assert used(desk, chat).used_tokens == pytest.approx(size(desk.client.requests[-1]), rel=0.15)
        desk.chats.stop(chat)
        await answer(desk, chat, "")
        await desk.chats.branches.delete(chat, (chat.path or [])[-2].id)
    assert len(steps) > 2
    assert len(notices(desk)) == len(steps), "once a step"


async def test_the_meter_follows_the_draft_across_a_step(tmp_path: Path) -> None:
    desk = await opened(tmp_path, Config(context_full="shift"))
    chat = desk.chats.shown
    await fill(desk, chat)
    before = used(desk, chat).used_tokens
    chat.draft = "word " * 270
    use = used(desk, chat)
    assert use.used_tokens < before, "the oldest turns will be left out"
    await desk.chats.send(chat, chat.draft)
    assert use.forecast_tokens == pytest.approx(size(desk.client.requests[-1]), rel=0.15)
    await answer(desk, chat)
    await desk.close()


async def test_where_no_summary_can_be_made_the_user_is_told_once_and_the_mark_stays(desk: Desk) -> None:
    chat = desk.chats.shown
    await turn(desk, chat, "Tell a story.", "word " * 580)
    assert marks(desk, chat) == []
    for number in range(3):
        request = await turn(desk, chat, f"short {number}")
        assert request.messages[1].content == "short 0"
        assert marks(desk, chat) == [(2, "the 2 messages above are no longer sent")]
        assert used(desk, chat).used_tokens == size(request) + 50
    (told,) = notices(desk)
    assert "/set max_tokens" in told
    assert summaries(desk) == []
    with pytest.raises(SamovarError, match="nothing to summarize: one turn alone fills"):
        await CommandDesk(desk.chats).run(parse("/compact"))


@pytest.mark.parametrize("reason", [FinishReason.HOST_LOST, FinishReason.FAILED])
async def test_without_a_summary_what_fits_is_sent_though_the_guess_was_too_small(
    desk: Desk, reason: FinishReason
) -> None:
    chat = desk.chats.shown
    for number in range(4):
        await desk.chats.send(chat, f"{number} " + "word " * 12)
        request = desk.client.requests[-1]
        stats = RequestStats(prompt_tokens=60 + number * 200, generated_tokens=120)  # more than it looks
        desk.client.finish(request, "a b " * 120, stats=stats, tokens=tuple(range(120)))
        desk.hear()
        await desk.until_stored(chat.id, MessageState.COMPLETE, "a b " * 120)
    num_requests = len(desk.client.requests)
    await desk.chats.send(chat, "word " * 60)
    assert chat.reply is not None
    assert chat.reply.phase is Phase.SUMMARIZING
    assert marks(desk, chat) == []
    await summarize(desk, chat, "", reason)
    await until(lambda: len(desk.client.requests) > num_requests)
    assert len(desk.client.requests[-1].messages) < 9
    assert len(notices(desk)) == 1
    assert len(marks(desk, chat)) == 1
    await answer(desk, chat)


async def test_a_summary_that_is_undone_is_no_turn_left_out(desk: Desk) -> None:
    chat = desk.chats.shown
    await fill(desk, chat, 5)
    await summarize(desk, chat)
    await fill(desk, chat, 2)
    await desk.chats.compacting.undo(chat)
    assert marks(desk, chat) == []


async def test_what_a_template_adds_is_part_of_the_forecast(tmp_path: Path) -> None:
    desk = await opened(tmp_path, Config(), template_tokens=(32, 12))
    chat = desk.chats.shown
    assert used(desk, chat).forecast_tokens == 0, "there is nothing to be sent yet"
    chat.draft = "word " * 6
    assert used(desk, chat).forecast_tokens == 9 + 32
    desk.chats.profile.set_system_prompt(chat, "Be brief.")
    assert used(desk, chat).forecast_tokens == 9 + 8 + 3 + 8, "its own system prompt gives way"
    await desk.close()


async def test_a_later_summary_counts_the_messages_and_not_the_earlier_summary(desk: Desk) -> None:
    chat = desk.chats.shown
    whole = 0
    while len(chat.compactions) < 2:
        request = await turn(desk, chat, "word " * 30)
        if not chat.compactions:
            whole = size(request)
        if desk.chats.compacting.is_running(chat):
            await summarize(desk, chat)
    first, second = chat.compactions
    (mark,) = [entry for entry in chat_entries(chat, 0.0) if entry.role == "summary"]
    before = second.tokens_before - first.tokens_after + first.tokens_before
    assert mark.meta[0][0] == f"{second.num_messages} messages · {before:,} → 6 tokens"
    assert before > whole
    assert before == pytest.approx(second.num_messages * first.tokens_before / first.num_messages, rel=0.15)


async def test_a_note_on_a_full_context_holds_when_there_is_room_again(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "one")
    desk.client.finish(desk.client.requests[-1], "word", FinishReason.CONTEXT_FULL)
    desk.hear()
    last = (chat.path or [])[-1]
    assert last.error == CONTEXT_FULL
    _, note = message_entries(last, 0.0)
    assert note.text == "the context was full · /continue goes on once there is room"


async def test_a_setting_without_a_value_is_told_what_it_may_be(desk: Desk) -> None:
    for name, said in (("context_full", '"compact", "shift" or "stop"'), ("max_tokens", "whole number")):
        with pytest.raises(SamovarError, match=said):
            await CommandDesk(desk.chats).run(parse(f"/set {name}"))
    with pytest.raises(SamovarError, match="there is no setting"):
        await CommandDesk(desk.chats).run(parse("/set colour"))


async def test_the_mark_and_its_notice_are_seen_on_a_small_screen(tmp_path: Path) -> None:
    config = Config(context_full="shift", side_tasks="off", max_fps=60)
    async with station(tmp_path, size=(80, 24), config=config) as here:
        here.app.conversations.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=CONTEXT)))
        number = 0
        while not any(entry.role == "left out" for entry in here.entries):
            number += 1
            assert number < 12
            await here.send(f"{number} " + "word " * 30)
            await here.until_asked(number)
            request = here.client.requests[-1]
            stats = RequestStats(prompt_tokens=size(request), generated_tokens=50)
            here.client.begin(request, stats)
            here.client.say(request, "word")
            await here.until(lambda: here.arrived(here.app.conversations.shown.id))
            told = f"the context is full: the first {2 * number - 1 - len(request.messages)} messages"
            assert (told in here.activity) is (len(request.messages) < 2 * number - 1)
            here.client.finish(request, "word " * 30, stats=stats, tokens=())
            await here.until(lambda: not here.app.conversations.shown.is_busy)
        place = next(place for place, entry in enumerate(here.entries) if entry.role == "left out")
        behind = [entry for entry in here.entries[place:] if entry.is_message]
        assert len(behind) == len(request.messages) + 1, "the last reply stands behind what was sent"
