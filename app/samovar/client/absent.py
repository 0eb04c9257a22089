"""A client where no engine can be started: chats can still be read, searched and exported."""

import asyncio
from collections.abc import AsyncIterator

from samovar.core.commands import Command
from samovar.core.errors import SamovarError
from samovar.core.events import Event


class AbsentClient:
    """Says why there is no engine, and nothing else."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Raises SamovarError with the reason."""
        raise SamovarError(self._reason)

    def send(self, command: Command) -> None:
        """Nobody hears it."""

    async def events(self) -> AsyncIterator[Event]:
        """Nothing, until closed."""
        await self._closed.wait()
        nothing: tuple[Event, ...] = ()
        for event in nothing:
            yield event

    async def close(self) -> None:
        self._closed.set()
