"""Alt and a digit as a key of its own, in terminals that send Escape and the digit."""

import enum
from typing import Any, Final, cast

from textual import _ansi_sequences

AltDigit = enum.Enum(
    "AltDigit",
    [
        ("ONE", "alt+1"),
        ("TWO", "alt+2"),
        ("THREE", "alt+3"),
        ("FOUR", "alt+4"),
        ("FIVE", "alt+5"),
        ("SIX", "alt+6"),
        ("SEVEN", "alt+7"),
        ("EIGHT", "alt+8"),
        ("NINE", "alt+9"),
    ],
)
"""The key that Escape and a digit stand for: the parser wants members of an enumeration."""

ESCAPE: Final = "\x1b"


def make_alt_digits_keys() -> None:
    """Let Textual's parser take Escape and a digit as `alt+1`, not as what WezTerm on macOS means by it.

    Textual's table has `¡ ™ £ …` for these sequences. Where a keyboard types such a character, the terminal
    sends the character itself, which stays what it is.
    """
    table = cast(dict[str, Any], _ansi_sequences.ANSI_SEQUENCES_KEYS)
    for key in AltDigit:
        table[ESCAPE + key.value[-1]] = (key,)
