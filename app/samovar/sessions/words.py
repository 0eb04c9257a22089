"""What a word is, for search: the same for the index, for a query and for the marks in a snippet. Pure.

`searchable` writes a text as folded words between spaces, and SQLite's `ascii` tokenizer splits it there:
every character beyond ASCII belongs to a word for it. So SQLite's tables of Unicode, which end with
version 6.1, do not matter. Folding looks at one character at a time, so places in a text stay known.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

import msgspec

# Scripts that are written without spaces, and pictures: every character is a word of its own, so that a part
# is found.
_ALONE: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2600-\u27bf\u2b00-\u2bff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U0001f000-\U0001f3fa\U0001f400-\U0001faff\U00020000-\U0003ffff]"
)
_ASCII_WORD: Final = re.compile("[0-9A-Za-z]+")
# Letters with a stroke and the like, which Unicode does not take apart; the Arabic line filler; skin tones.
_SPECIAL: Final = {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ı": "i", "\u0640": ""} | {
    chr(code): "" for code in range(0x1F3FB, 0x1F400)
}


class _Folding(dict[int, str]):
    """A table for `str.translate` that finds out what a character becomes when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = result = "".join(map(_folded, _decomposed(chr(code))))
        return result


def _decomposed(character: str) -> str:
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())


def _folded(character: str) -> str:
    """A character of a decomposed text as letters of a word, as a gap between words, or as nothing."""
    if character in _SPECIAL:
        return _SPECIAL[character]
    category = unicodedata.category(character)
    if unicodedata.combining(character) or category == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    if _ALONE.match(character):
        return f" {character} "
    if category == "Nd":
        return str(unicodedata.decimal(character))
    return character if category[0] in "LNM" else " "


_FOLDING: Final = _Folding()


class Word(msgspec.Struct, frozen=True):
    """A folded word and where it stands: `text[start:end]`."""

    text: str
    start: int
    end: int


def searchable(text: str) -> str:
    """The text as it is indexed and as a query for it is written: folded words between spaces."""
    return text.translate(_FOLDING)


def words_of(text: str) -> Iterator[Word]:
    """The words of the text in order, with their places: those of `searchable(text).split()`."""
    if text.isascii():  # the same, but faster
        for found in _ASCII_WORD.finditer(text):
            yield Word(found[0].lower(), *found.span())
        return
    letters: list[str] = []
    start = 0
    end = 0  # of the last letter
    for pos, character in enumerate(text):
        for letter in _FOLDING[ord(character)]:
            if letter != " ":
                if not letters:
                    start = pos
                letters.append(letter)
                end = pos + 1
            elif letters:
                yield Word("".join(letters), start, _with_marks(text, end))
                letters.clear()
    if letters:
        yield Word("".join(letters), start, _with_marks(text, end))


def _with_marks(text: str, end: int) -> int:
    """The end of a word with what belongs to its last letter."""
    while end < len(text) and not _FOLDING[ord(text[end])]:
        end += 1
    return end
