"""One front end of the engine that asks and waits, and notes when what arrived. Runs in an asyncio loop."""

import asyncio
import contextlib
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from samovar.client.interface import Client
from samovar.client.local import LocalClient
from samovar.core import events
from samovar.core.chat import GREEDY, ChatMessage, Role
from samovar.core.commands import Cancel, Command, Describe, Focus, StopHost, Submit
from samovar.core.errors import SamovarError
from samovar.core.request import Request
from samovar.core.settings import EngineSettings
from samovar.core.snapshot import CacheSnapshot

ClientFactory = Callable[[], contextlib.AbstractAsyncContextManager[Client]]

TIMEOUT_S: Final = 600.0


@dataclass(slots=True)
class Chat:
    """A conversation that grows by questions and replies."""

    session: str
    messages: list[ChatMessage] = field(default_factory=list)

    def ask(self, text: str, max_tokens: int) -> Request:
        """A greedy request for the reply to `text`, which becomes part of the chat."""
        self.messages.append(ChatMessage(Role.USER, text))
        return Request(
            id=uuid.uuid4().hex,
            session=self.session,
            messages=tuple(self.messages),
            title=self.session,
            sampling=GREEDY,
            max_tokens=max_tokens,
        )

    def hear(self, finished: events.RequestFinished) -> None:
        """Add the reply."""
        self.messages.append(ChatMessage(Role.ASSISTANT, finished.reply, finished.tokens, finished.tokenizer))


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished request as the front end saw it; `first_token_ms` counts from the first command on."""

    finished: events.RequestFinished
    first_token_ms: float


class Driver:
    """Sends commands and waits for what follows. `client` must have been started."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._events = client.events()

    async def ready(self) -> events.ModelInfo:
        """Wait for the loaded model."""
        event = await self.wait_for(lambda event: isinstance(event, events.HostReady))
        assert isinstance(event, events.HostReady)
        return event.model

    def send(self, command: Command) -> None:
        self._client.send(command)

    async def wait_for(self, wanted: Callable[[events.Event], bool]) -> events.Event:
        """The next event that `wanted` accepts; SamovarError if the host fails or nothing comes."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async for event in self._events:
                    if isinstance(event, events.HostFailed):
                        raise SamovarError(event.message)
                    if isinstance(event, events.HostLost):
                        raise SamovarError("The engine stopped in the middle of the benchmark.")
                    if wanted(event):
                        return event
        except TimeoutError:
            raise SamovarError(f"The engine did not answer for {TIMEOUT_S:.0f} seconds.") from None
        raise SamovarError("The connection to the engine was closed.")

    async def ask(self, request: Request, *, focus: bool = True) -> Answer:
        """Open the request's session and submit it, as the screen does; wait for the whole reply.

        Without `focus` the session is open already.
        """
        start = time.perf_counter()
        if focus:
            self.send(Focus(request.session))
        self.send(Submit(request))
        first_ms: float | None = None

        def wanted(event: events.Event) -> bool:
            nonlocal first_ms
            match event:
                case events.TokensGenerated(request_id) if request_id == request.id and first_ms is None:
                    first_ms = 1000 * (time.perf_counter() - start)
                case _:
                    pass
            return isinstance(event, events.RequestFinished) and event.request_id == request.id

        finished = await self.wait_for(wanted)
        assert isinstance(finished, events.RequestFinished)
        if finished.error:
            raise SamovarError(finished.error)
        return Answer(finished, first_ms if first_ms is not None else 1000 * (time.perf_counter() - start))

    async def cancel(self, request_id: str) -> tuple[events.RequestFinished, float]:
        """Stop a request; returns its end and the milliseconds until it arrived."""
        start = time.perf_counter()
        self.send(Cancel(request_id))
        finished = await self.wait_for(
            lambda event: isinstance(event, events.RequestFinished) and event.request_id == request_id
        )
        assert isinstance(finished, events.RequestFinished)
        return finished, 1000 * (time.perf_counter() - start)

    async def snapshot(self) -> CacheSnapshot:
        """The cache now."""
        self.send(Describe())
        event = await self.wait_for(lambda event: isinstance(event, events.CacheChanged))
        assert isinstance(event, events.CacheChanged)
        return event.snapshot


@contextlib.asynccontextmanager
async def own_host(settings: EngineSettings, cache_dir: Path | None = None) -> AsyncIterator[Client]:
    """A client with an engine host of its own, in temporary folders; the host is gone afterwards.

    `cache_dir` is where the machine's probe answers are remembered; without one they are found again.
    """
    with tempfile.TemporaryDirectory(prefix="samovar-bench-") as name:
        folder = Path(name)
        log_file = folder / "host.log"
        client = LocalClient.starting(
            settings, run_dir=folder, cache_dir=cache_dir or folder, log_file=log_file, name="bench"
        )
        await client.start()
        try:
            yield client
        finally:
            # Closed only afterwards: what a connection's other end has not read yet is lost with it.
            client.send(StopHost())
            if client.host_pid is not None:
                await asyncio.to_thread(_wait_until_gone, client.host_pid)
            await client.close()


def _wait_until_gone(pid: int) -> None:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        try:
            process.wait(20)
        except psutil.TimeoutExpired:
            process.kill()
