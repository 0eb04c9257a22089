"""Front ends of real engine hosts, in short-lived folders; no host outlives its test."""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import psutil
import pytest

from samovar.client.local import LocalClient
from samovar.core import events
from samovar.core.commands import Command
from samovar.core.settings import EngineSettings

DEADLINE_S: Final = 120.0

E = TypeVar("E", bound=events.Event)


class FrontEnd:
    """A client whose events are all kept, with the time at which each arrived."""

    def __init__(self, client: LocalClient) -> None:
        self.client = client
        self.events: list[events.Event] = []
        self.times: list[float] = []
        self.listener: Callable[[events.Event], None] = lambda _event: None
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.client.start()
        self._task = asyncio.create_task(self._listen())

    async def close(self) -> None:
        await self.client.close()
        if self._task is not None:
            await self._task

    def send(self, command: Command) -> None:
        self.client.send(command)

    async def wait_for(
        self, kind: type[E], wanted: Callable[[E], bool] = lambda _event: True, since: int = 0
    ) -> E:
        """The first event of a kind from the `since`th on that `wanted` accepts."""
        pos = since
        async with asyncio.timeout(DEADLINE_S), self._news:
            while True:
                for event in self.events[pos:]:
                    pos += 1
                    if isinstance(event, kind) and wanted(event):
                        return event
                await self._news.wait()

    def time_of(self, event: events.Event) -> float:
        """When an event arrived, on the clock of `time.monotonic`."""
        return next(moment for moment, other in zip(self.times, self.events, strict=True) if other is event)

    def of(self, kind: type[E]) -> list[E]:
        """All events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def _listen(self) -> None:
        async for event in self.client.events():
            async with self._news:
                self.events.append(event)
                self.times.append(time.monotonic())
                self._news.notify_all()
            self.listener(event)


@dataclass(frozen=True, slots=True)
class Site:
    """The folders of one test's hosts."""

    folder: Path
    settings: EngineSettings
    probe_dir: Path

    @property
    def socket(self) -> Path:
        return self.folder / self.settings.socket_name()

    @contextlib.asynccontextmanager
    async def front_end(
        self, name: str = "test", *, start: bool = True, insist: Collection[str] = ()
    ) -> AsyncIterator[FrontEnd]:
        """A front end that starts the host; closed at the end."""
        client = LocalClient.starting(
            self.settings,
            run_dir=self.folder,
            cache_dir=self.probe_dir,
            log_file=self.folder / "host.log",
            name=name,
            insist=insist,
        )
        front_end = FrontEnd(client)
        if start:
            await front_end.start()
        try:
            yield front_end
        finally:
            await front_end.close()


def hosts() -> list[psutil.Process]:
    """Live host processes that this test process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            running = process.status() != psutil.STATUS_ZOMBIE
            if running and "samovar.engine.host" in process.cmdline():
                found.append(process)
    return found


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def gone(processes: Collection[psutil.Process]) -> None:
    """Wait until these processes have ended."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, list(processes), 30)
    assert not alive


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def probe_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture
def site(smollm2: Path, probe_dir: Path) -> Iterator[Site]:
    """Folders for hosts of the bundled model that leave with their last client; none is left behind."""
    settings = EngineSettings(str(smollm2), context_tokens=1024, ram_limit="256MiB", keep_alive_s=0.0)
    # pytest's own folders may be too long for a socket's path.
    with tempfile.TemporaryDirectory(prefix="samovar-crash-") as folder:
        yield Site(Path(folder), settings, probe_dir)
        # One that no front end has reached waits half a minute for it.
        _, left = psutil.wait_procs(hosts(), timeout=60)
        for process in left:
            process.kill()
        assert not left, "a host outlived its last client"
