"""What is typed while nothing is asked for: kept for the next prompt, and not echoed into what is printed."""

import contextlib
import sys
import termios
from collections.abc import Iterator


@contextlib.contextmanager
def typed_ahead() -> Iterator[None]:
    """Let the terminal keep keys as they are, Enter as Enter, also through a Ctrl+C."""
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    quiet = termios.tcgetattr(terminal)
    quiet[0] &= ~termios.ICRNL
    quiet[3] = (quiet[3] & ~(termios.ECHO | termios.ICANON)) | termios.NOFLSH
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
