"""A short visit of a command to a running engine host: it joins one and never starts one.

Runs in the command's event loop.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from samovar.client.local import LocalClient, running_hosts
from samovar.core.commands import Command
from samovar.core.errors import SamovarError
from samovar.core.events import CommandRefused, Event, HostFailed, Welcome
from samovar.core.settings import LOCK_SUFFIX

GREETING_PATIENCE_S: Final = 5.0  # a host answers at once, also while it loads or computes
ANSWER_PATIENCE_S: Final = 30.0  # the engine looks at its commands between two steps
E = TypeVar("E", bound=Event)


class Visit:
    """A connection to one host. Silence for longer than the patience is a SamovarError."""

    def __init__(self, client: LocalClient, socket: Path, patience_s: float) -> None:
        self._client = client
        self._events = client.events()
        self._socket = socket
        self._patience_s = patience_s
        self._deadline = time.monotonic() + GREETING_PATIENCE_S

    def send(self, command: Command) -> None:
        self._client.send(command)

    async def next(self) -> Event:
        """What the host says next; `HostFailed` where there is none (any more)."""
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                event = await anext(self._events)
        except (TimeoutError, StopAsyncIteration):
            raise SamovarError(_hangs(self._socket)) from None
        self._deadline = time.monotonic() + self._patience_s
        return event

    async def is_welcome(self) -> bool:
        """Wait for the greeting; False if the socket is stale."""
        while not isinstance(event := await self.next(), Welcome):
            if isinstance(event, HostFailed):
                return False
        return True

    async def ask(self, command: Command, answer: type[E]) -> E:
        """Give a command and wait for its answer; SamovarError if it is refused or the host ends."""
        self.send(command)
        return await self.hear(answer)

    async def hear(self, answer: type[E]) -> E:
        """Wait for an event of a kind; SamovarError if a command is refused or the host ends."""
        while True:
            event = await self.next()
            match event:
                case answer():
                    return event
                case CommandRefused(message) | HostFailed(message):
                    raise SamovarError(message)
                case _:
                    pass


@asynccontextmanager
async def visit(socket: Path, patience_s: float = ANSWER_PATIENCE_S) -> AsyncIterator[Visit]:
    """Join the host behind a socket, if there is one."""
    client = LocalClient(socket, "command")
    await client.start()
    try:
        yield Visit(client, socket, patience_s)
    finally:
        await client.close()


@asynccontextmanager
async def visit_any(run_dir: Path, socket_name: str) -> AsyncIterator[Visit | None]:
    """Join the host of this socket, or else any one that runs; None if there is none."""
    for socket in sorted(running_hosts(run_dir), key=lambda path: path.name != socket_name):
        async with visit(socket) as found:
            if await found.is_welcome():
                yield found
                return
    yield None


def _hangs(socket: Path) -> str:
    """What to do about a host that does not answer."""
    try:
        pid = int(socket.with_suffix(LOCK_SUFFIX).read_text())
    except (OSError, ValueError):
        return f"The engine behind {socket} does not answer. End its process, then try again."
    return f"The engine (process {pid}) does not answer. End it with `kill -9 {pid}`, then try again."
