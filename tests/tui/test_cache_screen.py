"""The cache on a screen of its own: what its keys ask of the host, and what is said when it has answered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from textual.widgets import Input, Static

from samovar.core.commands import (
    ClearTier,
    Evict,
    Focus,
    ListRequests,
    Pin,
    Prefetch,
    PruneDisk,
    SetDiskLimit,
    SetRamLimit,
    SetTokenLimit,
    VerifyDisk,
)
from samovar.core.events import (
    CacheChanged,
    CommandRefused,
    DiskPruned,
    DiskVerified,
    RequestsListed,
    TierCleared,
    VerifyProgressed,
)
from samovar.core.request import RequestKind
from samovar.core.snapshot import ActivePhase, ActiveRequest, CacheSnapshot, Tier
from samovar.tui.screens.cache import CacheScreen
from samovar.tui.screens.help import HelpScreen
from samovar.tui.screens.question import Question
from samovar.tui.screens.workstation import Workstation
from samovar.tui.widgets.limit_field import LimitField, stepped
from samovar.tui.widgets.row_list import RowList
from tests.tui.cache_states import FULL, GIB, MIB, PROMPTS, REQUESTS
from tests.tui.support import Station, station


class Desk:
    """A station with its cache screen open."""

    def __init__(self, here: Station, screen: CacheScreen) -> None:
        self.here = here
        self.screen = screen

    @property
    def notice(self) -> str:
        return self.text("#cache-notice")

    @property
    def prompts(self) -> RowList:
        return self.screen.query_one("#prompt-list", RowList)

    @property
    def requests(self) -> RowList:
        return self.screen.query_one("#request-list", RowList)

    def text(self, selector: str) -> str:
        return str(self.screen.query_one(selector, Static).render())

    def drawn(self, rows: RowList) -> list[str]:
        return [rows.render_line(y).text for y in range(len(rows.keys))]

    async def press(self, *keys: str) -> None:
        await self.here.pilot.press(*keys)

    async def tell(self, snapshot: CacheSnapshot) -> None:
        self.here.client.push(CacheChanged(snapshot))
        await self.here.until(lambda: self.here.app.conversations.snapshot == snapshot)

    async def until_noticed(self, text: str) -> None:
        await self.here.until(lambda: text in self.notice, f"{text!r} in {self.notice!r}")


@asynccontextmanager
async def desk(
    folder: Path, snapshot: CacheSnapshot = FULL, size: tuple[int, int] = (160, 48), chats: int = 0
) -> AsyncIterator[Desk]:
    """A cache screen that has been opened with F5 and shows this picture."""
    async with station(folder, size=size, chats=chats) as here:
        here.client.push(CacheChanged(snapshot))
        await here.until(lambda: here.app.conversations.snapshot == snapshot)
        await here.pilot.press("f5")
        await here.until(lambda: isinstance(here.app.screen, CacheScreen))
        screen = here.app.screen
        assert isinstance(screen, CacheScreen)
        opened = Desk(here, screen)
        await here.until(lambda: len(opened.prompts.keys) == len(snapshot.prompts))
        await here.until(lambda: opened.prompts.has_focus or not snapshot.prompts)
        yield opened


def with_row(snapshot: CacheSnapshot, place: int, **values: object) -> CacheSnapshot:
    """The picture with another row at this place."""
    rows = list(snapshot.prompts)
    rows[place] = msgspec.structs.replace(rows[place], **values)
    return msgspec.structs.replace(snapshot, prompts=tuple(rows))


@pytest.mark.parametrize("size", [(80, 24), (160, 48)], ids=str)
async def test_who_runs_and_who_waits_is_told_while_it_is_so(tmp_path: Path, size: tuple[int, int]) -> None:
    active = (
        ActiveRequest("1", "a", "Tea", RequestKind.CHAT, ActivePhase.WRITING, generated=9, is_first=True),
        ActiveRequest("2", "b", "Rust", RequestKind.SIDE_TASK, ActivePhase.QUEUED, 1),
    )
    async with desk(tmp_path, size=size) as here:
        now = here.screen.query_one("#now", Static)
        assert not now.display
        await here.tell(msgspec.structs.replace(FULL, active=active))
        await here.here.until(lambda: now.display and "1 run · 1 wait" in str(now.render()))
        assert "Tea" in str(now.render())
        await here.tell(FULL)
        await here.here.until(lambda: not now.display, "all alone again")


async def test_a_prompt_is_pinned_and_unpinned_once_the_host_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.press("down", "p")
        assert here.here.client.of(Pin) == [Pin("session-4", True)]
        assert "pinned" not in here.notice
        await here.tell(with_row(FULL, 1, pinned=True))
        await here.until_noticed("“Rust lifetimes” is pinned: it stays")
        assert "◆ Rust lifetimes" in here.drawn(here.prompts)[1]
        await here.press("p")
        assert here.here.client.of(Pin)[-1] == Pin("session-4", False)
        await here.tell(FULL)
        await here.until_noticed("is not pinned any more")


async def test_evicting_says_what_stays(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.press("down", "e")
        assert here.here.client.of(Evict) == [Evict("session-4", False)]
        await here.tell(with_row(FULL, 1, host_tokens=640, tier=Tier.DISK))
        await here.until_noticed("“Rust lifetimes” has left context and RAM · 640 tokens stay: others share")
        await here.press("down", "down", "down", "e")
        await here.until_noticed("“Trip to Kyoto” is neither in the context nor in RAM")
        assert len(here.here.client.of(Evict)) == 1


async def test_evicting_everywhere_asks_first(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.press("E")
        await here.here.until(lambda: isinstance(here.here.app.screen, Question))
        await here.press("n")
        await here.here.until(lambda: here.here.app.screen is here.screen)
        assert not here.here.client.of(Evict)
        await here.press("E")
        await here.here.until(lambda: isinstance(here.here.app.screen, Question))
        await here.press("y")
        await here.here.until(lambda: here.here.client.of(Evict) == [Evict("session-5", True)])
        await here.tell(msgspec.structs.replace(FULL, prompts=PROMPTS[1:]))
        await here.until_noticed("the prompt has left the cache")
        assert here.prompts.cursor == "session-4"


async def test_fetching_brings_what_lies_on_disk_only(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.press("f")
        await here.until_noticed("“Parser refactor” has nothing on disk to fetch")
        assert not here.here.client.of(Prefetch)
        await here.press("down", "down", "down", "down", "f")
        assert here.here.client.of(Prefetch) == [Prefetch("session-1")]
        await here.until_noticed("“Trip to Kyoto” comes from disk to RAM")


async def test_a_tier_is_cleared_after_a_question(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        for key in "cC":
            await here.press(key)
            await here.here.until(lambda: isinstance(here.here.app.screen, Question))
            await here.press("y")
            await here.here.until(lambda: here.here.app.screen is here.screen)
        assert here.here.client.of(ClearTier) == [ClearTier(Tier.HOST), ClearTier(Tier.DISK)]
        here.here.client.push(TierCleared(Tier.DISK, 800, 2 * GIB, 28))
        await here.until_noticed("cleared 2.0 GiB from disk: 800 blocks · 28 blocks stay: pinned or in use")


async def test_verifying_shows_how_far_it_is_and_what_it_found(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.press("v")
        assert here.here.client.of(VerifyDisk) == [VerifyDisk()]
        here.here.client.push(VerifyProgressed(120, 828))
        await here.until_noticed("verifying 120 of 828 files")
        here.here.client.push(DiskVerified(828, 2 * GIB, 0, 0))
        await here.until_noticed("828 files, 2.0 GiB: all are as they were written")
        here.here.client.push(DiskVerified(828, 2 * GIB, 3, 2))
        await here.until_noticed("3 of 828 files bad and set aside")
        await here.press("v")
        here.here.client.push(VerifyProgressed(1, 828), CommandRefused("disk is being verified already"))
        await here.until_noticed("disk is being verified already")


async def test_pruning_asks_first_and_names_the_models(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.press("x")
        await here.here.until(lambda: isinstance(here.here.app.screen, Question))
        question = str(here.here.app.screen.query_one("#question Static", Static).render())
        assert "312 blocks (640 MiB) of “Gemma 3 270M”" in question
        await here.press("y")
        await here.here.until(lambda: here.here.client.of(PruneDisk))
        here.here.client.push(DiskPruned(("Gemma 3 270M",), 312, 640 * MIB))
        await here.until_noticed("pruned 640 MiB from disk: 312 blocks of Gemma 3 270M")
        rest = tuple(model for model in FULL.disk_models if not model.stale)
        await here.tell(msgspec.structs.replace(FULL, disk_models=rest))
        await here.press("x")
        await here.until_noticed("nothing to prune")


async def test_a_limit_is_typed_or_stepped_and_confirmed(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        field = here.screen.query_one(LimitField)
        await here.press("r")
        assert field.display
        assert here.screen.query_one(Input).value == "auto"
        await here.press("+", "+", "-", "enter")
        assert here.here.client.of(SetRamLimit) == [SetRamLimit("4GiB")]
        assert not field.display
        host = msgspec.structs.replace(FULL.host, setting="4GiB", limit_bytes=4 * GIB)
        await here.tell(msgspec.structs.replace(FULL, host=host))
        await here.until_noticed("RAM limit: 4GiB")

        await here.press("r", "ctrl+u", "-", "3")
        value = here.screen.query_one(Input).value
        assert value == "2GiB3", "a step from the limit in force, and no size that nobody meant"
        await here.press("escape")

        await here.press("d", *"500MiB", "enter")
        assert here.here.client.of(SetDiskLimit) == [SetDiskLimit("500MiB")]
        here.here.client.push(CommandRefused("the disk has less than that"))
        await here.until_noticed("the disk has less than that")
        await here.here.until(lambda: field.display and here.screen.query_one(Input).value == "500MiB")
        await here.press("escape")
        await here.here.until(lambda: here.prompts.has_focus)
        assert isinstance(here.here.app.screen, CacheScreen)

        await here.press("t", *"100000", "enter")
        assert here.here.client.of(SetTokenLimit) == [SetTokenLimit("100000")]


@pytest.mark.parametrize(
    ("text", "up", "becomes"),
    [
        ("2GiB", True, "4GiB"),
        ("2GiB", False, "1GiB"),
        ("3GiB", True, "4GiB"),
        ("3GiB", False, "2GiB"),
        ("1GiB", False, "512MiB"),
        ("auto", True, "2GiB"),
        ("auto", False, "1GiB"),
        ("1", False, "16MiB"),
        ("off", True, "2GiB"),
    ],
)
def test_steps_are_powers_of_two(text: str, up: bool, becomes: str) -> None:
    assert stepped(text, 3 * GIB // 2, up=up) == becomes


async def test_the_last_requests_come_when_asked_for_and_after_each_new_one(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        client = here.here.client
        assert client.of(ListRequests)
        client.push(RequestsListed(REQUESTS))
        await here.here.until(lambda: len(here.requests.keys) == len(REQUESTS))
        lines = here.drawn(here.requests)
        assert "Parser refact…  3,912     660    152      ·     3,100     9 ms   15 s" in lines[0]
        assert "4,500        16" in lines[1]
        detail = here.text("#request-detail")
        assert "3,912 tokens: 660 from context · 152 from RAM · 3,100 processed" in detail
        assert "first difference at 812: message edited" in detail
        assert "− cached returns a list of blocks." in detail
        assert "+ asked  returns a tuple of [bold]blocks␛[31m." in detail
        assert "before    reads the whole file, so that the parser↵" in detail

        await here.press("2", "down")
        await here.here.until(lambda: "4,500 from disk" in here.text("#request-detail"))
        await here.press("down")
        await here.here.until(lambda: "all but the last token was reused" in here.text("#request-detail"))
        assert "a side task" in here.text("#request-detail")
        await here.press("down")
        await here.here.until(lambda: "never seen from 0 on" in here.text("#request-detail"))

        asked = len(client.of(ListRequests))
        newest = msgspec.structs.replace(REQUESTS[2], finished_at=REQUESTS[0].finished_at + 9)
        await here.tell(msgspec.structs.replace(FULL, last=newest))
        await here.here.until(lambda: len(client.of(ListRequests)) == asked + 1)
        client.push(RequestsListed((newest, *REQUESTS)))
        await here.here.until(lambda: len(here.requests.keys) == len(REQUESTS) + 1)
        assert "never seen" in here.text("#request-detail")  # the cursor stays with its request


async def test_prompts_are_sorted_by_the_next_column(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.press("s")
        assert here.prompts.keys[0] == "session-1"  # the longest
        assert "↓tokens" in here.text("#prompt-head")
        assert here.prompts.cursor == "session-5"  # stays with its prompt
        await here.press("s", "s")
        assert here.prompts.keys[0] == "session-1"  # the most hits
        await here.press("s")
        assert here.prompts.keys[0] == "session-3"  # the first by title
        await here.press("s")
        assert list(here.prompts.keys) == [row.session for row in PROMPTS]


async def test_the_parts_stand_beside_one_another_or_one_at_a_time(tmp_path: Path) -> None:
    async with desk(tmp_path, size=(80, 24)) as here:
        assert not here.requests.region
        await here.press("tab")
        await here.here.until(lambda: here.requests.region and not here.prompts.region)
        assert here.requests.has_focus
        await here.press("3")
        await here.here.until(lambda: "for ever" in here.text("#totals") and not here.requests.region)
        await here.here.pilot.resize_terminal(160, 48)
        await here.here.until(lambda: here.requests.region and here.prompts.region)


async def test_enter_opens_the_chat_and_escape_goes_back(tmp_path: Path) -> None:
    async with desk(tmp_path, chats=1) as here:
        app = here.here.app
        await here.press("enter")
        await here.until_noticed("this prompt is of no chat here")
        session = next(chat.id for chat in app.conversations.chats.values() if chat.in_store)
        await here.tell(with_row(FULL, 0, session=session, title="chat 1"))
        await here.here.until(lambda: here.prompts.cursor == session)
        await here.press("enter")
        await here.here.until(lambda: isinstance(app.screen, Workstation))
        assert here.here.client.of(Focus)[-1] == Focus(session)
        await here.press("f5")
        await here.here.until(lambda: isinstance(app.screen, CacheScreen))
        await here.press("f1")
        await here.here.until(lambda: isinstance(app.screen, HelpScreen))
        await here.press("escape", "escape")
        await here.here.until(lambda: isinstance(app.screen, Workstation))


async def test_the_palette_opens_it_and_typing_goes_nowhere_else(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.press("z")
        assert here.here.text == ""
        commands = here.here.app.get_system_commands(here.here.app.screen)
        assert any(command.title == "All of the cache" for command in commands)


async def test_a_sleeping_model_and_an_empty_cache_are_said(tmp_path: Path) -> None:
    async with desk(tmp_path, CacheSnapshot(asleep=True, wake_ms=880.0)) as here:
        await here.here.until(lambda: "asleep, waking costs about 880 ms" in here.text("#cache-title"))
        assert "nothing is cached yet" in here.prompts.render_line(0).text
        await here.press("p", "e", "E", "f", "down", "enter", "c", "C", "v")
        assert not here.here.client.of(Pin)
        assert not here.here.client.of(Evict)
        await here.until_noticed("disk is off: there is nothing to verify")
