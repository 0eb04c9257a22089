"""The parts of messages that somebody is near, and the lines of those that somebody looks at. Pure.

Both are bounded: a chat is read in one place at a time, and every object that lives long is one more that the
garbage collector goes over, which in a chat of 10,000 messages stops the screen for longer than drawing it.
"""

from collections import OrderedDict
from typing import Final

from samovar.tui.widgets.transcript.blocks import Block
from samovar.tui.widgets.transcript.page import Line

MAX_ITEMS: Final = 150
MAX_LINES: Final = 800
_MIN_PARTS: Final = 50  # what is in view stays, however long its parts are


class Part:
    """A heading (`block` is None) or a block, with its height and, while they are kept, its lines."""

    __slots__ = ("block", "exact", "height", "lines", "with_cursor")

    def __init__(self, block: Block | None, height: int, *, exact: bool = False) -> None:
        self.block = block
        self.height = height
        self.exact = exact
        self.lines: list[Line] | None = None
        self.with_cursor = False


class Parts:
    """Keeps parts by the index of their item, and lines by their part; the least used are let go."""

    def __init__(self) -> None:
        self._of_item: OrderedDict[int, list[Part]] = OrderedDict()
        self._heights: dict[int, tuple[int, ...]] = {}
        """The heights of the parts of items that were measured and let go."""
        self._with_lines: OrderedDict[Part, None] = OrderedDict()
        self._num_lines = 0

    def get(self, index: int) -> list[Part] | None:
        """Return the parts of an item, None if they are not kept."""
        parts = self._of_item.get(index)
        if parts is not None:
            self._of_item.move_to_end(index)
        return parts

    def heights_of(self, index: int) -> tuple[int, ...] | None:
        """Return the heights of the parts of an item, None if some are not known."""
        parts = self._of_item.get(index)
        if parts is None:
            return self._heights.get(index)
        return tuple([part.height for part in parts]) if all(part.exact for part in parts) else None

    def put(self, index: int, parts: list[Part]) -> None:
        """Keep the parts of an item."""
        self._heights.pop(index, None)
        self._of_item[index] = parts
        self._of_item.move_to_end(index)
        while len(self._of_item) > MAX_ITEMS:
            self._let_go(next(iter(self._of_item)))

    def drop(self, index: int) -> None:
        """Forget all about an item."""
        for part in self._of_item.pop(index, ()):
            self.drop_lines(part)
        self._heights.pop(index, None)

    def drop_all(self) -> None:
        """Forget all about every item."""
        self._of_item.clear()
        self._heights.clear()
        self.drop_all_lines()

    def touch(self, part: Part) -> None:
        """Say that the lines of a part are being used."""
        self._with_lines.move_to_end(part)

    def put_lines(self, part: Part, lines: list[Line]) -> None:
        """Keep the lines of a part."""
        self.drop_lines(part)
        part.lines = lines
        self._with_lines[part] = None
        self._num_lines += len(lines)
        while self._num_lines > MAX_LINES and len(self._with_lines) > _MIN_PARTS:
            self.drop_lines(next(iter(self._with_lines)))

    def drop_lines(self, part: Part) -> None:
        """Let the lines of a part go."""
        if part in self._with_lines:
            del self._with_lines[part]
            self._num_lines -= len(part.lines or ())
            part.lines = None

    def drop_all_lines(self) -> None:
        """Let all lines go."""
        for part in self._with_lines:
            part.lines = None
        self._with_lines.clear()
        self._num_lines = 0

    def _let_go(self, index: int) -> None:
        heights = self.heights_of(index)
        self.drop(index)
        if heights is not None:
            self._heights[index] = heights
