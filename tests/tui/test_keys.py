"""Keys that come faster than the screen works, and keys that go elsewhere than to the composer."""

from pathlib import Path

import pytest
from textual._xterm_parser import XTermParser
from textual.events import Key
from textual.widgets import Input, Static

from samovar.core.chat import ChatMessage, Role
from samovar.core.errors import SamovarError
from samovar.core.events import CacheChanged
from samovar.tui.alt_digits import make_alt_digits_keys
from samovar.tui.app import check_terminal
from samovar.tui.widgets.cache_panel import CachePanel
from samovar.tui.widgets.composer import MessageInput
from samovar.tui.widgets.session_list import SessionList
from samovar.tui.widgets.sidebar import FilterInput, TitleInput
from samovar.tui.widgets.transcript import Transcript
from tests.tui.cache_states import FULL
from tests.tui.support import station


async def test_a_new_line_lands_where_it_was_typed(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        here.press_at_once(*"a1", "ctrl+j", *"b1", "shift+enter", *"c1", "alt+enter", *"d1")
        await here.until(lambda: here.text == "a1\nb1\nc1\nd1", here.text)


async def test_keys_that_edit_take_effect_where_they_were_pressed(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        here.press_at_once(*"abc", "backspace", "backspace", *"xy", "home", *"12", "ctrl+k", *"34")
        await here.until(lambda: here.text == "1234", here.text)
        here.press_at_once("ctrl+u", *"look", "left", *"w")
        await here.until(lambda: here.text == "loowk", here.text)


async def test_fast_editing_keys_stay_in_order_in_the_search_and_in_titles(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await here.pilot.press("f3")
        query = here.app.screen.query_one(Input)
        here.press_at_once(*"anxw", "backspace", "backspace", *"swer")
        await here.until(lambda: query.value == "answer", query.value)
        here.press_at_once("ctrl+u", *"question")
        await here.until(lambda: query.value == "question", query.value)
        await here.pilot.press("escape", "f2", "down", "r")
        await here.until(lambda: isinstance(here.app.focused, TitleInput))
        here.press_at_once("ctrl+u", *"abx", "backspace", *"c", "enter")
        await here.until(lambda: "abc" in here.titles)


async def test_a_filter_that_comes_in_one_piece_does_nothing_to_the_chats(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        await here.pilot.press("f2", "down")
        await here.until(lambda: isinstance(here.app.focused, SessionList))
        here.press_at_once("/", *"sax")
        await here.until(lambda: here.screen.query_one(FilterInput).value == "sax")
        assert here.titles == []
        await here.pilot.press("escape")
        await here.until(lambda: here.titles == ["", "chat 3", "chat 2", "chat 1"])
        here.press_at_once("/", *"chat 2", "enter")
        await here.until(lambda: here.app.conversations.shown.title == "chat 2")


async def test_without_messages_the_keys_are_the_composers(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.entries)
        here.screen.set_focus(here.screen.query_one(Transcript))
        await here.pilot.press("left_square_bracket", "d")
        await here.until(lambda: not here.entries)
        await here.until(lambda: "; /undo brings it back" in here.activity, here.activity)
        await here.pilot.press(*"/undo", "enter")
        await here.until(lambda: len(here.entries) == 2)


async def test_what_is_typed_right_after_enter_stays_in_the_composer(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        here.press_at_once(*"Say hi", "enter", *"typed right after")
        await here.until_asked(1)
        assert here.client.requests[0].messages == (ChatMessage(Role.USER, "Say hi"),)
        await here.until(lambda: here.text == "typed right after", here.text)


async def test_a_refused_text_goes_before_what_was_typed_since(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        here.press_at_once(*"/nope", "enter", *"tail")
        await here.until(lambda: "no command /nope" in here.error)
        await here.until(lambda: here.text == "/nope\ntail", here.text)


async def test_messages_that_come_in_one_piece_are_queued_in_their_order(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        here.press_at_once(*"one", "enter", *"two", "enter", *"three", "enter", *"four")
        chat = here.app.conversations.shown
        await here.until(lambda: chat.queued == ["two", "three"] and here.text == "four", here.text)
        assert len(here.client.requests) <= 1


async def test_what_is_typed_right_after_a_command_goes_where_it_leads(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.entries)
        here.press_at_once(*"/new", "enter", *"hello")
        await here.until(lambda: not here.entries and here.text == "hello", here.text)


async def test_typing_in_the_transcript_goes_to_the_composer_but_for_its_own_keys(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.entries)
        here.screen.set_focus(here.screen.query_one(Transcript))
        await here.pilot.press("c")
        assert "no code to copy" in here.activity
        await here.pilot.press("y")
        assert here.app.clipboard == "answer 1"
        assert here.text == ""
        here.press_at_once(*"Hi, you", "ctrl+j", *"and c")
        await here.until(lambda: here.text == "Hi, you\nand c", here.text)
        assert isinstance(here.app.focused, MessageInput)


async def test_copying_a_reply_where_there_is_none_is_said(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        here.screen.set_focus(here.screen.query_one(Transcript))
        here.screen.query_one(Transcript).action_copy()
        await here.until(lambda: "no reply to copy" in here.activity)


def test_escape_and_a_digit_are_alt_and_the_digit() -> None:
    make_alt_digits_keys()
    keys = [event.key for event in XTermParser().feed("\x1b1\x1b9x") if isinstance(event, Key)]
    assert keys == ["alt+1", "alt+9", "x"]
    typed = [event.character for event in XTermParser().feed("¡£") if isinstance(event, Key)]
    assert typed == ["¡", "£"]


def test_a_dumb_terminal_is_refused() -> None:
    check_terminal({"TERM": "xterm-256color"})
    with pytest.raises(SamovarError, match="samovar chat"):
        check_terminal({"TERM": "dumb"})


async def test_renaming_starts_at_the_end_with_the_beginning_in_view(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("f2", "down", "f6")
        field = here.screen.query_one(TitleInput)
        await here.until(lambda: field.has_focus and field.cursor_position == len("chat 1"))
        assert field.scroll_offset.x == 0
        assert "esc cancels" in str(here.screen.query_one("#list-note").render())
        await here.pilot.press("0", "enter")
        await here.until(lambda: "chat 10" in here.titles)


async def test_the_cache_panel_over_the_chat_scrolls_by_keys_until_something_is_written(
    tmp_path: Path,
) -> None:
    async with station(tmp_path, size=(80, 24)) as here:
        here.client.push(CacheChanged(FULL))
        await here.until(lambda: here.app.conversations.snapshot == FULL)
        panel = here.screen.query_one(CachePanel)
        await here.pilot.press("f4")
        await here.until(lambda: panel.has_focus and panel.max_scroll_y > 0, "the panel has the keys")
        await here.pilot.press("end")
        await here.until(lambda: panel.scroll_offset.y == panel.max_scroll_y, "its end")
        await here.pilot.press("h", "i")
        assert here.text == "hi"
        await here.pilot.press("f4")
        assert not panel.display
        await here.pilot.press("s")
        assert here.text == "his"


async def test_the_panel_says_that_nothing_is_done_ahead(tmp_path: Path) -> None:
    async with station(tmp_path, size=(160, 48)) as here:
        ahead = here.screen.query_one("#ahead", Static)
        assert not ahead.display
        await here.send("/ahead off")
        await here.until(lambda: ahead.display and "off" in str(ahead.render()), "off")
        await here.send("/ahead on")
        await here.until(lambda: not ahead.display, "on again")
