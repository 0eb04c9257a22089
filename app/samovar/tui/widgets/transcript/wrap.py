"""Breaks styled text into lines of a given width in terminal cells. Pure."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, get_character_cell_size
from rich.segment import Segment
from rich.style import Style

Span = tuple[str, Style]

_WORD = re.compile(r"\S+|\s+")
_JOINER = "\u200d"


class Row(NamedTuple):
    """One line of wrapped text. `joint` is what stood between it and the next one in the text."""

    segments: list[Segment]
    cells: int
    joint: str


def wrap(spans: Sequence[Span], width: int) -> list[Row]:
    """Break at spaces, long words anywhere; line breaks in the text stay."""
    width = max(2, width)
    text = "".join([span[0] for span in spans])
    rows: list[Row] = []
    cursor = _Cursor(spans)
    pos = 0
    for line in text.split("\n"):
        for start, end, joint in _breaks(line, width):
            segments = cursor.take(pos + start, pos + end)
            rows.append(Row(segments, cell_len(line[start:end]), joint))
        pos += len(line) + 1
    return rows


def fold(spans: Sequence[Span], width: int) -> list[Row]:
    """Break one line of code wherever it is full; every space stays."""
    text = "".join([span[0] for span in spans])
    if cell_len(text) <= width:
        return [Row([Segment(part, style) for part, style in spans], cell_len(text), "\n")]
    cursor = _Cursor(spans)
    ends = [*_folds(text, width, width), len(text)]
    starts = [0, *ends[:-1]]
    return [
        Row(cursor.take(start, end), cell_len(text[start:end]), "" if end < len(text) else "\n")
        for start, end in zip(starts, ends, strict=True)
    ]


class _Cursor:
    """Cuts spans at growing offsets, going over them once."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        self.index = 0
        self.offset = 0
        """Where the span at `index` begins in the text."""

    def take(self, start: int, end: int) -> list[Segment]:
        segments: list[Segment] = []
        while self.index < len(self.spans):
            text, style = self.spans[self.index]
            after = self.offset + len(text)
            if after > start and self.offset < end:
                segments.append(Segment(text[max(0, start - self.offset) : end - self.offset], style))
            if after > end:
                break
            self.offset = after
            self.index += 1
        return segments


def _breaks(line: str, width: int) -> Iterator[tuple[int, int, str]]:
    """Yield start and end of each row of one line, and its joint; spaces at a break belong to no row."""
    if cell_len(line) <= width:
        yield 0, len(line.rstrip()), "\n"
        return
    start = end = column = 0
    for match in _WORD.finditer(line):
        word = match.group()
        cells = cell_len(word)
        if word.isspace() and start < match.start():
            column += cells
            continue
        if column + cells <= width:
            column += cells
            end = match.end()
            continue
        if cells > width:
            # A word that no row can hold is broken where the row is full.
            base = match.start()
            if column >= width - 1:
                yield start, end, " "
                start, column = base, 0
            for cut in _folds(word, width - column, width):
                yield start, base + cut, ""
                start, column = base + cut, 0
            column = cell_len(line[start : match.end()])
        else:
            yield start, end, " "
            start, column = match.start(), cells
        end = match.end()
    yield start, max(start, end), "\n"


def _folds(text: str, first: int, width: int) -> Iterator[int]:
    """Yield the offsets at which `text` is cut into pieces of `first`, `width`, `width`, … cells."""
    room = first
    if text.isascii():
        pos = room
        while pos < len(text):
            yield pos
            pos += width
        return
    column = 0
    previous = ""
    for offset, character in enumerate(text):
        cells = 0 if previous == _JOINER else get_character_cell_size(character)
        if column + cells > room and offset:
            yield offset
            column, room = 0, width
        column += cells
        previous = character
