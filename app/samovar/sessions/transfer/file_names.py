"""Names for exported files, made of titles that may hold anything. Pure."""

import re
import unicodedata
from collections.abc import Container
from typing import Final

from samovar.core.safe_text import clean

_MAX_BYTES: Final = 160  # a file system takes 255, with a number and an ending
_UNTITLED: Final = "untitled chat"
# Of paths, of shells' patterns and of other systems; pictures of control characters are what `clean` makes.
_REPLACED: Final = re.compile(r'[/\\:*?"<>|\u2400-\u2421]+')


def file_stem(title: str) -> str:
    """The title as a file name without ending: one line, no separators, no leading dot or dash."""
    text = unicodedata.normalize("NFC", _REPLACED.sub(" ", clean(title)))
    printable = "".join(char for char in text if char.isprintable() or char.isspace())
    stem = " ".join(printable.split()).lstrip(".-~ ")
    stem = stem.encode()[:_MAX_BYTES].decode(errors="ignore").rstrip(". ")
    return stem or _UNTITLED


def unused(stem: str, suffix: str, used: Container[str]) -> str:
    """`stem.suffix`, or `stem (2).suffix` and so on where that is used; `used` holds casefolded names."""
    number = 1
    name = f"{stem}.{suffix}"
    while name.casefold() in used:
        number += 1
        name = f"{stem} ({number}).{suffix}"
    return name
