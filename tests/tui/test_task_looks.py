"""How comparisons and side tasks look, as SVG snapshots in a small and in a large terminal."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from samovar.config import Config
from samovar.core.chat import Role
from samovar.core.events import PrefillProgressed, RequestQueued, WaitReason
from samovar.core.request import FinishReason, RequestStats, TierTokens
from samovar.sessions.store import Store
from samovar.tui.app import SamovarApp
from samovar.tui.screens.compare import CompareScreen
from samovar.tui.widgets.composer import Composer
from tests.tui.fake_client import FakeClient
from tests.tui.support import NOW, wait_for

pytestmark = pytest.mark.usefixtures("utc")


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
    await settled(pilot, "depend on their order" if pilot.app.size.width > 100 else "keep the cells")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}")
def test_comparison(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool], size: tuple[int, int]
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await open_comparison(pilot, client)

    assert snap_compare(app, terminal_size=size, run_before=before)


async def run_tasks(pilot: Pilot[None], client: FakeClient) -> SamovarApp:
    """Six tasks in every state, on three chats."""
    await open_chat(pilot, client)
    app = pilot.app
    assert isinstance(app, SamovarApp)
    tasks, chats = app.conversations.tasks, app.conversations.chats
    await wait_for(pilot, lambda: chats["session-3"].path)
    app.conversations.show("session-2")
    await wait_for(pilot, lambda: chats["session-2"].path)
    app.conversations.show("session-3")
    for session, name, text in (
        ("session-3", "suggest", ""),
        ("session-3", "translate", "German"),
        ("session-2", "summary", ""),
        ("session-3", "keywords", ""),
        ("session-2", "aside", "what is a block?"),
        ("session-3", "summary", ""),
    ):
        tasks.run(chats[session], tasks.spec(name), text=text)
    suggest, translate, summary, keywords, aside, waiting = client.side_requests
    client.begin(suggest)
    client.finish(
        suggest, '{"replies": ["And backwards?", "Show me the code.", "Why ascending?"]}', stats=STATS
    )
    client.finish(translate, "", FinishReason.FAILED, error="The context is too small for this.")
    client.finish(summary, ANSWER, stats=STATS)
    started = msgspec.structs.replace(STATS, generated_tokens=0, tokens_per_second=None)
    client.begin(keywords, started)
    client.push(PrefillProgressed(keywords.id, keywords.session, 15, 24, 90.0))
    client.begin(aside, started)
    client.say(aside, "A block is **128 tokens** ", "that are kept and restored together")
    client.push(RequestQueued(waiting.id, waiting.session, 2, 2, 8200.0, WaitReason.ROOM))
    await wait_for(pilot, lambda: tasks.runs[0].position == 2)
    await wait_for(pilot, lambda: tasks.runs[1].num_tokens == 2)
    await wait_for(pilot, lambda: tasks.runs[2].read_tokens == 15)
    await pilot.pause()
    return app


async def settled(pilot: Pilot[None], text: str) -> None:
    """Wait until a text is drawn."""
    await wait_for(pilot, lambda: text in drawn(pilot), text)
    await pilot.pause()


def drawn(pilot: Pilot[None]) -> str:
    """What stands on the screen."""
    return "\n".join(
        "".join(segment.text for segment in strip) for strip in pilot.app.screen._compositor.render_strips()
    )


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}")
def test_side_tasks_screen(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool], size: tuple[int, int]
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await run_tasks(pilot, client)
        await pilot.press("f8", "down", "down", "down", *(["down"] * (size[0] > 100)))
        await settled(pilot, "r again")

    assert snap_compare(app, terminal_size=size, run_before=before)


def test_side_tasks_screen_without_tasks(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool]
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await open_chat(pilot, client)
        await pilot.press("f8")
        await settled(pilot, "no side task yet")

    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


def test_side_tasks_in_the_sidebar(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool]
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await run_tasks(pilot, client)
        await settled(pilot, "SIDE TASKS")

    assert snap_compare(app, terminal_size=(160, 48), run_before=before)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}")
def test_aside_over_the_chat(
    app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool], size: tuple[int, int]
) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await open_chat(pilot, client)
        await type_line(pilot, "/aside what is a block?")
        await wait_for(pilot, lambda: client.side_requests)
        (aside,) = client.side_requests
        client.begin(aside, msgspec.structs.replace(STATS, generated_tokens=0, tokens_per_second=None))
        client.say(aside, "A block is **128 tokens** ", "that are kept and restored together")
        await settled(pilot, "restored together")

    assert snap_compare(app, terminal_size=size, run_before=before)


def test_language_asked_for(app: SamovarApp, client: FakeClient, snap_compare: Callable[..., bool]) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await open_chat(pilot, client)
        await pilot.press("tab", "t")
        await settled(pilot, "enter runs it")

    assert snap_compare(app, terminal_size=(80, 24), run_before=before)
