"""What untrusted text looks like after cleaning."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.core.safe_text import clean


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]52;c;aGk=\x07", "␛]52;c;aGk=␇"),
        ("a\x00b\x7f", "a␀b␡"),
        ("\x9b31m\x9d52\x9c", "31m52"),
        ("a\u202eb\u2066c\u200f", "abc"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("tab\tstays\n", "tab\tstays\n"),
        ("\ud800", "\ufffd"),
        ("\U000e0041hidden", "hidden"),
        ("👩\u200d👩\u200d👧 é e\u0301 日本 עברית", "👩\u200d👩\u200d👧 é e\u0301 日本 עברית"),
    ],
)
def test_clean(dirty: str, expected: str) -> None:
    assert clean(dirty) == expected


@given(st.text(st.characters()))
def test_no_control_character_is_left(text: str) -> None:
    result = clean(text)
    result.encode()
    assert not [c for c in result if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert clean(result) == result
