"""The workstation as a user drives it: keys in, messages stored and shown, commands sent."""

import time
from pathlib import Path

import pytest
from textual.events import Paste

from samovar.config import Config
from samovar.core.chat import ChatMessage, Role
from samovar.core.commands import Cancel, Focus, Forget, Rename, SetRamLimit, SetTokenLimit
from samovar.core.errors import SamovarError
from samovar.core.events import CommandRefused, HostFailed, HostLost, HostReady, HostStarting
from samovar.core.request import FinishReason
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import MessageState, Session, Store
from samovar.tui.widgets.cache_panel import CachePanel
from samovar.tui.widgets.composer import MessageInput
from samovar.tui.widgets.session_list import SessionList
from samovar.tui.widgets.sidebar import Sidebar, TitleInput
from samovar.tui.widgets.welcome import Welcome
from tests.tui.fake_client import MODEL, STATS, FakeClient, ScriptedClient
from tests.tui.support import Station, station


async def answer(here: Station, text: str, reply: str) -> str:
    """Send a message in the shown chat and let it be answered; returns the chat."""
    asked = len(here.client.requests)
    await here.send(text)
    await here.until_asked(asked + 1)
    request = here.client.requests[-1]
    here.client.begin(request)
    here.client.say(request, reply)
    here.client.finish(request, reply)
    await here.until_stored(request.session, MessageState.COMPLETE, reply)
    await here.until(lambda: any(entry.text == reply for entry in here.entries), "reply shown")
    return request.session


async def test_a_message_is_stored_sent_streamed_and_its_reply_stored(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("Why is the sky blue? And why is it red in the evening, then?")
        await here.until_asked(1)
        request = here.client.requests[0]
        assert request.messages == (
            ChatMessage(Role.USER, "Why is the sky blue? And why is it red in the evening, then?"),
        )
        assert request.title == "Why is the sky blue? And why is it red…"
        assert here.text == ""
        assert here.store.path(request.session)[0].content.startswith("Why is the sky")

        here.client.begin(request)
        here.client.say(request, "Because", " of", " *scattering*.")
        await here.until(lambda: "answering" in here.activity)
        here.client.finish(request, "Because of *scattering*.", tokens=(7, 8, 9))
        await here.until_stored(request.session, MessageState.COMPLETE, "Because of *scattering*.")

        stored = here.store.path(request.session)[-1]
        assert (stored.tokens, stored.tokenizer, stored.stats) == ((7, 8, 9), MODEL.tokenizer, STATS)
        reply = here.entries[-1]
        assert (reply.role, reply.state, reply.text) == ("assistant", "complete", "Because of *scattering*.")
        assert ("3,888 reused", "green") in reply.meta

        await here.send("Thanks.")
        await here.until_asked(2)
        assert here.client.requests[1].messages[1] == ChatMessage(
            Role.ASSISTANT, "Because of *scattering*.", (7, 8, 9), MODEL.tokenizer
        )


async def test_the_first_chat_is_empty_says_what_to_do_and_takes_keys_before_the_host_is_there(
    tmp_path: Path,
) -> None:
    async with station(tmp_path, ready=False) as here:
        assert here.screen.query_one(Welcome).display
        assert isinstance(here.app.focused, MessageInput)
        await here.pilot.press("h", "i", "enter")
        await here.until_asked(1)
        await here.until(lambda: [entry.text for entry in here.entries] == ["hi", ""])
        assert here.store.path(here.client.requests[0].session)[0].content == "hi"
        here.client.ready()
        request = here.client.requests[0]
        here.client.begin(request)
        here.client.finish(request, "Hello.")
        await here.until_stored(request.session, MessageState.COMPLETE, "Hello.")


async def test_escape_stops_the_reply_and_keeps_what_arrived(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("Count.")
        await here.until_asked(1)
        request = here.client.requests[0]
        here.client.begin(request)
        here.client.say(request, "one ", "two ")
        await here.until(lambda: "answering" in here.activity)
        await here.pilot.press("escape")
        assert here.client.of(Cancel) == [Cancel(request.id)]
        here.client.finish(request, "one two ", FinishReason.CANCELLED)
        await here.until_stored(request.session, MessageState.STOPPED, "one two ")
        assert here.entries[-1].state == "stopped"


async def test_switching_while_a_reply_streams_loses_nothing(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await here.send("question 3")
        await here.until_asked(1)
        request = here.client.requests[0]
        here.client.begin(request)
        here.client.say(request, "first ")
        await here.until(lambda: here.entries[-1].role == "assistant")
        here.type("a draft")
        await here.pilot.press("alt+2")
        await here.until(lambda: [entry.text for entry in here.entries] == ["question 2", "answer 2"])
        assert here.text == ""
        assert here.client.of(Focus)[-1].session == here.sessions.rows[1].id
        assert here.sessions.rows[0].running

        here.client.say(request, "second ")
        await here.until(lambda: here.arrived(request.session) == "first second ")
        await here.pilot.press("alt+1")
        await here.until(lambda: here.entries[-1].role == "assistant")
        assert here.text == "a draft"
        here.client.say(request, "third")
        here.client.finish(request, "first second third")
        await here.until_stored(request.session, MessageState.COMPLETE, "first second third")
        assert here.entries[-1].text == "first second third"


async def test_what_another_window_has_written_is_shown_before_the_next_message(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        session = await answer(here, "one", "reply one")
        here.store.messages.add(session, Role.USER, "from elsewhere")
        here.store.messages.add(session, Role.ASSISTANT, "reply elsewhere")
        here.store.create_session("new elsewhere")
        await answer(here, "two", "reply two")
        texts = [entry.text for entry in here.entries]
        assert texts == ["one", "reply one", "from elsewhere", "reply elsewhere", "two", "reply two"]
        await here.until(lambda: "new elsewhere" in here.titles)


async def test_a_lost_host_leaves_what_arrived_and_ctrl_r_asks_again(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("Count.")
        await here.until_asked(1)
        request = here.client.requests[0]
        here.client.begin(request)
        here.client.say(request, "one ")
        here.client.push(HostLost("the engine host ended"))
        here.client.finish(request, "", FinishReason.HOST_LOST, tokens=())
        here.client.push(HostStarting())
        await here.until_stored(request.session, MessageState.FAILED, "one ")
        await here.until(lambda: here.entries[-1].role == "note")
        assert "ctrl+r" in here.entries[-1].text

        here.client.push(HostReady(MODEL))
        await here.pilot.press("ctrl+r")
        await here.until_asked(2)
        again = here.client.requests[1]
        assert again.messages == request.messages
        here.client.begin(again)
        here.client.finish(again, "one two three")
        await here.until_stored(request.session, MessageState.COMPLETE, "one two three")
        assert [entry.text for entry in here.entries] == ["Count.", "one two three"]
        assert [message.content for message in here.store.path(request.session)] == [
            "Count.",
            "one two three",
        ]

        await here.pilot.press("ctrl+r")
        await here.until_asked(3)
        assert here.client.requests[2].messages == request.messages


async def test_a_failed_request_says_why(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("Too long.")
        await here.until_asked(1)
        request = here.client.requests[0]
        here.client.finish(request, "", FinishReason.FAILED, error="the prompt has 9,000 tokens", tokens=())
        await here.until(lambda: here.entries[-1].role == "note")
        assert "9,000 tokens" in here.entries[-1].text
        assert here.store.path(request.session)[-1].error == "the prompt has 9,000 tokens"
        await here.send("Shorter.")
        await here.until_asked(2)
        assert [message.content for message in here.client.requests[1].messages] == ["Too long.\n\nShorter."]


async def test_a_host_that_cannot_run_is_said_and_typing_goes_on(tmp_path: Path) -> None:
    async with station(tmp_path, ready=False) as here:
        here.client.push(HostFailed("model.gguf is no GGUF file. Give another one with --model."))
        await here.until(lambda: "no GGUF file" in here.error)
        await here.pilot.press("x")
        assert here.text == "x"


async def test_deleting_asks_nothing_and_can_be_undone(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        await here.pilot.press("f2", "down", "down")
        session = here.sessions.cursor
        assert here.titles[1:] == ["chat 3", "chat 2", "chat 1"]
        await here.pilot.press("backspace")
        assert "chat 2" in here.titles
        await here.pilot.press("x")
        await here.until(lambda: "chat 2" not in here.titles)
        await here.until(lambda: len(here.store.sessions()) == 2)
        assert here.sessions.cursor == here.sessions.rows[2].id
        assert here.titles == ["", "chat 3", "chat 1"]
        await here.pilot.press("u")
        await here.until(lambda: "chat 2" in here.titles)
        await here.until(lambda: here.entries and here.entries[0].text == "question 2")
        assert here.store.session(session).title == "chat 2"
        assert here.client.of(Forget) == []


async def test_the_last_chat_deleted_leaves_a_fresh_one(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.entries)
        await here.send("/delete")
        await here.until(lambda: here.titles == [""])
        assert here.screen.query_one(Welcome).display
        await here.send("/undo")
        await here.until(lambda: "chat 1" in here.titles)


async def test_a_chat_is_renamed_in_the_list(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await here.pilot.press("f2", "down", "r")
        await here.until(lambda: isinstance(here.app.focused, TitleInput))
        here.screen.query_one(TitleInput).value = "another name"
        await here.pilot.press("enter")
        await here.until(lambda: "another name" in here.titles)
        await here.until(lambda: here.store.find("another name"))
        assert isinstance(here.app.focused, SessionList)
        assert here.client.of(Rename)[0].title == "another name"
        await here.pilot.press("r", "escape")
        assert here.screen.query_one(Sidebar).query_one(TitleInput).display is False
        assert "another name" in here.titles


class FullStore(Store):
    """A store whose disk is full while `full` is true."""

    full = False

    def create_session(
        self,
        title: str = "",
        system_prompt: str = "",
        session_id: str | None = None,
        settings: SessionSettings | None = None,
    ) -> Session:
        if self.full:
            raise SamovarError("The disk is full. Make room.")
        return super().create_session(title, system_prompt, session_id, settings)


async def test_a_message_that_cannot_be_stored_goes_back_to_the_composer(
    tmp_path: Path,
) -> None:
    async with station(tmp_path, store_kind=FullStore) as here:
        FullStore.full = True
        try:
            await here.send("Keep me.")
            await here.until(lambda: "disk is full" in here.error)
        finally:
            FullStore.full = False
        assert here.text == "Keep me."
        assert here.client.requests == []
        assert here.entries == []
        await here.pilot.press("enter")
        await here.until_asked(1)
        assert here.error == ""
        assert here.store.path(here.client.requests[0].session)[0].content == "Keep me."


async def test_commands_are_carried_out_and_unknown_ones_stay(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.send("/nonsense")
        assert "no command /nonsense" in here.error
        assert here.text == "/nonsense"
        await here.send("/ram 2GiB")
        assert here.client.of(SetRamLimit) == [SetRamLimit("2GiB")]
        await here.send("/tokens 100000")
        assert here.client.of(SetTokenLimit) == [SetTokenLimit("100000")]
        here.client.push(CommandRefused("that is no size"))
        await here.until(lambda: here.error == "that is no size")
        await here.send("/system Be brief.")
        await here.send("hello")
        await here.until_asked(1)
        assert here.client.requests[0].messages[0] == ChatMessage(Role.SYSTEM, "Be brief.")
        await here.send("/etc/passwd is a path")
        await here.until(lambda: here.app.conversations.shown.queued == ["/etc/passwd is a path"])
        await here.send("/rename greetings")
        await here.until(lambda: "greetings" in here.titles)
        here.type("")
        await here.send("/new")
        await here.until(lambda: here.titles[0] == "")


async def test_keys_of_the_composer(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.pilot.press("a", "ctrl+j", "b")
        assert here.text == "a\nb"
        area = here.screen.query_one(MessageInput)
        await here.until(lambda: area.size.height == 2)
        here.type("")
        await answer(here, "first", "reply 1")
        await answer(here, "second", "reply 2")
        await here.pilot.press("up")
        assert here.text == "second"
        await here.pilot.press("up")
        assert here.text == "first"
        await here.pilot.press("down", "down")
        assert here.text == ""


async def test_a_long_paste_stands_as_one_word_and_travels_as_a_file(tmp_path: Path) -> None:
    text = "a line of some words, again and again\n" * 2700 + "end"
    async with station(tmp_path) as here:
        area = here.screen.query_one(MessageInput)
        await here.pilot.press("s", "e", "e")
        area.post_message(Paste(text))
        await here.until(lambda: here.text.startswith("see @pasted-"))
        assert here.client.requests == []
        assert len(here.text) < 40
        await here.pilot.press("enter")
        await here.until_asked(1)
        (message,) = here.client.requests[0].messages
        assert f">\n{text}\n</file>" in message.content
        assert message.content.endswith(here.store.path(here.client.requests[0].session)[0].content)


async def test_lines_are_counted_as_terminals_paste_them(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        here.screen.query_one(MessageInput).post_message(Paste("\r".join(map(str, range(60)))))
        await here.until(lambda: here.text.startswith("@pasted-"), here.text)
        await here.until(lambda: "60 lines" in here.activity, here.activity)
        await here.pilot.press("enter")
        await here.until_asked(1)
        assert "\n57\n58\n59\n</file>" in here.client.requests[0].messages[0].content


async def test_all_commands_are_in_the_palette(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.entries)
        commands = {one.title: one.callback for one in here.app.get_system_commands(here.app.screen)}
        commands["Star"]()
        await here.until(lambda: here.app.conversations.shown.is_favourite)
        commands["Tag"]()
        await here.until(lambda: here.text == "/tag ")
        commands["Export"]()
        await here.until(lambda: "would be lost" in here.activity)
        assert here.text == "/tag "


async def test_an_answer_that_is_long_is_shown_as_a_whole(tmp_path: Path) -> None:
    async with station(tmp_path, size=(80, 24)) as here:
        await here.send("/set")
        await here.until(lambda: "side_tasks" in here.activity, here.activity)
        assert here.screen.query_one("#note").size.height > 1
        await here.send("/tag one")
        await here.until(lambda: "tags: one" in here.activity)
        assert not here.screen.query_one("#note").display


async def test_a_paste_of_some_lines_is_text(tmp_path: Path) -> None:
    text = "first line\nsecond line\n" * 6 + "end"
    async with station(tmp_path) as here:
        area = here.screen.query_one(MessageInput)
        area.post_message(Paste(text))
        await here.until(lambda: here.text == text)
        await here.until(lambda: area.size.height == 8)


async def test_the_path_of_a_file_that_is_pasted_names_it(tmp_path: Path) -> None:
    file = tmp_path / "my notes.md"
    file.write_text("The kettle is red.\n")
    async with station(tmp_path) as here:
        here.screen.query_one(MessageInput).post_message(Paste(f"'{file}'"))
        await here.until(lambda: here.text == f'@"{file}" ')
        await here.pilot.press("w", "h", "y", "enter")
        await here.until_asked(1)
        (message,) = here.client.requests[0].messages
        assert message.content == (f'<file name="my notes.md">\nThe kettle is red.\n</file>\n\n@"{file}" why')


async def test_a_file_that_cannot_be_attached_gives_the_text_back(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    async with station(tmp_path) as here:
        here.screen.query_one(MessageInput).load_text(f"look at @{tmp_path}/picture.png")
        await here.pilot.press("enter")
        await here.until(lambda: "not a text file" in here.error)
        assert here.text == f"look at @{tmp_path}/picture.png"
        assert here.client.requests == []


async def test_tab_completes_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("report-one.md", "report-two.md", "other.md"):
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    async with station(tmp_path) as here:
        await here.pilot.press("at", "r", "e", "tab")
        assert here.text == "@report-"
        await here.pilot.press("t", "tab")
        assert here.text == "@report-two.md "


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (40, 20), (120, 40), (160, 48), (20, 8)])
async def test_every_size_works(tmp_path: Path, size: tuple[int, int]) -> None:
    client = ScriptedClient("A reply.", tokens_per_second=0)
    async with station(tmp_path, client=client, size=size, chats=3, ready=False) as here:
        await here.send("hello")
        await here.until(lambda: here.entries and here.entries[-1].state == "complete")
        panel = here.screen.query_one(CachePanel)
        shown = panel.display
        assert shown == (size[0] >= 140)
        await here.pilot.press("f4")
        assert panel.display != shown
        await here.pilot.press("escape", "f2")
        assert isinstance(here.app.focused, SessionList)
        assert here.screen.query_one(Sidebar).display
        await here.pilot.press("down", "enter")
        await here.until(lambda: here.entries[-1].text == "answer 3")
        assert isinstance(here.app.focused, MessageInput)
        await here.pilot.press("f1")
        await here.until(lambda: len(here.app.screen_stack) == 2)
        await here.pilot.press("escape", "ctrl+p")
        await here.until(lambda: len(here.app.screen_stack) == 2)
        await here.pilot.press("escape")


async def test_the_cursor_stays_on_its_chat_when_the_list_is_sorted_anew(tmp_path: Path) -> None:
    async with station(tmp_path, chats=60, size=(120, 20)) as here:
        await here.send("hello")
        await here.until_asked(1)
        await here.pilot.press("f2", "pagedown", "pagedown", "pagedown")
        cursor, scroll = here.sessions.cursor, here.sessions.scroll_offset.y
        line = [row.id for row in here.sessions.rows].index(cursor)
        await here.pilot.press("alt+1")
        here.app.conversations.chats[here.sessions.rows[-1].id].updated_at = time.time() + 60
        here.client.finish(here.client.requests[0], "hi")
        await here.until(lambda: here.titles[0] == "chat 1")
        assert here.sessions.cursor == cursor
        assert [row.id for row in here.sessions.rows].index(cursor) == line + 1
        assert here.sessions.scroll_offset.y == scroll + 1


async def test_quitting_stores_what_arrived(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("Count.")
        await here.until_asked(1)
        request = here.client.requests[0]
        here.client.begin(request)
        here.client.say(request, "one ")
        await here.until(lambda: "answering" in here.activity)
        await here.pilot.press("ctrl+q")
        await here.until(lambda: here.client.closed)
    store = Store.open(tmp_path / "chats.db")
    last = store.path(request.session)[-1]
    store.close()
    assert (last.state, last.content) == (MessageState.STOPPED, "one ")


async def test_a_theme_of_textual_works_too(tmp_path: Path) -> None:
    async with station(tmp_path, config=Config(theme="nord"), size=(160, 48)) as here:
        await here.send("hello")
        await here.until_asked(1)
        for theme in ("samovar", "samovar-light", "ansi", "textual-light"):
            here.app.theme = theme
            await here.pilot.pause()


async def test_a_click_opens_a_chat_and_the_last_line_makes_one(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await here.pilot.click(SessionList, offset=(6, 2))
        await here.until(lambda: here.entries and here.entries[-1].text == "answer 1")
        assert isinstance(here.app.focused, MessageInput)
        assert here.titles == ["chat 2", "chat 1"]
        await here.pilot.click(SessionList, offset=(6, 3))
        await here.until(lambda: here.titles == ["", "chat 2", "chat 1"])


async def test_ctrl_c_copies_a_selection_and_quits_at_the_second_press_without_one(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        here.type("copy me")
        here.screen.query_one(MessageInput).select_all()
        await here.pilot.press("ctrl+c")
        assert here.app.clipboard == "copy me"
        here.type("")
        await here.pilot.press("ctrl+c")
        assert not here.client.closed
        await here.pilot.press("ctrl+c")
        await here.until(lambda: here.client.closed)


async def test_a_thousand_chats_are_listed_and_moved_through_quickly(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1000) as here:
        assert here.titles[1] == "chat 1000"
        started = time.perf_counter()
        await here.pilot.press("f2", "end", "up")
        assert here.sessions.cursor == here.sessions.rows[-1].id
        assert time.perf_counter() - started < 3


async def test_a_client_that_cannot_start_is_said(tmp_path: Path) -> None:
    class Refusing(FakeClient):
        async def start(self) -> None:
            await super().start()
            raise SamovarError("There is no room for a socket. Set SAMOVAR_HOME to a shorter path.")

    async with station(tmp_path, client=Refusing(), ready=False) as here:
        await here.until(lambda: "shorter path" in here.error)
