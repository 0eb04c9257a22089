"""How the cache is drawn in all its states, as SVG snapshots: the screen of its own, and the panel."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from samovar.config import Config
from samovar.core.events import CacheChanged, RequestsListed
from samovar.core.request import RequestKind
from samovar.core.snapshot import (
    ActivePhase,
    ActiveRequest,
    CacheSnapshot,
    ContextUse,
    LastRequest,
    TierUse,
)
from samovar.sessions.store import Store
from samovar.tui.app import SamovarApp
from samovar.tui.screens.cache import CacheScreen
from samovar.tui.widgets.row_list import RowList
from tests.tui.cache_states import FULL, GIB, MIB, REQUESTS
from tests.tui.fake_client import FakeClient
from tests.tui.support import NOW, wait_for

pytestmark = pytest.mark.usefixtures("utc")


TITLES = (
    "Old notes",
    "Trip to Kyoto",
    "Weekly review",
    "Grant proposal",
    "Rust lifetimes",
    "Parser refactor",
)
IN_TROUBLE = msgspec.structs.replace(
    FULL,
    host=msgspec.structs.replace(FULL.host, lowered_from=4 * GIB, limit_bytes=512 * MIB),
    disk=msgspec.structs.replace(
        FULL.disk,
        queued_bytes=12 * MIB,
        quarantined=3,
        problem="The disk is full: new blocks stay in RAM. Make room in /home/ann/.cache/samovar.",
    ),
)
ASLEEP = msgspec.structs.replace(FULL, asleep=True, context=ContextUse())
OFF = msgspec.structs.replace(
    FULL, host=TierUse(off=True), disk=TierUse(off=True), disk_models=(), totals_ever=None
)
BUSY = msgspec.structs.replace(
    FULL,
    totals=msgspec.structs.replace(
        FULL.totals, ahead_tokens=41_200, ahead_used_tokens=38_020, ahead_wasted_tokens=3180
    ),
    last=LastRequest(
        "session-5",
        "Parser refactor",
        msgspec.structs.replace(REQUESTS[0].stats, ahead_tokens=96),
        NOW - 3,
    ),
    num_running=2,
    num_waiting=2,
    others_share=0.12,
    active=(
        ActiveRequest(
            "1",
            "session-5",
            "Parser refactor",
            RequestKind.CHAT,
            ActivePhase.WRITING,
            generated=212,
            is_first=True,
        ),
        ActiveRequest(
            "2", "session-4", "Rust lifetimes", RequestKind.CHAT, ActivePhase.READING, done=300, total=900
        ),
        *(
            ActiveRequest(
                str(2 + place), "session-3", "title", RequestKind.SIDE_TASK, ActivePhase.QUEUED, place
            )
            for place in (1, 2)
        ),
        ActiveRequest("5", "session-5", "Parser refactor", RequestKind.PREPARE, ActivePhase.QUEUED, 3),
    ),
)
SIZES = [(80, 24), (160, 48)]


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def app(tmp_path: Path, client: FakeClient) -> Iterator[SamovarApp]:
    """Six chats nobody has written in."""
    ticks = iter(range(10_000))
    store = Store.open(tmp_path / "chats.db", clock=lambda: NOW - 3600 + next(ticks))
    for number, title in enumerate(TITLES):
        store.create_session(title, session_id=f"session-{number}")
    yield SamovarApp(client, store, Config(max_fps=60), clock=lambda: NOW)
    store.close()


async def draw(pilot: Pilot[None], client: FakeClient, snapshot: CacheSnapshot) -> None:
    """Start, and show this picture of the cache."""
    app = pilot.app
    assert isinstance(app, SamovarApp)
    await wait_for(pilot, lambda: len(app.conversations.chats) == len(TITLES) + 1)
    client.ready()
    client.push(CacheChanged(snapshot))
    await wait_for(pilot, lambda: app.conversations.snapshot == snapshot)
    await pilot.pause()


async def open_screen(pilot: Pilot[None], client: FakeClient, snapshot: CacheSnapshot, *keys: str) -> None:
    """Open the cache screen, let the host tell of the last requests, press keys."""
    await draw(pilot, client, snapshot)
    await pilot.press("f5")
    client.push(RequestsListed(REQUESTS))
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, CacheScreen))
    requests = pilot.app.screen.query_one("#request-list", RowList)
    await wait_for(pilot, lambda: len(requests.keys) == len(REQUESTS))
    await pilot.press(*keys)
    await pilot.pause()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}")
@pytest.mark.parametrize("part", ["1", "2", "3"])
def test_cache_screen(
    app: SamovarApp,
    client: FakeClient,
    snap_compare: Callable[..., bool],
    size: tuple[int, int],
    part: str,
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await open_screen(pilot, client, FULL, part)

    assert snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize("size", [*SIZES, (120, 30)], ids=lambda size: f"{size[0]}")
def test_cache_screen_in_trouble(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool], size: tuple[int, int]
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await open_screen(pilot, client, IN_TROUBLE, "d")

    assert snap_compare(app, terminal_size=size, run_before=before)


def test_a_question_over_the_cache_screen(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool]
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await open_screen(pilot, client, FULL, "x")

    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


def test_an_empty_cache_screen(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool]
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await draw(pilot, client, CacheSnapshot(disk=TierUse(limit_bytes=8 * GIB, setting="auto")))
        await pilot.press("f5")

    assert snap_compare(app, terminal_size=(160, 48), run_before=before)


@pytest.mark.parametrize(
    "picture", [IN_TROUBLE, ASLEEP, OFF, BUSY], ids=["in trouble", "asleep", "off", "busy"]
)
def test_panel(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool], picture: CacheSnapshot
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await draw(pilot, client, picture)

    assert snap_compare(app, terminal_size=(160, 48), run_before=before)


def test_panel_over_the_chat(app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool]) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await draw(pilot, client, IN_TROUBLE)
        await pilot.press("f4")
        await pilot.pause()

    assert snap_compare(app, terminal_size=(80, 24), run_before=before)
