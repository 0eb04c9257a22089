"""Messages written while a reply streams: in which order they go, what stops them, and how they look."""

from pathlib import Path

import pytest

from samovar.chats.chat import Chat
from samovar.chats.draft_keeper import unsent_text
from samovar.chats.mentions import as_attachment, paste_name
from samovar.config import Config
from samovar.core.request import FinishReason
from samovar.sessions.attachments import PASTE_DIGITS, digest_of
from samovar.tui.widgets.queue_rows import QueueRows
from tests.tui.desk import Desk, until
from tests.tui.support import station


def contents(chat: Chat) -> list[str]:
    return [message.content for message in chat.path or ()]


async def until_asked(desk: Desk, num_requests: int) -> None:
    await until(lambda: len(desk.client.requests) >= num_requests)


async def queued(desk: Desk, *texts: str) -> Chat:
    """A chat whose first reply is being written, with messages that wait for it."""
    chat = desk.chats.shown
    await desk.chats.send(chat, "one")
    for text in texts:
        assert desk.chats.can_queue(chat)
        desk.chats.outbox.add(chat, text)
    return chat


async def test_queued_messages_go_one_by_one_when_the_reply_before_has_ended(desk: Desk) -> None:
    chat = await queued(desk, "two", "three")
    await desk.reply(chat, "reply one")
    await until_asked(desk, 2)
    assert chat.queued == ["three"]
    await desk.reply(chat, "reply two", FinishReason.LENGTH)
    await until_asked(desk, 3)
    assert contents(chat) == ["one", "reply one", "two", "reply two", "three"]
    assert chat.queued == []


async def test_a_queue_goes_on_in_a_chat_that_is_not_shown(desk: Desk) -> None:
    chat = await queued(desk, "two")
    desk.chats.new()
    desk.chats.outbox.add(chat, "three")
    await desk.reply(chat, "reply one")
    await until_asked(desk, 2)
    assert desk.client.requests[1].session == chat.id
    assert desk.chats.shown.queued == []


@pytest.mark.parametrize(
    ("reason", "why"), [(FinishReason.CANCELLED, "stopped"), (FinishReason.HOST_LOST, "failed")]
)
async def test_after_a_stop_or_a_failure_the_queue_waits_for_the_user(
    desk: Desk, reason: FinishReason, why: str
) -> None:
    chat = await queued(desk, "two", "three")
    await desk.reply(chat, "half", reason)
    assert why in chat.queue_paused
    desk.chats.show(chat.id)
    await desk.chats.send(chat, "something else")
    assert chat.queued == ["two", "three"]
    await desk.reply(chat, "half again", reason)
    assert desk.chats.outbox.go_on(chat)
    await until_asked(desk, 3)
    assert contents(chat)[-1] == "two"
    assert not chat.queue_paused


async def test_another_reply_that_ends_well_lets_a_paused_queue_go_on(desk: Desk) -> None:
    chat = await queued(desk, "two")
    await desk.reply(chat, "half", FinishReason.CANCELLED)
    assert await desk.chats.branches.retry(chat) == ""
    await desk.reply(chat, "reply one")
    await until_asked(desk, 3)
    assert contents(chat) == ["one", "reply one", "two"]


async def test_what_is_written_after_a_stop_is_sent_when_the_reply_has_stopped(desk: Desk) -> None:
    chat = await queued(desk, "two")
    desk.chats.stop(chat)
    desk.chats.outbox.add(chat, "instead")
    await desk.reply(chat, "half", FinishReason.CANCELLED)
    await until_asked(desk, 2)
    assert contents(chat)[-1] == "instead"
    assert chat.queued == ["two"]


async def test_a_message_that_cannot_be_stored_stays_the_first_one(desk: Desk, tmp_path: Path) -> None:
    chat = await queued(desk, f"read @{tmp_path}/gone.md please", "three")
    await desk.reply(chat, "reply one")
    await until(lambda: chat.queue_paused)
    assert "there is no file" in chat.queue_paused
    assert len(chat.queued) == 2
    assert chat.queued[1] == "three"
    assert len(desk.client.requests) == 1
    (tmp_path / "gone.md").write_text("here again")
    desk.chats.outbox.go_on(chat)
    await until_asked(desk, 2)
    assert "here again" in desk.client.requests[1].messages[-1].content, "a file is read when it is sent"


async def test_an_edit_goes_before_the_queue_and_is_not_queued(desk: Desk) -> None:
    chat = await queued(desk, "two")
    assert chat.path
    desk.chats.branches.begin_edit(chat, chat.path[0].id)
    assert not desk.chats.can_queue(chat)
    await desk.reply(chat, "reply one")
    assert chat.queued == ["two"]
    desk.chats.branches.cancel_edit(chat)
    await until_asked(desk, 2)
    assert contents(chat) == ["one", "reply one", "two"]


async def test_a_deleted_chat_sends_nothing_and_brings_its_queue_back(desk: Desk) -> None:
    chat = await queued(desk, "two")
    request = desk.client.requests[0]
    desk.chats.delete(chat.id)
    desk.client.finish(request, "half", FinishReason.CANCELLED)
    desk.hear()
    assert desk.chats.undo_delete() is chat
    assert (chat.queued, bool(chat.queue_paused)) == (["two"], True)
    await until(lambda: [session.id for session in desk.store.sessions()] == [chat.id])
    assert len(desk.client.requests) == 1


async def test_what_was_queued_is_in_the_composer_again_at_the_next_start(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await queued(desk, "two", "three", "four")
    desk.chats.drafts.typed(chat, "half a")
    await desk.reply(chat, "reply one")
    await until_asked(desk, 2)
    await desk.chats.close()
    monkeypatch.setattr("samovar.sessions.owner.Owner.is_alive", lambda owner: False)
    later = Desk(tmp_path / "chats.db", Config())
    await later.chats.load()
    assert later.chats.chats[chat.id].draft == "three\n\nfour\n\nhalf a"
    assert later.chats.chats[chat.id].queued == []
    await later.close()


async def test_a_message_on_its_way_is_kept_until_it_is_stored(desk: Desk) -> None:
    chat = await queued(desk, "two", "three")
    chat.draft = "half a"
    assert unsent_text(chat) == "two\n\nthree\n\nhalf a"
    chat.on_its_way = chat.queued.pop(0)
    assert unsent_text(chat) == "two\n\nthree\n\nhalf a"
    assert unsent_text(chat, sending="two") == "three\n\nhalf a"
    chat.draft = "two"  # the composer has not told yet that it is empty
    assert unsent_text(chat) == "two\n\nthree"
    await desk.reply(chat, "one", FinishReason.CANCELLED)


async def test_a_queued_message_is_shown_edited_and_sent_when_the_reply_ends(tmp_path: Path) -> None:
    async with station(tmp_path, size=(80, 24)) as here:
        await here.send("one")
        await here.until_asked(1)
        here.client.begin(here.client.requests[0])
        here.client.say(here.client.requests[0], "half ")
        await here.send("two")
        await here.send("three")
        rows = here.screen.query_one(QueueRows)
        await here.until(lambda: rows.display and "queued 1  two" in str(rows.render()))
        assert "2  three" in str(rows.render())
        assert here.error == ""

        await here.pilot.press("up")
        await here.until(lambda: here.text == "three")
        await here.pilot.press(*" more", "enter", "tab", "up", "delete")
        await here.until(lambda: here.app.conversations.shown.queued == ["three more"])
        here.client.finish(here.client.requests[0], "half a reply")
        await here.until_asked(2)
        assert here.client.requests[1].messages[-1].content == "three more"
        await here.until(lambda: not rows.display)
        assert here.app.focused is not rows, "the keys go back to writing"


async def test_enter_in_an_empty_line_goes_on_with_a_paused_queue(tmp_path: Path) -> None:
    async with station(tmp_path, size=(80, 24)) as here:
        await here.send("one")
        await here.until_asked(1)
        await here.send("two")
        await here.pilot.press("escape")
        here.client.finish(here.client.requests[0], "half", FinishReason.CANCELLED)
        rows = here.screen.query_one(QueueRows)
        await here.until(lambda: "the queue waits: the reply was stopped" in str(rows.render()))
        await here.pilot.press("enter")
        await here.until_asked(2)
        assert here.client.requests[1].messages[-1].content.endswith("two")


async def test_a_paste_is_stored_with_a_draft_that_names_it(desk: Desk) -> None:
    text = "a long text"
    paste = as_attachment(paste_name(digest_of(text)), text)
    desk.chats.drafts.keep_paste(desk.chats.shown, paste)
    await until(lambda: desk.store.paste(paste.digest[:PASTE_DIGITS]))
    desk.store.purge()
    assert desk.store.paste(paste.digest[:PASTE_DIGITS]) == (paste.digest, text)
