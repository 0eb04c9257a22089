"""The host ends in good order, for whatever reason: front ends know, and nothing that was asked is lost."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import msgspec
import psutil
import pytest

from samovar.commands import status
from samovar.core.commands import Describe, SetKeepAlive, Submit
from samovar.core.errors import SamovarError
from samovar.core.events import (
    CacheChanged,
    HostLost,
    HostReady,
    HostStarting,
    HostStopping,
    LoadingProgressed,
    RequestFinished,
    TokensGenerated,
    Welcome,
)
from samovar.core.request import FinishReason
from tests.crash.conftest import Site, gone, hosts, kill, until
from tests.crash.test_host_dies import end_of, question

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

ANSWERED = (FinishReason.LENGTH, FinishReason.STOP)


def probes() -> list[psutil.Process]:
    """Live probe children of the hosts that this test process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "samovar.engine.probe" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


async def test_stopped_host_comes_back_with_the_next_question_only(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    async with site.front_end("one") as one, site.front_end("two") as two:
        await two.wait_for(HostReady)
        request = question("Write a long story.")
        one.send(Submit(request))
        await one.wait_for(TokensGenerated)
        running = hosts()
        assert await status.stop_hosts(site.folder) == 0
        assert capsys.readouterr().out == "The engine has stopped.\n"
        for front_end in (one, two):
            await front_end.wait_for(HostStopping)
        ended = await end_of(one, request)
        assert ended.reason is FinishReason.CANCELLED
        assert ended.error
        assert ended.reply == "".join(event.text for event in one.of(TokensGenerated))
        await gone(running)
        assert hosts() == []

        since = len(one.events)
        again = question("Say hello.", max_tokens=4)
        one.send(Submit(again))
        assert (await end_of(one, again)).reason in ANSWERED
        assert any(isinstance(event, HostStarting) for event in one.events[since:])
        for front_end in (one, two):
            after = front_end.events[front_end.events.index(front_end.of(HostStopping)[0]) : since]
            assert not any(isinstance(event, HostStarting | HostLost) for event in after)
        assert len(one.of(RequestFinished)) == 2


async def test_host_that_leaves_while_a_front_end_joins_loses_nothing(site: Site) -> None:
    for _ in range(8):
        async with site.front_end("first") as first:
            await first.wait_for(HostReady)
        # With a keep-alive of 0 the host leaves at this moment.
        async with site.front_end("second") as second:
            request = question("Say hello.", max_tokens=2)
            second.send(Submit(request))
            assert (await end_of(second, request)).reason in ANSWERED
            assert len(second.of(RequestFinished)) == 1


async def test_terminated_while_it_loads_ends_what_was_asked(site: Site, tmp_path: Path) -> None:
    fresh = Site(site.folder, site.settings, tmp_path)
    async with fresh.front_end() as front_end:
        request = question("Say hello.")
        front_end.send(Submit(request))
        pid = (await front_end.wait_for(Welcome)).pid
        await until(probes)  # long after the question came
        running = hosts()
        os.kill(pid, signal.SIGTERM)
        assert (await end_of(front_end, request)).reason is FinishReason.CANCELLED
        await gone(running)
        assert not site.socket.exists()
        again = question("Say hello.", max_tokens=2)
        front_end.send(Submit(again))
        assert (await end_of(front_end, again)).reason in ANSWERED
        assert front_end.of(HostLost) == []
        assert len(front_end.of(RequestFinished)) == 2


async def test_limits_that_are_insisted_on_reach_a_running_host(site: Site) -> None:
    wish = msgspec.structs.replace(site.settings, ram_limit="64MiB", token_limit="5000", keep_alive_s=600.0)
    other = Site(site.folder, wish, site.probe_dir)
    async with site.front_end("one") as one:
        await one.wait_for(HostReady)
        async with other.front_end("quiet") as quiet:
            await quiet.wait_for(HostReady)
            quiet.send(Describe())
            untouched = await quiet.wait_for(CacheChanged)
            assert untouched.snapshot.host.limit_bytes == 256 * 1024 * 1024
        async with other.front_end("two", insist=("ram_limit", "token_limit", "keep_alive_s")) as two:
            await two.wait_for(
                CacheChanged,
                lambda event: (
                    event.snapshot.host.limit_bytes == 64 * 1024 * 1024
                    and event.snapshot.host.limit_tokens == 5000
                ),
            )
        pid = one.client.host_pid
    async with site.front_end("three") as three:
        await three.wait_for(HostReady)
        assert three.client.host_pid == pid
        three.send(SetKeepAlive(0.0))


async def test_host_sleeps_beside_a_front_end_and_goes_on_warm(site: Site) -> None:
    async with site.front_end() as front_end:
        await front_end.wait_for(HostReady)
        pid = front_end.client.host_pid
        for _ in range(2):
            since = len(front_end.events)
            request = question("Say hello.", max_tokens=4)
            front_end.send(Submit(request))
            ended = await end_of(front_end, request)
            assert ended.reason in ANSWERED
            # With a keep-alive of 0 it sleeps between two requests.
            await front_end.wait_for(CacheChanged, lambda event: event.snapshot.asleep, since)
        assert ended.stats.reused.host > 0
        assert front_end.client.host_pid == pid
        assert front_end.of(HostLost) == []
        assert front_end.of(HostStopping) == []
        assert len(front_end.of(RequestFinished)) == 2


async def test_changed_model_file_ends_the_host_and_the_next_question_starts_another(
    site: Site, smollm2: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.gguf"
    shutil.copyfile(smollm2, model)
    other = Site(site.folder, msgspec.structs.replace(site.settings, model_path=str(model)), site.probe_dir)
    async with other.front_end() as front_end:
        first = question("Say hello.", max_tokens=4)
        front_end.send(Submit(first))
        await front_end.wait_for(CacheChanged, lambda event: event.snapshot.asleep)
        pid = front_end.client.host_pid
        with model.open("ab") as file:
            file.write(bytes(32))
        second = question("Say hello.", max_tokens=4)
        front_end.send(Submit(second))
        ended = await end_of(front_end, second)
        assert (ended.reason, "has changed" in ended.error) == (FinishReason.FAILED, True)
        await front_end.wait_for(HostStopping)
        third = question("Say hello.", max_tokens=4)
        front_end.send(Submit(third))
        ended = await end_of(front_end, third)
        assert ended.reason in ANSWERED
        assert ended.stats.reused.total == 0
        assert front_end.client.host_pid != pid


async def test_hung_host_is_told_with_its_process_id(site: Site) -> None:
    async with site.front_end() as front_end:
        await front_end.wait_for(HostReady)
        pid = front_end.client.host_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            told = await asyncio.gather(
                status.stop_hosts(site.folder),
                status.print_status(site.folder, site.socket.name, as_json=False),
                return_exceptions=True,
            )
        finally:
            kill(pid)
        for error in told:
            assert isinstance(error, SamovarError)
            assert f"kill -9 {pid}" in str(error)


async def test_probe_does_not_outlive_its_host(site: Site, tmp_path: Path) -> None:
    fresh = Site(site.folder, site.settings, tmp_path)
    async with fresh.front_end("one") as one:
        pid = (await one.wait_for(Welcome)).pid
        await until(probes)
        running = [*hosts(), *probes()]
        async with fresh.front_end("two") as two:
            await two.wait_for(LoadingProgressed)
            assert [type(event) for event in two.events[:2]] == [Welcome, LoadingProgressed]
            os.kill(pid, signal.SIGTERM)
            await one.wait_for(HostStopping)
        await gone(running)
