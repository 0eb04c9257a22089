"""`samovar cache …` on a host that says what the test tells it to, and on the disk alone."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from samovar import cli
from samovar.commands import cache
from samovar.core import commands, events
from samovar.core.errors import SamovarError
from samovar.core.request import Mismatch, MismatchReason, RequestStats, TierTokens
from samovar.core.snapshot import CacheSnapshot, DiskModel, LastRequest, PromptRow, Tier, TierUse
from tests.unit.fake_host import Call, Exchange

MIB = 1 << 20
TEAS = PromptRow("s-teas", "茶 Teas\x1b[31m", 3912, 0, 3912, 3912, 61 * MIB, 15 * MIB, Tier.HOST, 5, 0.0)
TRIP = PromptRow("s-trip", "Trip to Kyoto", 6200, 0, 0, 6200, 99 * MIB, 0, Tier.DISK, 1, 0.0, pinned=True)
FULL = CacheSnapshot(
    model="a model",
    disk=TierUse(160 * MIB, 8192 * MIB, blocks=80, setting="auto"),
    prompts=(TEAS, TRIP),
    disk_models=(
        DiskModel("a model", "/a.gguf", "f" * 16, 60, 120 * MIB, current=True),
        DiskModel("an old one", "/gone.gguf", "e" * 16, 20, 40 * MIB, stale=True),
    ),
)
# What `samovar.engine.maintain` is agreed to say, by action.
DISK_ALONE = """
import json, sys
job = json.loads(sys.stdin.read())
assert set(job) == {"cache_dir", "disk_limit", "action"}, job
bad = int(job["disk_limit"] == "1GiB")
if job["disk_limit"] == "broken":
    sys.exit("the disk is on fire")
model = {"name": "a model", "path": "/a.gguf", "fingerprint": "ffffffff", "blocks": 60, "bytes": 1048576,
         "current": True, "stale": False}
prompt = {"session": "s-trip", "title": "Trip to Kyoto", "tokens": 6200, "disk_tokens": 6144, "pinned": True,
          "last_used": 0.0, "model": "a model"}
answers = {
    "verify": {"files": 60, "bytes": 1048576, "bad": bad, "orphans": 2, "problem": ""},
    "prune": {"models": ["an old one"], "num_blocks": 20, "num_bytes": 4096, "problem": ""},
    "clear": {"num_blocks": 60, "num_bytes": 1048576, "kept_blocks": 0,
              "problem": "the folder is gone" * bad},
    "list": {"models": [model], "prompts": [prompt] * 3000, "bytes": 1048576, "limit_bytes": None,
             "blocks": 60, "problem": ""},
}
if job["action"] == "verify":
    for done in (20, 40, 60):
        print(json.dumps({"done": done, "total": 60}), flush=True)
print(json.dumps(answers[job["action"]]))
"""


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    with TemporaryDirectory(prefix="samovar-cache-") as folder:
        exchange = Exchange(Path(folder) / "host.sock")
        await exchange.open()
        async with asyncio.timeout(30):
            yield exchange
        exchange.shut()


def nobody(_name: str) -> str | None:
    return None


def place_of(exchange: Exchange, find: Callable[[str], str | None] = nobody) -> cache.Place:
    folder = exchange.socket.parent
    return cache.Place(folder, exchange.socket.name, folder / "cache", "auto", find)


def alone(folder: Path, disk_limit: str = "auto") -> cache.Place:
    return cache.Place(folder, "none.sock", folder / "cache", disk_limit, maintainer=("-c", DISK_ALONE))


async def with_host(
    exchange: Exchange, work: Awaitable[int], told: Callable[[Call], Coroutine[None, None, None]]
) -> int:
    """Run a command while the host behaves as `told`."""
    running = asyncio.ensure_future(work)
    call = await exchange.welcomed()
    playing = asyncio.create_task(told(call))
    try:
        return await running
    finally:
        playing.cancel()


async def describe(call: Call, snapshot: CacheSnapshot = FULL) -> None:
    await call.hear(commands.Describe)
    call.say(events.CacheChanged(snapshot))


# With a host


async def test_list_shows_prompts_and_models(exchange: Exchange, capsys: pytest.CaptureFixture[str]) -> None:
    assert await with_host(exchange, cache.list_cache(place_of(exchange), as_json=False), describe) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "disk   160 MiB of 8.0 GiB in 80 blocks"
    assert "\x1b" not in "".join(lines)
    teas = next(line for line in lines if "Teas" in line)
    assert teas.endswith("RAM")
    assert "3,912        0    3,912    3,912" in teas
    assert next(line for line in lines if "Kyoto" in line).endswith("disk, pinned")
    assert next(line for line in lines if "an old one" in line).endswith("gone or changed: prune deletes it")

    assert await with_host(exchange, cache.list_cache(place_of(exchange), as_json=True), describe) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["running"] is True
    assert [row["session"] for row in report["prompts"]] == ["s-teas", "s-trip"]
    assert report["prompts"][0]["model"] == "a model"
    assert [model["stale"] for model in report["models"]] == [False, True]


async def test_a_disk_with_a_problem_is_exit_code_1(
    exchange: Exchange, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = TierUse(limit_bytes=8 << 30, problem="The disk is full.", quarantined=2)

    async def told(call: Call) -> None:
        await describe(call, CacheSnapshot(disk=disk))

    assert await with_host(exchange, cache.list_cache(place_of(exchange), as_json=False), told) == 1
    told_user = capsys.readouterr()
    assert "The disk is full." in told_user.err
    assert "2 bad files set aside" in told_user.out
    assert "nothing is cached" in told_user.out


@pytest.mark.parametrize(("bad", "code"), [(0, 0), (3, 1)])
async def test_verify_is_exit_code_1_if_a_file_is_bad(
    exchange: Exchange, capsys: pytest.CaptureFixture[str], bad: int, code: int
) -> None:
    async def told(call: Call) -> None:
        await call.hear(commands.VerifyDisk)
        call.say(events.VerifyProgressed(1, 80), events.DiskVerified(80, 160 * MIB, bad, 0))

    assert await with_host(exchange, cache.verify(place_of(exchange), as_json=True), told) == code
    report = json.loads(capsys.readouterr().out)
    assert report == {"files": 80, "bytes": 160 * MIB, "bad": bad, "orphans": 0, "problem": ""}
    assert await with_host(exchange, cache.verify(place_of(exchange), as_json=False), told) == code
    assert ("bad and set aside" if bad else "all are as they were written") in capsys.readouterr().out


async def test_a_refused_command_is_one_sentence(exchange: Exchange) -> None:
    async def told(call: Call) -> None:
        call.say(events.CommandRefused("The disk cache is off."))

    for work in (
        cache.verify(place_of(exchange), as_json=False),
        cache.prune(place_of(exchange), as_json=False),
        cache.clear(place_of(exchange), ram=False, disk=True, as_json=False),
        cache.log(place_of(exchange), as_json=False),
    ):
        with pytest.raises(SamovarError, match=r"The disk cache is off\."):
            await with_host(exchange, work, told)


async def test_prune_and_clear_say_what_has_gone(
    exchange: Exchange, capsys: pytest.CaptureFixture[str]
) -> None:
    async def pruned(call: Call) -> None:
        await call.hear(commands.PruneDisk)
        call.say(events.DiskPruned(("an old one",), 20, 40 * MIB))

    assert await with_host(exchange, cache.prune(place_of(exchange), as_json=False), pruned) == 0
    assert capsys.readouterr().out == "pruned 40 MiB from disk: 20 blocks of an old one\n"

    async def cleared(call: Call) -> None:
        for tier in (Tier.HOST, Tier.DISK):
            assert (await call.hear(commands.ClearTier)).tier is tier
            call.say(events.TierCleared(tier, 20, 40 * MIB, 1))

    work = cache.clear(place_of(exchange), ram=True, disk=True, as_json=True)
    assert await with_host(exchange, work, cleared) == 0
    result = {"num_blocks": 20, "num_bytes": 40 * MIB, "kept_blocks": 1, "problem": ""}
    assert json.loads(capsys.readouterr().out) == {"ram": result, "disk": result}


@pytest.mark.parametrize("name", ["s-trip", "Trip to Kyoto", "s-tr"])
async def test_pin_waits_until_the_host_has_done_it(
    exchange: Exchange, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    async def told(call: Call) -> None:
        await describe(call)
        assert await call.hear(commands.Pin) == commands.Pin("s-trip", False)
        call.say(events.CacheChanged(FULL))  # an older picture, still on its way
        await call.hear(commands.ListRequests)
        call.say(events.RequestsListed(()))
        row = msgspec.structs.replace(TRIP, pinned=False)
        await describe(call, msgspec.structs.replace(FULL, prompts=(TEAS, row)))

    place = place_of(exchange, find=lambda name: {"s-tr": "s-trip"}.get(name))
    assert await with_host(exchange, cache.pin(place, name, pinned=False, as_json=False), told) == 0
    assert capsys.readouterr().out == "“Trip to Kyoto” is not pinned any more.\n"


async def test_a_chat_that_is_not_cached_is_told_apart_from_none(exchange: Exchange) -> None:
    place = place_of(exchange, find=lambda name: "s-notes" if name == "notes" else None)
    for name, sentence in (("notes", "Nothing of “notes” is cached"), ("nope", "There is no chat “nope”")):
        for work in (
            cache.pin(place, name, pinned=True, as_json=False),
            cache.evict(place, name, everywhere=False, as_json=False),
        ):
            with pytest.raises(SamovarError, match=sentence):
                await with_host(exchange, work, describe)


async def test_evict_tells_what_is_left(exchange: Exchange, capsys: pytest.CaptureFixture[str]) -> None:
    async def told(call: Call) -> None:
        await describe(call)
        assert await call.hear(commands.Evict) == commands.Evict("s-teas", True)
        await call.hear(commands.ListRequests)
        call.say(events.RequestsListed(()))
        await describe(call, msgspec.structs.replace(FULL, prompts=(TRIP,)))

    work = cache.evict(place_of(exchange), "s-teas", everywhere=True, as_json=True)
    assert await with_host(exchange, work, told) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["everywhere"] is True
    assert (report["context_tokens"], report["host_tokens"], report["disk_tokens"]) == (0, 0, 0)


async def test_log_shows_costs_and_the_first_difference(
    exchange: Exchange, capsys: pytest.CaptureFixture[str]
) -> None:
    mismatch = Mismatch(812, MismatchReason.MESSAGE_EDITED, ("so", "\n"), (" a", " list"), (" a", " tuple"))
    stats = RequestStats(3912, TierTokens(660, 100, 52), 3100, 12, 0.0, 9.0, 14_700.0, mismatch=mismatch)

    async def told(call: Call) -> None:
        await call.hear(commands.ListRequests)
        call.say(events.RequestsListed((LastRequest("s-teas", "Teas", stats, 1.0),)))

    assert await with_host(exchange, cache.log(place_of(exchange), as_json=False), told) == 0
    out = capsys.readouterr().out
    assert "    3,912       660       100        52     3,100      9 ms      15 s" in out
    assert "first difference at 812: message edited" in out
    assert "before  so↵" in out
    assert "asked    a tuple" in out
    assert await with_host(exchange, cache.log(place_of(exchange), as_json=True), told) == 0
    request = json.loads(capsys.readouterr().out)["requests"][0]
    assert request["stats"]["reused"] == {"context": 660, "host": 100, "disk": 52}
    assert request["stats"]["mismatch"]["reason"] == "message edited"


# Without one


async def test_the_disk_is_looked_after_without_a_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = alone(tmp_path)
    assert await cache.verify(place, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {
        "files": 60, "bytes": MIB, "bad": 0, "orphans": 2, "problem": "",
    }  # fmt: skip
    assert await cache.verify(place, as_json=False) == 0
    assert "2 without a counterpart removed" in capsys.readouterr().out
    assert await cache.prune(place, as_json=False) == 0
    assert capsys.readouterr().out == "pruned 4.0 KiB from disk: 20 blocks of an old one\n"
    assert await cache.clear(place, ram=False, disk=True, as_json=False) == 0
    assert capsys.readouterr().out == "cleared 1.0 MiB from disk: 60 blocks\n"
    assert await cache.list_cache(place, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["running"] is False
    assert len(report["prompts"]) == 3000
    assert report["prompts"][0]["disk_tokens"] == 6144
    assert await cache.list_cache(place, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["disk   1.0 MiB in 60 blocks", "RAM    no engine is running"]
    assert lines[4].endswith("partly, pinned")


async def test_what_goes_wrong_on_the_disk_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await cache.verify(alone(tmp_path, "1GiB"), as_json=False) == 1
    assert "1 of 60 files bad and set aside" in capsys.readouterr().out
    assert await cache.clear(alone(tmp_path, "1GiB"), ram=False, disk=True, as_json=True) == 1
    assert capsys.readouterr().err == "samovar: the folder is gone\n"
    with pytest.raises(SamovarError, match=r"failed \(exit code 1\)"):
        await cache.verify(alone(tmp_path, "broken"), as_json=False)
    no_json = cache.Place(tmp_path, "", tmp_path, "auto", maintainer=("-c", "print('Traceback')"))
    with pytest.raises(SamovarError, match="maintenance of the disk cache failed"):
        await cache.prune(no_json, as_json=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clear"], "Say what to clear: --ram, --disk or both."),
        (["clear", "--ram"], "No engine is running"),
        (["pin", "teas"], "No engine is running"),
        (["unpin", "teas"], "No engine is running"),
        (["evict", "teas"], "No engine is running"),
        (["log"], "No engine is running"),
    ],
)
def test_what_needs_an_engine_says_so(
    arguments: list[str], said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["cache", *arguments, "--json"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("samovar: ")
    assert said in told.err
    assert told.out == ""


async def test_verify_shows_its_progress_to_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert await cache.verify(alone(tmp_path), as_json=False) == 0
    assert "verified 40 of 60 files" in capsys.readouterr().err
