"""Selection of text in the chat. Pure.

Textual's selection counts lines from the top; those numbers would shift when heights become known. So a
line's key is its item's index and its line within that item, in one number that grows with both.
"""

from itertools import islice

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Offset
from textual.selection import Selection

from samovar.core.safe_text import clean
from samovar.tui.widgets.transcript.layout import Layout
from samovar.tui.widgets.transcript.page import Line

_SHIFT = 24
_MAX_RENDERED_ITEMS = 200


def key_of(layout: Layout, y: int) -> int:
    """Return the key of line `y`."""
    index = layout.item_at(y)
    return (index << _SHIFT) + y - layout.start(index)


def select(line: Line, span: tuple[int, int] | None, style: Style) -> list[Segment]:
    """Return a line with the characters of `span` (end -1: to the end) drawn as selected."""
    if span is None:
        return line.segments
    start, end = max(span[0], line.left), line.end if span[1] < 0 else min(span[1], line.end)
    if start >= end:
        return line.segments
    segments: list[Segment] = []
    pos = 0
    for text, base, _ in line.segments:
        first, last = max(0, start - pos), max(0, end - pos)
        for part, chosen in (
            (text[:first], False),
            (text[first:last], True),
            (text[max(first, last) :], False),
        ):
            if part:
                segments.append(Segment(part, (base + style if base else style) if chosen else base))
        pos += len(text)
    return segments


def selected_text(layout: Layout, selection: Selection) -> str:
    """Return the text between two keys; in a very long selection the middle is taken as written."""
    start = selection.start or Offset(0, 0)
    end = selection.end or Offset(1 << 30, ((len(layout.entries) - 1) << _SHIFT) + (1 << _SHIFT) - 1)
    first_item, first_line = divmod(start.y, 1 << _SHIFT)
    last_item, last_line = divmod(end.y, 1 << _SHIFT)
    last_item = min(last_item, len(layout.entries) - 1)
    pieces: list[str] = []
    for index in range(first_item, last_item + 1):
        if last_item - first_item > _MAX_RENDERED_ITEMS and first_item < index < last_item:
            pieces.append("\n" + clean(layout.entries[index].text) + "\n")
            continue
        low = first_line if index == first_item else 0
        high = last_line if index == last_item and end.y < 1 << 60 else 1 << _SHIFT
        for number, line in enumerate(islice(layout.lines_of_item(index), low, high + 1), low):
            left = max(line.left, start.x) if (index, number) == (first_item, first_line) else line.left
            right = min(line.end, end.x) if (index, number) == (last_item, last_line) else line.end
            pieces.append(line.text[left : max(left, right)] + line.joint)
    return "".join(pieces).strip("\n")


def word_at(line: Line, cell: int) -> tuple[int, int] | None:
    """Return the span of the word at a cell of a line, in characters."""
    text = line.text[: line.end]
    position = len(line.strip.crop(0, cell).text)
    if position >= line.end or position < line.left or text[position].isspace():
        return None
    start = end = position
    while start > line.left and not text[start - 1].isspace():
        start -= 1
    while end < line.end and not text[end].isspace():
        end += 1
    return start, end
