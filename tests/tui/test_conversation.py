"""The logic of chatting without a screen: what is stored, sent and told, and in which order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from samovar.chats import changes
from samovar.chats.answers import SAVE_EVERY_S
from samovar.chats.chat import Chat, auto_title
from samovar.chats.finder import Finder
from samovar.chats.prompts import prompt_messages
from samovar.config import Config, SamplingConfig
from samovar.core.chat import ChatMessage, Role
from samovar.core.commands import Focus, Forget, Rename
from samovar.core.errors import SamovarError
from samovar.core.events import CacheChanged, Event, HostReady, LoadingProgressed, TokensGenerated
from samovar.core.request import FinishReason
from samovar.core.snapshot import CacheSnapshot
from samovar.sessions.store import MessageState, Store
from samovar.tui.bridge import Bridge
from tests.tui.desk import Desk, until
from tests.tui.fake_client import MODEL, FakeClient


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    sampling = SamplingConfig(temperature=0.2, max_tokens=99)
    desk = Desk(tmp_path / "chats.db", Config(system_prompt="Be brief.", sampling=sampling))
    yield desk
    await desk.close()


async def test_a_message_is_in_the_store_before_it_is_shown_and_sent(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "hello")
    assert desk.names() == ["MessageAdded", "ReplyBegan", "ChatsChanged"]
    assert [message.content for message in desk.store.path(chat.id)][:1] == ["hello"]
    request = desk.client.requests[0]
    assert request.messages == (ChatMessage(Role.SYSTEM, "Be brief."), ChatMessage(Role.USER, "hello"))
    assert (request.sampling.temperature, request.max_tokens) == (0.2, 99)
    await until(lambda: desk.store.path(chat.id)[-1].state is MessageState.STREAMING)


async def test_a_reply_is_stored_while_it_streams(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "hello")
    desk.client.say(desk.client.requests[0], "half a rep")
    desk.hear()
    before = asyncio.get_running_loop().time()
    await until(lambda: desk.store.path(chat.id)[-1].content == "half a rep")
    assert asyncio.get_running_loop().time() - before >= SAVE_EVERY_S * 0.9


async def test_every_end_has_its_state(desk: Desk) -> None:
    chat = desk.chats.shown
    ends = {
        FinishReason.STOP: MessageState.COMPLETE,
        FinishReason.LENGTH: MessageState.CUT,
        FinishReason.CONTEXT_FULL: MessageState.CUT,
        FinishReason.CANCELLED: MessageState.STOPPED,
        FinishReason.FAILED: MessageState.FAILED,
        FinishReason.HOST_LOST: MessageState.FAILED,
    }
    for number, (reason, state) in enumerate(ends.items(), 1):
        await desk.chats.send(chat, f"message {number}")
        request = desk.client.requests[-1]
        desk.client.say(request, "text")
        desk.client.finish(request, "" if reason is FinishReason.HOST_LOST else "text", reason)
        desk.hear()
        assert chat.path
        last = chat.path[-1]
        assert (last.content, last.state) == ("text", state)
        await desk.until_stored(chat.id, state, "text")
        assert desk.store.path(chat.id)[-1].id == last.id
    stored = desk.store.path(chat.id)
    assert [message.state for message in stored if message.role is Role.ASSISTANT] == list(ends.values())
    assert stored == chat.path or [m.content for m in stored] == [m.content for m in chat.path or []]


async def test_a_chat_read_late_is_shown_whole_when_something_is_sent_at_once(desk: Desk) -> None:
    session = desk.store.create_session("old")
    desk.store.messages.add(session.id, Role.USER, "before")
    await desk.chats.load()
    desk.chats.show(session.id)
    await desk.chats.send(desk.chats.shown, "after")
    path = desk.chats.shown.path or []
    assert [message.content for message in path] == ["before", "after"]
    assert "PathChanged" in desk.names()


async def test_a_stopped_reply_can_be_asked_for_again_beside_it(desk: Desk) -> None:
    chat = desk.chats.shown
    assert await desk.chats.branches.retry(chat) == "there is no message to answer yet"
    await desk.chats.send(chat, "hello")
    assert "still being written" in await desk.chats.branches.retry(chat)
    desk.client.finish(desk.client.requests[0], "Hel", FinishReason.CANCELLED)
    desk.hear()
    assert await desk.chats.branches.retry(chat) == ""
    desk.client.finish(desk.client.requests[1], "Hello.")
    desk.hear()
    await until(lambda: desk.store.path(chat.id)[-1].state is MessageState.COMPLETE)
    assert [message.content for message in desk.store.path(chat.id)] == ["hello", "Hello."]
    assert desk.store.session(chat.id).num_messages == 3

    assert await desk.chats.branches.retry(chat) == "", "a complete reply gets a sibling"
    desk.client.finish(desk.client.requests[2], "Hi.")
    desk.hear()
    await until(lambda: desk.store.path(chat.id)[-1].content == "Hi.")
    last = desk.store.path(chat.id)[-1]
    assert (last.place, last.num_siblings) == (2, 3)


async def test_a_deleted_chat_is_forgotten_by_the_host_only_while_it_stays_deleted(desk: Desk) -> None:
    for title in ("one", "two"):
        desk.store.create_session(title)
    await desk.chats.load()
    one, two = (next(c for c in desk.chats.chats.values() if c.title == title) for title in ("one", "two"))
    desk.chats.delete(one.id)
    desk.chats.delete(two.id)
    assert desk.chats.undo_delete() is two
    desk.chats.forget_deleted(one.id)
    desk.chats.forget_deleted(two.id)
    assert desk.client.of(Forget) == [Forget(one.id)]
    await desk.chats.close()
    assert [session.title for session in desk.store.sessions()] == ["two"]


async def test_focus_is_told_again_to_a_host_that_has_just_started(desk: Desk) -> None:
    desk.client.push(LoadingProgressed("loading the model", 0.4))
    desk.hear()
    assert desk.chats.host.doing == "loading the model 40 %"
    desk.client.push(HostReady(MODEL))
    desk.hear()
    assert desk.client.of(Focus) == [Focus(desk.chats.shown.id)]


async def test_text_waits_for_the_frame_and_the_end_never_overtakes_it(desk: Desk) -> None:
    got: list[Event] = []
    bridge = Bridge(got.append, max_fps=20)
    client = FakeClient()
    reading = asyncio.create_task(bridge.run(client.events()))
    for number in range(50):
        client.push(TokensGenerated("r", "s", f"{number} ", 1))
    client.push(CacheChanged(CacheSnapshot(model="old")), CacheChanged(CacheSnapshot(model="new")))
    await until(lambda: len(got) >= 2)
    for number in range(50):
        client.push(TokensGenerated("r", "s", f"{number} ", 1))
    client.push(LoadingProgressed("end", 1.0))
    await until(lambda: isinstance(got[-1], LoadingProgressed))
    await client.close()
    await reading
    texts = [event for event in got if isinstance(event, TokensGenerated)]
    assert len(texts) <= 4
    assert "".join(event.text for event in texts) == "".join(f"{number} " for number in range(50)) * 2
    assert sum(event.num_tokens for event in texts) == 100
    assert [event.snapshot.model for event in got if isinstance(event, CacheChanged)] == ["new"]


def test_titles_are_cut_between_words() -> None:
    assert auto_title("  short\n one ") == "short one"
    assert (
        auto_title("a fairly long first message that goes on and on")
        == "a fairly long first message that goes…"
    )
    assert auto_title("x" * 60) == "x" * 39 + "…"


def test_empty_replies_are_left_out_of_the_prompt(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "chats.db")
    session = store.create_session()
    store.messages.add(session.id, Role.USER, "one")
    store.messages.add(session.id, Role.ASSISTANT, "", state=MessageState.FAILED)
    store.messages.add(session.id, Role.USER, "two")
    store.messages.add(session.id, Role.ASSISTANT, "reply")
    messages = prompt_messages("", store.path(session.id))
    store.close()
    assert [(m.role, m.content) for m in messages] == [(Role.USER, "one\n\ntwo"), (Role.ASSISTANT, "reply")]


def contents(chat: Chat) -> list[str]:
    return [message.content for message in chat.path or ()]


async def exchange(desk: Desk, chat: Chat, text: str, reply: str) -> None:
    """Send a message and have it answered and stored."""
    await desk.chats.send(chat, text)
    desk.client.finish(desk.client.requests[-1], reply)
    desk.hear()
    await desk.until_stored(chat.id, MessageState.COMPLETE, reply)


async def opened(desk: Desk, title: str) -> Chat:
    """The chat of this title, shown and read."""
    await desk.chats.load()
    chat = next(chat for chat in desk.chats.chats.values() if chat.title == title)
    desk.chats.show(chat.id)
    await until(lambda: chat.path is not None)
    return chat


async def test_a_message_goes_below_what_another_window_has_written(desk: Desk, other: Desk) -> None:
    chat = desk.chats.shown
    await exchange(desk, chat, "one", "reply one")
    there = await opened(other, "one")
    await exchange(other, there, "two", "reply two")
    desk.told.clear()

    await exchange(desk, chat, "three", "reply three")
    whole = ["one", "reply one", "two", "reply two", "three", "reply three"]
    assert contents(chat) == whole
    assert [message.content for message in desk.store.path(chat.id)] == whole
    assert [message.content for message in desk.client.requests[-1].messages][1:] == whole[:-1]
    assert desk.names()[:2] == ["PathChanged", "MessageAdded"]


async def test_two_windows_that_write_at_once_hide_nothing_from_one_another(desk: Desk, other: Desk) -> None:
    chat = desk.chats.shown
    await exchange(desk, chat, "one", "reply one")
    there = await opened(other, "one")
    await asyncio.gather(desk.chats.send(chat, "left"), other.chats.send(there, "right"))
    for side in (other, desk):
        text = side.client.requests[-1].messages[-1].content.rpartition("\n")[2]
        side.client.finish(side.client.requests[-1], f"to {text}")
        side.hear()
    await until(lambda: all(m.state is MessageState.COMPLETE for m in desk.store.path(chat.id)))
    stored = [message.content for message in desk.store.path(chat.id)]
    left, right = ["left", "to left"], ["right", "to right"]
    assert stored[2:] in (left + right, right + left)


async def test_a_shown_chat_is_read_again_when_another_window_has_gone_on_with_it(
    desk: Desk, other: Desk
) -> None:
    chat = desk.chats.shown
    await exchange(desk, chat, "one", "reply one")
    there = await opened(other, "one")
    desk.chats.new()
    await other.chats.send(there, "two")
    other.client.say(other.client.requests[-1], "half")
    other.hear()

    desk.chats.show(chat.id)
    assert contents(chat) == ["one", "reply one"], "what is known is shown at once"
    await until(lambda: contents(chat)[:3] == ["one", "reply one", "two"])
    assert "being written in another window" in await desk.chats.branches.retry(chat)

    other.client.finish(other.client.requests[-1], "half and half")
    other.hear()
    await other.until_stored(chat.id, MessageState.COMPLETE, "half and half")
    desk.chats.show(chat.id)
    await until(lambda: contents(chat)[-1] == "half and half")
    num_told = desk.names().count("PathChanged")
    desk.chats.show(chat.id)
    await desk.chats.send(desk.chats.new(), "elsewhere")
    assert desk.names().count("PathChanged") == num_told, "what is current is not read again"


async def test_the_list_follows_other_windows(desk: Desk, other: Desk) -> None:
    for title in ("kept", "renamed", "deleted"):
        desk.store.create_session(title)
    await desk.chats.load()
    await other.chats.load()
    ids = {chat.title: chat.id for chat in other.chats.chats.values()}
    other.chats.profile.rename(other.chats.chats[ids["renamed"]], "new name")
    other.chats.delete(ids["deleted"])
    await other.chats.send(other.chats.shown, "a new chat")
    await other.chats.close()

    desk.chats.show(ids["kept"])
    await until(lambda: {chat.title for chat in desk.chats.ordered()} == {"kept", "new name", "a new chat"})
    assert desk.names().count("ChatsChanged") == 2, "once when loaded, once when others had changed it"


async def test_a_chat_deleted_in_another_window_gives_the_text_back(desk: Desk, other: Desk) -> None:
    chat = desk.chats.shown
    await exchange(desk, chat, "one", "reply one")
    there = await opened(other, "one")
    other.chats.delete(there.id)
    await other.chats.close()
    await desk.chats.send(chat, "two")
    failed = desk.told[-1]
    assert isinstance(failed, changes.SendFailed)
    assert failed.text == "two"
    assert "any more" in failed.error
    desk.chats.new()
    await until(lambda: chat.id not in desk.chats.chats)


async def test_what_is_changed_here_is_not_undone_by_what_is_read_meanwhile(desk: Desk, other: Desk) -> None:
    chat = desk.chats.shown
    await exchange(desk, chat, "one", "reply one")
    there = await opened(other, "one")
    other.chats.profile.rename(there, "theirs")
    await other.chats.close()
    desk.chats.show(chat.id)
    desk.chats.profile.rename(chat, "ours")
    desk.chats.profile.set_system_prompt(desk.chats.shown, "Ours.")
    await desk.chats.send(chat, "two")
    assert (chat.title, chat.system_prompt) == ("ours", "Ours.")
    await desk.chats.close()
    stored = desk.store.session(chat.id)
    assert (stored.title, stored.system_prompt) == ("ours", "Ours.")


async def test_a_chat_deleted_while_its_message_is_stored_stays_deleted(desk: Desk) -> None:
    chat = desk.chats.shown
    sending = asyncio.create_task(desk.chats.send(chat, "one"))
    await asyncio.sleep(0)
    assert chat.sending
    desk.chats.delete(chat.id)
    await sending
    await until(lambda: desk.store.sessions() == [])
    assert desk.client.requests == []
    assert desk.chats.undo_delete() is chat
    await until(lambda: [session.id for session in desk.store.sessions()] == [chat.id])
    assert desk.store.path(chat.id)[-1].state is MessageState.STOPPED


async def test_text_that_utf8_cannot_hold_is_mended_before_it_goes_anywhere(desk: Desk) -> None:
    chat = desk.chats.shown
    desk.chats.profile.set_system_prompt(desk.chats.shown, "caf\udce9")
    await desk.chats.send(chat, "th\udce9")
    desk.chats.profile.rename(chat, "\udce9t\udce9")
    msgspec.msgpack.encode(desk.client.sent)
    assert [message.content for message in desk.client.requests[0].messages] == ["caf�", "th�"]
    assert [rename.title for rename in desk.client.of(Rename)] == ["�t�"]
    await desk.chats.close()
    stored = desk.store.session(chat.id)
    assert (stored.title, stored.system_prompt) == ("�t�", "caf�")


async def test_a_start_makes_the_copy_of_the_day(desk: Desk, tmp_path: Path) -> None:
    desk.store.create_session("kept")
    await desk.chats.load()
    await until(lambda: list((tmp_path / "backups").glob("chats-*.db")))


async def test_a_search_that_cannot_begin_says_why_and_the_next_one_may(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "chats.db"
    file.mkdir(parents=True)
    finder = Finder(file)
    found = await finder.find("kettle")
    assert found is not None
    assert str(file) in found.problems[0]
    file.rmdir()
    with contextlib.closing(Store.open(file)) as store:
        store.messages.add(store.create_session("tea").id, Role.USER, "the kettle is red")
        found = await finder.find("kettle")
        assert found is not None
        assert [hit.title for hit in found.hits] == ["tea"]
        await finder.close()


async def test_imports_come_one_after_the_other(desk: Desk) -> None:
    first = asyncio.create_task(desk.chats.transfers.take_samples())
    await asyncio.sleep(0)
    with pytest.raises(SamovarError, match="an import is under way"):
        await desk.chats.transfers.take_samples()
    assert "10 chats imported" in await first
    assert len(desk.store.sessions()) == 10
