"""How comparisons and side tasks look, as SVG snapshots in a small and in a large terminal."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from samovar.config import Config
from samovar.core.chat import Role
from samovar.core.events import RequestQueued, WaitReason
from samovar.core.request import RequestStats, TierTokens
from samovar.sessions.store import Store
from samovar.tui.app import SamovarApp
from samovar.tui.screens.compare import CompareScreen
from samovar.tui.widgets.composer import Composer
from tests.tui.fake_client import FakeClient
from tests.tui.support import NOW, wait_for

SIZES = [(80, 24), (160, 48)]
TITLES = ("Old notes", "Grant proposal", "Rust lifetimes", "Parser refactor")
QUESTION = "Why does restoring out of order change the logits?"
ANSWER = """Because attention sums over cells **in the order in which they lie**.

1. restore from the first block to the last, never by recency
2. keep the cells *compact*

```python
def restore(chain: list[Block]) -> int:
    return sum(copy_in(block) for block in chain)
```
"""
STATS = RequestStats(3912, TierTokens(context=3888), 24, 86, first_token_ms=140.0, tokens_per_second=76.0)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The screen shows local times."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    os.environ.pop("TZ", None)
    time.tzset()


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def app(tmp_path: Path, client: FakeClient) -> Iterator[SamovarApp]:
    """Four chats of one question and its reply."""
    ticks = iter(range(10_000))
    store = Store.open(tmp_path / "chats.db", clock=lambda: NOW - 3600 + next(ticks))
    for number, title in enumerate(TITLES):
        session = store.create_session(title, session_id=f"session-{number}")
        store.messages.add(session.id, Role.USER, QUESTION)
        store.messages.add(session.id, Role.ASSISTANT, ANSWER)
    yield SamovarApp(client, store, Config(max_fps=60), clock=lambda: NOW)
    store.close()


async def open_chat(pilot: Pilot[None], client: FakeClient) -> None:
    """Show the latest chat."""
    app = pilot.app
    assert isinstance(app, SamovarApp)
    await wait_for(pilot, lambda: len(app.conversations.chats) == len(TITLES) + 1)
    client.ready()
    await wait_for(pilot, lambda: app.conversations.host.model)
    await pilot.press("alt+2")
    await wait_for(pilot, lambda: app.conversations.shown.path)


async def type_line(pilot: Pilot[None], text: str) -> None:
    pilot.app.screen.query_one(Composer).set_text(text)
    await pilot.press("enter")


async def open_comparison(pilot: Pilot[None], client: FakeClient) -> None:
    """Three answers: one whole, one that comes, one that waits."""
    await open_chat(pilot, client)
    await type_line(pilot, "/compare temperature 0.2 0.7 1.2")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, CompareScreen))
    whole, coming, waiting = client.side_requests
    started = msgspec.structs.replace(STATS, generated_tokens=0, tokens_per_second=None)
    client.begin(whole, STATS)
    client.begin(coming, started)
    client.say(
        coming, "It comes down to ", "rounding: ", "sums of floating-point numbers depend on their order"
    )
    client.finish(whole, ANSWER, stats=STATS)
    client.push(RequestQueued(waiting.id, waiting.session, 2, 2, 8200.0, WaitReason.ROOM))
    assert isinstance(pilot.app, SamovarApp)
    comparison = pilot.app.conversations.comparisons.of(waiting.session)
    assert comparison is not None
    await wait_for(pilot, lambda: comparison.answers[2].position == 2)
    await wait_for(pilot, lambda: comparison.answers[1].num_tokens == 3)
    await pilot.pause()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}")
def test_comparison(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool], size: tuple[int, int]
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await open_comparison(pilot, client)

    assert snap_compare(app, terminal_size=size, run_before=before)
