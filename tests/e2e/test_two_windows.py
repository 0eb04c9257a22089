"""Two workstations on one store, each in a pseudo-terminal of its own, on the real model."""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from samovar.paths import Paths
from samovar.sessions.store import Store
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.model

ENTER, ALT_2, F3 = "\r", "\x1b2", "\x1bOR"


@pytest.fixture
def windows(home: Path) -> Iterator[tuple[Terminal, Terminal]]:
    first, second = Terminal(home=home, columns=120), Terminal(home=home, columns=120)
    for window in (first, second):
        window.wait_for("write a message")
    yield first, second
    for window in (first, second):
        window.close()


def contents(home: Path) -> list[str]:
    """All messages of the user's, in all chats and on all branches."""
    with closing(Store.open(Paths.from_env({"SAMOVAR_HOME": str(home)}).database)) as store:
        documents = [store.exchange.document(session.id) for session in store.sessions()]
    return [message.content for document in documents for message in document.messages]


def open_chat(window: Terminal, title: str) -> None:
    """Open the chat on the list's second line, below the new one."""
    window.wait_for(title)
    window.send(ALT_2)
    window.wait(lambda text: text.count(title) >= 2, "the chat open, and in the list")


def test_what_one_window_sends_appears_in_the_other(home: Path, windows: tuple[Terminal, Terminal]) -> None:
    first, second = windows
    first.send("Name a colour." + ENTER)
    first.wait_for("tok/s ·")
    open_chat(second, "Name a colour.")
    second.send("Name an animal." + ENTER)
    first.wait_for("Name an animal.")
    first.wait(lambda text: text.count("reused") >= 1, "the other window's reply with its costs")

    # Both send at the same moment: the one message goes below the other, and both windows show both.
    first.send("From the first." + ENTER)
    second.send("From the second." + ENTER)
    for window in windows:
        window.wait_for("From the first.")
        window.wait_for("From the second.")
    texts = contents(home)
    for text in ("Name a colour.", "Name an animal.", "From the first.", "From the second."):
        assert texts.count(text) == 1


def test_a_window_that_is_killed_leaves_its_draft_to_the_next(
    home: Path, windows: tuple[Terminal, Terminal]
) -> None:
    first, second = windows
    first.send("Name a colour." + ENTER)
    first.wait_for("tok/s ·")
    open_chat(second, "Name a colour.")
    second.send("half a thought")
    second.wait_for("half a thought")
    second.wait(lambda _: is_draft_stored(home, "half a thought"), "the draft in the store")
    second.process.kill(signal.SIGKILL)
    first.send("my own words")
    first.wait_for("my own words")
    third = Terminal(home=home, columns=120)
    try:
        open_chat(third, "Name a colour.")
        third.wait_for("half a thought")
        assert "my own words" not in third.text, "a draft of a window that lives is its own"
    finally:
        third.close()
    assert first.process.isalive()


def is_draft_stored(home: Path, text: str) -> bool:
    with closing(Store.open(Paths.from_env({"SAMOVAR_HOME": str(home)}).database)) as store:
        return text in [found for (found,) in store._db.rows("SELECT text FROM drafts")]


def test_a_message_is_found_in_another_chat(home: Path, windows: tuple[Terminal, Terminal]) -> None:
    first, second = windows
    first.send("Where does the heron sleep?" + ENTER)
    first.wait_for("tok/s ·")
    second.send(F3)
    second.wait_for("search in all chats")
    second.send("heron")
    second.wait_for("3 found")
    second.send(ENTER)
    second.wait(lambda text: "e edit" in text and "Where does the heron sleep?" in text, "the chat, open")
