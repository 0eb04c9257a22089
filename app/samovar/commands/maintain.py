"""The disk tier without an engine: a child process looks after it, since only the engine knows its files.

No model is loaded. Runs in the command's event loop.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from samovar.core.errors import SamovarError
from samovar.core.snapshot import DiskModel

MODULE: Final = ("-m", "samovar.engine.maintain")
_MAX_LINE_BYTES: Final = 1 << 28  # a list of all prompts is one line
Action = Literal["list", "verify", "prune", "clear"]
R = TypeVar("R", "DiskList", "Verified", "Pruned", "Cleared")


class Job(msgspec.Struct, frozen=True):
    """What the child reads; `disk_limit` is the limit as the user wrote it."""

    cache_dir: str
    disk_limit: str
    action: Action


class DiskPrompt(msgspec.Struct, frozen=True):
    """A prompt that lies on disk, with the name of its model; `last_used` is in seconds since the epoch."""

    session: str
    title: str
    tokens: int
    disk_tokens: int
    pinned: bool
    last_used: float
    model: str


class DiskList(msgspec.Struct, frozen=True):
    """What lies on disk; `problem` says why the tier does not work as it should."""

    models: tuple[DiskModel, ...]
    prompts: tuple[DiskPrompt, ...]
    bytes: int
    limit_bytes: int | None
    blocks: int
    problem: str = ""


class Verified(msgspec.Struct, frozen=True):
    files: int
    bytes: int
    bad: int
    orphans: int
    problem: str = ""


class Pruned(msgspec.Struct, frozen=True):
    models: tuple[str, ...]
    num_blocks: int
    num_bytes: int
    problem: str = ""


class Cleared(msgspec.Struct, frozen=True):
    num_blocks: int
    num_bytes: int
    kept_blocks: int = 0
    problem: str = ""


def ignore(_done: int, _total: int) -> None:
    """Nobody watches the progress."""


class _Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    done: int
    total: int


async def maintain(
    job: Job,
    result: type[R],
    progress: Callable[[int, int], None],
    module: Sequence[str],
) -> R:
    """Do one job in a child process; SamovarError if it fails. `progress` hears (done, total).

    `module` is what Python runs.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    found: R | None = None
    try:
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        while line := await process.stdout.readline():
            try:
                step = msgspec.json.decode(line, type=_Progress)
            except msgspec.ValidationError:
                found = msgspec.json.decode(line, type=result)
            else:
                progress(step.done, step.total)
        code = await process.wait()
    except (msgspec.DecodeError, ValueError, OSError) as error:
        raise SamovarError(f"The maintenance of the disk cache failed: {error}.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if found is None or code:
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise SamovarError(f"The maintenance of the disk cache failed ({reason}); what it said stands above.")
    return found
