"""The engine host's process: sockets and admission in an asyncio loop, the engine in a thread beside it.

Run as `python -m samovar.engine.host`, with a `HostJob` as JSON on standard input. It holds a lock while it
lives, so that of two hosts started at the same moment one gives way; a socket without a holder of the lock
is stale and is replaced.
"""

import asyncio
import collections
import contextlib
import faulthandler
import fcntl
import functools
import logging
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

import msgspec

from samovar.core import commands, events
from samovar.core.errors import SamovarError
from samovar.core.request import FinishReason, RequestStats
from samovar.core.settings import LOCK_SUFFIX, HostJob
from samovar.core.wire import MAX_FRAME_BYTES, PROTOCOL, decode_command, frame
from samovar.engine import start
from samovar.engine.loop import ClientGone, EngineLoop, Envelope
from samovar.engine.sleep import Sleep
from samovar.engine.swapper import Swapper

log = logging.getLogger("samovar.host")

FAILED_LINGER_S: Final = 10.0
ENGINE_PATIENCE_S: Final = 10.0
CLOSE_WITHIN_S: Final = 2.0
MAX_BACKLOG_BYTES: Final = 64 * 1024 * 1024


class Connection:
    """One front end."""

    def __init__(self, name: str, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self._writer = writer

    def send(self, event: events.Event) -> None:
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            log.warning("front end %s does not read; dropping it", self.name)
            self._writer.transport.abort()
            return
        self._writer.write(frame(event))

    async def close(self) -> None:
        """Hang up when all is written; a front end that does not read is not waited for."""
        self._writer.close()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._writer.wait_closed()


class Host:
    """Owns the sockets; hands commands to the engine thread and its events to the front ends."""

    def __init__(self, job: HostJob) -> None:
        self._job = job
        self._socket = Path(job.run_dir) / job.settings.socket_name()
        self._loop = asyncio.get_running_loop()
        self._connections: dict[str, Connection] = {}
        self._count = 0
        self._early: list[Envelope] = []
        self._engine: EngineLoop | None = None
        self._model: events.ModelInfo | None = None
        self._failure: events.HostFailed | None = None
        self._progress: events.LoadingProgressed | None = None
        self._keep_alive_s = job.settings.keep_alive_s
        self._outbox: collections.deque[tuple[str | None, events.Event]] = collections.deque()
        self._drain_lock = threading.Lock()
        self._drain_scheduled = False
        self._server: asyncio.Server | None = None
        self._socket_inode = 0
        self._stopping = False
        self._done = asyncio.Event()
        self._idle_timer: asyncio.TimerHandle | None = None

    async def serve(self) -> None:
        """Serve until told to stop, or until nobody has been connected for `keep_alive_s`.

        With a front end connected the engine falls asleep after that time without a request, and stays.
        """
        self._socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._on_connect, path=self._socket)
        os.chmod(self._socket, 0o600)
        self._socket_inode = self._socket.stat().st_ino
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        thread = threading.Thread(target=self._run_engine, name="engine", daemon=True)
        thread.start()
        self._arm_idle_timer()
        await self._done.wait()
        self._close_door()
        self._drain()
        await asyncio.gather(*(connection.close() for connection in list(self._connections.values())))

    # ---- the engine thread's side

    def _run_engine(self) -> None:
        engine = None
        try:
            loaded = start.load(
                self._job.settings,
                Path(self._job.cache_dir),
                lambda stage, fraction: self._emit(None, events.LoadingProgressed(stage, fraction)),
            )
            engine = EngineLoop(
                loaded.backend,
                self._job.settings,
                loaded.info.fingerprint,
                self._emit,
                start.available_bytes,
                loaded.block_tokens,
                functools.partial(
                    Swapper,
                    start.disk_folder(Path(self._job.cache_dir), loaded),
                    self._job.settings.disk_limit,
                ),
                Sleep(
                    loaded.backend,
                    self._job.settings.keep_alive_s,
                    tell=lambda event: self._emit(None, event),
                    ready=events.HostReady(loaded.info),
                    check=loaded.check_reload,
                    wake_ms=loaded.load_ms,
                ),
            )
            self._loop.call_soon_threadsafe(self._on_ready, engine, loaded.info)
            engine.run()
            loaded.backend.close()
        except SamovarError as error:
            self._emit(None, events.HostFailed(str(error)))
        except BaseException:
            log.exception("the engine thread broke")
            self._emit(
                None, events.HostFailed("The engine broke; the log tells more. Restarting it may help.")
            )
        self._loop.call_soon_threadsafe(self._on_engine_end, engine is None)

    def _emit(self, client: str | None, event: events.Event) -> None:
        """Called by the engine thread; never blocks."""
        self._outbox.append((client, event))
        with self._drain_lock:
            if self._drain_scheduled:
                return
            self._drain_scheduled = True
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            self._loop.call_soon_threadsafe(self._drain)

    # ---- the event loop's side

    def _drain(self) -> None:
        # Cleared before looking: what is appended from here on is either seen below or wakes us again.
        with self._drain_lock:
            self._drain_scheduled = False
        while self._outbox:
            client, event = self._outbox.popleft()
            match event:
                case events.HostFailed():
                    self._failure = event
                case events.LoadingProgressed():
                    self._progress = event
                case _:
                    pass
            if self._stopping and isinstance(event, events.LoadingProgressed | events.HostReady):
                continue
            for connection in list(self._connections.values()):
                if client is None or client == connection.name:
                    connection.send(event)

    def _on_ready(self, engine: EngineLoop, model: events.ModelInfo) -> None:
        if self._stopping:
            return  # the front ends have been told; the process is about to end
        self._engine, self._model = engine, model
        log.info("ready: %s", model.name)
        for connection in self._connections.values():
            connection.send(events.HostReady(model))
        for envelope in self._early:
            engine.post(envelope)
        self._early.clear()

    def _on_engine_end(self, failed: bool) -> None:
        self._drain()
        if failed and self._failure is not None:
            # Whoever started this host may not have connected yet: stay long enough to say why.
            log.error("cannot serve: %s", self._failure.message)
            self._loop.call_later(FAILED_LINGER_S, self._leave)
        else:
            self._leave()

    def _stop(self) -> None:
        """End in good order: nobody joins any more, front ends are told, the engine ends what it has."""
        if self._stopping:
            return
        self._close_door()
        for connection in self._connections.values():
            connection.send(events.HostStopping())
        if self._engine is None:
            self._cancel_early()
            self._leave()
        else:
            self._engine.post(Envelope("", commands.StopHost()))
            self._loop.call_later(ENGINE_PATIENCE_S, self._leave)  # it may hang in a native call

    def _leave(self) -> None:
        self._close_door()
        self._done.set()

    def _close_door(self) -> None:
        """Nobody is welcomed any more.

        The lock is held until the end, so the socket is still ours, unless somebody has removed the folder.
        """
        if not self._stopping:
            self._stopping = True
            assert self._server is not None
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                if self._socket.stat().st_ino == self._socket_inode:
                    self._socket.unlink()

    def _cancel_early(self) -> None:
        for envelope in self._early:
            match envelope.command:
                case commands.Submit(request) if envelope.client in self._connections:
                    self._connections[envelope.client].send(
                        events.RequestFinished(
                            request.id,
                            request.session,
                            FinishReason.CANCELLED,
                            "",
                            (),
                            "",
                            RequestStats(),
                            "The engine host was stopped.",
                        )
                    )
                case _:
                    pass
        self._early.clear()

    def _arm_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if not self._connections and self._keep_alive_s >= 0 and not self._stopping:
            # A host that nobody has reached yet gets a moment even with a keep-alive of 0.
            patience = self._keep_alive_s if self._count else max(self._keep_alive_s, 30.0)
            self._idle_timer = self._loop.call_later(patience, self._stop)

    async def _on_connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        name = f"client-{self._count}"
        connection = Connection(name, writer)
        try:
            if await self._greet(reader, connection):
                self._connections[name] = connection
                self._arm_idle_timer()
                await self._read_commands(reader, connection)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError) as error:
            log.info("%s: %r", name, error)
        finally:
            self._connections.pop(name, None)
            self._early = [envelope for envelope in self._early if envelope.client != name]
            if self._engine is not None:
                self._engine.post(ClientGone(name))
            self._arm_idle_timer()
            writer.close()
            if self._failure is not None and not self._connections:
                self._leave()

    async def _greet(self, reader: asyncio.StreamReader, connection: Connection) -> bool:
        hello = await _read_command(reader)
        if not isinstance(hello, commands.Hello) or hello.protocol != PROTOCOL:
            connection.send(
                events.Refused(
                    f"An engine host of another Samovar release is running (process {os.getpid()}). "
                    "Quit the other Samovar windows and run `samovar stop`, then try again."
                )
            )
            return False
        if self._stopping:
            return False  # to the front end a host that does not answer: it looks for the next one
        connection.send(events.Welcome(PROTOCOL, os.getpid(), self._model))
        if self._failure is not None:
            connection.send(self._failure)
        elif self._model is not None:
            connection.send(events.HostReady(self._model))
        elif self._progress is not None:
            connection.send(self._progress)
        return True

    async def _read_commands(self, reader: asyncio.StreamReader, connection: Connection) -> None:
        while True:
            match await _read_command(reader):
                case commands.StopHost():
                    self._stop()
                case commands.SetKeepAlive(seconds) as command if math.isfinite(seconds):
                    self._keep_alive_s = seconds
                    self._pass_on(connection, command)
                case commands.SetKeepAlive(seconds):
                    connection.send(events.CommandRefused(f"{seconds} is no time to stay: give seconds."))
                case _ if self._stopping:
                    pass  # what crossed `HostStopping` on its way goes to the next host
                case command:
                    self._pass_on(connection, command)

    def _pass_on(self, connection: Connection, command: commands.Command) -> None:
        """Give the engine a command, now or once it is there."""
        envelope = Envelope(connection.name, command)
        if self._engine is not None:
            self._engine.post(envelope)
        else:
            self._early.append(envelope)


async def _read_command(reader: asyncio.StreamReader) -> commands.Command:
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > MAX_FRAME_BYTES:
        raise ConnectionError(f"a frame of {length} bytes")
    return decode_command(await reader.readexactly(length))


async def _serve(job: HostJob) -> None:
    await Host(job).serve()


def main() -> int:
    """Entry point of the process; exit code 0 also when another host is already there."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s"
    )
    faulthandler.enable()
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=HostJob)
    lock = (Path(job.run_dir) / job.settings.socket_name()).with_suffix(LOCK_SUFFIX).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    # Who has to be killed should the socket not answer any more.
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    asyncio.run(_serve(job))
    return 0


if __name__ == "__main__":
    # The engine thread may hang inside a long native call: the process must end all the same.
    code = main()
    logging.shutdown()
    os._exit(code)
