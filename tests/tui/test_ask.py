"""`samovar ask` over a fake client and a real store: what is printed, stored and returned."""

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from samovar.commands.ask import Question, ask
from samovar.config import Config, SamplingConfig
from samovar.core.chat import ChatMessage, Role
from samovar.core.commands import Cancel, Command
from samovar.core.errors import SamovarError
from samovar.core.events import HostLost, HostStarting, HostStopping
from samovar.core.request import FinishReason, Request
from samovar.sessions.store import MessageState, Store
from tests.tui.fake_client import STATS, FakeClient

CONFIG = Config(system_prompt="Be brief.", sampling=SamplingConfig(seed=3, max_tokens=9))
FIELDS = [
    "session", "reply", "finish_reason", "prompt_tokens", "reused_tokens", "processed_tokens",
    "generated_tokens", "restore_ms", "first_token_ms", "tokens_per_second", "mismatch",
    "thinking", "thinking_tokens", "thinking_ms",
]  # fmt: skip


class CancellingClient(FakeClient):
    """Ends a request as soon as it is cancelled."""

    def send(self, command: Command) -> None:
        super().send(command)
        if isinstance(command, Cancel):
            request = next(r for r in self.requests if r.id == command.request_id)
            self.finish(request, "one two", FinishReason.CANCELLED, tokens=(1, 2))


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[Store]:
    """What the command uses."""
    with contextlib.closing(Store.open(tmp_path / "chats.db")) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """What sees the committed chats: another connection to the same file."""
    with contextlib.closing(Store.open(tmp_path / "chats.db")) as opened:
        yield opened


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def asking(
    client: FakeClient, store: Store | None, question: Question
) -> AsyncIterator[tuple["asyncio.Task[int]", Request]]:
    """A running command and the request it has submitted."""
    running = asyncio.create_task(ask(client, store, CONFIG, question))
    client.ready()
    await until(lambda: client.requests or running.done())
    yield running, client.requests[0]
    await asyncio.wait([running])


def last(store: Store, name: str) -> tuple[MessageState, str]:
    session = store.find(name)
    assert session is not None
    message = store.path(session.id)[-1]
    return message.state, message.content


async def test_a_reply_is_printed_as_it_comes_and_stored(
    own_store: Store, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = FakeClient()
    async with asking(client, own_store, Question("Name a tea.", "teas")) as (running, request):
        assert request.messages == (
            ChatMessage(Role.SYSTEM, "Be brief."),
            ChatMessage(Role.USER, "Name a tea."),
        )
        assert (request.title, request.sampling.seed, request.max_tokens) == ("teas", 3, 9)
        assert last(store, "teas") == (MessageState.STREAMING, "")
        client.say(request, "Ass", "am")
        await until(lambda: last(store, "teas") == (MessageState.STREAMING, "Assam"))
        client.finish(request, "Assam.")
        assert await running == 0
    assert capsys.readouterr().out == "Assam\n"
    session = store.find("teas")
    assert session is not None
    reply = store.path(session.id)[-1]
    assert (reply.state, reply.content, reply.tokens) == (MessageState.COMPLETE, "Assam.", (1, 2, 3))
    assert reply.stats == STATS
    assert client.closed


async def test_without_a_chat_nothing_is_stored(
    own_store: Store, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = FakeClient()
    async with asking(client, own_store, Question("hi", system="Be kind.", as_json=True)) as (
        running,
        request,
    ):
        assert request.messages == (ChatMessage(Role.SYSTEM, "Be kind."), ChatMessage(Role.USER, "hi"))
        client.finish(request, "Hello \udce9.")
        assert await running == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == FIELDS
    assert report["session"].startswith("ask-")
    assert report["session"] == request.session
    assert report["reply"] == "Hello �."
    assert report["reused_tokens"] == {"context": 3200, "host": 688, "disk": 0}
    assert store.sessions() == []


async def test_a_system_prompt_that_changes_by_itself_is_warned_of_on_stderr(
    own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = FakeClient()
    system = "Current time: 06:23\nYou are kind, brief and cite your sources."
    async with asking(client, own_store, Question("hi", system=system, as_json=True)) as (running, request):
        client.finish(request, "Hello.")
        assert await running == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["reply"] == "Hello."
    assert "“Current time: 06:23”" in told.err
    assert len(told.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("reason", "state", "said"),
    [
        (FinishReason.CANCELLED, MessageState.STOPPED, "before the reply was complete"),
        (FinishReason.FAILED, MessageState.FAILED, "could not answer"),
        (FinishReason.HOST_LOST, MessageState.FAILED, "the engine stopped"),
    ],
)
async def test_every_failure_is_said_and_an_exit_code(
    own_store: Store,
    store: Store,
    capsys: pytest.CaptureFixture[str],
    reason: FinishReason,
    state: MessageState,
    said: str,
) -> None:
    client = FakeClient()
    async with asking(client, own_store, Question("hi", "x", as_json=True)) as (running, request):
        client.say(request, "Hel")
        client.finish(request, "Hel", reason)
        assert await running == 1
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert list(report) == [*FIELDS, "error"]
    assert (report["reply"], report["finish_reason"]) == ("Hel", reason.value)
    assert said in report["error"]
    assert said in output.err
    assert last(store, "x") == (state, "Hel")


@pytest.mark.parametrize("client", [FakeClient(), CancellingClient()], ids=["silent host", "host answers"])
async def test_an_interrupted_reply_is_stored_as_stopped(
    own_store: Store, store: Store, client: FakeClient
) -> None:
    async with asking(client, own_store, Question("count", "x")) as (running, request):
        client.say(request, "one ", "two")
        await until(client.waiting.empty)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert client.of(Cancel) == [Cancel(request.id)]
    state, content = last(store, "x")
    assert (state, content.strip()) == (MessageState.STOPPED, "one two")
    assert client.closed


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


async def test_a_reader_that_goes_away_costs_nothing_that_arrived(
    own_store: Store, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = CancellingClient()
    monkeypatch.setattr(sys, "stdout", Broken())
    async with asking(client, own_store, Question("count", "x")) as (running, request):
        client.say(request, "one two")
        with pytest.raises(BrokenPipeError):
            await running
    assert last(store, "x") == (MessageState.STOPPED, "one two")


async def test_two_questions_at_once_keep_their_replies(
    own_store: Store, store: Store, tmp_path: Path
) -> None:
    left, right = FakeClient(), FakeClient()
    with contextlib.closing(Store.open(tmp_path / "chats.db")) as second:
        async with (
            asking(left, own_store, Question("left", "x")) as (left_runs, left_asked),
            asking(right, second, Question("right", "x")) as (right_runs, right_asked),
        ):
            right.finish(right_asked, "to right")
            assert await right_runs == 0
            left.finish(left_asked, "to left")
            assert await left_runs == 0
    assert len(store.sessions()) == 1
    stored = [message.content for message in store.path(store.sessions()[0].id)]
    assert stored == ["left", "to left", "right", "to right"]
    assert [message.content for message in right_asked.messages] == ["Be brief.", "left\n\nright"]


async def test_a_file_that_is_not_there_leaves_no_chat_behind(own_store: Store, store: Store) -> None:
    client = FakeClient()
    with pytest.raises(SamovarError, match="missing"):
        await ask(client, own_store, CONFIG, Question("Read @./missing.txt", "new"))
    assert client.requests == []
    assert store.sessions() == []


async def test_a_question_in_a_full_chat_leaves_out_its_oldest_turns_and_says_so(
    own_store: Store, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = store.create_session("long")
    for number in range(6):
        store.messages.add(chat.id, (Role.USER, Role.ASSISTANT)[number % 2], f"{number} " + "word " * 1500)
    client = FakeClient()
    async with asking(client, own_store, Question("and now?", "long")) as (running, request):
        client.finish(request, "nothing")
        assert await running == 0
    assert len(request.messages) < 7
    assert request.messages[-1].content == "and now?"
    assert "no longer sent" in capsys.readouterr().err


async def test_an_engine_that_is_stopped_before_it_has_a_model_is_started_again(
    own_store: Store, store: Store
) -> None:
    session = store.create_session("teas")
    store.messages.add(session.id, Role.USER, "one")
    client = FakeClient()
    running = asyncio.create_task(ask(client, own_store, CONFIG, Question("two", "teas")))
    client.push(HostStarting(), HostLost("gone"))
    await until(client.waiting.empty)
    assert client.requests == [], "the client starts it again by itself"
    client.push(HostStarting(), HostStopping())
    await until(lambda: client.requests)
    client.finish(client.requests[0], "yes")
    assert await running == 0


async def test_a_question_in_a_summarized_chat_is_asked_with_the_summary(
    own_store: Store, store: Store
) -> None:
    chat = store.create_session("long")
    path = [
        store.messages.add(chat.id, (Role.USER, Role.ASSISTANT)[number % 2], f"{number}")
        for number in range(4)
    ]
    store.compactions.add(path[1].id, "They counted.", num_messages=2, tokens_before=20, tokens_after=5)
    client = FakeClient()
    async with asking(client, own_store, Question("and now?", "long")) as (running, request):
        client.finish(request, "four")
        assert await running == 0
    assert [message.content for message in request.messages[1:]] == ["2", "3", "and now?"]
    assert request.messages[0].content.endswith("They counted.")


async def test_text_that_utf8_cannot_hold_is_mended(own_store: Store, store: Store) -> None:
    client = FakeClient()
    question = Question("caf\udce9", "th\udce9", system="\udce9")
    async with asking(client, own_store, question) as (running, request):
        msgspec.msgpack.encode(request)
        assert [message.content for message in request.messages] == ["�", "caf�"]
        client.finish(request, "ok")
        assert await running == 0
    assert [session.title for session in store.sessions()] == ["th�"]
    again = FakeClient()
    async with asking(again, own_store, Question("more", "th\udce9")) as (running, request):
        assert request.session == store.sessions()[0].id
        again.finish(request, "ok")
        assert await running == 0


async def test_a_second_system_prompt_is_refused(own_store: Store, store: Store) -> None:
    store.create_session("x", "Be brief.")
    client = FakeClient()
    with pytest.raises(SamovarError, match="has a system prompt already"):
        await ask(client, own_store, CONFIG, Question("hi", "x", system="Be long."))
    assert client.closed
    assert client.requests == []


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(SamovarError, match="nothing to ask"):
        Question(" \n")
