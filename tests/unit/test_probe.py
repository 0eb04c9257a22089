"""What is told when a model does not fit or its probe crashes."""

import re
import signal

import msgspec
import pytest

from samovar.core.errors import SamovarError
from samovar.core.kv_types import Heads
from samovar.core.settings import EngineSettings
from samovar.engine.probe import ChildReport, ProbeResult, check_memory, context_need, digest, signal_name

MIB = 1024 * 1024


@pytest.mark.parametrize("in_window", [0.0, 100.0, 700.0])
def test_advice_names_a_context_that_fits(in_window: float) -> None:
    found = ProbeResult(True, 1024.0, 0, 8192, window_bytes_per_token=in_window, window=64)
    with pytest.raises(SamovarError) as raised:
        check_memory(found, 16384, 8, 72, 4 * MIB)
    advised = re.search(r"Set `context` to ([\d,]+) or less", str(raised.value))
    assert advised is not None
    fits = int(advised[1].replace(",", ""))
    check_memory(found, fits, 8, 72, 4 * MIB)
    with pytest.raises(SamovarError):
        check_memory(found, fits * 5 // 4, 8, 72, 4 * MIB)


def test_layers_with_a_window_are_not_counted_at_full_length() -> None:
    """Gemma 3 270M: 3 layers see everything, 15 the last 512 tokens."""
    found = ProbeResult(True, 18 * 1024.0 + 24, 0, 32768, window_bytes_per_token=15 * 1024.0 + 12, window=512)
    need = context_need(found, 32768, 8, 72)
    assert need == (32768 * 3 + (512 * 9 + 72 + 184) * 15) * 1024
    check_memory(found, 32768, 8, 72, need)
    with pytest.raises(SamovarError):
        check_memory(found, 32768, 8, 72, need - 1)


def test_sizes_of_two_states_tell_what_other_types_take() -> None:
    """SmolLM2 as measured: 30 layers × 3 heads × 64 × 2, and 12 bytes a cell."""
    heads = Heads(30, 3, (64,), (64,))
    settings = EngineSettings("m.gguf")
    dense = digest(ChildReport("", 369_576, 1_107_240, heads=heads), settings, extra_bufts=True)
    assert dense.shape.numbers == heads.numbers_per_token == 11_520
    assert (dense.shape.cell_bytes, dense.shape.state_bytes, dense.shape.window_numbers) == (12, 0, 0)
    quantized = msgspec.structs.replace(settings, kv_type_k="q8_0", kv_type_v="q8_0")
    same = digest(ChildReport("", 196_776, 588_840, heads=heads), quantized, extra_bufts=True)
    assert same.shape == dense.shape
    hybrid = digest(ChildReport("", 12_668, 29_436, has_state=True), settings, extra_bufts=True)
    assert (hybrid.shape.numbers, hybrid.shape.state_bytes) == (256, 4284)
    recurrent = digest(ChildReport("", 77_948, 77_948, has_state=True), settings, extra_bufts=True)
    assert (recurrent.shape.numbers, recurrent.shape.state_bytes) == (0, 77_948)


@pytest.mark.parametrize("available", [0, 100_000, 9 * MIB])
def test_no_context_is_advised_where_none_fits(available: int) -> None:
    with pytest.raises(SamovarError) as raised:
        check_memory(ProbeResult(True, 1024.0, MIB, 8192), 8192, 8, 72, available)
    assert "more memory than there is" in str(raised.value)
    assert "Set `context`" not in str(raised.value)


def test_every_signal_has_a_name() -> None:
    assert signal_name(signal.SIGILL) == "SIGILL"
    assert signal_name(99) == "signal 99"
