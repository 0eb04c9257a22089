"""What is told when a model does not fit or its probe crashes."""

import re
import signal

import pytest

from samovar.core.errors import SamovarError
from samovar.engine.probe import ProbeResult, check_memory, signal_name

MIB = 1024 * 1024


def test_advice_names_a_context_that_fits() -> None:
    found = ProbeResult(True, 1024.0, 0, 8192)
    with pytest.raises(SamovarError) as raised:
        check_memory(found, 8192, 8, 4 * MIB)
    advised = re.search(r"Set `context` to ([\d,]+) or less", str(raised.value))
    assert advised is not None
    check_memory(found, int(advised[1].replace(",", "")), 8, 4 * MIB)


@pytest.mark.parametrize("available", [0, 100_000, 9 * MIB])
def test_no_context_is_advised_where_none_fits(available: int) -> None:
    with pytest.raises(SamovarError) as raised:
        check_memory(ProbeResult(True, 1024.0, MIB, 8192), 8192, 8, available)
    assert "more memory than there is" in str(raised.value)
    assert "Set `context`" not in str(raised.value)


def test_every_signal_has_a_name() -> None:
    assert signal_name(signal.SIGILL) == "SIGILL"
    assert signal_name(99) == "signal 99"
