"""From settings to a loaded backend: file check, probe, memory check, load, context. Engine thread.

Errors are `SamovarError`s written for the user.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psutil

from samovar.core.arithmetic import bytes_per_token
from samovar.core.errors import SamovarError
from samovar.core.events import ModelInfo
from samovar.core.kv_types import KV_TYPES, check_types
from samovar.core.lint import template_warning
from samovar.core.reasoning import find_tags
from samovar.core.settings import EngineSettings
from samovar.engine import llama
from samovar.engine.backend import ModelTraits
from samovar.engine.fingerprint import fingerprint, weights_id
from samovar.engine.limits import disk_limit
from samovar.engine.llama import ContextOptions, LlamaBackend, LlamaModel
from samovar.engine.probe import ProbeResult, check_file, check_memory, probe
from samovar.engine.prompt import PromptBuilder, fallback_template
from samovar.engine.sleep import ModelChangedError
from samovar.engine.swapper import Folder
from samovar.kv.block import root_key
from samovar.kv.disk_tier import Model

DEFAULT_CONTEXT: Final = 8192
STATE_SHARE: Final = 0.25
MAX_BLOCK_TOKENS: Final = 1024


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to serve.

    `check_reload` raises SamovarError where it must not be loaded again (the file has gone or changed, too
    little memory). `load_ms` is what loading took, without the probe.
    """

    backend: LlamaBackend
    info: ModelInfo
    block_tokens: int
    weights: str
    check_reload: Callable[[], None]
    load_ms: float


def available_bytes() -> int:
    """Memory that can be taken without swapping, as psutil tells."""
    return int(psutil.virtual_memory().available)


def default_threads() -> int:
    """Physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of a model under some settings before it is loaded. `settings` name their threads."""

    path: Path
    settings: EngineSettings
    weights: str
    flash_attn: bool
    found: ProbeResult
    num_cells: int
    block_tokens: int


def examine(settings: EngineSettings, cache_dir: Path, on_progress: Callable[[str, float], None]) -> Examined:
    """Check file and settings, and look up or find out what the model does on this machine."""
    check_types(settings.kv_type_k, settings.kv_type_v, settings.flash_attn)
    path = Path(settings.model_path)
    on_progress("looking at the model", 0.0)
    check_file(path)
    flash_attn = _flash_attention(settings)
    settings = msgspec.structs.replace(settings, num_threads=settings.num_threads or default_threads())
    weights = weights_id(path)
    found = probe(
        path,
        weights,
        settings,
        build=llama.BUILD,
        flash_attn=flash_attn,
        cache_dir=cache_dir,
        on_stage=lambda stage: on_progress(stage, 0.0),
    )
    num_cells = settings.context_tokens or min(found.trained_context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    block_tokens = choose_block_tokens(settings.block_tokens, found.window, found)
    return Examined(path, settings, weights, flash_attn, found, num_cells, block_tokens)


def load(settings: EngineSettings, cache_dir: Path, on_progress: Callable[[str, float], None]) -> Loaded:
    """Load what `settings` name; `on_progress(stage, fraction)` tells how far it is."""
    known = examine(settings, cache_dir, on_progress)
    path, settings, found, num_cells = known.path, known.settings, known.found, known.num_cells

    def check_room() -> None:
        check_memory(found, num_cells, settings.num_slots, settings.batch_tokens, available_bytes())

    check_room()
    t_load = time.perf_counter()
    model = LlamaModel(
        path,
        extra_bufts=found.extra_bufts,
        gpu_layers=settings.gpu_layers,
        on_progress=lambda fraction: on_progress("loading the model", fraction),
    )
    on_progress("making the context", 1.0)
    backend = LlamaBackend(
        model,
        ContextOptions(
            num_cells=num_cells,
            num_slots=settings.num_slots,
            batch_tokens=settings.batch_tokens,
            num_threads=settings.num_threads,
            flash_attn=known.flash_attn,
            kv_type_k=settings.kv_type_k,
            kv_type_v=settings.kv_type_v,
        ),
    )
    load_ms = 1000 * (time.perf_counter() - t_load)
    traits = backend.traits
    print_id = fingerprint(
        known.weights, settings, build=llama.BUILD, flash_attn=known.flash_attn, extra_bufts=found.extra_bufts
    )
    info = ModelInfo(
        name=traits.name,
        path=str(path),
        family=traits.family_name,
        context_tokens=traits.num_cells,
        trained_context_tokens=traits.trained_context,
        kv_type_k=settings.kv_type_k,
        kv_type_v=settings.kv_type_v,
        tokenizer=traits.tokenizer,
        fingerprint=print_id,
        block_tokens=known.block_tokens,
        has_template=traits.template is not None,
        notes=_notes(found, traits),
        kv_bytes_per_token=bytes_per_token(found.shape, settings.kv_type_k, settings.kv_type_v),
        state_bytes=found.shape.state_bytes,
        shape=found.shape,
        thinking=find_tags(traits.template) if traits.template else None,
        template_tokens=_template_tokens(backend),
    )

    def check_reload() -> None:
        check_file(path)
        try:
            is_same = weights_id(path) == known.weights
        except OSError as error:
            raise SamovarError(f"The model {path} cannot be read ({error.strerror}). Try again.") from error
        if not is_same:
            raise ModelChangedError(
                f"The model file {path} has changed since the engine loaded it, so the engine ends. "
                "Send again: it starts with the new file."
            )
        check_room()

    return Loaded(backend, info, known.block_tokens, known.weights, check_reload, load_ms)


def disk_folder(cache_dir: Path, loaded: Loaded) -> Folder:
    """Where the disk tier of a loaded model is."""
    info = loaded.info
    return Folder(
        cache_dir,
        Model(
            fingerprint=info.fingerprint,
            root=root_key(info.fingerprint),
            block_tokens=loaded.block_tokens,
            partial=loaded.backend.traits.family.can_trim,
            name=info.name,
            path=info.path,
            weights=loaded.weights,
            build=llama.BUILD,
        ),
        disk_limit,
        weights_id,
    )


def choose_block_tokens(wanted: int, window: int, found: ProbeResult) -> int:
    """Tokens a block: at most the sliding window, more where a large state would outweigh them.

    Every block of a recurrent or hybrid model carries the whole state once; blocks grow until it is below
    a quarter of a block, or 1,024 tokens are reached. A power of two, so that prefill chunks divide it.
    """
    size = 1 << (max(8, wanted).bit_length() - 1)
    if window:
        while size > window:
            size //= 2
    while (
        size < MAX_BLOCK_TOKENS
        and not window
        and found.state_bytes > STATE_SHARE * (found.state_bytes + size * found.bytes_per_token)
        and found.state_bytes > 64 * 1024
    ):
        size *= 2
    return size


def _flash_attention(settings: EngineSettings) -> bool:
    """Flash attention is slow at depth on a CPU, so `auto` turns it on only where a quantized V needs it."""
    if settings.flash_attn == "auto":
        return KV_TYPES[settings.kv_type_v].is_quantized or settings.gpu_layers != 0
    return settings.flash_attn == "on"


def _template_tokens(backend: LlamaBackend) -> tuple[int, int]:
    try:
        return PromptBuilder.of(backend).template_tokens()
    except SamovarError:  # who sends a message is told what is wrong with the template
        return 0, 0


def _notes(found: ProbeResult, traits: ModelTraits) -> tuple[str, ...]:
    notes = []
    if traits.template is None:
        used = fallback_template(traits.control_tokens).name
        notes.append(f"This model has no chat template; Samovar uses {used}, and replies may be poor.")
    elif warning := template_warning(traits.template):
        notes.append(warning)
    if not found.extra_bufts:
        notes.append("ggml's extra CPU buffers (AMX) fail on this machine and are off.")
    if 0 < traits.trained_context < traits.num_cells:
        notes.append(
            f"The context of {traits.num_cells:,} tokens is larger than the {traits.trained_context:,} "
            "that the model was trained on."
        )
    return tuple(notes)
