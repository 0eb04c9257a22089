"""The client of an engine host on this machine: connects to its Unix socket, starts it, starts it again.

Runs in the front end's event loop.
"""

import asyncio
import contextlib
import logging
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from samovar.core import commands
from samovar.core.events import (
    CommandRefused,
    Event,
    HostFailed,
    HostLost,
    HostReady,
    HostStarting,
    HostStopping,
    Refused,
    RequestFinished,
    RequestStarted,
    TokensCounted,
    TokensGenerated,
    Welcome,
)
from samovar.core.request import FinishReason, RequestKind, RequestStats
from samovar.core.settings import EngineSettings, HostJob
from samovar.core.units import format_size
from samovar.core.wire import MAX_FRAME_BYTES, PROTOCOL, decode_event, frame

log = logging.getLogger("samovar.client")

RETRY_S: Final = 0.05
CLOSE_WITHIN_S: Final = 1.0
MAX_EARLY_DEATHS: Final = 3
MIN_FREE_BYTES: Final = 64 << 10  # with less a host can neither log nor lock
MAX_SILENT_HOSTS: Final = 100


@dataclass(slots=True)
class _Open:
    """A submitted request that has not ended yet. `may_repeat`: it can go to another host, nothing began.

    Nobody waits for work ahead (`is_ahead`): it neither goes to another host nor says that one has served.
    """

    session: str
    data: bytes
    may_repeat: bool = True
    is_ahead: bool = False
    text: list[str] = field(default_factory=list)
    stats: RequestStats = field(default_factory=RequestStats)


@dataclass(slots=True)
class _Link:
    """What is known of one connection. `served`: something that this client asked for has begun here."""

    joined: bool = False
    ready: bool = False
    served: bool = False
    stopping: bool = False
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class _Unsent:
    """A command that waits for a host, as its frame; `request_id` if it is a `Submit`.

    `count_id` is that of a `CountTokens`.
    """

    request_id: str | None
    data: bytes
    count_id: str | None = None


_LiveLimit = commands.SetRamLimit | commands.SetTokenLimit | commands.SetDiskLimit | commands.SetKeepAlive


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

    def __init__(
        self, socket: Path, name: str, launch: Launch | None = None, limits: Iterable[_LiveLimit] = ()
    ) -> None:
        """Every host that is joined is told the `limits`, or the last ones that went through `send`."""
        self._socket = socket
        self._name = name
        self._launch = launch
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._open: dict[str, _Open] = {}
        self._backlog: list[_Unsent] = []
        self._counts: set[str] = set()  # `CountTokens` without an answer
        self._focus: bytes | None = None
        self._limits: dict[type[_LiveLimit], bytes] = {type(limit): frame(limit) for limit in limits}
        self._replaced: tuple[type[_LiveLimit], bytes | None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self._early_deaths = 0
        self._resting = False  # after a failure or a stop, until the next `Submit`
        self._closing = False
        self.host_pid: int | None = None

    @classmethod
    def starting(
        cls,
        settings: EngineSettings,
        *,
        run_dir: Path,
        cache_dir: Path,
        log_file: Path,
        name: str,
        insist: Collection[str] = (),
    ) -> "LocalClient":
        """A client that starts the host for `settings` where none is running.

        `insist` names the fields of `settings` (`ram_limit`, `token_limit`, `disk_limit`, …) that the user
        gave for this run: a host that runs already is told them too.
        """
        live: dict[str, _LiveLimit] = {
            "ram_limit": commands.SetRamLimit(settings.ram_limit),
            "token_limit": commands.SetTokenLimit(settings.token_limit),
            "disk_limit": commands.SetDiskLimit(settings.disk_limit),
            "keep_alive_s": commands.SetKeepAlive(settings.keep_alive_s),
        }
        job = HostJob(settings, str(run_dir), str(cache_dir))
        limits = [live[name] for name in insist if name in live]
        return cls(run_dir / settings.socket_name(), name, Launch(job, log_file), limits)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="samovar-client")

    async def close(self) -> None:
        """Send what is left and hang up. A host that hangs is not waited for."""
        self._closing = True
        writer = self._writer
        if writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await writer.drain()
                    # A socket that is closed with events unread takes the last commands with it. So only
                    # this side is closed, and what the host says is read until it closes its own.
                    writer.write_eof()
                    if self._task is not None:
                        await asyncio.shield(self._task)
            writer.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._events.put_nowait(None)

    def send(self, command: commands.Command) -> None:
        try:
            data = frame(command)
        except UnicodeEncodeError:
            broken = "a text in it has a broken character (half of a surrogate pair). Take it out, try again."
            self._refuse(command, broken)
            return
        except OverflowError:
            self._refuse(command, "a number in it has more than 64 bits. Choose a smaller one, try again.")
            return
        if len(data) > MAX_FRAME_BYTES:
            self._refuse(command, f"it has more than {format_size(MAX_FRAME_BYTES)}. Shorten it, try again.")
            return
        request_id: str | None = None
        count_id: str | None = None
        match command:
            case commands.Submit(request) if request.kind is RequestKind.PREPARE:
                request_id = request.id
                self._open[request_id] = _Open(request.session, data, may_repeat=False, is_ahead=True)
                if self._writer is None:  # it wakes no host, and waits for none
                    self._end(request_id, FinishReason.CANCELLED)
                    return
            case commands.Submit(request):
                request_id = request.id
                self._open[request_id] = _Open(request.session, data)
                if self._resting:
                    self._try_again()
            case commands.CountTokens(asked) if self._resting:
                self._events.put_nowait(TokensCounted(asked, None))
                return
            case commands.CountTokens(asked):
                count_id = asked
                self._counts.add(asked)
            case commands.Focus():
                self._focus = data
                if self._writer is None:
                    return  # sent with the greeting
            case (
                commands.SetRamLimit()
                | commands.SetTokenLimit()
                | commands.SetDiskLimit()
                | commands.SetKeepAlive()
            ):
                self._replaced = (type(command), self._limits.get(type(command)))
                self._limits[type(command)] = data
                if self._writer is None:
                    return  # sent with the greeting
            case commands.Cancel(cancelled):
                if self._writer is None:
                    self._cancel_unsent(cancelled)
                    return
                if cancelled in self._open:
                    self._open[cancelled].may_repeat = False
            case commands.StopHost() if self._resting:
                return  # it would only stop the host that the next request starts
            case _:
                pass
        if self._writer is not None:
            self._writer.write(data)
        else:
            self._backlog.append(_Unsent(request_id, data, count_id))

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event

    def _refuse(self, command: commands.Command, why: str) -> None:
        """What cannot go over the wire ends here, with a sentence."""
        match command:
            case commands.Submit(request):
                self._events.put_nowait(
                    RequestFinished(
                        request.id,
                        request.session,
                        FinishReason.FAILED,
                        "",
                        (),
                        "",
                        RequestStats(),
                        f"The message cannot be sent: {why}",
                    )
                )
            case commands.CountTokens(asked):
                self._events.put_nowait(TokensCounted(asked, None))
            case _:
                self._events.put_nowait(CommandRefused(f"This cannot be sent to the engine: {why}"))

    def _try_again(self) -> None:
        """After a failure every new request is worth one more try: the user may have mended the cause."""
        self._resting = False
        self._early_deaths = 0
        self._task = asyncio.create_task(self._run(), name="samovar-client")

    # ---- the connection

    async def _run(self) -> None:
        try:
            await self._stay_joined()
        except Exception as error:
            # The top of a task, where what nobody foresaw must still end every open request.
            log.exception("the client broke")
            self._fail(f"The connection to the engine broke ({error!r}). Send again to start it anew.")

    async def _stay_joined(self) -> None:
        silent = 0
        while not self._closing:
            streams = await self._connect()
            if streams is None:
                return
            link = await self._follow(*streams)
            if link.hopeless or self._closing:
                return
            if not link.joined and silent < MAX_SILENT_HOSTS:
                # A host that leaves may still accept for a moment: nothing was sent, nothing is lost.
                silent += 1
                await asyncio.sleep(RETRY_S)
                continue
            silent = 0
            self._writer = None
            if self._launch is None:
                self._end_all(FinishReason.HOST_LOST, "The engine stopped. Ask again.")
                self._fail("The engine host has stopped.")
                return
            if link.stopping:
                self._early_deaths = 0
                self._end_all(FinishReason.CANCELLED, "The engine was stopped.", repeat=True)
                if all(unsent.request_id is None for unsent in self._backlog):
                    self._resting = True
                    return
                continue
            self._early_deaths = 0 if link.ready else self._early_deaths + 1
            self._end_all(
                FinishReason.HOST_LOST,
                "The engine stopped unexpectedly. Ask again: it restarts.",
                repeat=not link.served,
            )
            if self._early_deaths >= MAX_EARLY_DEATHS:
                self._fail(f"The engine keeps stopping while it starts. See {self._launch.log_file}.")
                return
            self._events.put_nowait(HostLost("The engine stopped unexpectedly; starting it again."))

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Link:
        """Greet a host and take in what it says, until the connection ends or is of no use."""
        link = _Link()
        try:
            writer.write(frame(commands.Hello(PROTOCOL, self._name)))
            while not link.hopeless:
                length = int.from_bytes(await reader.readexactly(4), "big")
                if length > MAX_FRAME_BYTES:
                    raise ConnectionError(f"a frame of {length} bytes")
                self._take(decode_event(await reader.readexactly(length)), link, writer)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError) as error:
            log.info("connection ended: %r", error)
        finally:
            writer.close()
        return link

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
                    self._fail(f"The engine host does not start ({last_words(self._launch.log_file)}).")
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
            writer.write(self._focus)
        for limit in self._limits.values():
            writer.write(limit)
        for unsent in self._backlog:
            writer.write(unsent.data)
        self._backlog.clear()

    def _take(self, event: Event, link: _Link, writer: asyncio.StreamWriter) -> None:
        """Book one event from the host and pass it on."""
        match event:
            case Welcome() if event.protocol != PROTOCOL:
                link.hopeless = True
                self._fail(
                    f"The engine host that runs (process {event.pid}) is of another Samovar release. "
                    "Quit the other Samovar windows and run `samovar stop`, then try again."
                )
                return
            case Welcome():
                link.joined = True
                self.host_pid = event.pid
                self._deliver(writer)
            case HostReady():
                link.ready = True
            case RequestStarted() if event.request_id in self._open:
                link.served = link.served or not self._open[event.request_id].is_ahead
                self._open[event.request_id].may_repeat = False
                self._open[event.request_id].stats = event.stats
            case TokensGenerated() if event.request_id in self._open:
                self._open[event.request_id].text.append(event.text)
            case RequestFinished():
                ended = self._open.pop(event.request_id, None)
                link.served = link.served or ended is None or not ended.is_ahead
                if ended is None:
                    return  # it has been ended here already
            case TokensCounted(counted):
                if counted not in self._counts:
                    return  # it has been answered here already
                self._counts.discard(counted)
            case CommandRefused(command=tag) if self._replaced is not None:
                if tag in ("", self._replaced[0].__struct_config__.tag):
                    self._forget_refused(*self._replaced)
            case HostStopping():
                link.stopping = True
                self._writer = None  # what is sent from now on is for the next host
            case HostFailed() | Refused():
                link.hopeless = True
                self._fail(event.message)
                return
            case _:
                pass
        self._events.put_nowait(event)

    def _forget_refused(self, kind: type[_LiveLimit], before: bytes | None) -> None:
        """The host took no notice of the last limit: the next host is told the one before it."""
        self._replaced = None
        if before is None:
            self._limits.pop(kind, None)
        else:
            self._limits[kind] = before

    def _fail(self, message: str) -> None:
        self._resting = True
        self._backlog.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._events.put_nowait(HostFailed(message))
        self._end_all(FinishReason.FAILED, message)

    def _end_all(self, reason: FinishReason, error: str, *, repeat: bool = False) -> None:
        """End what a host had been sent; with `repeat`, what it never began goes to the next host, once.

        Counts are not worth another host.
        """
        self._backlog = [unsent for unsent in self._backlog if unsent.count_id is None]
        for count_id in sorted(self._counts):
            self._events.put_nowait(TokensCounted(count_id, None))
        self._counts.clear()
        unsent = {unsent.request_id for unsent in self._backlog}
        again = []
        for request_id, request in list(self._open.items()):
            if request_id in unsent:
                continue
            if repeat and request.may_repeat:
                request.may_repeat = False
                again.append(_Unsent(request_id, request.data))
            else:
                self._end(request_id, reason, error)
        self._backlog[:0] = again

    def _end(self, request_id: str, reason: FinishReason, error: str = "") -> None:
        ended = self._open.pop(request_id)
        self._events.put_nowait(
            RequestFinished(
                request_id, ended.session, reason, "".join(ended.text), (), "", ended.stats, error
            )
        )

    def _cancel_unsent(self, request_id: str) -> None:
        self._backlog = [unsent for unsent in self._backlog if unsent.request_id != request_id]
        if request_id in self._open:
            self._end(request_id, FinishReason.CANCELLED)


def last_words(log_file: Path) -> str:
    """The end of a host's log, for an error message; on a full disk a host cannot even say what ails it."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(log_file.parent).free < MIN_FREE_BYTES:
            return f"the disk is full: make room for {log_file.parent}, then send again"
    try:
        lines = log_file.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1][:300] if lines else "the log is empty"


def _spawn(launch: Launch) -> subprocess.Popen[bytes]:
    """Start a host process that outlives this one."""
    job = msgspec.json.encode(launch.job)
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
        process.stdin.write(job)
        process.stdin.close()
    return process
