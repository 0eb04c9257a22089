"""The real program on the real bundled model, in a pseudo-terminal: what a user sees and does."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hosts import host_pids, wait_until_gone
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.model

CTRL_N, CTRL_Q, ENTER, ESCAPE, F1 = "\x0e", "\x11", "\r", "\x1b", "\x1bOP"
CTRL_DOWN = "\x1b[1;5B"


@pytest.fixture
def terminal(home: Path) -> Iterator[Terminal]:
    screen = Terminal(home=home, columns=120, rows=40)
    screen.wait_for("write a message")
    yield screen
    screen.close()


def ask(terminal: Terminal, question: str) -> None:
    """Send a message and wait until its reply has ended."""
    terminal.send(question)
    terminal.wait_for(question)
    terminal.send(ENTER)
    terminal.wait(lambda text: " tok/s · " in text.rpartition(question)[2], "a whole reply with its costs")


def test_two_chats_a_switch_and_a_restart(home: Path, terminal: Terminal) -> None:
    ask(terminal, "Name a colour.")
    terminal.send(CTRL_N)
    terminal.wait(lambda text: "you  " not in text, "an empty chat")
    ask(terminal, "Name an animal.")
    terminal.send(CTRL_DOWN)
    terminal.wait(lambda text: text.count("Name a colour.") == 2, "the other chat, in the list and open")
    assert terminal.text.count("Name an animal.") == 1, "only the list still names the first one"
    ask(terminal, "And another one.")
    terminal.wait_for("reused")

    terminal.send(CTRL_Q)
    assert terminal.wait_for_exit() == 0
    again = Terminal(home=home, columns=120, rows=40)
    try:
        again.wait_for("Name a colour.")
        again.wait_for("Name an animal.")
    finally:
        again.close()


def test_a_killed_engine_is_told_and_replaced(home: Path, terminal: Terminal) -> None:
    ask(terminal, "Name a colour.")
    pids = host_pids(home)
    assert len(pids) == 1
    os.kill(pids[0], signal.SIGKILL)
    wait_until_gone(pids[0])
    ask(terminal, "Name an animal.")
    terminal.wait_for("Name a colour.")
    assert host_pids(home) != pids


def test_eighty_by_twenty_four_shows_chat_and_composer(home: Path) -> None:
    terminal = Terminal(home=home)
    try:
        terminal.wait_for("write a message")
        ask(terminal, "Name a colour.")
        terminal.send(F1)
        terminal.wait_for("ctrl+n")
        terminal.send(ESCAPE)
        terminal.resize(40, 20)
        terminal.wait(lambda text: "Name a colour." in text, "the chat in forty columns")
        terminal.resize(80, 24)
        terminal.wait_for("write a message")
    finally:
        terminal.close()
