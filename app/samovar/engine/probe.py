"""Finds out in a child process what would kill this one: does the file load, do ggml's extra buffers work?

On some virtual machines the CPU reports AMX, and ggml's use of it through the extra buffer types dies of
SIGILL at the first decode. A malformed file can abort the process as well. So a child loads the model and
decodes a few tokens, first with the extra buffers, then without; the answer is remembered per machine,
llama.cpp build and model. Run as `python -m samovar.engine.probe` it is that child: a job as one line of JSON
on standard input, a report on standard output. It ends with its parent, whose end closes its standard input.
"""

import bisect
import hashlib
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from samovar.core.arithmetic import KvShape, bytes_per_number, context_bytes
from samovar.core.errors import SamovarError
from samovar.core.kv_types import Heads, check_heads
from samovar.core.settings import EngineSettings
from samovar.core.units import format_size

_MAGIC: Final = b"GGUF"
_PROBE_CELLS: Final = 256
_TIMEOUT_S: Final = 1800.0
_LEAST_CELLS: Final = 256


class ProbeResult(msgspec.Struct, frozen=True):
    """What a child found out. Saved state of n tokens takes `state_bytes` + n × `bytes_per_token`.

    Of the bytes per token, `window_bytes_per_token` are of layers that see the last `window` tokens alone.
    """

    extra_bufts: bool
    bytes_per_token: float
    state_bytes: int
    trained_context: int
    window_bytes_per_token: float = 0.0
    window: int = 0
    shape: KvShape = KvShape()


class ChildReport(msgspec.Struct, frozen=True):
    """A child's one line of output. Sizes are of saved states; those of a window are part of the others."""

    error: str = ""
    size_small: int = 0
    size_large: int = 0
    window_size_small: int = 0
    window_size_large: int = 0
    window: int = 0
    has_state: bool = False
    trained_context: int = 0
    heads: Heads = Heads()


CELL_BYTES: Final = 12  # of each cell, its position and sequence (`llama_kv_cache::state_write_meta`)
SMALL_TOKENS: Final = 16
LARGE_TOKENS: Final = 48


def check_file(path: Path) -> None:
    """SamovarError if `path` cannot be a GGUF model, said without loading it."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SamovarError(
            f"The model {path} cannot be read ({error.strerror}). Name another with --model or SAMOVAR_MODEL."
        ) from error
    if magic != _MAGIC:
        raise SamovarError(
            f"{path} is not a GGUF model (it does not start with 'GGUF'). Name a .gguf file with --model."
        )


def probe(
    path: Path,
    weights: str,
    settings: EngineSettings,
    *,
    build: str,
    flash_attn: bool,
    cache_dir: Path,
    on_stage: Callable[[str], None],
) -> ProbeResult:
    """The remembered answer for this machine, build and model, or a new one from child processes."""
    parts = (
        2,
        machine_id(),
        build,
        weights,
        settings.kv_type_k,
        settings.kv_type_v,
        flash_attn,
        settings.gpu_layers,
    )
    name = hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
    remembered = cache_dir / "probe" / f"{name}.json"
    try:
        return msgspec.json.decode(remembered.read_bytes(), type=ProbeResult)
    except (OSError, msgspec.DecodeError):
        pass
    failures = []
    for extra_bufts in (True, False):
        on_stage(
            "trying the model on this machine, once" if extra_bufts else "trying it without extra buffers"
        )
        report = _run_child(path, settings, flash_attn=flash_attn, extra_bufts=extra_bufts)
        if report.error:
            failures.append(report.error)
            continue
        result = digest(report, settings, extra_bufts=extra_bufts)
        _remember(remembered, result)
        return result
    raise SamovarError(failures[-1])


def digest(report: ChildReport, settings: EngineSettings, *, extra_bufts: bool) -> ProbeResult:
    """What the sizes of two states say about any number of tokens, and about other KV types."""
    span = LARGE_TOKENS - SMALL_TOKENS
    per_token = (report.size_large - report.size_small) / span
    in_window = (report.window_size_large - report.window_size_small) / span
    state_bytes = max(0, round(report.size_small - SMALL_TOKENS * per_token))
    heads = report.heads
    keys, values = max(heads.key_sizes, default=0), max(heads.value_sizes, default=0)
    shape = KvShape(
        key_share=keys / (keys + values) if keys and values else 0.5,
        window=report.window,
        state_bytes=state_bytes if report.has_state else 0,
        cell_bytes=(CELL_BYTES if per_token > in_window else 0) + (CELL_BYTES if in_window else 0),
        heads=heads,
    )
    each = bytes_per_number(shape, settings.kv_type_k, settings.kv_type_v)
    shape = msgspec.structs.replace(
        shape,
        numbers=max(0, round((per_token - shape.cell_bytes) / each)),
        window_numbers=max(0, round((in_window - CELL_BYTES) / each)),
    )
    return ProbeResult(
        extra_bufts, per_token, state_bytes, report.trained_context, in_window, report.window, shape
    )


def context_need(result: ProbeResult, num_cells: int, num_slots: int, batch_tokens: int) -> int:
    """Bytes of a context of `num_cells` with the types that were probed."""
    return context_bytes(
        full_bytes=max(0.0, result.bytes_per_token - result.window_bytes_per_token - CELL_BYTES),
        window_bytes=max(0.0, result.window_bytes_per_token - CELL_BYTES),
        window=result.window,
        state_bytes=result.state_bytes,
        num_cells=num_cells,
        num_slots=num_slots,
        batch_tokens=batch_tokens,
    )


def check_memory(
    result: ProbeResult, num_cells: int, num_slots: int, batch_tokens: int, available_bytes: int
) -> None:
    """SamovarError, with the arithmetic, if a context of `num_cells` would not fit into memory."""

    def need_of(cells: int) -> int:
        return context_need(result, cells, num_slots, batch_tokens)

    need = need_of(num_cells)
    if need > available_bytes:
        sizes = range(num_cells)
        fits = bisect.bisect_right(sizes, available_bytes, key=need_of) - 1
        if fits < _LEAST_CELLS:
            raise SamovarError(
                f"This model needs more memory than there is: {format_size(available_bytes)} are available, "
                f"and even a context of {_LEAST_CELLS} tokens does not fit. "
                "Close other programs, or name a smaller model with --model."
            )
        raise SamovarError(
            f"A context of {num_cells:,} tokens needs {format_size(need)} "
            f"({need / num_cells / 1024:.1f} KiB a token × {num_cells:,}), and only "
            f"{format_size(available_bytes)} of memory are available. "
            f"Set `context` to {fits * 9 // 10:,} or less, or a smaller KV type such as q8_0."
        )


def machine_id() -> str:
    """What makes one machine's CPU unlike another's, for remembering the answer."""
    flags = ""
    try:
        with Path("/proc/cpuinfo").open() as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    return hashlib.blake2b(
        f"{platform.machine()} {platform.node()} {flags}".encode(), digest_size=8
    ).hexdigest()


def _remember(path: Path, result: ProbeResult) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(result))
        temporary.replace(path)
    except OSError:
        pass  # It is asked again next time: slow, not wrong.


def _run_child(path: Path, settings: EngineSettings, *, flash_attn: bool, extra_bufts: bool) -> ChildReport:
    job = msgspec.json.encode({"settings": settings, "flash_attn": flash_attn, "extra_bufts": extra_bufts})
    stdin, lifeline = os.pipe()  # the child watches it: however this process ends, the pipe closes
    try:
        os.write(lifeline, job + b"\n")
        child = subprocess.Popen(
            [sys.executable, "-m", "samovar.engine.probe"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with child:
            try:
                output, _ = child.communicate(timeout=_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                return ChildReport(error=f"Loading {path} was given up after {_TIMEOUT_S / 60:.0f} minutes.")
    finally:
        os.close(lifeline)
        os.close(stdin)
    lines = output.splitlines()
    if child.returncode == 0 and lines:
        return msgspec.json.decode(lines[-1], type=ChildReport)
    if child.returncode < 0:
        reason = signal_name(-child.returncode)
    else:
        reason = f"exit code {child.returncode}"
    return ChildReport(
        error=f"llama.cpp crashed on {path} ({reason}): the file is damaged, or this build does not know "
        "the model. Fetch it again, or name another with --model."
    )


def signal_name(number: int) -> str:
    """`SIGILL` and the like; not every number has a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Job(msgspec.Struct):
    settings: EngineSettings
    flash_attn: bool
    extra_bufts: bool


def _end_with_parent() -> None:
    """End the process with its standard input. Not through Python's buffer: its lock would block an exit."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def _child() -> ChildReport:
    from samovar.engine.backend import Batch, DecodeResult
    from samovar.engine.llama import ContextOptions, LlamaBackend, LlamaModel, read_metadata
    from samovar.engine.metadata import heads_of

    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Job)
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    settings = job.settings
    heads = heads_of(read_metadata(Path(settings.model_path)))
    check_heads(heads, settings.kv_type_k, settings.kv_type_v)
    model = LlamaModel(Path(settings.model_path), extra_bufts=job.extra_bufts, gpu_layers=settings.gpu_layers)
    backend = LlamaBackend(
        model,
        ContextOptions(
            num_cells=_PROBE_CELLS,
            num_slots=1,
            batch_tokens=LARGE_TOKENS,
            num_threads=max(1, settings.num_threads),
            flash_attn=job.flash_attn,
            kv_type_k=settings.kv_type_k,
            kv_type_v=settings.kv_type_v,
        ),
    )
    sizes, window_sizes = [], []
    pos = 0
    for count in (SMALL_TOKENS, LARGE_TOKENS - SMALL_TOKENS):
        batch = Batch()
        for offset in range(count):
            batch.add((pos + offset) % model.vocab_size, pos + offset, 0, offset == count - 1)
        if backend.decode(batch) is not DecodeResult.DONE:
            return ChildReport(error=f"llama.cpp cannot run {settings.model_path}; choose another model.")
        pos += count
        sizes.append(backend.state_size(0))
        window_sizes.append(backend.window_state_size(0) if model.family.window else 0)
    return ChildReport(
        size_small=sizes[0],
        size_large=sizes[1],
        window_size_small=window_sizes[0],
        window_size_large=window_sizes[1],
        window=model.family.window,
        has_state=not model.family.can_trim,
        trained_context=model.trained_context,
        heads=heads,
    )


def main() -> None:
    try:
        report = _child()
    except SamovarError as error:
        report = ChildReport(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
