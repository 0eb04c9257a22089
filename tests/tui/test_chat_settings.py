"""The screen of a chat's settings: what is written is checked, saved, or asked about; nothing gets lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from textual.widget import Widget
from textual.widgets import Static, TextArea

from samovar.chats.chat import Chat
from samovar.chats.profile import ChatProfile
from samovar.core.commands import Pin
from samovar.core.errors import SamovarError
from samovar.sessions import personas
from samovar.sessions.settings import SessionSettings
from samovar.sessions.tags import joined_tags, split_tags
from samovar.tui.screens.chat_settings import ChatSettings
from samovar.tui.screens.name_persona import NamePersona
from samovar.tui.screens.picker import Chooser
from samovar.tui.screens.question import Question
from samovar.tui.screens.workstation import Workstation
from samovar.tui.widgets.form import Deed, Field, Tick
from tests.tui.support import Station, station

EDITOR = """
description = "a patient copy editor"
system_prompt = "You correct texts."
temperature = 0.2
stop = ["END"]
"""


@asynccontextmanager
async def personal_station(folder: Path, size: tuple[int, int] = (120, 50)) -> AsyncIterator[Station]:
    """A station with one chat and one persona."""
    (folder / "personas").mkdir()
    (folder / "personas" / "editor.toml").write_text(EDITOR)
    async with station(folder, chats=1, size=size, personas_dir=folder / "personas") as here:
        yield here


async def open_settings(here: Station) -> ChatSettings:
    """Open the settings of the latest stored chat."""
    await here.pilot.press("alt+2")
    await here.until(lambda: here.app.conversations.shown.path)
    await here.pilot.press("f7")
    await here.until(lambda: isinstance(here.app.screen, ChatSettings) and here.app.focused is not None)
    screen = here.app.screen
    assert isinstance(screen, ChatSettings)
    return screen


def field(screen: ChatSettings, name: str) -> Field:
    return next(found for found in screen.query(Field) if found.name == name)


def error(screen: ChatSettings, name: str) -> str:
    line = field(screen, name).query_one(".field-error", Static)
    return str(line.render()) if line.display else ""


def note(screen: ChatSettings, selector: str = "#prompt-note") -> str:
    line = screen.query_one(selector, Static)
    return str(line.render()) if line.display else ""


def shown(here: Station) -> Chat:
    return here.app.conversations.shown


async def closed(here: Station) -> None:
    await here.until(lambda: isinstance(here.app.screen, Workstation))


async def test_everything_is_saved_with_one_key(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        screen = await open_settings(here)
        field(screen, "title").value = "  Another   title "
        field(screen, "tags").value = "#Work, to do"
        field(screen, "temperature").value = "0.2"
        field(screen, "seed").value = "7"
        field(screen, "max_tokens").value = "90"
        screen.query_one("#system-prompt", TextArea).load_text("Be brief.\nAlways.")
        screen.query_one("#stop", TextArea).load_text("END\n\\n\\n")
        screen.query_one("#favourite", Tick).action_turn()
        await here.pilot.press("ctrl+s")
        await closed(here)
        chat = shown(here)
        expected = ChatProfile(
            "Another title",
            "Be brief.\nAlways.",
            SessionSettings(temperature=0.2, seed=7, max_tokens=90, stop=("END", "\n\n")),
            ("to do", "work"),
            is_favourite=True,
        )
        assert ChatProfile.of(chat) == expected
        await here.until(lambda: here.store.session(chat.id).system_prompt == "Be brief.\nAlways.")
        stored = here.store.session(chat.id)
        assert (stored.title, stored.tags) == ("Another title", ("to do", "work"))
        assert stored.settings == expected.settings
        assert "saved" in here.activity


async def test_an_empty_line_shows_what_is_configured_and_sets_nothing(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        here.app.conversations.profile.set_settings(
            next(c for c in here.app.conversations.chats.values() if c.in_store), SessionSettings(top_k=5)
        )
        screen = await open_settings(here)
        assert field(screen, "temperature").input.placeholder == "0.7"
        assert field(screen, "seed").input.placeholder == "random"
        assert field(screen, "top_k").value == "5"
        field(screen, "top_k").value = ""
        await here.pilot.press("ctrl+s")
        await closed(here)
        assert shown(here).settings == SessionSettings()


async def test_what_is_wrong_is_said_under_its_line_and_stays(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        screen = await open_settings(here)
        field(screen, "temperature").value = "hot"
        field(screen, "top_k").value = "4.5"
        field(screen, "title").value = "kept"
        await here.pilot.press("ctrl+s")
        with pytest.raises(SamovarError) as refusal:
            SessionSettings().with_text("temperature", "hot")
        await here.until(lambda: error(screen, "temperature") == str(refusal.value))
        assert "top_k must be" in error(screen, "top_k")
        assert here.app.focused is field(screen, "temperature").input
        assert field(screen, "title").value == "kept"
        assert shown(here).title == "chat 1"
        field(screen, "temperature").value = "1"
        await here.pilot.press("tab")
        await here.until(lambda: error(screen, "temperature") == "")
        field(screen, "top_k").value = ""
        field(screen, "tags").value = "x" * 90
        await here.pilot.press("ctrl+s")
        await here.until(lambda: "at most 60" in error(screen, "tags"))
        field(screen, "tags").value = ""
        await here.pilot.press("ctrl+s")
        await closed(here)
        assert (shown(here).title, shown(here).settings.temperature) == ("kept", 1.0)


async def test_too_many_stop_texts_are_refused(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        screen = await open_settings(here)
        screen.query_one("#stop", TextArea).load_text("\n".join(map(str, range(40))))
        await here.pilot.press("ctrl+s")
        await here.until(lambda: "at most 16" in note(screen, "#stop-error"))
        assert here.app.screen is screen


async def test_leaving_asks_only_when_something_was_written(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await open_settings(here)
        await here.pilot.press("escape")
        await closed(here)
        screen = await open_settings(here)
        prompt = screen.query_one("#system-prompt", TextArea)
        prompt.focus()
        await here.pilot.press(*"A long text", "escape")
        await here.until(lambda: isinstance(here.app.screen, Question))
        await here.pilot.press("n")
        await here.until(lambda: here.app.screen is screen)
        assert prompt.text == "A long text"
        await here.pilot.press("escape")
        await here.until(lambda: isinstance(here.app.screen, Question))
        await here.pilot.press("y")
        await closed(here)
        assert shown(here).system_prompt == ""


async def test_what_a_terminal_cannot_show_survives_being_looked_at(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        chat = next(c for c in here.app.conversations.chats.values() if c.in_store)
        here.app.conversations.profile.set_system_prompt(chat, "red \x1b[31m\r\nend")
        stop = ("a\\nb", "\x1b", "c\td")
        here.app.conversations.profile.set_settings(chat, SessionSettings(stop=stop))
        before = ChatProfile.of(chat)
        screen = await open_settings(here)
        assert "\x1b" not in screen.query_one("#system-prompt", TextArea).text
        assert "\x1b" not in screen.query_one("#stop", TextArea).text
        field(screen, "seed").value = "3"
        await here.pilot.press("ctrl+s")
        await closed(here)
        changed = msgspec.structs.replace(before.settings, seed=3)
        assert ChatProfile.of(chat) == msgspec.structs.replace(before, settings=changed)


async def test_another_system_prompt_warns_and_says_what_it_costs(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        screen = await open_settings(here)
        assert note(screen) == ""
        prompt = screen.query_one("#system-prompt", TextArea)
        prompt.load_text("Today is 2026-11-22.\nYou answer questions about steam engines and nothing else.")
        await here.until(lambda: "processed again" in note(screen))
        assert "the date or the time" in note(screen)
        assert "the whole chat will be processed again" in note(screen)
        prompt.load_text("")
        await here.until(lambda: note(screen) == "")


async def test_a_persona_fills_in_prompt_and_settings(tmp_path: Path) -> None:
    async with personal_station(tmp_path) as here:
        screen = await open_settings(here)
        screen.query_one("#persona", Deed).focus()
        await here.pilot.press("enter")
        await here.until(lambda: isinstance(here.app.screen, Chooser))
        await here.pilot.press(*"edi", "enter")
        await here.until(lambda: here.app.screen is screen)
        await here.until(lambda: field(screen, "temperature").value == "0.2")
        await here.pilot.press("ctrl+s")
        await closed(here)
        settings = SessionSettings(persona="editor", temperature=0.2, stop=("END",))
        assert (shown(here).system_prompt, shown(here).settings) == ("You correct texts.", settings)


async def test_a_persona_does_not_take_the_place_of_what_was_written_unasked(tmp_path: Path) -> None:
    async with personal_station(tmp_path) as here:
        screen = await open_settings(here)
        prompt = screen.query_one("#system-prompt", TextArea)
        prompt.load_text("Mine.")
        screen.query_one("#persona", Deed).focus()
        await here.pilot.press("enter")
        await here.until(lambda: isinstance(here.app.screen, Chooser))
        await here.pilot.press("enter")
        await here.until(lambda: isinstance(here.app.screen, Question))
        await here.pilot.press("n")
        await here.until(lambda: here.app.screen is screen)
        assert prompt.text == "Mine."


async def test_what_is_written_becomes_a_persona(tmp_path: Path) -> None:
    async with personal_station(tmp_path) as here:
        screen = await open_settings(here)
        screen.query_one("#system-prompt", TextArea).load_text("You draw maps.")
        field(screen, "min_p").value = "0.1"
        screen.query_one("#save-persona", Deed).focus()
        await here.pilot.press("enter")
        await here.until(lambda: isinstance(here.app.screen, NamePersona))
        naming = here.app.screen
        await here.pilot.press(*"editor", "enter")
        await here.until(lambda: "already" in str(naming.query_one(".field-error", Static).render()))
        await here.pilot.press(*"2", "tab", *"maps", "enter")
        await here.until(lambda: here.app.screen is screen)
        saved = personas.persona(tmp_path / "personas", "editor2")
        assert (saved.description, saved.system_prompt) == ("maps", "You draw maps.")
        assert saved.settings == SessionSettings(persona="editor2", min_p=0.1)
        await here.pilot.press("ctrl+s")
        await closed(here)
        assert shown(here).settings.persona == "editor2"


async def test_pinning_tells_the_host(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        screen = await open_settings(here)
        screen.query_one("#pin", Tick).focus()
        await here.pilot.press("space", "ctrl+s")
        await closed(here)
        assert here.client.of(Pin) == [Pin(shown(here).id, True)]
        assert shown(here).settings.pin


async def test_f7_in_the_list_is_about_the_chat_at_the_cursor(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await here.pilot.press("f2", "down", "down", "f7")
        await here.until(lambda: isinstance(here.app.screen, ChatSettings))
        screen = here.app.screen
        assert isinstance(screen, ChatSettings)
        assert field(screen, "title").value == "chat 1"


async def test_a_fresh_chat_keeps_its_settings_for_its_first_message(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.pilot.press("f7")
        await here.until(lambda: isinstance(here.app.screen, ChatSettings))
        screen = here.app.screen
        assert isinstance(screen, ChatSettings)
        assert not screen.query("#archived")
        field(screen, "temperature").value = "0"
        screen.query_one("#system-prompt", TextArea).load_text("Be brief.")
        await here.pilot.press("ctrl+s")
        await closed(here)
        await here.send("Hello.")
        await here.until_asked(1)
        request = here.client.requests[0]
        assert (request.sampling.temperature, request.messages[0].content) == (0.0, "Be brief.")


@pytest.mark.parametrize("size", [(80, 24), (40, 20)], ids=["80x24", "40x20"])
async def test_the_keyboard_reaches_everything_and_all_of_it_comes_into_view(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async with personal_station(tmp_path, size=size) as here:
        screen = await open_settings(here)
        first = here.app.focused
        reached: list[Widget] = []
        while here.app.focused is not None and here.app.focused not in reached:
            reached.append(here.app.focused)
            await here.until(lambda: screen.region.contains_region(reached[-1].region))
            await here.pilot.press("tab")
        assert here.app.focused is first
        assert len(reached) == 2 + 3 + 1 + 1 + 8 + 1 + 3
        await here.pilot.press("shift+tab")
        assert here.app.focused is reached[-1]


async def test_the_mouse_saves(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        screen = await open_settings(here)
        await here.pilot.click("#favourite")
        assert screen.query_one("#favourite", Tick).value
        await here.pilot.click("#save")
        await closed(here)
        assert shown(here).is_favourite


async def test_what_another_window_changed_meanwhile_stays(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        profile = here.app.conversations.profile
        chat = next(c for c in here.app.conversations.chats.values() if c.in_store)
        before = ChatProfile.of(chat)
        after = msgspec.structs.replace(before, title="mine", settings=SessionSettings(seed=1))
        profile.set_tags(chat, ["theirs"])
        profile.set_settings(chat, SessionSettings(top_k=9))
        assert profile.take(chat, before, after) == ""
        expected = msgspec.structs.replace(
            before, title="mine", tags=("theirs",), settings=SessionSettings(seed=1, top_k=9)
        )
        assert ChatProfile.of(chat) == expected


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("work rust", ("rust", "work")),
        ("#Work  #work", ("work",)),
        ("to do, work", ("to do", "work")),
        ("to do,", ("to do",)),
        (" , # ,", ()),
        ("", ()),
    ],
)
def test_tags_are_read_from_a_line_and_written_as_one(text: str, tags: tuple[str, ...]) -> None:
    assert split_tags(text) == tags
    assert split_tags(joined_tags(tags)) == tags
