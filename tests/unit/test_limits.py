"""Limits as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.core.errors import SamovarError
from samovar.engine.limits import AUTO_FLOOR_BYTES, DISK_CEILING_BYTES, disk_limit, ram_limit, token_limit

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", (2 * GIB, False)),
        (" Unlimited ", (None, False)),
        ("off", (0, True)),
        ("0", (0, True)),
        ("2GiB", (2 * GIB, False)),
        ("4096", (4096, False)),
    ],
)
def test_ram_limits(text: str, expected: tuple[int | None, bool]) -> None:
    assert ram_limit(text, 8 * GIB) == expected


def test_auto_has_a_floor() -> None:
    assert ram_limit("auto", 1) == (AUTO_FLOOR_BYTES, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("auto", (None, False)), ("OFF", (0, True)), ("100,000", (100_000, False)), ("10_000", (10_000, False))],
)
def test_token_limits(text: str, expected: tuple[int | None, bool]) -> None:
    assert token_limit(text) == expected


@given(st.text(max_size=8) | st.integers().map(str) | st.sampled_from(["²", "٣٣", "9" * 5000, "-1", "1e3"]))
def test_other_texts_are_refused_in_words(text: str) -> None:
    try:
        tokens, _ = token_limit(text)
        size, _ = ram_limit(text, GIB)
    except SamovarError:
        return
    assert tokens is None or tokens >= 0
    assert size is None or size >= 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("auto", 2 * GIB), ("off", 0), (" OFF ", 0), ("0", 0), ("8GiB", 8 * GIB), ("4096", 4096)],
)
def test_disk_limits(text: str, expected: int) -> None:
    assert disk_limit(text, 8 * GIB, 2 * GIB) == expected


def test_auto_takes_no_more_of_a_disk_than_its_ceiling() -> None:
    assert disk_limit("auto", 10_000 * GIB, 0) == DISK_CEILING_BYTES


@pytest.mark.parametrize("text", ["plenty", "unlimited", "", "-1"])
def test_what_is_no_disk_limit_is_told_with_what_is(text: str) -> None:
    with pytest.raises(SamovarError, match=r"8GiB.*auto.*off"):
        disk_limit(text, GIB, 0)
