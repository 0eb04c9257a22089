"""How quickly does a very long chat open, and can one get around in it?

The real program in a pseudo-terminal; times run from a key until its effect is drawn.
"""

import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from samovar.bench.terminal import Terminal, workstation
from samovar.core.chat import Role
from samovar.paths import Paths
from samovar.sessions.store import Store
from samovar.sessions.transfer.document import ChatDocument, MessageDocument

_WORDS: Final = "the samovar keeps every prompt hot so that coming back costs only what is new".split()
_HOME: Final = b"\x1b[H"
_END: Final = b"\x1b[F"
_PAGE_UP: Final = b"\x1b[5~"
_PAGES: Final = 30
_NOW: Final = 1_790_000_000.0


class Result(msgspec.Struct, frozen=True):
    """Milliseconds. `open_ms`: from the key until the end of a chat is drawn that was not open before."""

    messages: int
    chats: int
    open_ms: float
    open_max_ms: float
    open_short_ms: float
    again_ms: float
    to_start_ms: float
    to_end_ms: float
    page_ms: float
    page_max_ms: float


def run(messages: int, chats: int) -> Result:
    """Open `chats` chats of so many messages one after the other, and go to the start of the last one."""
    with tempfile.TemporaryDirectory(prefix="samovar-bench-") as name:
        home = Path(name)
        paths = Paths.from_env({"SAMOVAR_HOME": name})
        paths.ensure()
        store = Store.open(paths.database)
        store.exchange.take_in(_documents(messages, chats))
        store.close()
        with workstation(home) as terminal:
            terminal.wait("context")  # the model is loaded: it does not disturb
            return _measure(terminal, messages, chats)


def _measure(terminal: Terminal, messages: int, chats: int) -> Result:
    # The first line of the list is the fresh chat until it is left, then the short one, then the long ones.
    short = terminal.press_and_wait(b"\x1b2", "endofchat0")
    opened = [
        terminal.press_and_wait(b"\x1b%d" % (number + 1), f"endofchat{number}")
        for number in range(1, chats + 1)
    ]
    again = terminal.press_and_wait(b"\x1b2", "endofchat1")
    terminal.press(b"\t")
    to_start = terminal.press_and_wait(_HOME, "startofchat1")
    to_end = terminal.press_and_wait(_END, "endofchat1")
    pages = [terminal.press_and_see(_PAGE_UP) for _ in range(_PAGES)]
    return Result(
        messages=messages,
        chats=chats,
        open_ms=statistics.median(opened),
        open_max_ms=max(opened),
        open_short_ms=short,
        again_ms=again,
        to_start_ms=to_start,
        to_end_ms=to_end,
        page_ms=statistics.median(pages),
        page_max_ms=max(pages),
    )


def text(result: Result) -> str:
    """The figures for people."""
    return (
        f"{result.messages:,} messages in a chat, {result.chats} chats\n"
        f"opening one, until its end is drawn   {result.open_ms:6.0f} ms, max {result.open_max_ms:.0f} ms\n"
        f"opening a chat of 2 messages          {result.open_short_ms:6.0f} ms\n"
        f"opening it again                      {result.again_ms:6.0f} ms\n"
        f"to its start / back to its end        {result.to_start_ms:6.0f} / {result.to_end_ms:.0f} ms\n"
        f"a page up                             {result.page_ms:6.0f} ms, max {result.page_max_ms:.0f} ms"
    )


def _documents(messages: int, chats: int) -> Iterator[ChatDocument]:
    """A short chat and the long ones, the short one used last."""
    for number in range(chats + 1):
        yield ChatDocument(
            title=f"chat {number}",
            created_at=_NOW - 1e6,
            updated_at=_NOW - number,
            messages=tuple(_messages(number, messages if number else 2)),
        )


def _messages(number: int, count: int) -> Iterator[MessageDocument]:
    rng = random.Random(number)
    for place in range(1, count + 1):
        role = Role.USER if place % 2 else Role.ASSISTANT
        content = " ".join(rng.choices(_WORDS, k=60 if role is Role.ASSISTANT else 15))
        if role is Role.ASSISTANT and place % 6 == 0:
            content += "\n\n```python\nfor cup in cups:\n    fill(cup)\n```\n\n- one\n- **two**"
        if place == 1:
            content = f"startofchat{number} {content}"
        if place == count:
            content += f"\n\nendofchat{number}"
        parent = place - 1 or None
        yield MessageDocument(id=place, parent=parent, role=role, content=content, created_at=_NOW + place)
