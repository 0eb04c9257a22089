"""The client's side of a host's life, played against a host that does as the test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TypeVar

import msgspec
import pytest

from samovar.client.local import Launch, LocalClient, last_words
from samovar.core import commands, events
from samovar.core.chat import ChatMessage, Role, Sampling
from samovar.core.errors import SamovarError
from samovar.core.request import FinishReason, Request, RequestKind, RequestStats
from samovar.core.settings import EngineSettings, HostJob
from tests.unit.fake_host import Exchange

SETTINGS = EngineSettings("/models/none.gguf", ram_limit="1GiB", token_limit="9000", keep_alive_s=60.0)

E = TypeVar("E", bound=events.Event)


def request(name: str, text: str = "hello", seed: int | None = None) -> Request:
    return Request(name, "chat", (ChatMessage(Role.USER, text),), sampling=Sampling(seed=seed))


def ahead(name: str) -> Request:
    return msgspec.structs.replace(request(name), kind=RequestKind.PREPARE)


class Front:
    """A client and all it has told."""

    def __init__(self, client: LocalClient) -> None:
        self.client = client
        self.told: list[events.Event] = []
        self._source = client.events()

    async def hear(self, kind: type[E], wanted: Callable[[E], bool] = lambda _event: True) -> E:
        """The next event of a kind."""
        async for event in self._source:
            self.told.append(event)
            if isinstance(event, kind) and wanted(event):
                return event
        raise AssertionError("the client was closed")

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.told if isinstance(event, kind)]


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    with TemporaryDirectory(prefix="samovar-client-") as folder:
        exchange = Exchange(Path(folder) / SETTINGS.socket_name())
        await exchange.open()
        async with asyncio.timeout(30):
            yield exchange
        exchange.shut()


@contextlib.asynccontextmanager
async def front(exchange: Exchange, *insist: str) -> AsyncIterator[Front]:
    """A started client that would start a host which cannot load its model."""
    folder = exchange.socket.parent
    client = LocalClient.starting(
        SETTINGS, run_dir=folder, cache_dir=folder, log_file=folder / "log", name="test", insist=insist
    )
    await client.start()
    try:
        yield Front(client)
    finally:
        await client.close()


UNENCODABLE = [request("bad", "half a \ud83d"), request("bad", seed=2**80)]


@pytest.mark.parametrize("bad", UNENCODABLE, ids=["lone surrogate", "80 bits"])
async def test_request_without_bytes_fails_at_once_and_harms_nothing_else(
    exchange: Exchange, bad: Request
) -> None:
    async with front(exchange) as one:
        one.client.send(commands.Submit(bad))  # before the host is there
        early = await one.hear(events.RequestFinished)
        call = await exchange.welcomed()
        await one.hear(events.Welcome)
        one.client.send(commands.Submit(bad))
        late = await one.hear(events.RequestFinished)
        for ended in (early, late):
            assert (ended.request_id, ended.reason) == ("bad", FinishReason.FAILED)
            assert "try again" in ended.error
        one.client.send(commands.Submit(request("good")))
        assert (await call.hear(commands.Submit)).request.id == "good"


async def test_other_commands_without_bytes_are_refused(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        one.client.send(commands.Rename("chat", "\udc00"))
        assert "cannot be sent" in (await one.hear(events.CommandRefused)).message
        one.client.send(commands.Focus("chat"))
        assert (await call.hear(commands.Focus)).session == "chat"


async def test_what_nobody_foresaw_ends_every_request() -> None:
    """A host's job that cannot be written breaks the client's task; the requests end all the same."""
    with TemporaryDirectory(prefix="samovar-client-") as name:
        folder = Path(name)
        launch = Launch(HostJob(EngineSettings("\udcff"), name, name), folder / "log")
        client = LocalClient(folder / "x.sock", "test", launch)
        client.send(commands.Submit(request("one")))
        await client.start()
        one = Front(client)
        async with asyncio.timeout(30):
            failed = await one.hear(events.HostFailed)
            ended = await one.hear(events.RequestFinished)
            assert (ended.reason, ended.error) == (FinishReason.FAILED, failed.message)
        await client.close()


def test_model_path_that_is_no_text_is_one_sentence() -> None:
    with pytest.raises(SamovarError, match="Rename"):
        EngineSettings("/models/\udcff.gguf").socket_name()


async def test_host_that_leaves_while_it_is_joined_loses_nothing(exchange: Exchange) -> None:
    async with front(exchange) as one:
        one.client.send(commands.Submit(request("one")))
        leaving = await exchange.calls.get()
        await leaving.hear(commands.Hello)
        leaving.hang_up()
        call = await exchange.welcomed()
        assert (await call.hear(commands.Submit)).request.id == "one"
        assert one.of(events.HostLost) == []


async def test_request_that_never_began_goes_to_the_next_host_once(exchange: Exchange) -> None:
    async with front(exchange) as one:
        one.client.send(commands.Submit(request("one")))
        for _ in range(2):
            call = await exchange.welcomed()
            assert (await call.hear(commands.Submit)).request.id == "one"
            call.hang_up()
        ended = await one.hear(events.RequestFinished)
        assert (ended.request_id, ended.reason) == ("one", FinishReason.HOST_LOST)
        call = await exchange.welcomed()
        one.client.send(commands.Describe())
        await call.hear(commands.Describe)
        assert not any(isinstance(command, commands.Submit) for command in call.heard)


async def test_cancelled_request_does_not_go_to_the_next_host(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        await one.hear(events.Welcome)
        one.client.send(commands.Submit(request("one")))
        one.client.send(commands.Cancel("one"))
        await call.hear(commands.Cancel)
        call.hang_up()
        assert (await one.hear(events.RequestFinished)).request_id == "one"


async def test_request_that_had_begun_ends_with_its_host(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        one.client.send(commands.Submit(request("one")))
        await call.hear(commands.Submit)
        call.say(
            events.RequestStarted("one", "chat", RequestStats(7)),
            events.TokensGenerated("one", "chat", "Hel", 1),
        )
        await one.hear(events.TokensGenerated)
        call.hang_up()
        ended = await one.hear(events.RequestFinished)
        assert (ended.reason, ended.reply) == (FinishReason.HOST_LOST, "Hel")
        assert ended.stats.prompt_tokens == 7


async def test_stopped_client_rests_until_the_next_request(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        one.client.send(commands.Submit(request("one")))
        await call.hear(commands.Submit)
        call.say(events.RequestStarted("one", "chat", RequestStats()), events.HostStopping())
        await one.hear(events.HostStopping)
        call.hang_up()
        ended = await one.hear(events.RequestFinished)
        assert (ended.request_id, ended.reason) == ("one", FinishReason.CANCELLED)
        one.client.send(commands.Focus("chat"))
        one.client.send(commands.StopHost())
        assert exchange.calls.empty()
        one.client.send(commands.Submit(request("two")))
        call = await exchange.welcomed()
        assert (await call.hear(commands.Submit)).request.id == "two"
        assert not any(isinstance(command, commands.StopHost) for command in call.heard)
        assert one.of(events.HostLost) == []
        assert one.of(events.HostStarting) == []


async def test_request_that_crosses_the_stop_goes_to_the_next_host(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        call.say(events.HostStopping())
        await one.hear(events.HostStopping)
        one.client.send(commands.Submit(request("one")))
        call.hang_up()
        call = await exchange.welcomed()
        assert (await call.hear(commands.Submit)).request.id == "one"


async def test_limits_given_for_this_run_are_told_to_every_host(exchange: Exchange) -> None:
    async with front(exchange, "ram_limit", "keep_alive_s") as one:
        call = await exchange.welcomed()
        one.client.send(commands.Describe())
        await call.hear(commands.Describe)
        assert call.heard[1:-1] == [commands.SetRamLimit("1GiB"), commands.SetKeepAlive(60.0)]
        one.client.send(commands.SetRamLimit("2GiB"))
        await call.hear(commands.SetRamLimit)
        call.hang_up()
        call = await exchange.welcomed()
        one.client.send(commands.Describe())
        await call.hear(commands.Describe)
        assert call.heard[1:-1] == [commands.SetRamLimit("2GiB"), commands.SetKeepAlive(60.0)]


async def test_limits_from_the_configuration_are_not_forced_upon_a_running_host(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        one.client.send(commands.Describe())
        await call.hear(commands.Describe)
        assert call.heard[1:-1] == []


async def test_refused_limit_is_not_told_again(exchange: Exchange) -> None:
    async with front(exchange, "token_limit") as one:
        call = await exchange.welcomed()
        await one.hear(events.Welcome)
        one.client.send(commands.SetTokenLimit("nonsense"))
        await call.hear(commands.SetTokenLimit)
        call.say(events.CommandRefused("'nonsense' is no token limit"))
        await one.hear(events.CommandRefused)
        call.hang_up()
        call = await exchange.welcomed()
        assert await call.hear(commands.SetTokenLimit) == commands.SetTokenLimit("9000")


async def test_a_limit_is_told_again_when_something_else_was_refused(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        await one.hear(events.Welcome)
        one.client.send(commands.SetTokenLimit("9000"))
        one.client.send(commands.Evict("s-1"))
        await call.hear(commands.Evict)
        call.say(events.CommandRefused("s-1 is not cached", "evict"))
        await one.hear(events.CommandRefused)
        call.hang_up()
        call = await exchange.welcomed()
        assert await call.hear(commands.SetTokenLimit) == commands.SetTokenLimit("9000")


async def test_the_last_command_arrives_although_much_was_not_read(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        await one.hear(events.Welcome)
        call.say(*[events.TokensGenerated("x", "chat", "word " * 1000, 1)] * 2000)
        one.client.send(commands.Forget("chat"))
        closing = asyncio.create_task(one.client.close())
        await call.told()
        assert (await call.hear(commands.Forget)).session == "chat"
        call.hang_up()
        await closing


async def test_a_host_that_hangs_is_not_waited_for(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        call.hangs = True
        await one.hear(events.Welcome)
        one.client.send(commands.Forget("chat"))
    assert (await call.hear(commands.Forget)).session == "chat"


def test_a_host_that_dies_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "host.log"
    assert last_words(log) == "no log"
    log.write_text("")
    assert last_words(log) == "the log is empty"
    free = 0
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=free))
    assert last_words(log) == f"the disk is full: make room for {tmp_path}, then send again"
    free = 1 << 30
    log.write_text("one\nanother host has the lock\n")
    assert last_words(log) == "another host has the lock"


# ---- counts


async def test_counts_are_passed_on_and_told_once(exchange: Exchange) -> None:
    async with front(exchange) as one:
        one.client.send(commands.CountTokens("early", ("a",)))
        call = await exchange.welcomed()
        one.client.send(commands.CountTokens("late", ("b", "c")))
        assert (await call.hear(commands.CountTokens)).request_id == "early"
        assert (await call.hear(commands.CountTokens)).texts == ("b", "c")
        call.say(
            events.TokensCounted("early", (1,)),
            events.TokensCounted("early", (1,)),
            events.TokensCounted("late", (2, 3)),
        )
        await one.hear(events.TokensCounted, lambda event: event.request_id == "late")
        assert one.of(events.TokensCounted) == [
            events.TokensCounted("early", (1,)),
            events.TokensCounted("late", (2, 3)),
        ]


async def test_counts_end_with_their_host(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        one.client.send(commands.CountTokens("lost", ("a",)))
        await call.hear(commands.CountTokens)
        call.hang_up()
        assert (await one.hear(events.TokensCounted)) == events.TokensCounted("lost", None)
        again = await exchange.welcomed()
        one.client.send(commands.CountTokens("next", ("a",)))
        assert (await again.hear(commands.CountTokens)).request_id == "next"


async def test_no_host_is_started_for_a_count(exchange: Exchange) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        call.say(events.HostStopping())
        await one.hear(events.HostStopping)
        one.client.send(commands.CountTokens("between", ("a",)))
        call.hang_up()
        assert (await one.hear(events.TokensCounted)) == events.TokensCounted("between", None)
        one.client.send(commands.CountTokens("resting", ("a",)))
        assert (await one.hear(events.TokensCounted)) == events.TokensCounted("resting", None)
        assert exchange.calls.empty()


async def test_a_text_without_bytes_cannot_be_counted(exchange: Exchange) -> None:
    async with front(exchange) as one:
        one.client.send(commands.CountTokens("bad", ("\udc00",)))
        assert (await one.hear(events.TokensCounted)) == events.TokensCounted("bad", None)


async def test_work_ahead_waits_for_no_host(exchange: Exchange) -> None:
    async with front(exchange) as one:
        one.client.send(commands.Submit(ahead("early")))
        assert (await one.hear(events.RequestFinished)).reason is FinishReason.CANCELLED
        call = await exchange.welcomed()
        await one.hear(events.Welcome)
        one.client.send(commands.Submit(ahead("later")))
        assert (await call.hear(commands.Submit)).request.id == "later"

        call.say(events.HostStopping())
        call.hang_up()
        ended = await one.hear(events.RequestFinished)
        assert (ended.request_id, ended.reason) == ("later", FinishReason.CANCELLED)
        one.client.send(commands.Submit(ahead("resting")))
        ended = await one.hear(events.RequestFinished)
        assert (ended.request_id, ended.reason) == ("resting", FinishReason.CANCELLED)
        assert exchange.calls.empty()
        assert not one.of(events.HostStarting)


async def test_work_ahead_does_not_go_to_the_next_host_and_keeps_nothing_else_from_it(
    exchange: Exchange,
) -> None:
    async with front(exchange) as one:
        call = await exchange.welcomed()
        await one.hear(events.Welcome)
        one.client.send(commands.Submit(ahead("ahead")))
        one.client.send(commands.Submit(request("asked")))
        call.say(events.RequestStarted("ahead", "chat", RequestStats()))
        await one.hear(events.RequestStarted)
        call.hang_up()
        ended = await one.hear(events.RequestFinished)
        assert (ended.request_id, ended.reason) == ("ahead", FinishReason.HOST_LOST)
        call = await exchange.welcomed()
        assert (await call.hear(commands.Submit)).request.id == "asked"
