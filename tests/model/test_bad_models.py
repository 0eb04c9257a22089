"""A model that cannot be served is one sentence with what to do, never a dead process without a word."""

import random
import struct
from pathlib import Path

import pytest

from samovar.core.errors import SamovarError
from samovar.core.settings import EngineSettings
from samovar.engine.start import available_bytes, load

pytestmark = pytest.mark.model


def error_of(model: Path, folder: Path, context_tokens: int = 512) -> str:
    """What loading it says; fails if it loads."""
    engine = EngineSettings(str(model), context_tokens=context_tokens)
    with pytest.raises(SamovarError) as caught:
        load(engine, folder, lambda _stage, _fraction: None)
    message = str(caught.value)
    assert str(model) in message or "context" in message
    assert len(message) < 600
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_missing(tmp_path: Path) -> None:
    assert "--model" in error_of(tmp_path / "none.gguf", tmp_path)


def test_folder(tmp_path: Path) -> None:
    assert "--model" in error_of(tmp_path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"GG", b"Dear diary,\n" * 50], ids=["empty", "short", "text"])
def test_no_gguf(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert "GGUF" in error_of(path, tmp_path)


@pytest.mark.parametrize("share", [0.000001, 0.001, 0.02, 0.5, 0.999])
def test_truncated(tmp_path: Path, smollm2: Path, share: float) -> None:
    whole = smollm2.read_bytes()
    path = tmp_path / "model.gguf"
    path.write_bytes(whole[: max(4, int(share * len(whole)))])
    error_of(path, tmp_path)


def test_random_bytes_behind_the_magic(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + random.Random(0).randbytes(100_000))
    error_of(path, tmp_path)


@pytest.mark.parametrize(
    ("num_tensors", "num_values"),
    [(1 << 62, 1), (1, 1 << 62), (1 << 31, 1 << 31), (0, 0)],
    ids=["tensors", "values", "both", "nothing"],
)
def test_absurd_header(tmp_path: Path, num_tensors: int, num_values: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_values) + bytes(4096))
    error_of(path, tmp_path)


def test_absurd_string_length(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 1 << 40) + bytes(4096))
    error_of(path, tmp_path)


def test_context_larger_than_memory_is_refused_with_the_arithmetic(tmp_path: Path, smollm2: Path) -> None:
    tokens = available_bytes() // (22 * 1024) + 100_000
    message = error_of(smollm2, tmp_path, context_tokens=tokens)
    assert f"{tokens:,} tokens" in message
    assert "22.5 KiB a token" in message
    assert "available" in message


def test_model_that_fails_does_not_spoil_the_next(tmp_path: Path, mamba: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(mamba.read_bytes()[:-100_000])
    error_of(broken, tmp_path)
    loaded = load(EngineSettings(str(mamba), context_tokens=512), tmp_path, lambda _stage, _fraction: None)
    assert loaded.info.family == "recurrent"
    loaded.backend.close()
