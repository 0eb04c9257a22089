"""How the workstation looks, as SVG snapshots: the same chats, the same cache, at four sizes."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from samovar.config import Config
from samovar.core.chat import Role
from samovar.core.request import RequestStats, TierTokens
from samovar.core.snapshot import PromptRow, Tier
from samovar.sessions.store import MessageState, Store
from samovar.tui.app import SamovarApp
from samovar.tui.widgets.composer import Composer
from tests.tui.fake_client import KIB_PER_TOKEN, ScriptedClient
from tests.tui.support import NOW, wait_for

pytestmark = pytest.mark.usefixtures("utc")


REPLY = """Because attention sums over cells **in the order in which they lie**.

1. restore from the first block to the last, never by recency
2. keep the cells *compact*

```python
def restore(chain: list[Block]) -> int:
    return sum(copy_in(block) for block in chain)
```
"""
CHATS = (
    ("Old notes", 0, None),
    ("Trip to Kyoto", 6200, Tier.DISK),
    ("Weekly review", 1190, Tier.HOST),
    ("Grant proposal", 5802, Tier.HOST),
    ("Rust lifetimes", 2048, Tier.HOST),
    ("Parser refactor", 3888, Tier.HOST),
)
STATS = RequestStats(3912, TierTokens(host=3888), 24, 212, first_token_ms=140.0, tokens_per_second=76.0)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[SamovarApp]:
    """Six chats; the host knows all but the oldest."""
    ticks = iter(range(10_000))
    store = Store.open(tmp_path / "chats.db", clock=lambda: NOW - 3600 + next(ticks))
    rows = []
    for number, (title, tokens, tier) in enumerate(CHATS):
        session = store.create_session(title, session_id=f"session-{number}")
        store.messages.add(session.id, Role.USER, "Why does restoring out of order change the logits?")
        reply = store.messages.add(session.id, Role.ASSISTANT, "", state=MessageState.STREAMING)
        store.messages.finish_reply(reply.id, REPLY, MessageState.COMPLETE, stats=STATS)
        if tier is not None:
            shared = 660 if number > 2 else 0
            rows.append(
                PromptRow(
                    session=session.id,
                    title=title,
                    tokens=tokens,
                    context_tokens=0,
                    host_tokens=tokens,
                    disk_tokens=0,
                    own_bytes=int((tokens - shared) * KIB_PER_TOKEN * 1024),
                    shared_bytes=int(shared * KIB_PER_TOKEN * 1024),
                    tier=tier,
                    hits=number,
                    last_used=NOW - 400 * (7 - number),
                )
            )
    client = ScriptedClient(REPLY, tokens_per_second=0, known=rows)
    client.now = NOW
    yield SamovarApp(client, store, Config(max_fps=60), clock=lambda: NOW)
    store.close()


async def open_chat(pilot: Pilot[None]) -> None:
    """Show the latest chat, ask one more question, and write a draft."""
    app = pilot.app
    assert isinstance(app, SamovarApp)
    await wait_for(pilot, lambda: len(app.conversations.chats) == len(CHATS) + 1)
    await wait_for(pilot, lambda: app.conversations.snapshot.prompts)
    await pilot.press("alt+2")
    await wait_for(pilot, lambda: app.conversations.shown.path)
    composer = app.screen.query_one(Composer)
    composer.set_text("And after an edit in the middle?")
    await pilot.press("enter")
    await wait_for(pilot, lambda: len(app.conversations.shown.path or []) == 4)
    await wait_for(pilot, lambda: app.conversations.snapshot.last)
    composer.set_text("Does the shift have to happen before the next decode, or can it wait?")
    await pilot.pause()


async def open_list(pilot: Pilot[None]) -> None:
    await open_chat(pilot)
    await pilot.press("f2", "down")


async def open_cache(pilot: Pilot[None]) -> None:
    await open_chat(pilot)
    await pilot.press("f4")


async def open_help(pilot: Pilot[None]) -> None:
    await open_chat(pilot)
    await pilot.press("f1")
    await pilot.pause()


async def open_queue(pilot: Pilot[None]) -> None:
    """Messages that wait for a reply."""
    await open_chat(pilot)
    app = pilot.app
    assert isinstance(app, SamovarApp)
    chat, outbox = app.conversations.shown, app.conversations.outbox
    chat.sending = True  # as while a reply is under way
    outbox.add(chat, "Then show me the same\nfor a recurrent model, with all its states")
    outbox.add(chat, "And a summary")
    app.screen.query_one(Composer).set_text("")
    await pilot.pause()


async def open_paused_queue(pilot: Pilot[None]) -> None:
    await open_queue(pilot)
    app = pilot.app
    assert isinstance(app, SamovarApp)
    chat, outbox = app.conversations.shown, app.conversations.outbox
    for number in range(4):
        outbox.add(chat, f"Question {number}")
    outbox.pause(chat, "the reply was stopped")
    await pilot.press("tab", "up", "up")
    await pilot.pause()


async def open_settings(pilot: Pilot[None]) -> None:
    await open_chat(pilot)
    await pilot.press("f7")
    await pilot.pause()


async def open_switcher(pilot: Pilot[None]) -> None:
    """Stars, tags and an archived chat, and a few letters typed."""
    await open_chat(pilot)
    app = pilot.app
    assert isinstance(app, SamovarApp)
    profile, chats = app.conversations.profile, app.conversations.chats
    profile.set_favourite(chats["session-3"], is_favourite=True)
    profile.set_archived(chats["session-2"], is_archived=True)
    profile.set_tags(chats["session-3"], ["work", "writing"])
    await pilot.press("ctrl+o", "r", "o")
    await pilot.pause()


async def open_arranged_list(pilot: Pilot[None]) -> None:
    await open_switcher(pilot)
    await pilot.press("escape", "f2", "A", "o", "o", "home")
    await pilot.pause()


@pytest.mark.parametrize("size", [(40, 20), (80, 24), (120, 50)], ids=lambda size: f"{size[0]}")
def test_chat_settings(app: SamovarApp, snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=open_settings)


@pytest.mark.parametrize("size", [(40, 20), (100, 30)], ids=lambda size: f"{size[0]}")
def test_switcher(app: SamovarApp, snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=open_switcher)


@pytest.mark.parametrize("size", [(56, 20), (120, 30)], ids=lambda size: f"{size[0]}")
def test_arranged_list(app: SamovarApp, snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=open_arranged_list)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 48), (200, 60)], ids=lambda size: f"{size[0]}")
def test_chat(app: SamovarApp, snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=open_chat)


def test_list_over_the_chat(app: SamovarApp, snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(app, terminal_size=(80, 24), run_before=open_list)


def test_cache_over_the_chat(app: SamovarApp, snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(app, terminal_size=(80, 24), run_before=open_cache)


def test_help(app: SamovarApp, snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(app, terminal_size=(80, 24), run_before=open_help)


@pytest.mark.parametrize("size", [(40, 20), (80, 24), (160, 48)], ids=lambda size: f"{size[0]}")
@pytest.mark.parametrize("before", [open_queue, open_paused_queue], ids=["waits", "paused"])
def test_queue(
    app: SamovarApp,
    snap_compare: Callable[..., bool],
    before: Callable[[Pilot[None]], Awaitable[None]],
    size: tuple[int, int],
) -> None:
    assert snap_compare(app, terminal_size=size, run_before=before)
