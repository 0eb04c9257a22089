"""Two front ends on one store, and a disk that fails: nothing is lost, nothing is raised."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from samovar.chats import answers, changes
from samovar.chats.chat import Chat
from samovar.config import Config
from samovar.core.errors import SamovarError
from samovar.core.request import FinishReason
from samovar.sessions import integrity
from samovar.sessions.messages import Messages
from samovar.sessions.store import MessageState, Store
from tests.tui.desk import Desk, until


async def the_same(desk: Desk, other: Desk) -> tuple[Chat, Chat, list[int]]:
    """A chat `one`, `first`, `two`, `second`, shown in both; the second one does not look for changes."""
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    await desk.exchange(chat, "two", "second")
    await other.chats.load()
    await other.chats._watch.close()
    other.chats.show(chat.id)
    await until(lambda: len(other.shown_texts()) == 4)
    return chat, other.chats.shown, [message.id for message in chat.path or ()]


# A message that another window has deleted


async def test_versions_of_a_message_that_is_gone_are_refused(desk: Desk, other: Desk) -> None:
    chat, there, ids = await the_same(desk, other)
    assert await desk.chats.branches.delete(chat, ids[2]) == ""
    assert "deleted in another window" in await other.chats.branches.step(there, ids[2], 1)
    assert "deleted in another window" in await other.chats.branches.delete(there, ids[2])
    assert await desk.chats.branches.delete(chat, ids[0]) == ""
    assert "deleted in another window" in await other.chats.branches.delete(there, ids[0])
    assert not other.chats.branches.can_undo(there)


async def test_nothing_is_put_below_a_deleted_message(desk: Desk, other: Desk) -> None:
    """It would be out of sight at once, and go for good with the branch."""
    chat, there, ids = await the_same(desk, other)
    assert await desk.chats.branches.delete(chat, ids[0]) == ""
    branches = other.chats.branches
    assert "deleted" in await branches.again(there, ids[3])
    assert "deleted" in await branches.go_on(there, ids[3])
    assert "deleted" in await branches.show(there, ids[3]) or there.path
    branches.begin_edit(there, ids[2])
    other.told.clear()
    await other.chats.send(there, "two, edited")
    (failed,) = [change for change in other.told if isinstance(change, changes.SendFailed)]
    assert failed.text == "two, edited"
    assert there.editing is not None, "the edit can go on elsewhere"
    assert desk.store.session(chat.id).head_id is None
    assert len(desk.store._db.rows("SELECT 1 FROM messages")) == 4
    assert await desk.chats.branches.undo(chat) == ""
    await other.chats.send(there, "two, edited")
    assert desk.store.path(chat.id)[-2].content == "two, edited"


# A reply that another window goes on with


async def test_a_reply_that_goes_on_elsewhere_is_seen(desk: Desk, other: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "count")
    await desk.reply(chat, "1 2 ", FinishReason.LENGTH)
    await other.chats.load()
    other.chats.show(chat.id)
    await until(lambda: other.shown_texts() == ["count", "1 2 "])
    assert await desk.chats.branches.go_on(chat) == ""
    await until(lambda: (other.chats.shown.path or [])[-1].state is MessageState.STREAMING)
    await desk.reply(chat, "3 4")
    await until(lambda: other.shown_texts() == ["count", "1 2 3 4"])
    assert (other.chats.shown.path or [])[-1].state is MessageState.COMPLETE


async def test_what_is_sent_follows_the_reply_as_it_is_now(desk: Desk, other: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "count")
    await desk.reply(chat, "1 2 ", FinishReason.LENGTH)
    await other.chats.load()
    await other.chats._watch.close()
    other.chats.show(chat.id)
    await until(lambda: other.shown_texts() == ["count", "1 2 "])
    assert await desk.chats.branches.go_on(chat) == ""
    await desk.reply(chat, "3 4")
    await other.chats.send(other.chats.shown, "and")
    assert [one.content for one in other.client.requests[-1].messages] == ["count", "1 2 3 4", "and"]


async def test_a_chat_that_is_deleted_while_its_reply_is_reopened_keeps_the_text(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "count")
    await desk.reply(chat, "1 2 ", FinishReason.LENGTH, tokens=(5, 6))
    going = asyncio.create_task(desk.chats.branches.go_on(chat))
    await asyncio.sleep(0)
    desk.chats.delete(chat.id)
    await going
    desk.chats.undo_delete()
    last = await desk.chats.archive.run(lambda store: store.path(chat.id)[-1])
    assert (last.state, last.content, last.tokens) == (MessageState.STOPPED, "1 2 ", (5, 6))


# The list


async def test_a_chat_deleted_elsewhere_is_told_once(desk: Desk, other: Desk) -> None:
    chat, there, _ = await the_same(desk, other)
    desk.store.delete(chat.id)
    for _ in range(3):
        await other.chats._watch.look(there)
    told = [change for change in other.told if isinstance(change, changes.Noticed)]
    assert len(told) == 1
    assert there.id in other.chats.chats
    other.chats.new()
    await other.chats._watch.look()
    assert there.id not in other.chats.chats, "it goes once nobody looks at it"


async def test_a_chat_that_is_no_longer_there_cannot_be_shown(desk: Desk) -> None:
    shown = desk.chats.shown
    desk.chats.show("gone")
    assert desk.chats.shown is shown
    assert "deleted in another window" in str(desk.told[-1])


async def test_messages_for_a_chat_that_is_busy_here_appear_when_it_is_not(desk: Desk, other: Desk) -> None:
    await desk.chats.load()
    aside = desk.chats.shown
    await desk.exchange(aside, "aside", "yes")
    chat = desk.chats.new()
    await desk.exchange(chat, "one", "first")
    await other.chats.load()
    other.chats.show(chat.id)
    await until(lambda: other.shown_texts() == ["one", "first"])
    await desk.chats.send(chat, "two")
    desk.chats.show(aside.id)
    await other.chats.send(other.chats.shown, "three")
    await other.reply(other.chats.shown, "third")
    there = desk._own_store.outside_version
    await until(lambda: desk.chats._watch._version == there() and not desk.chats._watch._is_behind)
    desk.chats.show(chat.id)
    await until(lambda: desk.chats._watch._is_behind)
    await desk.reply(chat, "second")
    await until(lambda: desk.shown_texts() == ["one", "first", "two", "second", "three", "third"])


async def test_a_store_that_fails_for_a_moment_is_looked_at_again(
    desk: Desk, other: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await other.chats.load()
    failures = iter([True, True])

    def failing(store: Store) -> int:
        if next(failures, False):
            raise SamovarError("the disk is away")
        return int(store._db.rows("PRAGMA data_version")[0][0])

    monkeypatch.setattr(Store, "outside_version", failing)
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    await until(lambda: chat.id in other.chats.chats)


async def test_chats_are_listed_where_nothing_can_be_settled(
    desk: Desk, other: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program was killed while a reply was written, and then the disk ran full."""
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")

    def full(_: Messages) -> int:
        raise SamovarError("The disk is full")

    monkeypatch.setattr(Messages, "recover", full)
    await other.chats.load()
    assert chat.id in other.chats.chats
    assert any("disk is full" in str(change) for change in other.told)


async def test_chats_can_be_exported_from_a_window_that_has_found_damage(desk: Desk, tmp_path: Path) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    integrity.mark(desk.store.file, "a page is damaged")
    target = tmp_path / "chat.md"
    assert "written" in await desk.chats.transfers.export([chat], target, None)
    assert "first" in target.read_text()


async def test_a_reply_that_cannot_be_stored_is_stored_once_there_is_room(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, failures = Messages.finish_reply, iter([True, True])

    def failing(*given: Any, **named: Any) -> None:  # noqa: ANN401 - as the original takes
        if next(failures, False):
            raise SamovarError("The disk is full")
        finish(*given, **named)

    monkeypatch.setattr(Messages, "finish_reply", failing)
    monkeypatch.setattr(answers, "TRY_AGAIN_S", 0.05)
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    assert desk.store.path(chat.id)[-1].state is MessageState.COMPLETE
    assert sum("disk is full" in str(change) for change in desk.told) == 1


# Drafts and edits


async def reopened(file: Path) -> Desk:
    """A window that starts after all others have been killed."""
    desk = Desk(file, Config())
    desk.store._db.change("UPDATE drafts SET owner_started = 1")
    await desk.chats.load()
    return desk


async def test_a_draft_of_a_chat_deleted_elsewhere_comes_back_in_a_new_chat(tmp_path: Path) -> None:
    file = tmp_path / "chats.db"
    first = Desk(file, Config())
    chat = first.chats.shown
    await first.exchange(chat, "one", "first")
    first.chats.drafts.typed(chat, "a thought")
    first.store.delete(chat.id)
    await first.close()
    second = await reopened(file)
    (found,) = [one for one in second.chats.chats.values() if one.draft]
    assert found.draft == "a thought"
    await second.chats.send(found, found.draft)
    assert "SendFailed" not in second.names()
    assert [message.content for message in second.store.path(found.id)] == ["a thought", ""]
    await second.close()


async def test_a_draft_deleted_with_its_chat_can_be_brought_back_and_does_not_come_by_itself(
    tmp_path: Path,
) -> None:
    file = tmp_path / "chats.db"
    first = Desk(file, Config())
    chat = first.chats.shown
    first.chats.drafts.typed(chat, "never mind")
    first.chats.drafts.flush()
    first.chats.delete(chat.id)
    assert first.chats.undo_delete() is chat
    assert chat.draft == "never mind"
    first.chats.delete(chat.id)
    await first.close()
    second = await reopened(file)
    assert not [one for one in second.chats.chats.values() if one.draft]
    await second.close()


@pytest.mark.parametrize("leaves", [False, True])
async def test_an_edit_does_not_cost_the_draft(tmp_path: Path, leaves: bool) -> None:
    file = tmp_path / "chats.db"
    first = Desk(file, Config())
    chat = first.chats.shown
    await first.exchange(chat, "one", "first")
    first.chats.drafts.typed(chat, "half a thought")
    first.chats.drafts.flush()
    first.chats.branches.begin_edit(chat, (chat.path or [])[0].id)
    first.chats.drafts.typed(chat, "one, edited")
    first.chats.drafts.flush()
    if leaves:
        first.chats.branches.cancel_edit(chat)
    await first.close()
    second = await reopened(file)
    draft = second.chats.chats[chat.id].draft
    assert draft == ("half a thought" if leaves else "half a thought\n\none, edited")
    await second.close()


async def test_what_is_typed_while_an_edit_is_stored_stays(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    ids = [message.id for message in chat.path or ()]
    desk.chats.drafts.typed(chat, "half a thought")
    desk.chats.branches.begin_edit(chat, ids[0])
    sending = asyncio.create_task(desk.chats.send(chat, "one, edited"))
    await asyncio.sleep(0)
    desk.chats.drafts.typed(chat, "more")
    await sending
    assert chat.draft == "half a thought\nmore"
    await desk.reply(chat, "again")
    desk.chats.branches.begin_edit(chat, (chat.path or [])[0].id)
    sending = asyncio.create_task(desk.chats.send(chat, "one, once more"))
    await asyncio.sleep(0)
    assert desk.chats.branches.cancel_edit(chat)
    await sending
    assert chat.draft == "half a thought\nmore"


async def test_a_first_message_that_cannot_be_stored_leaves_no_chat(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "read @/no/such/file.md")
    assert "SendFailed" in desk.names()
    assert desk.store.sessions() == []
    desk.chats.profile.set_system_prompt(chat, "Be brief.")
    await desk.chats.send(chat, "hello")
    assert desk.client.requests[-1].messages[0].content == "Be brief."
    assert desk.store.session(chat.id).system_prompt == "Be brief."


async def test_what_is_set_while_a_new_chat_is_stored_is_stored_too(desk: Desk) -> None:
    chat = desk.chats.shown
    sending = asyncio.create_task(desk.chats.send(chat, "hello"))
    await asyncio.sleep(0)
    desk.chats.profile.set_tags(chat, ["work"])
    desk.chats.profile.set_favourite(chat, is_favourite=True)
    desk.chats.profile.set_system_prompt(chat, "Be brief.")
    await sending
    await until(lambda: desk.store.session(chat.id).system_prompt == "Be brief.")
    stored = desk.store.session(chat.id)
    assert (stored.tags, stored.is_favourite, stored.title) == (("work",), True, "hello")
    assert (chat.tags, chat.is_favourite, chat.title) == (("work",), True, "hello")


async def test_a_message_whose_file_is_gone_can_be_edited(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("The kettle is red.\n")
    chat = desk.chats.shown
    await desk.exchange(chat, f"raed @{file}", "yes")
    file.unlink()
    desk.chats.branches.begin_edit(chat, (chat.path or [])[0].id)
    await desk.chats.send(chat, f"read @{file}")
    assert "SendFailed" not in desk.names()
    assert "kettle is red" in desk.client.requests[-1].messages[0].content
