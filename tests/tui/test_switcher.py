"""The quick switcher: what a few letters find, in which order, and where enter leads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input

from samovar.tui.chat_finder import MAX_FOUND, ChatFinder, Findable
from samovar.tui.screens.search import SearchScreen
from samovar.tui.screens.switcher import Switcher
from samovar.tui.screens.workstation import Workstation
from samovar.tui.widgets.row_list import RowList
from tests.tui.support import Station, station

TITLES = (
    "Sort the tests",
    "Rust lifetimes",
    "Trust and taxes",
    "A rusty kettle",
    "Parser refactor",
    "Grant proposal",
    "résumé",
)


def finder(*titles: str) -> ChatFinder:
    return ChatFinder([Findable(title, title) for title in titles])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("rust", ["Rust lifetimes", "A rusty kettle", "Trust and taxes"]),
        ("RUST", ["Rust lifetimes", "A rusty kettle", "Trust and taxes"]),
        ("refactor parser", ["Parser refactor"]),
        ("pref", ["Parser refactor"]),
        ("rlt", ["Rust lifetimes"]),
        ("prpsl", ["Grant proposal"]),
        ("RÉS", ["résumé"]),
        ("zebra", []),
        ("(.*", []),
        ("\\", []),
    ],
)
def test_what_letters_find(query: str, found: list[str]) -> None:
    assert finder(*TITLES).find(query) == found


def test_initials_come_before_letters_that_are_spread_out() -> None:
    assert finder("simpler", "map rotation").find("mr") == ["map rotation", "simpler"]


def test_of_two_that_fit_as_well_the_more_recent_comes_first() -> None:
    assert finder("plan b", "plan a").find("plan") == ["plan b", "plan a"]


def test_tags_are_found_with_and_without_their_sign() -> None:
    chats = [Findable("1", "one", ("work",)), Findable("2", "two", ("garden", "home"))]
    for query in ("#home", "home", "two gard", "#hom #gard"):
        assert ChatFinder(chats).find(query) == ["2"], query


def test_an_empty_query_finds_the_most_recent() -> None:
    titles = [f"chat {number}" for number in range(MAX_FOUND + 50)]
    for query in ("", "  ", "#"):
        assert finder(*titles).find(query) == titles[:MAX_FOUND]
    assert len(finder(*titles).find("chat")) == MAX_FOUND


TEXTS = st.text(st.sampled_from("abc d\n.#é"), max_size=12)


@given(st.lists(TEXTS, max_size=20), TEXTS)
def test_whatever_holds_all_words_is_found_once(titles: list[str], query: str) -> None:
    chats = [Findable(str(place), title) for place, title in enumerate(titles)]
    found = ChatFinder(chats).find(query)
    assert len(found) == len(set(found))
    words = [word.lstrip("#") for word in query.split()]
    for chat in chats:
        if all(word in chat.title.replace("\n", " ") for word in words):
            assert chat.id in found


async def open_switcher(here: Station) -> Switcher:
    await here.pilot.press("ctrl+o")
    await here.until(lambda: isinstance(here.app.screen, Switcher))
    screen = here.app.screen
    assert isinstance(screen, Switcher)
    return screen


def lines(screen: Switcher) -> list[str]:
    return [
        "".join(text for text, _ in screen.parts(key, 60)).strip() for key in screen.query_one(RowList).keys
    ]


async def test_the_most_recent_other_chats_are_listed_and_enter_goes_there(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.app.conversations.shown.title == "chat 3")
        screen = await open_switcher(here)
        assert [line.split("  ")[0] for line in lines(screen)] == ["○ chat 2", "○ chat 1"]
        await here.pilot.press("down", "enter")
        await here.until(lambda: here.app.conversations.shown.title == "chat 1")
        assert isinstance(here.app.screen, Workstation)
        await here.until(lambda: here.app.focused is here.screen.query_one("#input"))


async def test_what_is_typed_at_once_is_found_by_enter(tmp_path: Path) -> None:
    async with station(tmp_path, chats=30) as here:
        await open_switcher(here)
        here.press_at_once(*"ch17", "enter")
        await here.until(lambda: here.app.conversations.shown.title == "chat 17")


async def test_marks_tags_and_archived_chats_are_shown(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        profile = here.app.conversations.profile
        for chat in here.app.conversations.chats.values():
            if chat.title == "chat 1":
                profile.set_tags(chat, ["rust"])
                profile.set_archived(chat, is_archived=True)
            elif chat.title == "chat 2":
                profile.set_favourite(chat, is_favourite=True)
        screen = await open_switcher(here)
        first, second = lines(screen)
        assert "★ chat 2" in first
        assert "▤ chat 1" in second
        assert "#rust" in second


async def test_what_no_title_has_can_be_searched_in_all_messages(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        screen = await open_switcher(here)
        await here.pilot.press(*"answer 1")
        await here.until(lambda: lines(screen) == ["/ search all messages for “answer 1”"])
        await here.pilot.press("enter")
        await here.until(lambda: isinstance(here.app.screen, SearchScreen))
        assert here.app.screen.query_one(Input).value == "answer 1"


async def test_escape_leaves_everything_as_it_is(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        before = here.app.conversations.shown
        await open_switcher(here)
        await here.pilot.press(*"chat", "escape")
        await here.until(lambda: isinstance(here.app.screen, Workstation))
        assert here.app.conversations.shown is before


async def test_a_row_is_clicked_twice_to_go_there(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await open_switcher(here)
        await here.pilot.click(RowList, offset=(5, 1), times=2)
        await here.until(lambda: here.app.conversations.shown.title == "chat 1")
