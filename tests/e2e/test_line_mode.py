"""Line mode in a pseudo-terminal, on the real model."""

from contextlib import closing
from pathlib import Path

import pytest

from samovar.core.chat import Role
from samovar.paths import Paths
from samovar.sessions.store import Store
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.model

CTRL_C, ENTER = "\x03", "\r"


def sent(home: Path) -> list[str]:
    """What the user has sent, in all chats."""
    with closing(Store.open(Paths.from_env({"SAMOVAR_HOME": str(home)}).database)) as store:
        paths = [store.path(session.id) for session in store.sessions()]
    return [message.content for path in paths for message in path if message.role is Role.USER]


def test_what_is_typed_while_a_reply_is_printed_is_the_next_message(home: Path) -> None:
    terminal = Terminal("chat", home=home, rows=60)
    try:
        terminal.wait_for("›")
        terminal.send("Tell me a long story." + ENTER)
        terminal.wait_for("the model")  # it is loaded: the reply is waited for
        terminal.send("Name a colour." + ENTER)
        terminal.send("Name an animal.")
        terminal.wait(lambda _: "Name a colour." in sent(home), "the line that was typed ahead")
        terminal.send(CTRL_C)
        terminal.wait(
            lambda text: text.rpartition("›")[2].strip().startswith("Name an animal."), "the rest of it"
        )
        assert sent(home) == ["Tell me a long story.", "Name a colour."]
    finally:
        terminal.close()
