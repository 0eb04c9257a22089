"""What is processed before it is sent: when, and that it is a beginning of what is sent then."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from samovar.chats.chat import Chat
from samovar.chats.command_desk import CommandDesk
from samovar.chats.slash import SlashCommand
from samovar.chats.work_ahead import WorkAhead
from samovar.config import Config
from samovar.core.chat import ChatMessage, Role
from samovar.core.commands import Cancel
from samovar.core.errors import SamovarError
from samovar.core.events import CacheChanged, HostReady, HostStopping
from samovar.core.request import FinishReason, Request
from samovar.core.snapshot import CacheSnapshot, PromptRow, Tier
from samovar.sessions.personas import Persona
from samovar.sessions.settings import SessionSettings
from tests.tui.desk import Desk, until
from tests.tui.fake_client import MODEL
from tests.tui.support import station


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "chats.db", Config(work_ahead="on"))
    desk.client.push(HostReady(MODEL))
    desk.hear()
    yield desk
    await desk.close()


def type_draft(desk: Desk, text: str) -> Chat:
    chat = desk.chats.shown
    desk.chats.drafts.typed(chat, text)
    desk.chats.work_ahead.typed(chat)
    return chat


async def prepared(desk: Desk, last: str) -> Request:
    """The work ahead whose last message is this one, once it has been asked for."""
    await until(lambda: any(one.messages[-1].content == last for one in desk.client.prepared))
    return next(one for one in reversed(desk.client.prepared) if one.messages[-1].content == last)


async def settled() -> None:
    """Let all that has been started so far come to its end."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.to_thread(lambda: None)
    await asyncio.sleep(0)


async def test_a_draft_is_prepared_behind_its_chat_and_is_a_beginning_of_what_is_sent(desk: Desk) -> None:
    desk.chats.profile.set_system_prompt(desk.chats.shown, "Be brief.")
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "reply one")
    type_draft(desk, "Could you expl")
    request = await prepared(desk, "Could you ")
    assert request.session == chat.id
    type_draft(desk, "Could you explain?")
    whole = await prepared(desk, "Could you explain?")
    assert (request.complete, whole.complete) == (False, True)
    await desk.chats.send(chat, "Could you explain?")
    assert desk.client.requests[-1].messages == whole.messages
    assert desk.client.requests[-1].messages[:-1] == request.messages[:-1]


async def test_the_end_of_a_turn_is_prepared_when_the_reply_has_ended(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "reply one")
    request = await prepared(desk, "")
    assert [message.role for message in request.messages] == [Role.USER, Role.ASSISTANT, Role.USER]


async def test_a_queued_message_goes_before_work_ahead(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "one")
    desk.chats.outbox.add(chat, "two")
    type_draft(desk, "three and more")
    await desk.reply(chat, "reply one")
    await until(lambda: len(desk.client.requests) == 2)
    assert desk.client.prepared == []
    desk.chats.work_ahead.prepare(chat)
    await settled()
    assert desk.client.prepared == [], "nothing is prepared for a chat that is being answered"


async def test_a_persona_is_prepared_when_it_is_given(desk: Desk) -> None:
    pirate = Persona("pirate", "", "You are a pirate.", SessionSettings())
    desk.chats.profile.take_persona(desk.chats.shown, pirate)
    request = await prepared(desk, "")
    assert request.messages == (ChatMessage(Role.SYSTEM, "You are a pirate."), ChatMessage(Role.USER, ""))


async def test_files_are_prepared_as_they_will_be_sent(desk: Desk, tmp_path: Path) -> None:
    chat = desk.chats.shown
    notes, other = tmp_path / "notes.md", tmp_path / "other.md"
    notes.write_text("water boils\n")
    other.write_text("steam\n")
    await desk.exchange(chat, f"@{notes} what is this", "notes")
    await prepared(desk, "")
    text = f"compare @{notes} and @{other} "
    type_draft(desk, text)
    await until(lambda: any("steam" in one.messages[-1].content for one in desk.client.prepared))
    ahead = desk.client.prepared[-1].messages
    assert "as above, unchanged" in ahead[-1].content
    await desk.chats.send(chat, text + "briefly")
    sent = desk.client.requests[-1].messages
    assert sent[:-1] == ahead[:-1]
    assert sent[-1].content.startswith(ahead[-1].content)


async def test_a_file_that_is_still_being_named_holds_everything_back(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("water boils\n")
    chat = type_draft(desk, f"explain this to me @{tmp_path}/not")
    desk.chats.work_ahead.prepare(chat)
    await settled()
    assert desk.client.prepared == []
    type_draft(desk, f"explain this to me @{tmp_path}/notes.md")
    await until(lambda: desk.client.prepared)
    assert desk.client.prepared[0].messages[-1].content.startswith('<file name="notes.md">\nwater boils')


async def test_an_edit_is_prepared_in_the_place_of_its_message(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "reply one")
    await desk.exchange(chat, "two", "reply two")
    assert chat.path
    desk.chats.branches.begin_edit(chat, chat.path[2].id)
    type_draft(desk, "two and a half ")
    request = await prepared(desk, "two and a half ")
    assert [message.content for message in request.messages] == ["one", "reply one", "two and a half "]


async def test_commands_are_not_prepared(desk: Desk) -> None:
    chat = type_draft(desk, "/system be a pirate now ")
    desk.chats.work_ahead.prepare(chat)
    await settled()
    assert desk.client.prepared == []


async def test_the_same_is_not_asked_for_twice_unless_it_was_displaced(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "reply one")
    request = await prepared(desk, "")
    desk.chats.work_ahead.prepare(chat)
    await settled()
    assert desk.client.prepared == [request]
    desk.client.finish(request, "", FinishReason.CANCELLED)
    desk.hear()
    desk.chats.work_ahead.prepare(chat)
    await until(lambda: len(desk.client.prepared) == 2)


async def test_a_chat_under_the_cursor_is_prepared_only_if_nothing_of_it_is_cached(desk: Desk) -> None:
    for title in ("cold", "warm"):
        session = desk.store.create_session(title)
        desk.store.messages.add(session.id, Role.USER, title)
    await desk.chats.load()
    ids = {chat.title: chat.id for chat in desk.chats.chats.values()}
    warm = PromptRow(ids["warm"], "warm", 9, 0, 9, 0, 9, 0, Tier.HOST, 0, 0.0)
    desk.client.push(CacheChanged(CacheSnapshot(prompts=(warm,), num_running=1)))
    desk.hear()
    desk.chats.prefetch(ids["cold"])
    desk.client.push(CacheChanged(CacheSnapshot(prompts=(warm,))))
    desk.hear()
    desk.chats.prefetch(ids["warm"])
    await settled()
    assert desk.client.prepared == []
    desk.chats.prefetch(ids["cold"])
    await until(lambda: desk.client.prepared)
    assert desk.client.prepared[0].session == ids["cold"]
    assert desk.chats.chats[ids["cold"]].path is None, "it is read for this alone"

    type_draft(desk, "what the user does now ")
    await prepared(desk, "what the user does now ")
    assert desk.client.of(Cancel) == [Cancel(desk.client.prepared[0].id)]


async def test_only_who_types_wakes_a_model_and_nothing_starts_an_engine(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "reply one")
    await prepared(desk, "")
    desk.client.push(CacheChanged(CacheSnapshot(asleep=True)))
    desk.hear()
    desk.chats.profile.set_system_prompt(chat, "Be brief.")
    desk.chats.work_ahead.prepare(chat)
    await settled()
    assert len(desk.client.prepared) == 1
    type_draft(desk, "are you there ")
    await prepared(desk, "are you there ")
    num_before = len(desk.client.prepared)
    desk.client.push(HostStopping())
    desk.hear()
    type_draft(desk, "are you there at all ")
    desk.chats.work_ahead.prepare(chat)
    await settled()
    assert len(desk.client.prepared) == num_before


async def test_the_switch_holds_for_this_run(desk: Desk) -> None:
    run = CommandDesk(desk.chats).run
    assert "is off" in await run(SlashCommand("ahead", "off"))
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "reply one")
    type_draft(desk, "two and ")
    await settled()
    assert desk.client.prepared == []
    assert "not on battery" in await run(SlashCommand("ahead", "auto"))
    await prepared(desk, "two and ")
    with pytest.raises(SamovarError, match="auto, on or off"):
        await run(SlashCommand("ahead", "sometimes"))


@pytest.mark.parametrize(("setting", "works"), [("auto", False), ("on", True)])
async def test_on_battery_only_who_asks_for_it_works_ahead(desk: Desk, setting: str, works: bool) -> None:
    ahead = WorkAhead(
        desk.chats._shared, desk.chats.sender, lambda: desk.chats.host, CacheSnapshot, lambda: True
    )
    ahead.set(setting)
    chat = desk.chats.shown
    chat.system_prompt = "Be brief."
    desk.chats.work_ahead.close()
    ahead.prepare(chat)
    await settled()
    assert bool(desk.client.prepared) is works
    ahead.close()


async def test_the_screen_prepares_what_is_typed(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.pilot.press(*"Why is the ")
        await here.until(lambda: here.client.prepared)
        assert "Why is the ".startswith(here.client.prepared[0].messages[-1].content)
        assert here.client.requests == []


async def test_a_chat_that_has_not_been_opened_is_prepared_with_its_summary(
    desk: Desk, tmp_path: Path
) -> None:
    session = desk.store.create_session("long ago")
    roles = (Role.USER, Role.ASSISTANT)
    path = [desk.store.messages.add(session.id, roles[n % 2], f"{n}") for n in range(4)]
    desk.store.compactions.add(path[1].id, "They counted.", num_messages=2, tokens_before=9, tokens_after=3)
    await desk.chats.load()
    desk.chats.prefetch(session.id)
    await until(lambda: any(one.session == session.id for one in desk.client.prepared))
    request = next(one for one in desk.client.prepared if one.session == session.id)
    assert request.messages[0].content.endswith("They counted.")
    assert [message.content for message in request.messages[1:-1]] == ["2", "3"]
