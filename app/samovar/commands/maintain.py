"""The disk tier without an engine: a child process looks after it, since only the engine knows its files.

No model is loaded. Runs in the command's event loop.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from samovar.client.child import run_child
from samovar.core.errors import SamovarError
from samovar.core.maintenance import Cleared, DiskList, Job, Progress, Pruned, Verified

MODULE: Final = ("-m", "samovar.engine.maintain")
_FAILED: Final = "The maintenance of the disk cache failed"
R = TypeVar("R", DiskList, Verified, Pruned, Cleared)


def ignore(_done: int, _total: int) -> None:
    """Nobody watches the progress."""


async def maintain(
    job: Job,
    result: type[R],
    progress: Callable[[int, int], None],
    command: Sequence[str],
) -> R:
    """Do one job in a child process; SamovarError if it fails. `progress` hears (done, total).

    `command` is what Python runs.
    """

    def on_line(line: bytes) -> None:
        try:
            step = msgspec.json.decode(line, type=Progress)
        except msgspec.DecodeError:
            return  # the result, or nothing that can be understood
        progress(step.done, step.total)

    last = await run_child(command, job, _FAILED, on_line)
    try:
        return msgspec.json.decode(last, type=result)
    except msgspec.DecodeError as error:
        raise SamovarError(f"{_FAILED}: its answer cannot be read ({error}).") from error
