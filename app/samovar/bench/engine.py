"""What the engine adds to llama.cpp: measured in a process of the engine's own, shown here."""

import tempfile
from typing import Final

import msgspec

from samovar.client.child import run_child
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
        job = Job(settings, folder, tokens, repeats)
        answer = await run_child(("-m", _MODULE), job, "The measuring process failed")
    result = msgspec.json.decode(answer, type=Result)
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
