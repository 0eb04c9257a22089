"""Keys on messages, the search screen, drafts and files, in the whole app over a fake client."""

from pathlib import Path

from textual.widgets import Static

from samovar.core.request import FinishReason
from samovar.tui.screens.search import SearchScreen
from samovar.tui.widgets.composer import MessageInput
from samovar.tui.widgets.row_list import RowList
from samovar.tui.widgets.transcript import Transcript
from tests.tui.support import Station, station


def texts(here: Station) -> list[str]:
    return [entry.text for entry in here.entries if entry.role in ("user", "assistant")]


async def talk(here: Station, text: str, reply: str, reason: FinishReason = FinishReason.STOP) -> None:
    """One turn."""
    num_asked = len(here.client.requests)
    await here.send(text)
    await here.until_asked(num_asked + 1)
    here.client.finish(here.client.requests[-1], reply, reason)
    await here.until(lambda: here.entries[-1].text == reply or reason is not FinishReason.STOP)


async def test_a_message_is_edited_and_both_versions_can_be_read(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await talk(here, "one", "first")
        await talk(here, "two", "second")
        here.screen.query_one(Transcript).focus()
        await here.pilot.press("left_square_bracket", "e")
        await here.until(lambda: here.text == "two")
        assert "editing" in here.activity
        assert isinstance(here.app.focused, MessageInput)
        await here.pilot.press("backspace", "2", "enter")
        await here.until_asked(3)
        here.client.finish(here.client.requests[-1], "another")
        await here.until(lambda: texts(here) == ["one", "first", "tw2", "another"])
        assert "editing" not in here.activity
        here.screen.query_one(Transcript).focus()
        await here.pilot.press("left_square_bracket", "left")
        await here.until(lambda: texts(here) == ["one", "first", "two", "second"])
        await here.pilot.press("right")
        await here.until(lambda: texts(here)[-1] == "another")


async def test_escape_leaves_an_edit_and_brings_the_draft_back(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await talk(here, "one", "first")
        here.type("a thought")
        await here.pilot.pause()
        here.screen.query_one(Transcript).focus()
        await here.pilot.press("left_square_bracket", "e")
        await here.until(lambda: here.text == "one")
        await here.pilot.press("escape")
        await here.until(lambda: here.text == "a thought")
        assert texts(here) == ["one", "first"]


async def test_answer_again_fork_delete_and_undo(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await talk(here, "one", "first")
        here.screen.query_one(Transcript).focus()
        await here.pilot.press("r")
        await here.until_asked(2)
        here.client.finish(here.client.requests[-1], "first, again")
        await here.until(lambda: texts(here) == ["one", "first, again"])
        await here.pilot.press("d")
        await here.until(lambda: texts(here) == ["one", "first"])
        await here.pilot.press("u")
        await here.until(lambda: texts(here) == ["one", "first, again"])
        await here.pilot.press("f")
        await here.until(lambda: "↳ one" in here.titles)
        assert here.app.conversations.shown.title == "↳ one"


async def test_a_cut_reply_goes_on(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await talk(here, "count", "one two", FinishReason.LENGTH)
        await here.until(lambda: here.entries[-1].role == "note")
        assert "/continue" in here.entries[-1].text
        await here.send("/continue")
        await here.until_asked(2)
        here.client.finish(here.client.requests[-1], " three")
        await here.until(lambda: texts(here) == ["count", "one two three"])


async def test_search_finds_a_message_and_goes_there(tmp_path: Path) -> None:
    async with station(tmp_path, chats=4) as here:
        await here.pilot.press("f3")
        await here.until(lambda: isinstance(here.app.screen, SearchScreen))
        await here.pilot.press(*"answer 2")
        hits = here.app.screen.query_one(RowList)
        await here.until(lambda: len(hits.keys) >= 1 and hits.cursor, "found")
        await here.until(lambda: "found" in str(here.app.screen.query_one("#found").render()))
        await here.pilot.press("enter")
        await here.until(lambda: here.app.conversations.shown.title == "chat 2")
        await here.until(lambda: texts(here) == ["question 2", "answer 2"])
        transcript = here.screen.query_one(Transcript)
        await here.until(lambda: transcript.has_focus)
        current = next(entry for entry in here.entries if entry.id == transcript.current)
        assert current.text == "answer 2"


async def test_search_takes_whatever_is_typed(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await here.pilot.press("f3")
        await here.until(lambda: isinstance(here.app.screen, SearchScreen))
        await here.pilot.press('"', "*", "(", "a", "n", "d", ":", "-", "'")
        await here.pilot.press("escape")
        await here.until(lambda: here.app.screen is here.screen)


async def test_a_draft_is_in_the_store_a_moment_after_it_was_typed(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press(*"half")
        session = here.app.conversations.shown.id
        rows = "SELECT session_id, text FROM drafts"
        await here.until(lambda: here.store._db.rows(rows) == [(session, "half")])
        await here.pilot.press("ctrl+down")
        await here.until(lambda: here.text == "")
        await here.pilot.press("ctrl+up")
        await here.until(lambda: here.text == "half")


async def test_the_samples_come_on_the_first_run(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        assert "/samples" in str(here.screen.query_one("#welcome").render())
        await here.send("/samples")
        await here.until(lambda: len(here.titles) >= 7)
        assert "/samples" not in str(here.screen.query_one("#welcome").render())


async def test_a_chat_is_exported_and_comes_back(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await talk(here, "one", "first")
        file = tmp_path / "chat.toml"
        await here.send(f"/export {file}")
        await here.until(lambda: "written" in here.activity)
        assert "first" in file.read_text()
        await here.send(f"/export {tmp_path}/chat.pdf")
        await here.until(lambda: ".md, .json or .toml" in here.error)
        assert not (tmp_path / "chat.pdf").exists()
        here.type("")
        await here.send(f"/import {file}")
        await here.until(lambda: here.titles.count("one") == 2)
        file.write_text("[[[")
        await here.send(f"/import {file}")
        await here.until(lambda: "chat.toml" in here.error)
        assert here.titles.count("one") == 2


async def test_of_a_folder_what_came_in_is_told_beside_what_did_not(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await talk(here, "one", "first")
        (tmp_path / "both").mkdir()
        await here.send(f"/export {tmp_path}/both/good.toml")
        await here.until(lambda: "written" in here.activity)
        good = (tmp_path / "both" / "good.toml").read_text()
        (tmp_path / "both" / "bad.toml").write_text(good.replace("title =", "titl[e ="))
        await here.send(f"/import {tmp_path}/both")
        await here.until(lambda: here.error)
        assert here.error.startswith("1 chat imported. Cannot import"), here.error
        assert "bad.toml" in here.error
        await here.until(lambda: here.titles.count("one") == 2)


async def test_a_tag_that_no_chat_has_is_not_listed_alone(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await here.send("/tagged nope")
        await here.until(lambda: "no chat has the tag nope" in here.error)
        assert len(here.titles) == 3


async def test_what_is_said_of_a_deleted_chat_ends_when_it_is_back(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.entries)
        note = here.screen.query_one("#list-note", Static)
        await here.send("/delete")
        await here.until(lambda: "/undo brings it back" in str(note.render()), str(note.render()))
        await here.send("/undo")
        await here.until(lambda: "chat 2" in here.titles)
        await here.until(lambda: "brings it back" not in str(note.render()))
