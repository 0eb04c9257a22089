"""The client of an engine host on this machine: connects to its Unix socket, starts it, starts it again.

Runs in the front end's event loop.
"""

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from samovar.core import commands
from samovar.core.events import (
    Event,
    HostFailed,
    HostLost,
    HostReady,
    HostStarting,
    Refused,
    RequestFinished,
    RequestStarted,
    TokensGenerated,
    Welcome,
)
from samovar.core.request import FinishReason, RequestStats
from samovar.core.settings import EngineSettings, HostJob
from samovar.core.wire import MAX_FRAME_BYTES, PROTOCOL, decode_event, frame

log = logging.getLogger("samovar.client")

RETRY_S: Final = 0.05
MAX_EARLY_DEATHS: Final = 3
MAX_SILENT_HOSTS: Final = 100


@dataclass(slots=True)
class _Open:
    """A submitted request that has not ended yet."""

    session: str
    text: list[str] = field(default_factory=list)
    stats: RequestStats = field(default_factory=RequestStats)


@dataclass(frozen=True, slots=True)
class Launch:
    """How a host is started: what it is told, and where it logs."""

    job: HostJob
    log_file: Path


def running_hosts(run_dir: Path) -> list[Path]:
    """Sockets of the hosts in a run folder; some may be stale."""
    return sorted(run_dir.glob("*.sock"))


class LocalClient:
    """See `client.interface.Client`. Without a `launch` it only joins the host behind `socket`."""

    def __init__(self, socket: Path, name: str, launch: Launch | None = None) -> None:
        self._socket = socket
        self._name = name
        self._launch = launch
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._open: dict[str, _Open] = {}
        self._backlog: list[commands.Command] = []
        self._focus: commands.Focus | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self._early_deaths = 0
        self._failed = False
        self._closing = False
        self.host_pid: int | None = None

    @classmethod
    def starting(
        cls, settings: EngineSettings, *, run_dir: Path, cache_dir: Path, log_file: Path, name: str
    ) -> "LocalClient":
        """A client that starts the host for `settings` where none is running."""
        job = HostJob(settings, str(run_dir), str(cache_dir))
        return cls(run_dir / settings.socket_name(), name, Launch(job, log_file))

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="samovar-client")

    async def close(self) -> None:
        self._closing = True
        if self._writer is not None:
            with contextlib.suppress(ConnectionError, OSError):
                await self._writer.drain()
            self._writer.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._events.put_nowait(None)

    def send(self, command: commands.Command) -> None:
        match command:
            case commands.Submit(request):
                self._open[request.id] = _Open(request.session)
                if self._failed:
                    self._try_again()
            case commands.Focus():
                self._focus = command
                if self._writer is None:
                    return  # sent with the greeting
            case commands.Cancel(request_id) if self._writer is None:
                self._cancel_unsent(request_id)
                return
            case _:
                pass
        if self._writer is not None:
            self._writer.write(frame(command))
        else:
            self._backlog.append(command)

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event

    def _try_again(self) -> None:
        """After a failure every new request is worth one more try: the user may have mended the cause."""
        self._failed = False
        self._early_deaths = 0
        self._process = None
        self._task = asyncio.create_task(self._run(), name="samovar-client")

    # ---- the connection

    async def _run(self) -> None:
        silent = 0
        while not self._closing:
            streams = await self._connect()
            if streams is None:
                return
            reader, writer = streams
            ready = False
            try:
                writer.write(frame(commands.Hello(PROTOCOL, self._name)))
                while True:
                    length = int.from_bytes(await reader.readexactly(4), "big")
                    if length > MAX_FRAME_BYTES:
                        raise ConnectionError(f"a frame of {length} bytes")
                    event = decode_event(await reader.readexactly(length))
                    ready = ready or isinstance(event, HostReady)
                    if not self._take(event):
                        return
                    if isinstance(event, Welcome):
                        silent = 0
                        self._deliver(writer)
            except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError) as error:
                log.info("connection ended: %r", error)
            finally:
                writer.close()
            if self._closing:
                return
            if self._writer is None and silent < MAX_SILENT_HOSTS:
                # A dying process still accepts connections for a moment: nothing was sent, nothing is lost.
                silent += 1
                await asyncio.sleep(RETRY_S)
                continue
            self._writer = None
            self._early_deaths = 0 if ready else self._early_deaths + 1
            self._end_all(FinishReason.HOST_LOST, "The engine stopped unexpectedly. Ask again: it restarts.")
            if self._launch is None:
                self._fail("The engine host has stopped.")
                return
            if self._early_deaths >= MAX_EARLY_DEATHS:
                self._fail(f"The engine keeps stopping while it starts. See {self._launch.log_file}.")
                return
            self._events.put_nowait(HostLost("The engine stopped unexpectedly; starting it again."))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Reach the host, starting one where none answers; None (and a `HostFailed`) if that is hopeless."""
        told = False
        starts = 0
        while True:
            try:
                return await asyncio.open_unix_connection(str(self._socket), limit=2**20)
            except OSError:
                pass
            if self._launch is None:
                self._fail("No engine host is running.")
                return None
            if not told:
                told = True
                self._events.put_nowait(HostStarting())
            if self._process is None or self._process.poll() is not None:
                code = self._process.returncode if self._process is not None else None
                if starts >= MAX_EARLY_DEATHS and code != 0:
                    self._fail(f"The engine host does not start ({_last_line(self._launch.log_file)}).")
                    return None
                if code == 0 and starts:
                    await asyncio.sleep(10 * RETRY_S)  # another host holds the lock; its socket comes
                try:
                    self._process = _spawn(self._launch)
                except OSError as error:
                    self._fail(f"The engine host cannot be started: {error.strerror} ({error.filename}).")
                    return None
                starts += 1
            await asyncio.sleep(RETRY_S)

    def _deliver(self, writer: asyncio.StreamWriter) -> None:
        """The host has answered: what was held back goes to it, and from now on everything at once."""
        self._writer = writer
        if self._focus is not None:
            writer.write(frame(self._focus))
        for command in self._backlog:
            writer.write(frame(command))
        self._backlog.clear()

    def _take(self, event: Event) -> bool:
        """Book one event from the host and pass it on; False when nothing more will come."""
        match event:
            case Welcome() if event.protocol != PROTOCOL:
                self._fail(
                    f"The engine host that runs (process {event.pid}) is of another Samovar release. "
                    "Quit the other Samovar windows and run `samovar stop`, then try again."
                )
                return False
            case Welcome():
                self.host_pid = event.pid
            case RequestStarted() if event.request_id in self._open:
                self._open[event.request_id].stats = event.stats
            case TokensGenerated() if event.request_id in self._open:
                self._open[event.request_id].text.append(event.text)
            case RequestFinished():
                if self._open.pop(event.request_id, None) is None:
                    return True  # it has been ended here already
            case HostFailed():
                self._fail(event.message)
                return False
            case Refused():
                self._fail(event.message)
                return False
            case _:
                pass
        self._events.put_nowait(event)
        return True

    def _fail(self, message: str) -> None:
        self._failed = True
        self._backlog.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._events.put_nowait(HostFailed(message))
        self._end_all(FinishReason.FAILED, message)

    def _end_all(self, reason: FinishReason, error: str) -> None:
        for request_id in list(self._open):
            unsent = any(isinstance(c, commands.Submit) and c.request.id == request_id for c in self._backlog)
            if unsent and reason is FinishReason.HOST_LOST:
                continue  # it goes to the next host
            self._end(request_id, reason, error)

    def _end(self, request_id: str, reason: FinishReason, error: str = "") -> None:
        ended = self._open.pop(request_id)
        self._events.put_nowait(
            RequestFinished(
                request_id, ended.session, reason, "".join(ended.text), (), "", ended.stats, error
            )
        )

    def _cancel_unsent(self, request_id: str) -> None:
        self._backlog = [
            c for c in self._backlog if not (isinstance(c, commands.Submit) and c.request.id == request_id)
        ]
        if request_id in self._open:
            self._end(request_id, FinishReason.CANCELLED)


def _last_line(path: Path) -> str:
    """The end of a log, for an error message."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1][:300] if lines else "the log is empty"


def _spawn(launch: Launch) -> subprocess.Popen[bytes]:
    """Start a host process that outlives this one."""
    launch.log_file.parent.mkdir(parents=True, exist_ok=True)
    with launch.log_file.open("ab") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "samovar.engine.host"],
            stdin=subprocess.PIPE,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(msgspec.json.encode(launch.job))
        process.stdin.close()
    return process
