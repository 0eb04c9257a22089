"""A pseudo-terminal with a screen that can be read: pexpect runs the program, pyte draws it."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pexpect
import pyte

PATIENCE_S: Final = 60.0


class _Screen(pyte.Screen):
    """A screen that answers when the program asks where the cursor is."""

    answer: Callable[[str], object] | None = None

    def write_process_input(self, data: str) -> None:
        if self.answer is not None:
            self.answer(data)


class Terminal:
    """One running program on a screen of `columns` × `rows`."""

    def __init__(self, *arguments: str, home: Path, columns: int = 80, rows: int = 24) -> None:
        env = {
            **os.environ,
            "SAMOVAR_HOME": str(home),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "PYTHONUNBUFFERED": "1",
        }
        self.screen = _Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.process = pexpect.spawn(
            sys.executable,
            ["-m", "samovar", *arguments],
            env=env,
            dimensions=(rows, columns),
            timeout=PATIENCE_S,
        )
        self.screen.answer = self.process.send

    @property
    def text(self) -> str:
        """What stands on the screen now."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def send(self, keys: str) -> None:
        """Type; control characters as a terminal sends them."""
        self.process.send(keys)

    def read(self) -> None:
        """Draw what the program has written, waiting a moment for it."""
        with contextlib.suppress(pexpect.TIMEOUT, pexpect.EOF):
            self._stream.feed(self.process.read_nonblocking(65536, timeout=0.05))

    def wait(self, condition: Callable[[str], object], what: str, patience_s: float = PATIENCE_S) -> str:
        """Read until `condition` holds for the screen's text; returns that text."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            self.read()
            if condition(self.text):
                return self.text
            if not self.process.isalive():
                break
        raise AssertionError(f"never seen: {what}\n{self.text}")

    def wait_for(self, text: str, patience_s: float = PATIENCE_S) -> str:
        """Read until `text` stands on the screen."""
        return self.wait(lambda screen: text in screen, repr(text), patience_s)

    def resize(self, columns: int, rows: int) -> None:
        self.process.setwinsize(rows, columns)
        self.screen.resize(rows, columns)

    def wait_for_exit(self, patience_s: float = PATIENCE_S) -> int | None:
        """Read until the program has ended; its exit code."""
        deadline = time.monotonic() + patience_s
        while self.process.isalive():
            self.read()
            if time.monotonic() > deadline:
                raise AssertionError(f"the program does not end\n{self.text}")
        code = self.process.exitstatus
        assert code is None or isinstance(code, int)
        return code

    def close(self) -> None:
        if self.process.isalive():
            self.process.kill(signal.SIGKILL)
        self.process.close(force=True)
