"""The fingerprint: everything that saved KV state depends on and llama.cpp does not check.

Not part of it: the context's size, batch sizes, threads.
"""

import hashlib
from pathlib import Path
from typing import Final

from samovar.core.settings import EngineSettings

LAYOUT_VERSION: Final = 2
_HEADER_BYTES: Final = 1024 * 1024
_NUM_SAMPLES: Final = 16
_SAMPLE_BYTES: Final = 64 * 1024


def weights_id(path: Path) -> str:
    """Id of a model file from its size, its first MiB and samples of its tensor data: 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HEADER_BYTES))
        for i in range(_NUM_SAMPLES):
            file.seek(size * i // _NUM_SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(file.read())
    return digest.hexdigest()


def fingerprint(
    weights: str, settings: EngineSettings, *, build: str, flash_attn: bool, extra_bufts: bool
) -> str:
    """Names the state space of one model under one set of settings: 32 hex digits.

    Positions are encoded as the model file says (RoPE and YaRN settings are never overridden), and no
    adapter is ever loaded, so the weights cover both.
    """
    parts = (
        LAYOUT_VERSION,
        weights,
        settings.kv_type_k,
        settings.kv_type_v,
        flash_attn,
        extra_bufts,
        settings.gpu_layers,
        build,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
