"""Does an engine host start as fast with a full disk cache as with an empty one?"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from samovar.bench.driver import Chat, Driver, own_host
from samovar.client.child import run_child
from samovar.core.errors import SamovarError
from samovar.core.events import ModelInfo
from samovar.core.settings import EngineSettings

DISK_LIMIT: Final = "1TiB"  # nothing is evicted
NUM_SESSIONS: Final = 200  # as many as a host takes over
_MODULE: Final = "samovar.engine.populate"


class Job(msgspec.Struct, frozen=True):
    """What `samovar.engine.populate` reads; see there."""

    cache_dir: str
    model: ModelInfo
    num_blocks: int
    num_sessions: int


class Starts(msgspec.Struct, frozen=True):
    """Medians over `n` starts, from making the client on: until the host is ready, until its first answer."""

    n: int
    blocks: int
    ready_ms: float
    answer_ms: float


class Result(msgspec.Struct, frozen=True):
    """The ratios are those of the medians, `full` to `empty`."""

    model: str
    empty: Starts
    full: Starts
    ready_ratio: float
    answer_ratio: float


async def run(settings: EngineSettings, blocks: int = 50_000, repeats: int = 9) -> Result:
    """Start hosts on a folder without blocks and on one with `blocks`, in turn, `repeats` times each."""
    settings = msgspec.structs.replace(settings, disk_limit=DISK_LIMIT)
    with tempfile.TemporaryDirectory(prefix="samovar-bench-") as name:
        empty, full = Path(name, "empty"), Path(name, "full")
        for folder in (empty, full):
            folder.mkdir()
            model, *_ = await _start(settings, folder, 0)  # what is found out once a machine
        job = Job(str(full), model, blocks, NUM_SESSIONS)
        await run_child(("-m", _MODULE), job, "The blocks could not be written")
        ready: dict[Path, list[float]] = {empty: [], full: []}
        answered: dict[Path, list[float]] = {empty: [], full: []}
        for repeat in range(repeats):
            for folder in (empty, full) if repeat % 2 else (full, empty):
                _, ready_ms, answer_ms = await _start(settings, folder, blocks if folder is full else 0)
                ready[folder].append(ready_ms)
                answered[folder].append(answer_ms)
    few, many = [
        Starts(repeats, count, statistics.median(ready[folder]), statistics.median(answered[folder]))
        for folder, count in ((empty, 0), (full, blocks))
    ]
    return Result(model.name, few, many, many.ready_ms / few.ready_ms, many.answer_ms / few.answer_ms)


async def _start(settings: EngineSettings, folder: Path, blocks: int) -> tuple[ModelInfo, float, float]:
    """Start a host, ask it for one token, quit: (model, ms until ready, ms until the answer)."""
    start = time.perf_counter()
    async with own_host(settings, folder) as client:
        driver = Driver(client)
        model = await driver.ready()
        ready_ms = 1000 * (time.perf_counter() - start)
        request = msgspec.structs.replace(Chat("chat").ask("Hello.", 1), store=False)
        await driver.ask(request)
        answer_ms = 1000 * (time.perf_counter() - start)
        found = (await driver.snapshot()).disk
        if found.blocks != blocks or found.problem:
            raise SamovarError(f"The host found {found.blocks:,} blocks, not {blocks:,}. {found.problem}")
    return model, ready_ms, answer_ms


def text(result: Result) -> str:
    """The result for people."""
    lines = [f"{result.model}: starting an engine host", "", "blocks on disk    n      ready   first answer"]
    lines += [
        f"{part.blocks:>14,}  {part.n:>3}  {part.ready_ms:>6,.0f} ms  {part.answer_ms:>10,.0f} ms"
        for part in (result.empty, result.full)
    ]
    lines.append(f"ratio                {result.ready_ratio:>9.2f}     {result.answer_ratio:>10.2f}")
    return "\n".join(lines)
