"""Side tasks on chats: when they run, how they end, and that the chat is as it was."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from samovar.chats import slash
from samovar.chats.chat import Chat
from samovar.chats.command_desk import CommandDesk
from samovar.chats.side_tasks import MAX_KEPT, THINKING_TOKENS, TaskRun, TaskState
from samovar.config import Config
from samovar.core.chat import Role
from samovar.core.commands import Cancel
from samovar.core.errors import SamovarError
from samovar.core.events import HostReady, PrefillProgressed, RequestQueued, RequestStarted, WaitReason
from samovar.core.request import FinishReason, Request
from samovar.repl.line_mode import task_lines
from samovar.sessions.settings import SessionSettings
from samovar.tasks.builtin import ASIDE, KEYWORDS, SUGGEST, SUMMARY, TITLE, TRANSLATE
from tests.tui.desk import Desk, until
from tests.tui.fake_client import MODEL, STATS

TEA = '{"title": "Tea in Kyoto"}'


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[Desk]:
    """A front end where no task runs by itself, with a chat of one exchange."""
    desk = Desk(tmp_path / "quiet.db", Config(side_tasks="off"))
    desk.chats.handle(HostReady(MODEL))
    await desk.exchange(desk.chats.shown, "where to drink tea", "In Kyoto.")
    yield desk
    await desk.close()


@pytest.fixture
async def lively(tmp_path: Path) -> AsyncIterator[Desk]:
    """A front end where tasks run by themselves, and the host is ready."""
    desk = Desk(tmp_path / "lively.db", Config())
    desk.chats.handle(HostReady(MODEL))
    yield desk
    await desk.close()


def asked(desk: Desk, run: TaskRun) -> Request:
    return next(request for request in desk.client.side_requests if request.id == run.id)


def end(desk: Desk, run: TaskRun, text: str, reason: FinishReason = FinishReason.STOP) -> None:
    desk.client.finish(asked(desk, run), text, reason)
    desk.hear()


def picture(chat: Chat) -> tuple[object, ...]:
    return (tuple(chat.path or ()), chat.title, chat.tags, chat.draft, chat.reply, chat.settings)


async def test_a_task_is_asked_behind_the_chat_and_leaves_it_as_it_was(quiet: Desk) -> None:
    chat = quiet.chats.shown
    before = picture(chat)
    run = quiet.chats.tasks.run(chat, SUMMARY)
    request = asked(quiet, run)
    texts = [message.content for message in request.messages]
    assert texts == ["where to drink tea", "In Kyoto.", SUMMARY.prompt]
    assert request.messages[1].tokens == ()
    assert run.state is TaskState.WAITING
    quiet.chats.handle(RequestQueued(run.id, chat.id, 2, 3, 900.0, WaitReason.FOCUS))
    assert (run.position, run.estimate_ms) == (2, 900.0)
    quiet.client.begin(request)
    quiet.client.push(PrefillProgressed(run.id, chat.id, 5, 20, None))
    quiet.client.say(request, "Tea ", "is good.")
    quiet.hear()
    assert (run.state, run.text, run.num_tokens) == (TaskState.RUNNING, "Tea is good.", 2)
    assert (run.read_tokens, run.to_read_tokens) == (5, 20)
    end(quiet, run, "Tea is good. ")
    assert (run.state, run.result, run.note, run.error) == (TaskState.DONE, "Tea is good.", "", "")
    assert run.stats is not None
    assert run.ended_at is not None
    assert picture(chat) == before
    assert [message.content for message in quiet.store.path(chat.id)] == ["where to drink tea", "In Kyoto."]


async def test_a_title_comes_by_itself_after_the_first_exchange_alone(lively: Desk) -> None:
    chat = lively.chats.shown
    await lively.exchange(chat, "where to drink tea", "In Kyoto.")
    (run,) = lively.chats.tasks.runs
    assert (run.spec, run.urgent, asked(lively, run).urgent) == (TITLE, False, False)
    end(lively, run, TEA)
    assert chat.title == "Tea in Kyoto"
    await until(lambda: lively.store.session(chat.id).title == "Tea in Kyoto")
    await lively.exchange(chat, "and when", "In May.")
    assert len(lively.client.side_requests) == 1


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CANCELLED])
async def test_a_title_comes_after_the_first_exchange_that_is_complete(
    lively: Desk, reason: FinishReason
) -> None:
    chat = lively.chats.shown
    for number in range(2):
        await lively.chats.send(chat, f"where to drink tea {number}")
        await lively.reply(chat, "In", reason)
    assert not lively.client.side_requests
    await lively.exchange(chat, "and when", "In May.")
    (run,) = lively.chats.tasks.runs
    assert run.spec is TITLE
    end(lively, run, "{}")
    assert run.state is TaskState.FAILED
    await lively.exchange(chat, "and how", "Hot.")
    assert len(lively.client.side_requests) == 1, "tried once"


@pytest.mark.parametrize(
    "reason", [FinishReason.LENGTH, FinishReason.CANCELLED, FinishReason.FAILED, FinishReason.HOST_LOST]
)
async def test_nothing_runs_by_itself_after_a_reply_that_was_cut(lively: Desk, reason: FinishReason) -> None:
    await lively.chats.send(lively.chats.shown, "where to drink tea")
    await lively.reply(lively.chats.shown, "In", reason)
    assert not lively.client.side_requests


async def test_tasks_that_run_by_themselves_can_be_turned_off(quiet: Desk, lively: Desk, desk: Desk) -> None:
    assert not quiet.client.side_requests, "by the configuration"
    lively.chats.profile.set_settings(lively.chats.shown, SessionSettings(side_tasks=False))
    await lively.exchange(lively.chats.shown, "where to drink tea", "In Kyoto.")
    assert not lively.client.side_requests, "by the chat"
    await desk.exchange(desk.chats.shown, "where to drink tea", "In Kyoto.")
    assert not desk.client.side_requests, "the host is not ready"


async def test_a_chat_that_has_been_renamed_keeps_its_title(lively: Desk) -> None:
    chat = lively.chats.shown
    await lively.exchange(chat, "where to drink tea", "In Kyoto.")
    (run,) = lively.chats.tasks.runs
    lively.chats.profile.rename(chat, "Mine")
    end(lively, run, TEA)
    assert (chat.title, run.state, run.result) == ("Mine", TaskState.DONE, "Tea in Kyoto")
    assert "another title" in run.note
    await lively.chats.branches.retry(chat)
    await lively.reply(chat, "In Uji.")
    assert len(lively.client.side_requests) == 1, "there is nothing to name any more"


async def test_a_title_that_is_asked_for_replaces_one_of_the_users(quiet: Desk) -> None:
    chat = quiet.chats.shown
    quiet.chats.profile.rename(chat, "Mine")
    end(quiet, quiet.chats.tasks.run(chat, TITLE), TEA)
    assert chat.title == "Tea in Kyoto"
    run = quiet.chats.tasks.run(chat, TITLE)
    quiet.chats.profile.rename(chat, "Mine again")
    end(quiet, run, '{"title": "Other"}')
    assert chat.title == "Mine again"


async def test_undo_brings_back_a_title_that_a_task_has_replaced(quiet: Desk) -> None:
    chat, desk = quiet.chats.shown, CommandDesk(quiet.chats)
    quiet.chats.profile.rename(chat, "Mine")
    run = quiet.chats.tasks.run(chat, TITLE)
    end(quiet, run, TEA)
    assert run.did == "title: Tea in Kyoto · /undo takes it back"
    assert await desk.run(slash.parse("/undo")) == "the title is “Mine” again"
    assert chat.title == "Mine"
    await until(lambda: quiet.store.session(chat.id).title == "Mine")
    with pytest.raises(SamovarError, match="no message of this chat has been deleted"):
        await desk.run(slash.parse("/undo"))


async def test_undo_leaves_a_title_alone_that_the_user_has_given_since(quiet: Desk) -> None:
    chat, desk = quiet.chats.shown, CommandDesk(quiet.chats)
    end(quiet, quiet.chats.tasks.run(chat, TITLE), TEA)
    quiet.chats.profile.rename(chat, "Mine")
    with pytest.raises(SamovarError):
        await desk.run(slash.parse("/undo"))
    assert chat.title == "Mine"


async def test_tags_are_added_and_none_is_taken(quiet: Desk) -> None:
    chat = quiet.chats.shown
    quiet.chats.profile.set_tags(chat, ["mine", "tea"])
    run = quiet.chats.tasks.run(chat, KEYWORDS)
    end(quiet, run, '{"tags": ["Tea", "Kyoto"')
    assert chat.tags == ("kyoto", "mine", "tea")
    assert (run.results, run.result, run.did) == (("tea", "kyoto"), "tea, kyoto", "tag added: kyoto")
    await until(lambda: quiet.store.session(chat.id).tags == chat.tags)
    again = quiet.chats.tasks.again(run.id)
    end(quiet, again, '{"tags": ["tea"]}')
    assert "already" in again.note


async def test_suggestions_are_texts_of_their_own(quiet: Desk) -> None:
    run = quiet.chats.tasks.run(quiet.chats.shown, SUGGEST)
    end(quiet, run, '{"replies": ["Why?", "When?", "Where?"]}')
    assert run.results == ("Why?", "When?", "Where?")
    assert quiet.chats.shown.draft == ""


async def test_a_message_is_named_where_the_model_has_just_read_it(quiet: Desk) -> None:
    chat = quiet.chats.shown
    first = (chat.path or [])[1]
    run = quiet.chats.tasks.run(chat, TRANSLATE, text=" German ")
    assert asked(quiet, run).messages[-1].content == (
        "Translate your last reply into German. Write only the translation."
    )
    run = quiet.chats.tasks.run(chat, TRANSLATE)
    assert "into English" in asked(quiet, run).messages[-1].content
    await quiet.exchange(chat, "and when", "In May.")
    run = quiet.chats.tasks.run(chat, TRANSLATE, message_id=first.id)
    assert "In Kyoto." in asked(quiet, run).messages[-1].content
    assert asked(quiet, quiet.chats.tasks.again(run.id)).messages == asked(quiet, run).messages


async def test_while_a_reply_streams_a_task_is_about_what_stands_before(quiet: Desk) -> None:
    chat = quiet.chats.shown
    await quiet.chats.send(chat, "and when")
    run = quiet.chats.tasks.run(chat, ASIDE, text="is it far")
    assert [one.content for one in asked(quiet, run).messages] == [
        "where to drink tea",
        "In Kyoto.",
        "is it far",
    ]
    await quiet.reply(chat, "In May.")
    assert run.state is TaskState.WAITING
    assert (chat.path or [])[-1].content == "In May."


async def test_what_cannot_be_run_is_refused_with_a_reason(quiet: Desk) -> None:
    tasks, chat = quiet.chats.tasks, quiet.chats.shown
    with pytest.raises(SamovarError, match="write /aside QUESTION"):
        tasks.run(chat, ASIDE)
    with pytest.raises(SamovarError, match="not on the branch"):
        tasks.run(chat, TRANSLATE, message_id=999)
    with pytest.raises(SamovarError, match="no reply in this chat yet"):
        tasks.run(quiet.chats.new(), SUMMARY)
    unread = Chat.known(quiet.store.create_session("elsewhere"))
    quiet.chats.chats[unread.id] = unread
    with pytest.raises(SamovarError, match="still being read"):
        tasks.run(unread, SUMMARY)
    quiet.chats.delete(chat.id)
    with pytest.raises(SamovarError, match="has been deleted"):
        tasks.run(chat, SUMMARY)
    with pytest.raises(SamovarError, match="no task poem; known are title, summary"):
        tasks.spec("poem")
    assert not quiet.client.side_requests
    assert tasks.runs == []


@pytest.mark.parametrize(
    ("spec", "text", "reason", "state", "told"),
    [
        (SUMMARY, "so on and so on", FinishReason.LENGTH, TaskState.DONE, "cut at 256 tokens"),
        (SUMMARY, "so on", FinishReason.CONTEXT_FULL, TaskState.DONE, "fill the context"),
        (SUMMARY, "", FinishReason.CONTEXT_FULL, TaskState.FAILED, "fill the context before there was"),
        (SUMMARY, " \n", FinishReason.STOP, TaskState.FAILED, "no answer that can be used"),
        (TITLE, '{"title": "so on', FinishReason.LENGTH, TaskState.FAILED, "cut at 48 tokens: no title"),
        (TITLE, '{"title": ""}', FinishReason.STOP, TaskState.FAILED, "no answer that can be used"),
        (KEYWORDS, "{", FinishReason.LENGTH, TaskState.FAILED, "cut at 96 tokens before there was"),
        (SUMMARY, "", FinishReason.HOST_LOST, TaskState.FAILED, "run it again"),
        (SUMMARY, "", FinishReason.CANCELLED, TaskState.CANCELLED, ""),
    ],
)
async def test_every_end_says_why_and_leaves_the_chat_as_it_was(
    quiet: Desk, spec: object, text: str, reason: FinishReason, state: TaskState, told: str
) -> None:
    chat = quiet.chats.shown
    before = picture(chat)
    assert isinstance(spec, type(SUMMARY))
    run = quiet.chats.tasks.run(chat, spec)
    end(quiet, run, text, reason)
    assert run.state is state
    assert told in (run.error or run.note)
    assert bool(told) == bool(run.error or run.note)
    assert picture(chat) == before
    assert quiet.chats.tasks.open_runs == []


async def test_a_refused_request_tells_the_engines_sentence_and_can_be_run_again(quiet: Desk) -> None:
    run = quiet.chats.tasks.run(quiet.chats.shown, SUMMARY)
    quiet.client.finish(asked(quiet, run), "", FinishReason.FAILED, error="The prompt has 9,999 tokens.")
    quiet.hear()
    assert (run.state, run.error) == (TaskState.FAILED, "The prompt has 9,999 tokens.")
    again = quiet.chats.tasks.again(run.id)
    end(quiet, again, "Tea.")
    assert again.state is TaskState.DONE


async def test_a_task_that_takes_too_long_is_ended_and_says_so(quiet: Desk) -> None:
    spec = msgspec.structs.replace(SUMMARY, timeout_s=0.01)
    waiting = quiet.chats.tasks.run(quiet.chats.shown, spec)
    run = quiet.chats.tasks.run(quiet.chats.shown, spec)
    quiet.client.begin(asked(quiet, run))
    quiet.client.say(asked(quiet, run), "so on")
    quiet.hear()
    await until(lambda: [cancel.request_id for cancel in quiet.client.of(Cancel)] == [run.id])
    assert waiting.state is TaskState.WAITING, "its time has not begun yet"
    end(quiet, run, "so on and so on", FinishReason.CANCELLED)
    assert (run.state, run.error) == (TaskState.FAILED, "took longer than 10 ms")
    assert run.text == "so on and so on"


async def test_a_run_can_be_cancelled_in_every_state(quiet: Desk) -> None:
    tasks, chat = quiet.chats.tasks, quiet.chats.shown
    waiting, started, writing, done = (tasks.run(chat, TITLE) for _ in range(4))
    for run in (started, writing):
        quiet.client.begin(asked(quiet, run))
    quiet.client.say(asked(quiet, writing), '{"ti')
    quiet.hear()
    end(quiet, done, TEA)
    assert [tasks.cancel(run.id) for run in (waiting, started, writing, done)] == [True, True, True, False]
    assert not tasks.cancel(waiting.id)
    assert not tasks.cancel("unknown")
    assert len(quiet.client.of(Cancel)) == 3
    for run in (waiting, started):
        end(quiet, run, '{"title": "Late"}', FinishReason.CANCELLED)
    end(quiet, writing, '{"title": "Late"}')
    assert [run.state for run in (waiting, started, writing)] == [TaskState.CANCELLED] * 3
    assert chat.title == "Tea in Kyoto", "what came too late is not used"


async def test_twenty_at_once_all_end(quiet: Desk) -> None:
    tasks = quiet.chats.tasks
    runs = [tasks.run(quiet.chats.shown, SUMMARY) for _ in range(20)]
    assert tasks.open_runs == runs[::-1]
    assert len(quiet.client.side_requests) == 20
    for number, run in enumerate(runs):
        end(quiet, run, "Tea.", list(FinishReason)[number % len(FinishReason)])
    assert tasks.open_runs == []


async def test_one_that_runs_by_itself_is_not_started_twice(lively: Desk, tmp_path: Path) -> None:
    chat = lively.chats.shown
    await lively.exchange(chat, "where to drink tea", "In Kyoto.")
    await lively.chats.branches.retry(chat)
    await lively.reply(chat, "In Uji.")
    assert len(lively.client.side_requests) == 1


async def test_tasks_of_a_deleted_chat_end_and_change_nothing(quiet: Desk) -> None:
    chat = quiet.chats.shown
    run = quiet.chats.tasks.run(chat, TITLE)
    quiet.chats.delete(chat.id)
    assert run.state is TaskState.CANCELLED
    end(quiet, run, TEA)
    quiet.chats.undo_delete()
    assert chat.title == "where to drink tea"
    with pytest.raises(SamovarError, match="discarded"):
        quiet.chats.tasks.again("unknown")


async def test_the_newest_results_are_kept_and_can_be_discarded(quiet: Desk) -> None:
    tasks = quiet.chats.tasks
    oldest = tasks.run(quiet.chats.shown, SUMMARY)
    for _ in range(MAX_KEPT + 5):
        end(quiet, tasks.run(quiet.chats.shown, SUMMARY), "Tea.")
    assert len(tasks.runs) == MAX_KEPT
    assert tasks.runs[-1] is oldest, "one that has not ended stays"
    tasks.discard(oldest.id)
    assert oldest.state is TaskState.CANCELLED
    assert oldest not in tasks.runs


async def test_tokens_are_told_of_in_bursts(quiet: Desk) -> None:
    run = quiet.chats.tasks.run(quiet.chats.shown, SUMMARY)
    quiet.client.begin(asked(quiet, run))
    quiet.hear()
    quiet.told.clear()
    quiet.client.say(asked(quiet, run), *(["word "] * 500))
    quiet.hear()
    assert "TasksChanged" not in quiet.names()
    await until(lambda: "TasksChanged" in quiet.names())
    assert quiet.names().count("TasksChanged") == 1


async def test_closing_ends_all_that_runs(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "closing.db", Config(side_tasks="off"))
    await desk.exchange(desk.chats.shown, "where to drink tea", "In Kyoto.")
    runs = [desk.chats.tasks.run(desk.chats.shown, SUMMARY) for _ in range(3)]
    await desk.close()
    assert {run.state for run in runs} == {TaskState.CANCELLED}
    assert {cancel.request_id for cancel in desk.client.of(Cancel)} == {run.id for run in runs}


async def test_tasks_are_commands(tmp_path: Path) -> None:
    (tmp_path / "haiku.toml").write_text('prompt = "A haiku on $input."\nhelp = "a haiku"')
    (tmp_path / "wrong.toml").write_text("prompt = 1")
    desk = Desk(tmp_path / "chats.db", Config(side_tasks="off"), tasks_dir=tmp_path)
    commands = CommandDesk(desk.chats)
    await desk.exchange(desk.chats.shown, "where to drink tea", "In Kyoto.")
    for text in ("/title", "/summary", "/keywords", "/suggest", "/explain", "/aside is it far"):
        await commands.run(slash.parse(text))
    await commands.run(slash.parse("/translate German"))
    await commands.run(slash.parse("/task haiku green tea"))
    with pytest.raises(SamovarError, match=r"no task sonnet; known are .*explain, haiku"):
        await commands.run(slash.parse("/task sonnet"))
    named = [run.spec.name for run in desk.chats.tasks.runs[::-1]]
    assert named == ["title", "summary", "keywords", "suggest", "explain", "aside", "translate", "haiku"]
    assert desk.client.side_requests[-1].messages[-1].content == "A haiku on green tea."
    assert desk.client.side_requests[-1].messages[-1].role is Role.USER
    lines = task_lines(desk.chats.tasks)
    assert lines[0].split()[:3] == ["haiku", "waiting", "green"]
    assert any(line.startswith("/task haiku") and line.endswith("a haiku") for line in lines)
    assert "wrong.toml" in lines[-1]
    await desk.close()


@pytest.mark.parametrize("title", ["Titille", "An Ode To Joy", "Blu"])
async def test_a_title_of_words_that_nobody_has_used_is_not_taken(lively: Desk, title: str) -> None:
    chat = lively.chats.shown
    await lively.exchange(chat, "why is the sky red", "Light scatters.")
    (run,) = lively.chats.tasks.runs
    end(lively, run, f'{{"title": "{title}"}}')
    assert (run.state, run.result, run.error) == (TaskState.DONE, title, "")
    assert run.note.endswith("keeps its title")
    assert chat.title == "why is the sky red"


@pytest.mark.parametrize("title", ["Sky", "SCATTERS", "About Red", "Überblick: Light", "赤い"])
async def test_a_title_with_a_word_of_the_chat_is_taken(lively: Desk, title: str) -> None:
    chat = lively.chats.shown
    await lively.exchange(chat, "why is the sky red", "Light scatters.")
    (run,) = lively.chats.tasks.runs
    end(lively, run, f'{{"title": "{title}"}}')
    assert chat.title == title


async def test_a_title_that_is_asked_for_may_be_of_any_words(quiet: Desk) -> None:
    run = quiet.chats.tasks.run(quiet.chats.shown, TITLE)
    end(quiet, run, '{"title": "Titille"}')
    assert quiet.chats.shown.title == "Titille"


@pytest.mark.parametrize("thinks", [False, True])
async def test_of_an_answer_with_thinking_the_answer_counts(quiet: Desk, thinks: bool) -> None:
    chat = quiet.chats.shown
    run = quiet.chats.tasks.run(chat, SUMMARY)
    request = asked(quiet, run)
    quiet.client.push(RequestStarted(request.id, chat.id, STATS, thinks=thinks))
    opening = "" if thinks else "<think>"
    quiet.client.say(request, f"{opening}Well, well.")
    quiet.hear()
    assert run.text == ""
    quiet.client.say(request, "</think>\n\nTea is", " good.")
    quiet.hear()
    assert run.text == "Tea is good."
    end(quiet, run, f"{opening}Well, well.</think>\n\nTea is good.")
    assert (run.state, run.result) == (TaskState.DONE, "Tea is good.")


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.LENGTH])
async def test_nothing_but_thinking_is_no_answer(quiet: Desk, reason: FinishReason) -> None:
    chat = quiet.chats.shown
    run = quiet.chats.tasks.run(chat, SUMMARY)
    stats = msgspec.structs.replace(STATS, thinking_tokens=212)
    quiet.client.push(RequestStarted(run.id, chat.id, STATS, thinks=True))
    quiet.client.finish(asked(quiet, run), "Well, well.", reason, stats=stats)
    quiet.hear()
    assert run.state is TaskState.FAILED
    assert run.result == ""
    assert ("only thought" if reason is FinishReason.STOP else "before there was an answer") in run.error


async def test_a_model_that_reasons_has_room_to_think(quiet: Desk) -> None:
    model = msgspec.structs.replace(MODEL, thinking=("<think>", "</think>"))
    quiet.chats.handle(HostReady(model))
    chat = quiet.chats.shown
    summary, title = (asked(quiet, quiet.chats.tasks.run(chat, spec)) for spec in (SUMMARY, TITLE))
    assert summary.max_tokens == SUMMARY.max_tokens + THINKING_TOKENS
    assert title.max_tokens == TITLE.max_tokens, "the engine keeps one in a form from thinking"


async def test_what_others_look_after_is_forgotten_with_the_run(quiet: Desk) -> None:
    tasks = quiet.chats.tasks
    for number in range(MAX_KEPT + 5):
        run = TaskRun(f"r{number}", SUMMARY, quiet.chats.shown.id, "", "", 0.0, state=TaskState.DONE)
        tasks.adopt(run, lambda: None)
    tasks.discard(tasks.runs[0].id)
    assert len(tasks._adopted) == len(tasks.runs)


async def test_a_task_of_the_users_that_comes_to_nothing_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "echo.toml").write_text('prompt = "$input"\nwhen = "every reply"\n')
    (folder / "two.toml").write_text('prompt = "Say two."\nwhen = "every reply"\n')
    desk = Desk(tmp_path / "chats.db", Config(), folder)
    desk.chats.handle(HostReady(MODEL))
    await desk.exchange(desk.chats.shown, "where to drink tea", "In Kyoto.")
    assert sorted(run.spec.name for run in desk.chats.tasks.runs) == ["title", "two"]
    assert any("echo has nothing to say" in str(change) for change in desk.told)
    await desk.close()


async def test_a_title_that_another_window_has_just_given_stays(lively: Desk) -> None:
    chat = lively.chats.shown
    await lively.exchange(chat, "where to drink tea", "In Kyoto.")
    (run,) = lively.chats.tasks.runs
    lively.store.rename(chat.id, "mine")
    end(lively, run, TEA)
    assert chat.title == "Tea in Kyoto", "it has not been seen here yet"
    await lively.chats.close()
    assert lively.store.session(chat.id).title == "mine"
