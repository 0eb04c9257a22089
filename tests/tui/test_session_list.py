"""The list of chats: marks, tags, order, filters, and what it costs with very many chats."""

from collections.abc import Iterable
from pathlib import Path

from textual.widgets import Static

from samovar.chats.chat import Chat, color_number, new_id
from samovar.chats.roster import Order, Roster
from samovar.core.chat import Role
from samovar.core.snapshot import CacheSnapshot, PromptRow, Tier
from samovar.sessions.store import Session, Store
from samovar.tui.rows import row_maker
from samovar.tui.screens.picker import Chooser
from samovar.tui.widgets.row_list import RowList
from samovar.tui.widgets.session_list import SessionList, SessionRow
from samovar.tui.widgets.sidebar import FilterInput, TitleInput
from tests.tui.support import Station, station


def line_of(here: Station, title: str) -> str:
    """What is drawn of a chat."""
    place = here.titles.index(title)
    return "".join(segment.text for segment in here.sessions.render_line(place))


def text_of(here: Station, selector: str) -> str:
    return str(here.screen.query_one(selector, Static).render())


def session_named(store: Store, title: str) -> Session:
    return next(session for session in store.sessions() if session.title == title)


async def open_list_at(here: Station, title: str) -> None:
    """Go to the list, the cursor on a chat."""
    await here.pilot.press("f2", "home", *["down"] * here.titles.index(title))
    await here.until(lambda: here.sessions.row(here.sessions.cursor).title == title)


async def test_a_star_puts_a_chat_first_and_is_stored(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        await open_list_at(here, "chat 1")
        await here.pilot.press("s")
        await here.until(lambda: here.titles == ["", "chat 1", "chat 3", "chat 2"])
        assert "★ chat 1" in line_of(here, "chat 1")
        assert here.sessions.row(here.sessions.cursor).title == "chat 1"
        await here.until(lambda: session_named(here.store, "chat 1").is_favourite)
        await here.pilot.press("s")
        await here.until(lambda: here.titles == ["", "chat 3", "chat 2", "chat 1"])


async def test_a_star_on_a_new_chat_is_there_after_its_first_message(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("/star")
        await here.send("Hello.")
        await here.until_asked(1)
        assert here.store.session(here.client.requests[0].session).is_favourite
        assert here.app.conversations.shown.is_favourite


async def test_archived_chats_leave_the_list_and_are_marked_where_they_are_wanted(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        await open_list_at(here, "chat 2")
        await here.pilot.press("a")
        await here.until(lambda: here.titles == ["", "chat 3", "chat 1"])
        assert here.sessions.row(here.sessions.cursor).title == "chat 1"
        await here.until(lambda: session_named(here.store, "chat 2").is_archived)
        await here.pilot.press("A")
        await here.until(lambda: here.titles == ["", "chat 3", "chat 2", "chat 1"])
        assert "▤ chat 2" in line_of(here, "chat 2")
        assert "archived too" in text_of(here, "#chats-heading")
        await here.pilot.press("up", "a")
        await here.until(lambda: not session_named(here.store, "chat 2").is_archived)


async def test_tags_are_edited_in_place_and_shown_for_the_chat_at_the_cursor(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await open_list_at(here, "chat 2")
        assert "enter opens" in text_of(here, "#list-note")
        await here.pilot.press("t")
        await here.until(lambda: isinstance(here.app.focused, TitleInput))
        await here.pilot.press(*"Work #rust", "enter")
        await here.until(lambda: session_named(here.store, "chat 2").tags == ("rust", "work"))
        await here.until(lambda: isinstance(here.app.focused, SessionList))
        await here.until(lambda: "#rust #work" in text_of(here, "#list-note"))
        await here.pilot.press("down")
        await here.until(lambda: "#rust" not in text_of(here, "#list-note"))


async def test_a_tag_that_is_none_stays_to_be_mended(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await open_list_at(here, "chat 1")
        await here.pilot.press("t")
        await here.until(lambda: isinstance(here.app.focused, TitleInput))
        field = here.screen.query_one(TitleInput)
        field.value = "x" * 80
        await here.pilot.press("enter")
        await here.until(lambda: "at most 60" in text_of(here, "#list-note"))
        assert field.has_focus
        assert field.value == "x" * 80
        await here.pilot.press("escape")
        await here.until(lambda: not field.display)
        assert session_named(here.store, "chat 1").tags == ()


async def test_o_cycles_the_order_and_the_heading_says_so(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        await here.pilot.press("f2")
        seen = [text_of(here, "#chats-heading")]
        for _ in Order:
            await here.pilot.press("o")
            await here.pilot.pause()
            seen.append(text_of(here, "#chats-heading"))
        for heading, order in zip(seen[1:], (Order.CREATED, Order.TITLE, Order.LENGTH), strict=False):
            assert heading.startswith(f"CHATS · by {order.value} ")
            assert heading.rstrip().endswith("4")
        assert seen[0] == seen[-1]
        assert "by" not in seen[0]


async def test_a_long_arrangement_goes_to_a_line_of_its_own(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        roster = here.app.conversations.roster
        roster.tag, roster.order, roster.with_archived = "a longer tag", Order.TITLE, True
        here.app.conversations.arranged()
        await here.until(lambda: text_of(here, "#chats-arrangement").startswith("#a longer tag · by title"))
        assert "·" not in text_of(here, "#chats-heading")


async def test_one_tag_is_listed_alone(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        for number, tags in ((1, ["work"]), (2, ["work", "rust"]), (3, [])):
            chat = next(c for c in here.app.conversations.chats.values() if c.title == f"chat {number}")
            here.app.conversations.profile.set_tags(chat, tags)
        await here.pilot.press("f2", "g")
        await here.until(lambda: isinstance(here.app.screen, Chooser))
        chooser = here.app.screen
        assert isinstance(chooser, Chooser)
        keys = chooser.query_one(RowList).keys
        drawn = ["".join(part for part, _ in chooser.parts(key, 40)).split() for key in keys]
        assert drawn == [["all", "chats", "3"], ["#work", "2"], ["#rust", "1"]]
        await here.pilot.press(*"wo", "enter")
        await here.until(lambda: here.titles == ["", "chat 2", "chat 1"])
        assert text_of(here, "#chats-heading").startswith("CHATS · #work ")
        await here.pilot.press("number_sign")
        await here.until(lambda: isinstance(here.app.screen, Chooser))
        await here.pilot.press("enter")
        await here.until(lambda: len(here.titles) == 4)


async def test_the_list_is_filtered_as_one_types_and_enter_opens_the_first(tmp_path: Path) -> None:
    async with station(tmp_path, chats=12) as here:
        await here.pilot.press("f2", "slash", *"1")
        await here.until(lambda: here.titles == ["chat 12", "chat 11", "chat 10", "chat 1"])
        assert here.sessions.row(here.sessions.cursor).title == "chat 12"
        await here.pilot.press(*" cha", "down")
        await here.until(lambda: here.sessions.row(here.sessions.cursor).title == "chat 11")
        await here.pilot.press("enter")
        await here.until(lambda: here.app.conversations.shown.title == "chat 11")
        await here.until(lambda: len(here.titles) == 12)  # without the fresh one, which is not shown any more
        assert not here.screen.query_one(FilterInput).display


async def test_escape_lists_everything_again_from_the_filter_and_from_the_list(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        await here.pilot.press("f2", "slash", *"2")
        await here.until(lambda: here.titles == ["chat 2"])
        await here.pilot.press("escape")
        await here.until(lambda: len(here.titles) == 4)
        assert isinstance(here.app.focused, SessionList)
        await here.pilot.press("slash", *"nothing like it")
        await here.until(lambda: here.titles == [])
        assert "no title" in text_of(here, "#list-note")
        here.sessions.focus()
        await here.pilot.press("escape")
        await here.until(lambda: len(here.titles) == 4)
        assert isinstance(here.app.focused, SessionList)
        await here.pilot.press("escape")
        assert not isinstance(here.app.focused, SessionList)


async def test_a_filter_ends_with_the_way_back_to_writing(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3, size=(80, 24)) as here:
        await here.pilot.press("f2", "slash", *"2")
        await here.until(lambda: here.titles == ["chat 2"])
        await here.pilot.press("f2", "f2")
        await here.until(lambda: len(here.titles) == 4)
        assert not here.screen.query_one(FilterInput).display


async def test_numbers_follow_what_is_listed(tmp_path: Path) -> None:
    async with station(tmp_path, chats=12) as here:
        await here.pilot.press("f2", "slash", *"1")
        await here.until(lambda: here.titles == ["chat 12", "chat 11", "chat 10", "chat 1"])
        await here.pilot.press("alt+4")
        await here.until(lambda: here.app.conversations.shown.title == "chat 1")


async def test_a_shown_chat_that_the_filter_hides_can_be_deleted(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.app.conversations.shown.title == "chat 3")
        here.app.conversations.roster.words = "2"
        here.app.conversations.arranged()
        await here.until(lambda: here.titles == ["chat 2"])
        await here.send("/delete")
        await here.until(lambda: here.app.conversations.shown.title == "chat 2")


async def test_rows_are_made_for_the_lines_in_view_alone(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2, size=(120, 30)) as here:
        ids = [f"session {number}" for number in range(20_000)]
        made: set[str] = set()

        def row_of(session: str) -> SessionRow:
            made.add(session)
            return SessionRow(session, f"title of {session}")

        here.sessions.set_rows(ids, row_of)
        await here.until(lambda: "session 0" in made)
        await here.pilot.pause()
        assert len(made) < 60
        made.clear()
        here.sessions.set_row_of(row_of)
        assert len(made) < 60
        here.sessions.focus()
        await here.pilot.press("end", "up")
        await here.until(lambda: here.sessions.cursor == "session 19999")
        assert len(made) < 200


async def test_a_wide_list_shows_tags_beside_titles(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1, size=(58, 24)) as here:
        chat = next(c for c in here.app.conversations.chats.values() if c.title == "chat 1")
        here.app.conversations.profile.set_tags(chat, ["rust"])
        await here.pilot.press("f2")
        await here.until(lambda: "#rust" in line_of(here, "chat 1"))


def snapshot(prompts: Iterable[PromptRow]) -> CacheSnapshot:
    return CacheSnapshot(prompts=tuple(prompts))


def test_a_row_says_where_a_prompt_is_now(tmp_path: Path) -> None:
    chat = Chat.fresh("", 0.0)
    chats = {chat.id: chat}
    assert row_maker(chats, snapshot(()))(chat.id).tier is None
    prompt = PromptRow(chat.id, "t", 900, 0, 900, 0, 1, 0, Tier.HOST, 1, 0.0)
    row = row_maker(chats, snapshot([prompt]))(chat.id)
    assert (row.tier, row.tokens) == (Tier.HOST, 900)


def sessions(*specs: tuple[str, float, float, int]) -> list[Session]:
    """Sessions by (title, created, updated, number of messages)."""
    return [
        Session(f"id {title}", title, "", created, updated, None, num_messages)
        for title, created, updated, num_messages in specs
    ]


def test_every_order_falls_back_on_the_most_recent() -> None:
    roster = Roster(Chat.fresh("", 0.0))
    roster.take(sessions(("b", 1, 9, 2), ("A", 2, 5, 7), ("c", 3, 7, 2), ("a", 4, 6, 1)))
    expected = {
        Order.RECENT: ["b", "c", "a", "A"],
        Order.CREATED: ["a", "c", "A", "b"],
        Order.TITLE: ["a", "A", "b", "c"],
        Order.LENGTH: ["A", "b", "c", "a"],
    }
    for order, titles in expected.items():
        roster.order = order
        assert [chat.title for chat in roster.listed()] == ["", *titles], order


def test_words_of_a_title_may_come_in_any_order() -> None:
    roster = Roster(Chat.fresh("", 0.0))
    roster.take(sessions(("Parser refactor", 1, 1, 2), ("Refactor the tests", 2, 2, 2)))
    roster.words = "FACTOR pars"
    assert [chat.title for chat in roster.listed()] == ["Parser refactor"]


def test_new_chats_get_other_colours_than_their_neighbours() -> None:
    neighbours: list[str] = []
    for _ in range(50):
        drawn = new_id(neighbours[-3:])
        taken = {color_number(session) % 8 for session in neighbours[-3:]}
        assert color_number(drawn) % 8 not in taken
        neighbours.append(drawn)


async def test_a_chat_keeps_its_colour_when_another_is_deleted_and_after_a_restart(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "chats.db")
    kept = store.create_session("kept")
    gone = store.create_session("gone")
    store.messages.add(gone.id, Role.USER, "x")
    first = Roster(Chat.fresh("", 0.0))
    first.take(store.sessions())
    before = color_number(first.chats[kept.id].id)
    store.delete(gone.id)
    again = Roster(Chat.fresh("", 0.0))
    again.take(store.sessions())
    assert color_number(again.chats[kept.id].id) == before
    store.close()
