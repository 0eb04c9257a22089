"""The part of a message that shows why it was found. Pure."""

import bisect
import itertools
from collections.abc import Iterator
from typing import Final

import msgspec

from samovar.sessions.query import Phrase, haystack
from samovar.sessions.words import Word, words_of

MAX_CHARS: Final = 160
_CHUNK: Final = 1200  # characters
_OVERLAP: Final = 300
_MAX_CHUNKS: Final = 200
_MAX_MATCHING: Final = 4  # chunks with a match that are looked into
_ELLIPSIS: Final = "…"


class Part(msgspec.Struct, frozen=True):
    """A piece of a snippet."""

    text: str
    is_match: bool = False


class _Span(msgspec.Struct, frozen=True):
    """A match of the phrase with this number."""

    start: int
    end: int
    phrase: int


class _Found(msgspec.Struct, frozen=True):
    """The matches in a chunk whose text, spaces collapsed, is `text`."""

    text: str
    spans: list[_Span]
    is_first: bool
    is_last: bool


def make_snippet(content: str, phrases: tuple[Phrase, ...]) -> tuple[Part, ...]:
    """About `MAX_CHARS` characters around the place where most of the phrases stand, spaces collapsed.

    Without a match in the first 180,000 characters it is the beginning. The text is not made harmless:
    whoever draws it does that.
    """
    best = _Found("", [], is_first=True, is_last=True)
    best_phrases = num_matching = 0
    for chunk, is_first, is_last in _chunks(content):
        folded = haystack(chunk)
        if not any(phrase.needle() in folded for phrase in phrases):
            continue
        text = " ".join(chunk.split())
        spans = _spans(text, phrases, is_first=is_first, is_last=is_last)
        num_phrases = len({span.phrase for span in _best_cluster(spans)})
        if num_phrases > best_phrases:
            best, best_phrases = _Found(text, spans, is_first, is_last), num_phrases
        num_matching += bool(spans)
        if num_phrases == len(phrases) or num_matching == _MAX_MATCHING:
            break
    if not best.spans:
        text = " ".join(content[: 4 * MAX_CHARS].split())
        is_cut = len(content) > 4 * MAX_CHARS or len(text) > MAX_CHARS
        text = text[:MAX_CHARS].rstrip()
        return (Part(text + _ELLIPSIS * is_cut),) if text else ()
    return _cut(best)


def _chunks(content: str) -> Iterator[tuple[str, bool, bool]]:
    """Pieces that overlap, each with whether it is the first and the last one."""
    for number in range(_MAX_CHUNKS):
        start = number * (_CHUNK - _OVERLAP)
        is_last = start + _CHUNK >= len(content)
        yield content[start : start + _CHUNK], number == 0, is_last
        if is_last:
            return


def _spans(text: str, phrases: tuple[Phrase, ...], *, is_first: bool, is_last: bool) -> list[_Span]:
    """All matches in the text in order. A word that the edge of a chunk may have cut is none."""
    words = list(words_of(text))
    words = words[0 if is_first else 1 : None if is_last else -1]
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word.text, []).append(place)
    spans = [
        _Span(words[place].start, words[place + len(phrase.words) - 1].end, number)
        for number, phrase in enumerate(phrases)
        for place in _starts(phrase, words, places)
    ]
    return sorted(spans, key=lambda span: (span.start, -span.end))


def _starts(phrase: Phrase, words: list[Word], places: dict[str, list[int]]) -> Iterator[int]:
    """Where the phrase begins, as places in `words`."""
    *before, last = phrase.words
    if before:
        starts = places.get(before[0], [])
    elif phrase.is_open:
        starts = sorted(itertools.chain.from_iterable(p for w, p in places.items() if w.startswith(last)))
    else:
        starts = places.get(last, [])
    for start in starts:
        end = start + len(before)
        if end < len(words) and all(words[start + n].text == word for n, word in enumerate(before)):
            found = words[end].text
            if found == last or (phrase.is_open and found.startswith(last)):
                yield start


def _best_cluster(spans: list[_Span]) -> list[_Span]:
    """The spans within `MAX_CHARS` characters that hold the most phrases, then the most matches."""
    starts = [span.start for span in spans]
    best: list[_Span] = []
    best_rank = (0, 0)
    for first, span in enumerate(spans):
        inside = spans[first : bisect.bisect_right(starts, span.start + MAX_CHARS * 3 // 4)]
        rank = (len({one.phrase for one in inside}), len(inside))
        if rank > best_rank:
            best, best_rank = inside, rank
    return best


def _cut(found: _Found) -> tuple[Part, ...]:
    """The text around the best cluster as parts, cut at spaces where there are some."""
    text, cluster = found.text, _best_cluster(found.spans)
    margin = max(0, MAX_CHARS - (cluster[-1].end - cluster[0].start)) // 2
    start = max(0, min(cluster[0].start - margin, len(text) - MAX_CHARS))
    end = min(len(text), start + MAX_CHARS)
    if start > 0:
        space = text.find(" ", start, cluster[0].start)
        start = space + 1 if space >= 0 else start
    if end < len(text):
        space = text.rfind(" ", cluster[-1].end, end)
        end = space if space >= 0 else end
    parts: list[Part] = []
    if start > 0 or not found.is_first:
        parts.append(Part(_ELLIPSIS))
    pos = start
    for first, last in _merged(found.spans):
        if start <= first < end:
            if first > pos:
                parts.append(Part(text[pos:first]))
            pos = min(last, end)
            parts.append(Part(text[first:pos], is_match=True))
    if pos < end:
        parts.append(Part(text[pos:end]))
    if end < len(text) or not found.is_last:
        parts.append(Part(_ELLIPSIS))
    return tuple(parts)


def _merged(spans: list[_Span]) -> Iterator[tuple[int, int]]:
    """Where matches begin and end, those that overlap as one."""
    start = end = -1
    for span in spans:
        if span.start >= end:
            if end >= 0:
                yield start, end
            start, end = span.start, span.end
        end = max(end, span.end)
    if end >= 0:
        yield start, end
