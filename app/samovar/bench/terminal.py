"""Samovar in a pseudo-terminal, as a user has it: keys go in, and what is drawn is waited for."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from samovar.core.errors import SamovarError

TIMEOUT_S: Final = 60.0
_CHUNK: Final = 1 << 16


class Terminal:
    """A running workstation. All output is kept; texts are found as they are written, word by word."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._output = bytearray()

    def press(self, keys: bytes) -> None:
        """Write keys as a terminal does."""
        os.write(self._descriptor, keys)

    def press_and_wait(self, keys: bytes, text: str) -> float:
        """Milliseconds from a key until a text is drawn."""
        self.settle()
        seen = len(self._output)
        start = time.perf_counter()
        self.press(keys)
        self._read_until(text.encode(), seen)
        return 1000 * (time.perf_counter() - start)

    def press_and_see(self, keys: bytes) -> float:
        """Milliseconds from a key until anything is drawn."""
        self.settle()
        start = time.perf_counter()
        self.press(keys)
        if not self._read(TIMEOUT_S):
            raise SamovarError("The workstation drew nothing. Run the benchmark on a quieter machine.")
        return 1000 * (time.perf_counter() - start)

    def wait(self, text: str) -> None:
        """Until a text has been drawn at some time."""
        self._read_until(text.encode(), 0)

    def settle(self, quiet_s: float = 0.3) -> None:
        """Until nothing has been drawn for a while."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._read(quiet_s) and time.monotonic() < deadline:
            pass

    def _read_until(self, wanted: bytes, start: int) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while self._output.find(wanted, max(0, start)) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise SamovarError(
                    f"The workstation did not show “{wanted.decode()}”. Use a quieter machine."
                )

    def _read(self, timeout_s: float) -> bool:
        """Take in what has been drawn; False if nothing came."""
        ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
        if not ready:
            return False
        try:
            self._output += os.read(self._descriptor, _CHUNK)
        except OSError as error:
            raise SamovarError(
                "The workstation ended by itself. Start it once by hand to see why."
            ) from error
        return True


@contextlib.contextmanager
def workstation(home: Path, width: int = 120, height: int = 40) -> Iterator[Terminal]:
    """The workstation with everything under `home`; ended with its engine afterwards."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    env = {**os.environ, "SAMOVAR_HOME": str(home), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = [sys.executable, "-m", "samovar"]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True, cwd=home
    )
    os.close(slave)
    try:
        yield Terminal(master)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        os.close(master)
        subprocess.run(
            [*command, "stop"], env=env, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
