"""Branches of a chat without a screen: what is stored, what is asked, what is shown."""

from pathlib import Path

import msgspec
import pytest

from samovar.chats import changes
from samovar.chats.command_desk import CommandDesk
from samovar.chats.slash import parse
from samovar.config import Config
from samovar.core.chat import ChatMessage, Role
from samovar.core.commands import CountTokens
from samovar.core.errors import SamovarError
from samovar.core.events import HostReady, TokensCounted
from samovar.core.request import FinishReason
from samovar.sessions.store import MessageState
from tests.tui.desk import Desk, until
from tests.tui.fake_client import MODEL

USER, ASSISTANT = Role.USER, Role.ASSISTANT


async def two_turns(desk: Desk) -> list[int]:
    """A chat `one`, `first`, `two`, `second`; returns the ids of its messages."""
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    await desk.exchange(chat, "two", "second")
    return [message.id for message in chat.path or ()]


def asked(desk: Desk) -> list[str]:
    """The texts of the last request."""
    return [message.content for message in desk.client.requests[-1].messages]


async def test_an_edit_is_another_branch_and_the_first_one_stays(desk: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    desk.chats.drafts.typed(chat, "half a thought")
    desk.chats.branches.begin_edit(chat, ids[2])
    assert chat.draft == "two"
    await desk.chats.send(chat, "two, edited")
    assert asked(desk) == ["one", "first", "two, edited"]
    assert chat.draft == "half a thought", "what was in the composer is back"
    await desk.reply(chat, "another")
    assert desk.shown_texts() == ["one", "first", "two, edited", "another"]
    edited = (chat.path or [])[2]
    assert (edited.place, edited.num_siblings) == (1, 2)

    assert await desk.chats.branches.step(chat, edited.id, -1) == ""
    assert desk.shown_texts() == ["one", "first", "two", "second"]
    assert [message.content for message in desk.store.path(chat.id)] == desk.shown_texts()
    assert await desk.chats.branches.step(chat, ids[2], -1) != ""
    assert await desk.chats.branches.step(chat, ids[2], 1) == ""
    assert desk.shown_texts()[-1] == "another"


async def test_the_first_message_can_be_edited_too(desk: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    desk.chats.branches.begin_edit(chat, ids[0])
    await desk.chats.send(chat, "one, edited")
    assert asked(desk) == ["one, edited"]


async def test_an_edit_that_is_left_changes_nothing(desk: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    desk.chats.branches.begin_edit(chat, ids[2])
    assert desk.chats.branches.cancel_edit(chat)
    assert not desk.chats.branches.cancel_edit(chat)
    assert chat.draft == ""
    await desk.chats.send(chat, "three")
    assert asked(desk) == ["one", "first", "two", "second", "three"]


async def test_an_edited_reply_stands_beside_the_models_and_asks_nothing(desk: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    desk.chats.branches.begin_edit(chat, ids[3])
    await desk.chats.send(chat, "second, as I want it")
    assert len(desk.client.requests) == 2
    assert desk.shown_texts() == ["one", "first", "two", "second, as I want it"]
    await desk.chats.send(chat, "three")
    assert desk.client.requests[-1].messages[3] == ChatMessage(ASSISTANT, "second, as I want it")


async def test_any_reply_can_be_answered_again(desk: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    assert await desk.chats.branches.again(chat, ids[1]) == ""
    assert asked(desk) == ["one"]
    await desk.reply(chat, "first, again")
    assert desk.shown_texts() == ["one", "first, again"]
    assert (chat.path or [])[1].num_siblings == 2


async def test_another_reply_may_have_other_sampling_for_once(desk: Desk) -> None:
    await two_turns(desk)
    chat = desk.chats.shown
    await CommandDesk(desk.chats).run(parse("/retry temperature 1.5 seed 7"))
    sampling = desk.client.requests[-1].sampling
    assert (sampling.temperature, sampling.seed) == (1.5, 7)
    await desk.reply(chat, "wild")
    await desk.chats.send(chat, "three")
    assert desk.client.requests[-1].sampling.seed is None


async def test_a_reply_that_brought_nothing_is_no_version(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "one")
    await desk.reply(chat, "", FinishReason.FAILED)
    assert await desk.chats.branches.retry(chat) == ""
    await desk.reply(chat, "first")
    assert (chat.path or [])[1].num_siblings == 1


async def test_a_cut_reply_goes_on_where_it_ended(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "count")
    await desk.reply(chat, "one two", FinishReason.LENGTH, tokens=(11, 12))
    assert (chat.path or [])[1].state is MessageState.CUT
    assert await desk.chats.branches.go_on(chat) == ""
    assert desk.client.requests[-1].messages[-1] == ChatMessage(ASSISTANT, "one two", (11, 12), "tok-1")
    assert chat.reply is not None
    assert chat.reply.text == "one two", "what is there is shown while it grows"
    await desk.reply(chat, " three", tokens=(13,), begun=(11, 12))
    (_, reply) = desk.store.path(chat.id)
    assert (reply.content, reply.tokens, reply.state) == (
        "one two three",
        (11, 12, 13),
        MessageState.COMPLETE,
    )
    assert reply.num_siblings == 1


async def test_going_on_stopped_at_once_keeps_what_was_there(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "count")
    await desk.reply(chat, "one two", FinishReason.LENGTH, tokens=(11, 12))
    await desk.chats.branches.go_on(chat)
    await desk.reply(chat, "", FinishReason.CANCELLED, tokens=())
    (_, reply) = desk.store.path(chat.id)
    assert (reply.content, reply.tokens, reply.state) == ("one two", (11, 12), MessageState.STOPPED)


async def test_what_ends_in_a_message_of_the_users_cannot_go_on(desk: Desk) -> None:
    chat = desk.chats.shown
    assert await desk.chats.branches.go_on(chat) == "there is no reply to go on with"
    ids = await two_turns(desk)
    assert "goes on after this reply" in await desk.chats.branches.go_on(chat, ids[1])


async def test_a_fork_begins_as_the_chat_does_and_leaves_it_alone(desk: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    assert await desk.chats.branches.fork(chat, ids[1]) == ""
    fork = desk.chats.shown
    assert fork is not chat
    assert fork.title == "↳ one"
    await until(lambda: fork.path is not None)
    assert desk.shown_texts() == ["one", "first"]
    await desk.exchange(fork, "elsewhere", "yes")
    assert desk.client.requests[-1].messages[1] == ChatMessage(ASSISTANT, "first", (), "tok-1")
    assert desk.client.requests[-1].session == fork.id
    assert [message.content for message in desk.store.path(chat.id)] == ["one", "first", "two", "second"]


async def test_a_branch_is_deleted_and_comes_back(desk: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    assert await desk.chats.branches.delete(chat, ids[2]) == ""
    assert desk.shown_texts() == ["one", "first"]
    assert await desk.chats.branches.undo(chat) == ""
    assert desk.shown_texts() == ["one", "first", "two", "second"]
    assert await desk.chats.branches.undo(chat) == "no message of this chat has been deleted"


async def test_deleting_one_version_shows_another(desk: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    await desk.chats.branches.again(chat, ids[3])
    await desk.reply(chat, "second, again")
    newest = (chat.path or [])[3]
    assert await desk.chats.branches.delete(chat, newest.id) == ""
    assert desk.shown_texts()[-1] == "second"
    assert (chat.path or [])[3].num_siblings == 1


async def test_nothing_is_branched_while_a_reply_is_written(desk: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    await desk.chats.send(chat, "three")
    for refusal in (
        await desk.chats.branches.again(chat, ids[1]),
        await desk.chats.branches.delete(chat, ids[1]),
        await desk.chats.branches.step(chat, ids[1], 1),
        await desk.chats.branches.retry(chat),
    ):
        assert "still being written" in refusal
    await desk.reply(chat, "third")
    assert desk.shown_texts()[-1] == "third"


async def test_commands_say_what_is_wrong(desk: Desk) -> None:
    await two_turns(desk)
    commands = CommandDesk(desk.chats)
    for text, reason in {
        "/edit 3": "1 to 2",
        "/retry hot 1": 'no setting "hot"',
        "/retry temperature": "write /retry",
        "/set temperature warm": "a number from 0",
        "/set colour red": "known are",
        "/set context_full": 'context_full must be "compact", "shift" or "stop"',
        "/sort size": "recent, created, title, length",
        "/continue nothing": "takes nothing",
    }.items():
        with pytest.raises(SamovarError, match=reason):
            await commands.run(parse(text))
    assert len(desk.client.requests) == 2


async def test_settings_of_a_chat_reach_its_requests_and_the_store(desk: Desk) -> None:
    chat = desk.chats.shown
    commands = CommandDesk(desk.chats)
    for text in ("/set temperature 0.1", "/set max_tokens 7", "/set stop END", "/tag work, later", "/star"):
        await commands.run(parse(text))
    await desk.exchange(chat, "one", "first")
    request = desk.client.requests[-1]
    assert (request.sampling.temperature, request.max_tokens, request.stop) == (0.1, 7, ("END",))
    assert "starts by itself" in await commands.run(parse("/set side_tasks off"))
    await commands.run(parse("/set side_tasks -"))
    await until(lambda: desk.store.session(chat.id).settings == chat.settings)
    stored = desk.store.session(chat.id)
    assert (stored.settings, stored.tags) == (chat.settings, ("later", "work"))
    await commands.run(parse("/set temperature -"))
    await until(lambda: desk.store.session(chat.id).settings.temperature is None)


# Two windows


async def test_a_message_of_one_window_appears_in_the_other(desk: Desk, other: Desk) -> None:
    await desk.chats.load()
    await other.chats.load()
    chat = desk.chats.shown
    await desk.chats.send(chat, "one")
    await until(lambda: chat.id in other.chats.chats)
    other.chats.show(chat.id)
    await until(lambda: other.shown_texts() == ["one", ""])
    desk.client.say(desk.client.requests[0], "fir")
    desk.hear()
    await until(lambda: other.shown_texts() == ["one", "fir"])
    await desk.reply(chat, "first")
    await until(lambda: other.shown_texts() == ["one", "first"])
    await desk.exchange(chat, "two", "second")
    other.told.clear()
    await until(lambda: other.shown_texts() == ["one", "first", "two", "second"])
    assert changes.PathChanged(chat.id) not in other.told, "what grows is not drawn anew"


async def test_changes_of_the_list_appear_in_the_other_window(desk: Desk, other: Desk) -> None:
    await desk.chats.load()
    await other.chats.load()
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    await until(lambda: chat.id in other.chats.chats)
    there = other.chats.chats[chat.id]
    desk.chats.profile.rename(chat, "renamed")
    desk.chats.profile.set_tags(chat, ["work"])
    await until(lambda: (there.title, there.tags) == ("renamed", ("work",)))
    desk.chats.delete(chat.id)
    await until(lambda: chat.id not in other.chats.chats)
    desk.chats.undo_delete()
    await until(lambda: chat.id in other.chats.chats)


async def test_two_windows_that_write_at_once_both_keep_their_messages(desk: Desk, other: Desk) -> None:
    await desk.chats.load()
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    await other.chats.load()
    other.chats.show(chat.id)
    there = other.chats.shown
    await until(lambda: other.shown_texts() == ["one", "first"])
    await desk.chats.send(chat, "from here")
    await other.chats.send(there, "from there")
    await desk.reply(chat, "answer here")
    await other.reply(there, "answer there")
    texts = ["one", "first", "from here", "answer here", "from there", "answer there"]
    await until(lambda: desk.shown_texts() == texts)
    await until(lambda: other.shown_texts() == texts)


async def test_an_edit_in_one_window_keeps_what_the_other_wrote_meanwhile(desk: Desk, other: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    await other.chats.load()
    other.chats.show(chat.id)
    there = other.chats.shown
    await until(lambda: other.shown_texts() == ["one", "first", "two", "second"])
    desk.chats.branches.begin_edit(chat, ids[2])
    await other.exchange(there, "three", "third")
    await desk.chats.send(chat, "two, edited")
    await desk.reply(chat, "another")
    document = desk.store.exchange.document(chat.id)
    assert [message.content for message in document.messages] == [
        *("one", "first", "two", "second", "three", "third", "two, edited", "another")
    ]


async def test_a_message_that_another_window_has_deleted_is_not_edited(desk: Desk, other: Desk) -> None:
    ids = await two_turns(desk)
    chat = desk.chats.shown
    await other.chats.load()
    other.chats.show(chat.id)
    await until(lambda: other.shown_texts() == ["one", "first", "two", "second"])
    desk.chats.branches.begin_edit(chat, ids[2])
    assert await other.chats.branches.delete(other.chats.shown, ids[0]) == ""
    await desk.chats.send(chat, "two, edited")
    (failed,) = [change for change in desk.told if isinstance(change, changes.SendFailed)]
    assert failed.text == "two, edited"
    assert "has been deleted" in failed.error
    assert "has been deleted" in await desk.chats.branches.step(chat, ids[0], 1)


# Drafts


async def after_a_kill(file: Path) -> Desk:
    """Another window, after those before it are gone: since they were of this process, by another owner."""
    desk = Desk(file, Config())
    desk.store._db.change("UPDATE drafts SET owner_started = 1")
    await desk.chats.load()
    return desk


async def test_a_draft_that_an_edit_has_put_aside_survives_the_window(tmp_path: Path) -> None:
    first = Desk(tmp_path / "chats.db", Config())
    chat = first.chats.shown
    await first.exchange(chat, "one", "first")
    first.chats.drafts.typed(chat, "a thought")
    assert chat.path
    first.chats.branches.begin_edit(chat, chat.path[0].id)
    first.chats.drafts.typed(chat, "one, edi")
    await first.close()
    second = await after_a_kill(tmp_path / "chats.db")
    assert second.chats.chats[chat.id].draft == "a thought\n\none, edi"
    await second.close()


async def test_an_edit_that_was_left_is_no_draft(tmp_path: Path) -> None:
    first = Desk(tmp_path / "chats.db", Config())
    chat = first.chats.shown
    await first.exchange(chat, "one", "first")
    assert chat.path
    first.chats.branches.begin_edit(chat, chat.path[0].id)
    first.chats.drafts.typed(chat, "one, edi")
    first.chats.drafts.flush()
    first.chats.branches.cancel_edit(chat)
    await first.close()
    second = await after_a_kill(tmp_path / "chats.db")
    assert second.chats.chats[chat.id].draft == ""
    await second.close()


async def test_a_draft_in_a_chat_that_another_window_deletes_comes_back_in_a_new_chat(tmp_path: Path) -> None:
    first = Desk(tmp_path / "chats.db", Config())
    chat = first.chats.shown
    await first.exchange(chat, "one", "first")
    first.chats.drafts.typed(chat, "a thought")
    first.chats.drafts.flush()
    await first.chats.archive.run(lambda store: store.delete(chat.id))
    await first.close()
    second = await after_a_kill(tmp_path / "chats.db")
    (back,) = [one for one in second.chats.chats.values() if one.draft]
    assert (back.draft, back.in_store) == ("a thought", False)
    await second.exchange(back, back.draft, "it can be sent")
    await second.close()


async def test_the_draft_of_a_chat_goes_and_comes_back_with_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "chats.db", Config())
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    desk.chats.drafts.typed(chat, "a thought")

    async def stored() -> list[tuple[str]]:
        desk.chats.drafts.flush()
        return await desk.chats.archive.run(lambda _: desk.store._db.rows("SELECT text FROM drafts"))

    assert await stored() == [("a thought",)]
    desk.chats.drafts.typed(chat, "another thought")
    desk.chats.delete(chat.id)
    assert await stored() == []
    desk.chats.undo_delete()
    assert await stored() == [("another thought",)]
    await desk.close()


async def test_a_draft_survives_the_window(tmp_path: Path) -> None:
    first = Desk(tmp_path / "chats.db", Config())
    chat = first.chats.shown
    await first.exchange(chat, "one", "first")
    first.chats.drafts.typed(chat, "a thought")
    fresh = first.chats.new()
    first.chats.drafts.typed(fresh, "never sent")
    await first.close()
    second = await after_a_kill(tmp_path / "chats.db")
    assert second.chats.chats[chat.id].draft == "a thought"
    assert second.chats.chats[fresh.id].draft == "never sent"
    assert not second.chats.chats[fresh.id].in_store
    second.chats.show(chat.id)
    await second.chats.send(second.chats.shown, "a thought")
    rows = second.store._db.rows("SELECT text FROM drafts")
    assert rows == [("never sent",)]
    await second.close()


async def test_a_message_that_cannot_be_stored_leaves_no_chat(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "see @./no-such-file.txt")
    assert desk.names().count("SendFailed") == 1
    assert desk.store.sessions() == []
    await desk.exchange(chat, "see nothing", "well")
    assert [session.title for session in desk.store.sessions()] == ["see nothing"]


# Files


async def test_the_tokens_of_a_file_are_asked_for_and_kept(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("The kettle is red.\n")
    chat = desk.chats.shown
    await desk.chats.send(chat, f"read @{file}")
    (command,) = [one for one in desk.client.sent if isinstance(one, CountTokens)]
    assert command.texts == ("The kettle is red.\n",)
    desk.client.push(TokensCounted(command.request_id, (6,)))
    desk.hear()
    await until(lambda: desk.store.path(chat.id)[0].attachments[0].num_tokens == 6)
    assert (chat.path or [])[0].attachments[0].num_tokens == 6
    assert "MessageChanged" in desk.names()
    await desk.reply(chat, "yes")
    await desk.chats.send(chat, f"again @{file}")
    assert desk.client.requests[-1].messages[0].content.count("kettle is red") == 1
    assert "as above" in desk.client.requests[-1].messages[2].content


async def test_a_chat_that_outgrows_the_context_goes_on_without_its_oldest_turns(desk: Desk) -> None:
    desk.chats.handle(HostReady(msgspec.structs.replace(MODEL, context_tokens=600)))
    chat = desk.chats.shown
    await CommandDesk(desk.chats).run(parse("/set context_full shift"))
    for number in range(8):
        await desk.exchange(chat, f"{number} " + "word " * 60, f"answer {number}")
    request = desk.client.requests[-1]
    assert request.messages[-1].content.startswith("7 ")
    assert request.messages[0].role is USER
    assert len(request.messages) < 15
    assert any("no longer sent" in str(change) for change in desk.told)
    assert len(desk.store.path(chat.id)) == 16, "all of it stays readable"


async def test_a_branch_that_was_deleted_before_a_restart_comes_back(tmp_path: Path) -> None:
    first = Desk(tmp_path / "chats.db", Config())
    ids = await two_turns(first)
    chat = first.chats.shown
    await first.chats.branches.delete(chat, ids[2])
    await first.close()
    second = Desk(tmp_path / "chats.db", Config())
    await second.chats.load()
    second.chats.show(chat.id)
    await until(lambda: second.shown_texts() == ["one", "first"])
    assert await CommandDesk(second.chats).run(parse("/undo")) == "the message is back"
    assert second.shown_texts() == ["one", "first", "two", "second"]
    with pytest.raises(SamovarError, match="no message of this chat"):
        await CommandDesk(second.chats).run(parse("/undo"))
    await second.close()
