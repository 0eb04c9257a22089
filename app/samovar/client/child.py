"""One job for a process of the engine's own, which ends when it is done. No host, no socket.

The process reads the job as JSON on standard input and answers with lines on standard output; what it has
to complain about goes to this process's standard error.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from samovar.core.errors import SamovarError

_MAX_LINE_BYTES: Final = 1 << 28  # a list of everything is one line


async def run_child(
    command: Sequence[str],
    job: msgspec.Struct,
    failed: str,
    on_line: Callable[[bytes], None] = lambda _line: None,
) -> bytes:
    """What the process says last, empty if it says nothing; `on_line` hears each line as it comes.

    `command` is what Python runs (`-m`, module). Raises SamovarError that begins with `failed`. A process
    that is not waited for any longer is killed.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    last = b""
    try:
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        while line := await process.stdout.readline():
            last = line
            on_line(line)
        code = await process.wait()
    except (ValueError, OSError) as error:
        raise SamovarError(f"{failed}: {error}.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code:
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise SamovarError(f"{failed} ({reason}); what it said stands above.")
    return last
