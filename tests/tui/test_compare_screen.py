"""The keys of the screen that compares answers, over a fake client."""

from pathlib import Path

from samovar.chats.compare import Comparison
from samovar.core.commands import Cancel
from samovar.core.events import RequestStarted
from samovar.core.request import FinishReason, Request
from samovar.tui.screens.compare import CompareScreen
from samovar.tui.screens.workstation import Workstation
from tests.tui.fake_client import STATS
from tests.tui.support import Station, station


async def compare(here: Station, command: str = "/compare 2") -> tuple[Comparison, list[Request]]:
    """Compare in the latest chat; returns what is compared, and its requests."""
    await here.pilot.press("alt+2")
    await here.until(lambda: here.app.conversations.shown.path, "the chat is read")
    await here.send(command)
    await here.until(lambda: isinstance(here.app.screen, CompareScreen), "the screen")
    comparison = here.app.conversations.comparisons.of(here.app.conversations.shown.id)
    assert comparison is not None
    return comparison, here.client.side_requests


async def test_a_number_keeps_that_answer_and_goes_back(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        comparison, (first, second) = await compare(here)
        here.client.finish(first, "one way")
        here.client.finish(second, "another way")
        await here.until(lambda: not comparison.is_running, "both have ended")
        await here.pilot.press("2")
        await here.until(lambda: isinstance(here.app.screen, Workstation), "back")
        assert here.entries[-1].text == "another way"
        assert here.entries[-1].num_siblings == 2
        assert here.activity.startswith("kept: seed")


async def test_escape_stops_first_and_discards_then(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        comparison, (first, second) = await compare(here)
        here.client.begin(first)
        here.client.say(first, "half")
        await here.until(lambda: comparison.answers[0].text == "half", "the beginning")
        await here.pilot.press("escape")
        assert {cancel.request_id for cancel in here.client.of(Cancel)} == {first.id, second.id}
        assert isinstance(here.app.screen, CompareScreen), "what has arrived can still be kept"
        here.client.finish(first, "half", FinishReason.CANCELLED)
        here.client.finish(second, "", FinishReason.CANCELLED)
        await here.until(lambda: not comparison.is_running, "both have ended")
        await here.pilot.press("escape")
        notice = here.app.screen.query_one("#compare-notice")
        await here.until(lambda: "esc again discards all" in str(notice.render()), "asked once more")
        await here.pilot.press("tab", "escape")
        assert isinstance(here.app.screen, CompareScreen), "other keys take the first press back"
        await here.pilot.press("escape")
        await here.until(lambda: isinstance(here.app.screen, Workstation), "back")
        assert [entry.text for entry in here.entries] == ["question 1", "answer 1"]


async def test_an_answer_that_failed_says_why_and_is_not_kept(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        comparison, (first, second) = await compare(here)
        here.client.finish(first, "", FinishReason.FAILED, error="The context is too small for this.")
        here.client.finish(second, "fine")
        await here.until(lambda: not comparison.is_running, "both have ended")
        screen = here.app.screen
        assert isinstance(screen, CompareScreen)
        await here.pilot.press("1")
        await here.until(lambda: "no text" in str(screen.query_one("#compare-notice").render()), "refused")
        await here.pilot.press("tab", "c")
        await here.until(lambda: here.app.clipboard == "fine", "the other one is copied")


async def test_what_cannot_be_compared_comes_back_to_the_composer(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("/compare 9 why")
        await here.until(lambda: "2 to 6 answers" in here.error, "says what can be")
        assert here.text == "/compare 9 why"


async def test_why_a_busy_chat_is_not_compared_is_said_until_its_reply_has_ended(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("why")
        await here.until_asked(1)
        await here.send("/compare 2")
        await here.until(lambda: "still being written" in here.error, here.error)
        here.client.finish(here.client.requests[0], "so")
        await here.until(lambda: not here.error, "nothing is in the way any more")
        assert here.text == "/compare 2"


async def test_discarding_gives_a_new_text_back_and_thinking_is_not_copied(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        comparison, (first, second) = await compare(here, "/compare 2 why is the sky blue")
        here.client.push(RequestStarted(first.id, first.session, STATS, thinks=True))
        here.client.finish(first, "Well.</think>Light.")
        here.client.finish(second, "air")
        await here.until(lambda: not comparison.is_running, "both have ended")
        await here.pilot.press("c")
        assert here.app.clipboard == "Light."
        await here.pilot.press("escape", "escape")
        await here.until(lambda: isinstance(here.app.screen, Workstation), "back")
        await here.until(lambda: here.text == "why is the sky blue", here.text)
