"""What the tests of the screen share: waiting for conditions, an app over a fake client and a real store."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from textual.events import Key
from textual.keys import _character_to_key
from textual.pilot import Pilot

from samovar.config import Config
from samovar.core.chat import Role
from samovar.sessions.store import MessageState, Store
from samovar.tui.app import SamovarApp
from samovar.tui.screens.workstation import Workstation
from samovar.tui.widgets.composer import Composer, MessageInput
from samovar.tui.widgets.session_list import SessionList
from samovar.tui.widgets.transcript import Entry, Transcript
from tests.tui.fake_client import FakeClient

NOW = 1_763_733_720.0  # 2025-11-21, 14:02 UTC
TIMEOUT_S = 20.0


class Station:
    """A running app and what tests ask of it."""

    def __init__(self, app: SamovarApp, pilot: Pilot[None], client: FakeClient, store: Store) -> None:
        self.app = app
        self.pilot = pilot
        self.client = client
        self.store = store  # another connection than the app's: it sees what has been committed

    @property
    def screen(self) -> Workstation:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, Workstation)
        return screen

    @property
    def text(self) -> str:
        return self.screen.query_one(Composer).text

    @property
    def entries(self) -> list[Entry]:
        return self.screen.query_one(Transcript).entries

    @property
    def titles(self) -> list[str]:
        return [row.title for row in self.sessions.rows]

    @property
    def sessions(self) -> SessionList:
        return self.screen.query_one(SessionList)

    @property
    def error(self) -> str:
        error = self.screen.query_one("#error")
        return str(error.render()) if error.display else ""

    @property
    def activity(self) -> str:
        """What the composer says is going on: in its foot, or above it where that is long."""
        note = self.screen.query_one("#note")
        return (str(note.render()) if note.display else "") + str(self.screen.query_one("#foot").render())

    def arrived(self, session: str) -> str:
        """What has arrived of a chat's running reply."""
        reply = self.app.conversations.chats[session].reply
        return reply.text if reply is not None else ""

    def type(self, text: str) -> None:
        self.screen.query_one(MessageInput).text = text

    def press_at_once(self, *keys: str) -> None:
        """Press keys as a terminal delivers them in one piece: none waits for what the one before did."""
        for key in keys:
            name, character = (_character_to_key(key), key) if len(key) == 1 else (key, None)
            self.app.post_message(Key(name, character))

    async def send(self, text: str) -> None:
        """Write a message and press Enter."""
        self.type(text)
        await self.pilot.press("enter")

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait until `condition` holds."""
        await wait_for(self.pilot, condition, what)

    async def until_asked(self, num_requests: int) -> None:
        await self.until(lambda: len(self.client.requests) >= num_requests, f"request {num_requests}")

    async def until_stored(self, session: str, state: MessageState, content: str) -> None:
        """Wait until the last message of a chat is in the store like this."""

        def holds() -> bool:
            path = self.store.path(session)
            return bool(path) and (path[-1].state, path[-1].content) == (state, content)

        await self.until(holds, f"{content!r} stored as {state.value}")


async def wait_for(pilot: Pilot[None], condition: Callable[[], object], what: str = "") -> None:
    """Let the app work until `condition` holds; fails after `TIMEOUT_S`."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what or condition}"
        await pilot.pause(0.01)


@asynccontextmanager
async def station(
    folder: Path,
    *,
    client: FakeClient | None = None,
    size: tuple[int, int] = (120, 40),
    chats: int = 0,
    config: Config | None = None,
    ready: bool = True,
    store_kind: type[Store] = Store,
    personas_dir: Path | None = None,
    tasks_dir: Path | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Station]:
    """An app in a terminal of this size, over a store with some chats (`chat 1` is the oldest)."""
    store = store_kind.open(folder / "chats.db")
    fill(store, chats)
    witness = Store.open(folder / "chats.db")
    client = client or FakeClient()
    app = SamovarApp(
        client,
        store,
        config or Config(max_fps=60),
        personas_dir=personas_dir,
        tasks_dir=tasks_dir,
        clock=clock,
    )
    try:
        async with app.run_test(size=size) as pilot:
            here = Station(app, pilot, client, witness)
            await here.until(lambda: client.started, "client started")
            await here.until(lambda: len(here.titles) == chats + 1, "chats listed")
            if ready:
                client.ready()
                await here.until(lambda: app.conversations.host.model is not None, "host ready")
            yield here
    finally:
        store.close()
        witness.close()


def fill(store: Store, chats: int) -> None:
    """Add chats of one question and one answer."""
    for number in range(1, chats + 1):
        session = store.create_session(f"chat {number}")
        store.messages.add(session.id, Role.USER, f"question {number}")
        store.messages.add(session.id, Role.ASSISTANT, f"answer {number}")
