"""`cache status` and `stop` against hosts in every condition."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from samovar.commands import status, visit
from samovar.core import commands, events
from samovar.core.errors import SamovarError
from samovar.core.settings import LOCK_SUFFIX
from samovar.core.snapshot import CacheSnapshot, Totals
from tests.unit.fake_host import Exchange


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    with TemporaryDirectory(prefix="samovar-status-") as folder:
        exchange = Exchange(Path(folder) / "host.sock")
        await exchange.open()
        async with asyncio.timeout(30):
            yield exchange
        exchange.shut()


@pytest.mark.parametrize("as_json", [False, True])
async def test_status_tells_that_a_host_still_loads(
    exchange: Exchange, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    asked = asyncio.create_task(status.print_status(exchange.socket.parent, "host.sock", as_json=as_json))
    call = await exchange.welcomed()
    call.say(events.LoadingProgressed("loading the model", 0.4))
    assert await asked == 0
    told = capsys.readouterr().out
    if as_json:
        report = json.loads(told)
        assert (report["running"], report["loading"]) == (True, True)
    else:
        assert "still loading (loading the model, 40 %)" in told


async def test_status_of_a_host_that_serves(exchange: Exchange, capsys: pytest.CaptureFixture[str]) -> None:
    asked = asyncio.create_task(status.print_status(exchange.socket.parent, "host.sock", as_json=True))
    call = await exchange.welcomed()
    await call.hear(commands.Describe)
    call.say(events.CacheChanged(CacheSnapshot("a model")))
    await asked
    report = json.loads(capsys.readouterr().out)
    assert (report["running"], report["loading"], report["model"]) == (True, False, "a model")


@pytest.mark.parametrize("as_json", [False, True])
async def test_status_tells_what_was_processed_ahead_and_what_waits(
    exchange: Exchange, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    totals = Totals(ahead_tokens=412, ahead_used_tokens=380, ahead_wasted_tokens=32)
    asked = asyncio.create_task(status.print_status(exchange.socket.parent, "host.sock", as_json=as_json))
    call = await exchange.welcomed()
    await call.hear(commands.Describe)
    call.say(events.CacheChanged(CacheSnapshot("a model", totals=totals, num_running=1, num_waiting=2)))
    await asked
    told = capsys.readouterr().out
    if as_json:
        report = json.loads(told)
        ahead = [report[f"ahead_{name}tokens_total"] for name in ("", "used_", "wasted_")]
        assert (ahead, report["num_running"], report["num_waiting"]) == ([412, 380, 32], 1, 2)
    else:
        assert "412 tokens processed before they were asked for: 380 used, 32 wasted" in told
        assert "1 running, 2 waiting" in told


async def test_host_that_does_not_answer_is_one_sentence(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "GREETING_PATIENCE_S", 0.05)
    with pytest.raises(SamovarError, match="End its process"):
        await status.stop_hosts(exchange.socket.parent)
    exchange.socket.with_suffix(LOCK_SUFFIX).write_text("4711")
    for coroutine in (
        status.stop_hosts(exchange.socket.parent),
        status.print_status(exchange.socket.parent, "host.sock", as_json=False),
    ):
        with pytest.raises(SamovarError, match=r"process 4711.*kill -9 4711"):
            await coroutine


async def test_host_that_does_not_end_is_one_sentence(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "STOP_PATIENCE_S", 0.05)
    asked = asyncio.create_task(status.stop_hosts(exchange.socket.parent))
    call = await exchange.welcomed()
    await call.hear(commands.StopHost)
    with pytest.raises(SamovarError, match="does not answer"):
        await asked


async def test_stop_waits_until_the_host_has_gone(
    exchange: Exchange, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = asyncio.create_task(status.stop_hosts(exchange.socket.parent))
    call = await exchange.welcomed()
    await call.hear(commands.StopHost)
    call.say(events.HostStopping())
    exchange.shut()
    call.hang_up()
    assert await asked == 0
    assert capsys.readouterr().out == "The engine has stopped.\n"
