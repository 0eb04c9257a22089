"""A host that says what the test tells it to, behind a real socket."""

import asyncio
import contextlib
from pathlib import Path
from typing import TypeVar

from samovar.core import commands, events
from samovar.core.wire import PROTOCOL, decode_command, frame

C = TypeVar("C", bound=commands.Command)


class Call:
    """One connection of the client's, seen from the host. Once the client has no more to say it hangs up."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._arrived: asyncio.Queue[commands.Command | None] = asyncio.Queue()
        self._listening = asyncio.create_task(self._listen())
        self.hangs = False  # a host that never hangs up by itself
        self.heard: list[commands.Command] = []

    async def hear(self, kind: type[C]) -> C:
        """Read on until a command of a kind comes."""
        while (command := await self._arrived.get()) is not None:
            self.heard.append(command)
            if isinstance(command, kind):
                return command
        raise AssertionError(f"the client hung up and sent no {kind.__name__}")

    async def welcome(self) -> None:
        await self.hear(commands.Hello)
        self.say(events.Welcome(PROTOCOL, 1, None))

    def say(self, *told: events.Event) -> None:
        for event in told:
            self._writer.write(frame(event))

    async def told(self) -> None:
        """Wait until the client has taken nearly all that was said; an error if it never will."""
        await self._writer.drain()

    def hang_up(self) -> None:
        self._writer.close()

    async def _listen(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int.from_bytes(await self._reader.readexactly(4), "big")
                self._arrived.put_nowait(decode_command(await self._reader.readexactly(length)))
        self._arrived.put_nowait(None)
        if not self.hangs:
            self.hang_up()


class Exchange:
    """The host's socket: every connection waits in `calls`. Stopping it is a host that has gone."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(
            lambda reader, writer: self.calls.put_nowait(Call(reader, writer)), path=self.socket
        )

    def shut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.socket.unlink(missing_ok=True)

    async def welcomed(self) -> Call:
        """The next connection, greeted."""
        call = await self.calls.get()
        await call.welcome()
        return call
