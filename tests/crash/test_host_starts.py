"""One host for all front ends, whatever stands in its way when it starts."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from samovar.core import commands, events
from samovar.core.commands import Submit
from samovar.core.events import HostFailed, HostReady, HostStarting, HostStopping, RequestFinished
from samovar.core.request import FinishReason
from samovar.core.wire import PROTOCOL, decode_command, frame
from tests.crash.conftest import Site, gone, hosts
from tests.crash.test_host_dies import question

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]


async def test_front_ends_that_start_together_share_one_host(site: Site) -> None:
    async with site.front_end("one", start=False) as one, site.front_end("two", start=False) as two:
        await asyncio.gather(one.start(), two.start())
        await asyncio.gather(one.wait_for(HostReady), two.wait_for(HostReady))
        assert one.client.host_pid == two.client.host_pid
        assert [process.pid for process in hosts()] == [one.client.host_pid]


async def test_stale_socket_is_no_obstacle(site: Site) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(site.socket))
    assert site.socket.exists()
    async with site.front_end() as front_end:
        await front_end.wait_for(HostReady)


async def test_a_host_that_leaves_takes_only_its_own_socket_along(site: Site) -> None:
    async with site.front_end() as front_end:
        await front_end.wait_for(HostReady)
        site.socket.unlink()
        with socket.socket(socket.AF_UNIX) as another:
            another.bind(str(site.socket))
            running = hosts()
            front_end.send(commands.StopHost())
            await front_end.wait_for(HostStopping)
            await gone(running)
            assert site.socket.exists()


async def test_question_asked_before_the_host_is_there_is_answered(site: Site) -> None:
    async with site.front_end() as front_end:
        request = question("Say hello.", max_tokens=4)
        front_end.send(Submit(request))
        finished = await front_end.wait_for(RequestFinished)
        assert finished.request_id == request.id
        assert finished.reason in (FinishReason.LENGTH, FinishReason.STOP)
        assert isinstance(front_end.events[0], HostStarting)


async def test_broken_model_is_one_sentence_and_ends_what_was_asked(site: Site, tmp_path: Site) -> None:
    broken = msgspec.structs.replace(site.settings, model_path=f"{tmp_path}/none.gguf")
    other = Site(site.folder, broken, site.probe_dir)
    async with other.front_end() as front_end:
        front_end.send(Submit(question("Say hello.")))
        failed = await front_end.wait_for(HostFailed)
        assert "none.gguf" in failed.message
        assert "--model" in failed.message
        finished = await front_end.wait_for(RequestFinished)
        assert finished.reason is FinishReason.FAILED
        assert finished.error == failed.message


@contextlib.asynccontextmanager
async def fake_host(site: Site, answer: events.Event) -> AsyncIterator[list[commands.Command]]:
    """A server in the host's place that answers every greeting with one event; yields what it heard."""
    heard: list[commands.Command] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        heard.append(decode_command(await reader.readexactly(length)))
        writer.write(frame(answer))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(greet, path=site.socket)
    try:
        yield heard
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        events.Refused("An engine host of another Samovar release is running. Run `samovar stop`."),
        events.Welcome(PROTOCOL + 1, 1, None),
    ],
    ids=["it refuses", "it welcomes with another protocol"],
)
async def test_host_of_another_release_is_refused(site: Site, answer: events.Event) -> None:
    async with fake_host(site, answer) as heard, site.front_end() as front_end:
        front_end.send(Submit(question("Say hello.")))
        failed = await front_end.wait_for(HostFailed)
        assert "another Samovar release" in failed.message
        assert "samovar stop" in failed.message
        assert (await front_end.wait_for(RequestFinished)).reason is FinishReason.FAILED
        assert heard[0] == commands.Hello(PROTOCOL, "test")
        assert hosts() == []


async def test_host_refuses_front_end_of_another_release(site: Site) -> None:
    async with site.front_end() as front_end:
        await front_end.wait_for(HostReady)
        reader, writer = await asyncio.open_unix_connection(site.socket)
        writer.write(frame(commands.Hello(PROTOCOL + 1, "other")))
        length = int.from_bytes(await reader.readexactly(4), "big")
        answer = msgspec.msgpack.decode(await reader.readexactly(length))
        assert answer["type"] == "refused"
        assert str(front_end.client.host_pid) in answer["message"]
        assert await reader.read() == b""
        writer.close()
        assert os.stat(site.socket).st_mode & 0o777 == 0o600
