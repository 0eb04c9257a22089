"""The interface every front end is written against. Runs in the front end's event loop."""

from collections.abc import AsyncIterator
from typing import Protocol

from samovar.core.commands import Command
from samovar.core.events import Event


class Client(Protocol):
    """A connection to an engine that reconnects by itself.

    `start` returns at once; what happens then arrives as events: `HostStarting`, `LoadingProgressed`,
    `HostReady` (again after each restart) or `HostFailed`, and `HostLost` when a host died. After
    `HostStopping` and `HostFailed` no host is started until the next `Submit`. Every `Submit` is answered
    by exactly one `RequestFinished`, also when the host dies (`FinishReason.HOST_LOST`), is not there, or
    when the request cannot be encoded. Every `CountTokens` is answered by exactly one `TokensCounted`, which
    holds no counts where the host goes before it answers, or is not there and not being started. Commands
    sent before the host is ready are delivered once it is; focus and limits are told again to every host
    that takes over. A `PREPARE` starts no host, waits for none and goes to no second one: it ends as
    `CANCELLED` where none is connected.
    """

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def send(self, command: Command) -> None:
        """Queue a command; never blocks."""

    def events(self) -> AsyncIterator[Event]:
        """All events from now on, for one consumer; ends after `close`."""
