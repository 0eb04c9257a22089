"""What the engine adds to llama.cpp: measured in a process of the engine's own, shown here."""

import asyncio
import signal
import sys
import tempfile
from typing import Final

import msgspec

from samovar.core.errors import SamovarError
from samovar.core.settings import EngineSettings

_MODULE: Final = "samovar.engine.measure"


class Job(msgspec.Struct, frozen=True):
    """What `samovar.engine.measure` reads; see there."""

    settings: EngineSettings
    cache_dir: str
    tokens: int
    repeats: int


class Result(msgspec.Struct, frozen=True):
    """What `samovar.engine.measure` answers; times in milliseconds, rates in tokens a second."""

    model: str
    tokens: int
    prefill_ms: float
    capture_ms: float
    capture_share: float
    restore_ms: float
    restore_speedup: float
    host_decode: float
    bare_decode: float
    decode_ratio: float
    error: str = ""


async def run(settings: EngineSettings, tokens: int = 4096, repeats: int = 5) -> Result:
    """Run the measurement in a child process; SamovarError if it fails."""
    with tempfile.TemporaryDirectory(prefix="samovar-bench-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate(msgspec.json.encode(Job(settings, folder, tokens, repeats)))
    lines = output.splitlines()
    if process.returncode or not lines:
        code = process.returncode or 0
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise SamovarError(f"The measuring process failed ({reason}); what it said stands above.")
    result = msgspec.json.decode(lines[-1], type=Result)
    if result.error:
        raise SamovarError(result.error)
    return result


def text(result: Result) -> str:
    """The result for people."""
    return "\n".join(
        (
            f"{result.model}: what the engine adds to llama.cpp",
            "",
            f"capture   {result.capture_ms:8.1f} ms beside {result.prefill_ms:,.0f} ms of prefill"
            f"  ({100 * result.capture_share:.2f} %)",
            f"restore   {result.restore_ms:8.1f} ms for {result.tokens:,} tokens"
            f"  ({result.restore_speedup:,.0f} × faster than processing them)",
            f"decode    {result.host_decode:8.1f} tokens/s, a bare loop {result.bare_decode:.1f}"
            f"  (ratio {result.decode_ratio:.3f})",
        )
    )
