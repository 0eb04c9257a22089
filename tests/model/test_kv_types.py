"""Every KV type with real contexts: the arithmetic is that of the blocks seen, and replies come from them."""

import ctypes
import re
from pathlib import Path
from typing import Final

import msgspec
import pytest
from llama_cpp import llama_cpp as C

from samovar.bench.texts import words
from samovar.core.arithmetic import Load, bytes_per_token, needs
from samovar.core.errors import SamovarError
from samovar.core.kv_types import KV_TYPES
from samovar.core.settings import EngineSettings
from samovar.engine import llama
from samovar.engine.probe import context_need
from samovar.engine.start import examine, load
from tests.model.conftest import StartEngine
from tests.model.harness import Engine, system, user

pytestmark = pytest.mark.model

SYSTEM: Final = system(words(300, seed=1))
PAGE: Final = 4096


def settings(model: Path, kind: str = "f16", kind_v: str | None = None, **more: int) -> EngineSettings:
    return EngineSettings(
        str(model),
        context_tokens=more.get("context_tokens", 2048),
        kv_type_k=kind,
        kv_type_v=kind_v or kind,
        ram_limit="1GiB",
    )


def check_blocks(engine: Engine, wanted: EngineSettings) -> None:
    """What RAM holds of the one chat asked is what the arithmetic says, but for a page a block."""
    shape = engine.info.shape
    assert shape is not None
    host = engine.snapshot().host
    planned = needs(
        shape,
        wanted.kv_type_k,
        wanted.kv_type_v,
        Load(1, host.tokens),
        block_tokens=engine.block_tokens,
        num_slots=wanted.num_slots,
        batch_tokens=wanted.batch_tokens,
    )
    assert host.blocks > 2
    assert abs(planned.ram_bytes - host.bytes) <= PAGE * host.blocks


@pytest.mark.parametrize(("name", "kib"), [("smollm2", 22.5), ("gemma3", 18.0)])
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_bytes_of_a_token_are_those_of_the_blocks_seen(
    name: str, kib: float, kind: str, request: pytest.FixtureRequest, start_engine: StartEngine
) -> None:
    wanted = settings(request.getfixturevalue(name), kind)
    engine = start_engine(wanted)
    info = engine.info
    assert info.shape is not None
    assert info.shape.numbers == info.shape.heads.numbers_per_token, "layers × heads × sizes"
    assert info.kv_bytes_per_token == kib * 1024 * KV_TYPES[kind].bytes_per_number / 2
    assert info.state_bytes == 0
    engine.ask("a", [SYSTEM, user("Name a tea.")])
    assert engine.snapshot().bytes_per_token == pytest.approx(info.kv_bytes_per_token, rel=0.02)
    check_blocks(engine, wanted)


def test_a_windows_share_is_known(gemma3: Path, probe_dir: Path) -> None:
    shape = examine(settings(gemma3), probe_dir, lambda _stage, _fraction: None).found.shape
    assert (shape.window, shape.window_numbers) == (512, 15 * 512)


@pytest.mark.parametrize("kind", sorted(KV_TYPES))
def test_every_type_runs_and_is_restored(kind: str, lfm2: Path, start_engine: StartEngine) -> None:
    wanted = settings(lfm2, kind)
    engine = start_engine(wanted)
    messages = [SYSTEM, user("Name a tea.")]
    cold = engine.ask("a", messages)
    warm = engine.ask("b", messages)
    assert warm.reused >= engine.block_tokens
    assert warm.tokens == cold.tokens
    assert engine.info.kv_bytes_per_token == 256 * KV_TYPES[kind].bytes_per_number
    assert engine.info.state_bytes > 0


def test_keys_and_values_may_differ(smollm2: Path, start_engine: StartEngine) -> None:
    wanted = settings(smollm2, "q8_0", "q4_0")
    engine = start_engine(wanted)
    engine.ask("a", [SYSTEM, user("Name a tea.")])
    assert engine.info.shape is not None
    assert engine.info.shape.numbers == 11_520
    check_blocks(engine, wanted)


def test_the_table_of_types_is_llama_cpps() -> None:
    assert set(llama.GGML_TYPES) == set(KV_TYPES)


@pytest.mark.parametrize("kind", ["q8_0", "iq4_nl"])
def test_heads_that_a_type_cannot_hold_are_refused_in_one_sentence(
    kind: str, narrow: Path, probe_dir: Path
) -> None:
    # The file gives its KV heads by layer, but the size of a head is known.
    with pytest.raises(SamovarError, match=f"heads have 16 numbers, which {kind} cannot hold"):
        load(settings(narrow, kind), probe_dir, lambda _stage, _fraction: None)
    fits = examine(settings(narrow), probe_dir, lambda _stage, _fraction: None)
    assert fits.found.bytes_per_token > 0


@pytest.mark.parametrize("name", ["smollm2", "gemma3", "lfm2", "mamba"])
def test_memory_is_checked_against_what_llama_cpp_takes(
    name: str, request: pytest.FixtureRequest, probe_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp tells the sizes of its buffers in its log alone."""
    wanted = settings(request.getfixturevalue(name), context_tokens=6144)
    known = examine(wanted, probe_dir, lambda _stage, _fraction: None)
    lines: list[str] = []
    listen = C.llama_log_callback(lambda _level, line, _data: lines.append(line.decode()))
    usual = llama._log_callback
    monkeypatch.setattr(llama, "_log_callback", listen)
    try:
        loaded = load(wanted, probe_dir, lambda _stage, _fraction: None)
        loaded.backend.close()
    finally:
        C.llama_log_set(usual, ctypes.c_void_p(0))
    taken = sum(
        float(found[1]) for found in re.finditer(r"(?:KV|RS) buffer size = +([\d.]+) MiB", "".join(lines))
    )
    need = context_need(known.found, 6144, wanted.num_slots, wanted.batch_tokens)
    assert taken > 0
    assert need / 2**20 == pytest.approx(taken, rel=0.02, abs=0.05)
    shape = known.found.shape
    assert bytes_per_token(shape, "f16", "f16") == loaded.info.kv_bytes_per_token
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(loaded.info), type=type(loaded.info)) == loaded.info
