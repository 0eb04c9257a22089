"""Line mode on a pipe instead of a terminal: what is typed is never lost, and no line ends the program."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from samovar.config import Config
from samovar.core.chat import Role
from samovar.core.commands import SetTokenLimit
from samovar.core.errors import SamovarError
from samovar.repl import line_mode
from samovar.repl.line_mode import LineMode
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import MessageState, Session, Store
from tests.tui.fake_client import FakeClient


class FullStore(Store):
    """A store whose disk is full for the first so many new chats."""

    num_refusals = 0

    def create_session(
        self,
        title: str = "",
        system_prompt: str = "",
        session_id: str | None = None,
        settings: SessionSettings | None = None,
    ) -> Session:
        if self.num_refusals:
            self.num_refusals -= 1
            raise SamovarError("The disk is full. Make room.")
        return super().create_session(title, system_prompt, session_id, settings)


class Line:
    """A running line mode, its keys, its client and its store."""

    def __init__(self, keys: PipeInput, client: FakeClient, store: FullStore, witness: Store) -> None:
        self.keys = keys
        self.client = client
        self.store = store
        self.witness = witness

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    """Left with Ctrl+D at the end, with exit code 0."""
    client = FakeClient()
    history = tmp_path / "history"
    history.mkdir()  # a history that can be neither read nor written
    with (
        create_pipe_input() as keys,
        create_app_session(input=keys, output=DummyOutput()),
        contextlib.closing(FullStore.open(tmp_path / "chats.db")) as store,
        contextlib.closing(Store.open(tmp_path / "chats.db")) as witness,
    ):
        assert isinstance(store, FullStore)
        running = asyncio.create_task(LineMode(client, store, Config(), history).run(None))
        yield Line(keys, client, store, witness)
        keys.send_text("\x04")
        assert await asyncio.wait_for(running, 20) == 0


async def test_a_text_that_could_not_be_stored_is_in_the_next_prompt(line: Line) -> None:
    line.store.num_refusals = 1
    line.keys.send_text("keep me\r")
    await line.until(lambda: not line.store.num_refusals)
    line.keys.send_text(" too\r")
    await line.until(lambda: line.client.requests)
    request = line.client.requests[0]
    assert request.messages[0].content == "keep me too"
    line.client.finish(request, "kept")
    await line.until(lambda: line.witness.path(request.session)[-1].state is MessageState.COMPLETE)


async def test_no_line_ends_in_a_traceback(line: Line) -> None:
    for text in ("/chats ²", "/chats 99", "/chats " + "9" * 5000, "/nonsense", "/tokens", "/retry", "/undo"):
        line.keys.send_text(text + "\r")
    line.keys.send_text("/tokens 1000\r")
    await line.until(lambda: line.client.of(SetTokenLimit) == [SetTokenLimit("1000")])


async def test_an_edit_is_another_version_and_an_empty_line_leaves_it(line: Line) -> None:
    line.keys.send_text("one\r")
    await line.until(lambda: line.client.requests)
    request = line.client.requests[0]
    line.client.finish(request, "first")
    await line.until(lambda: line.witness.path(request.session)[-1].state is MessageState.COMPLETE)
    line.keys.send_text("/edit\r")
    line.keys.send_text(" more\r")
    await line.until(lambda: len(line.client.requests) == 2)
    assert [message.content for message in line.client.requests[1].messages] == ["one more"]
    line.client.finish(line.client.requests[1], "second")
    await line.until(lambda: line.witness.path(request.session)[-1].content == "second")
    line.keys.send_text("/edit\r")
    line.keys.send_text("\x15\r")  # ctrl+u empties the line
    line.keys.send_text("two\r")
    await line.until(lambda: len(line.client.requests) == 3)
    texts = [message.content for message in line.client.requests[2].messages]
    assert texts == ["one more", "second", "two"]
    line.client.finish(line.client.requests[2], "third")
    await line.until(lambda: line.witness.path(request.session)[-1].content == "third")


async def test_a_search_prints_what_was_found(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(line_mode, "_say", lambda text, *_, **__: told.append(text))
    line.store.messages.add(line.store.create_session("tea").id, Role.USER, "the kettle is red")
    line.keys.send_text("/search kettle\r")
    await line.until(lambda: any("kettle is red" in text for text in told))
    line.keys.send_text("/search nowhere\r")
    await line.until(lambda: "nothing found" in told)


async def test_what_came_of_a_side_task_is_printed_when_it_ends(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(line_mode, "_say", lambda text, *_, **__: told.append(text))
    line.keys.send_text("where to drink tea\r")
    await line.until(lambda: line.client.requests)
    line.client.finish(line.client.requests[0], "In Kyoto.")
    await line.until(lambda: any("first token" in text for text in told))
    line.keys.send_text("/aside is it far\r/keywords\r")
    await line.until(lambda: len(line.client.side_requests) == 2)
    aside, keywords = line.client.side_requests
    line.client.finish(aside, "Not at all.")
    line.client.finish(keywords, '{"tags": ["tea", "kyoto"]}')
    await line.until(lambda: "tags added: tea, kyoto" in told)
    assert told[told.index("aside:") + 1] == "Not at all."
    line.keys.send_text("/tasks\r")
    await line.until(lambda: any(text.startswith("/summary") for text in told))
    assert any(text.split()[:2] == ["aside", "done"] for text in told)
    assert told.count("aside:") == 1


async def test_answers_are_compared_and_the_chosen_one_is_kept(line: Line) -> None:
    line.keys.send_text("/compare 2 why\r")
    await line.until(lambda: len(line.client.side_requests) == 2)
    first, second = line.client.side_requests
    line.client.finish(first, "one way")
    line.client.finish(second, "another way")
    line.keys.send_text("9\r2\r")
    await line.until(lambda: line.witness.sessions())
    path = line.witness.path(first.session)
    assert [message.content for message in path] == ["why", "another way"]
