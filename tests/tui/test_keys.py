"""Keys that come faster than the screen works, and keys that go elsewhere than to the composer."""

from pathlib import Path

from samovar.core.chat import ChatMessage, Role
from tests.tui.support import station


async def test_a_new_line_lands_where_it_was_typed(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        here.press_at_once(*"a1", "ctrl+j", *"b1", "shift+enter", *"c1", "alt+enter", *"d1")
        await here.until(lambda: here.text == "a1\nb1\nc1\nd1", here.text)


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

        here.type("")
        here.press_at_once(*"one", "enter", *"two", "enter", *"three")
        await here.until(lambda: here.text == "two\nthree", here.text)
        assert "still being written" in here.error or "still being stored" in here.error
        assert len(here.client.requests) <= 1


async def test_what_is_typed_right_after_a_command_goes_where_it_leads(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.entries)
        here.press_at_once(*"/new", "enter", *"hello")
        await here.until(lambda: not here.entries and here.text == "hello", here.text)
