"""Finds chats by a few letters of their titles and tags, over 20,000 of them between two keys. Pure.

All texts lie in one string, line by line, the most recent chat first, and are searched as one: what would be
20,000 calls is a few. The best kind of fit is looked for first, and the search ends when there is enough.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

MAX_FOUND: Final = 200
_MAX_TEXT: Final = 200  # characters of a title that count
_MAX_GAP: Final = 8  # characters between two letters: what is further apart is chance
_MAX_SPREAD: Final = 2000  # of those with their letters spread out that are compared


class Findable(msgspec.Struct, frozen=True):
    """A chat as it is looked for."""

    id: str
    title: str
    tags: tuple[str, ...] = ()


class ChatFinder:
    """Takes the chats with the most recent first: of two that fit as well, that one comes first."""

    def __init__(self, chats: Iterable[Findable]) -> None:
        self._ids: list[str] = []
        self._starts: list[int] = []  # where the line of each chat begins, with its "\n "
        self._lines: list[str] = []
        pos = 0
        for chat in chats:
            text = f"{chat.title[:_MAX_TEXT]} {' '.join(chat.tags)}" if chat.tags else chat.title[:_MAX_TEXT]
            line = "\n " + text.casefold().replace("\n", " ")
            self._ids.append(chat.id)
            self._lines.append(line)
            self._starts.append(pos)
            pos += len(line)
        self._all = "".join(self._lines)

    def find(self, query: str) -> list[str]:
        """The ids of the best chats, at most `MAX_FOUND`; the most recent ones where the query is empty.

        Best is a text that begins with the longest word, then one with a word that begins so, then one that
        has it anywhere; the others may stand anywhere. Then come initials, and letters that are spread out.
        """
        words = sorted((word.lstrip("#") for word in query.casefold().split()), key=len, reverse=True)
        words = [word for word in words if word]
        if not words:
            return self._ids[:MAX_FOUND]
        first, *others = words
        found: dict[int, None] = {}
        for needle in (f"\n {first}", f" {first}", first):
            for place in self._places_of(needle):
                if all(word in self._lines[place] for word in others):
                    found[place] = None
                    if len(found) == MAX_FOUND:
                        return self._ids_of(found)
        for places in (self._with_initials(words), self._spread(words)):
            for place in places:
                found[place] = None
                if len(found) == MAX_FOUND:
                    return self._ids_of(found)
        return self._ids_of(found)

    def _ids_of(self, places: Iterable[int]) -> list[str]:
        return [self._ids[place] for place in places]

    def _place_at(self, pos: int) -> int:
        return bisect_right(self._starts, pos) - 1

    def _places_of(self, needle: str) -> Iterator[int]:
        """The chats with this in their lines."""
        pos = self._all.find(needle)
        while pos >= 0:
            place = self._place_at(pos)
            yield place
            pos = self._all.find(needle, self._starts[place] + len(self._lines[place]))

    def _with_initials(self, words: Sequence[str]) -> Iterator[int]:
        """The chats with words one after another that begin with the letters of the only word."""
        if len(words) == 1 and len(words[0]) > 1:
            initials = r"[^\n ]*+ ".join(map(re.escape, words[0]))
            for match in re.finditer(f" {initials}", self._all):
                yield self._place_at(match.start())

    def _spread(self, words: Sequence[str]) -> list[int]:
        """The chats that have the letters of every word in their order, not too far apart; closest first."""
        first, *others = [_letters_in_order(word) for word in words]
        lengths: dict[int, int] = {}
        for match in first.finditer(self._all):
            place = self._place_at(match.start())
            if all(pattern.search(self._lines[place]) for pattern in others):
                length = match.end() - match.start()
                lengths[place] = min(length, lengths.get(place, length))
                if len(lengths) == _MAX_SPREAD:
                    break
        return sorted(lengths, key=lambda place: (lengths[place], place))


def _letters_in_order(word: str) -> re.Pattern[str]:
    """Matches letters that come in order in one line; possessive, so that it never goes back."""
    first, *others = map(re.escape, word)
    return re.compile(first + "".join(f"[^\n{letter}]{{0,{_MAX_GAP}}}+{letter}" for letter in others))
