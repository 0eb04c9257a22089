"""The disk tier without an engine: a child process looks after it, since only the engine knows its files.

No model is loaded. Runs in the command's event loop.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from samovar.core.errors import SamovarError
from samovar.core.maintenance import Cleared, DiskList, Job, Progress, Pruned, Verified

MODULE: Final = ("-m", "samovar.engine.maintain")
_MAX_LINE_BYTES: Final = 1 << 28  # a list of all prompts is one line
R = TypeVar("R", DiskList, Verified, Pruned, Cleared)


def ignore(_done: int, _total: int) -> None:
    """Nobody watches the progress."""


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
                step = msgspec.json.decode(line, type=Progress)
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
