"""Knows which line of the chat is where, and renders only what somebody looks at.

Pure (no Textual widgets); used by the view in the UI thread. An item is an entry; its parts are its heading
and its blocks. A part that nobody has looked at has a guessed height. Callers hold on to an `Anchor` and ask
for its line again after heights have become known, so what is on screen stays where it is.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from rich.segment import Segment

from samovar.core.safe_text import clean
from samovar.tui.widgets.transcript.blocks import Block, Kind, resume, split
from samovar.tui.widgets.transcript.entry import Entry
from samovar.tui.widgets.transcript.page import Line, Page
from samovar.tui.widgets.transcript.render import estimate_height, render_block, render_heading, with_cursor

MAX_KEPT_LINES = 4_000


class Anchor(NamedTuple):
    """A line of the chat that keeps its meaning while heights change."""

    item: int
    part: int
    offset: int


class Part:
    """A heading (`block` is None) or a block, with its height and, while they are kept, its lines."""

    __slots__ = ("block", "exact", "height", "lines", "with_cursor")

    def __init__(self, block: Block | None, height: int, *, exact: bool = False) -> None:
        self.block = block
        self.height = height
        self.exact = exact
        self.lines: list[Line] | None = None
        self.with_cursor = False


class Item:
    """An entry and its parts; `parts` is empty until somebody comes near."""

    __slots__ = ("entry", "height", "parts")

    def __init__(self, entry: Entry, height: int) -> None:
        self.entry = entry
        self.height = height
        self.parts: list[Part] = []

    @property
    def is_exact(self) -> bool:
        return bool(self.parts) and all(part.exact for part in self.parts)

    @property
    def is_markdown(self) -> bool:
        return self.entry.role == "assistant"

    @property
    def blocks(self) -> list[Block]:
        return [part.block for part in self.parts if part.block is not None]


class Layout:
    """The items of one chat on one page."""

    def __init__(self, page: Page, entries: Sequence[Entry] = ()) -> None:
        self.page = page
        self.items = [Item(entry, self._guess(entry)) for entry in entries]
        self.note: list[Line] = []
        self._starts: list[int] = [0]
        self._kept: OrderedDict[Part, None] = OrderedDict()
        self._num_kept_lines = 0

    # -- where things are

    @property
    def height(self) -> int:
        """The number of lines of the whole chat."""
        return self.start(len(self.items)) + len(self.note)

    def start(self, index: int) -> int:
        """Return the first line of an item."""
        starts = self._starts
        if len(starts) <= index:
            heights = [item.height for item in self.items[len(starts) - 1 :]]
            starts[-1:] = accumulate(heights, initial=starts[-1])
        return starts[index]

    def item_at(self, y: int) -> int:
        """Return the index of the item that line `y` belongs to; the number of items after the end."""
        low, high = 0, len(self.items)
        self.start(high)
        while low < high:
            middle = (low + high) // 2
            if self._starts[middle + 1] <= y:
                low = middle + 1
            else:
                high = middle
        return low

    def anchor_at(self, y: int) -> Anchor:
        """Return the anchor of line `y`."""
        index = self.item_at(max(0, y))
        if index == len(self.items):
            return Anchor(index, 0, max(0, y - self.start(index)))
        offset = max(0, y) - self.start(index)
        for number, part in enumerate(self.parts_of(index)):
            if offset < part.height:
                return Anchor(index, number, offset)
            offset -= part.height
        return Anchor(index, len(self.items[index].parts) - 1, max(0, self.items[index].parts[-1].height - 1))

    def line_of(self, anchor: Anchor) -> int:
        """Return the line where an anchor is now."""
        if anchor.item >= len(self.items):
            return self.start(len(self.items)) + anchor.offset
        parts = self.parts_of(anchor.item)
        number = min(anchor.part, len(parts) - 1)
        before = sum([part.height for part in parts[:number]])
        return self.start(anchor.item) + before + min(anchor.offset, max(0, parts[number].height - 1))

    # -- rendering

    def settle(self, anchor: Anchor, above: int, below: int) -> None:
        """Make heights exact for so many lines above and below an anchor."""
        for index, part in self._walk(anchor, 1):
            self.measure(index, part)
            below -= part.height
            if below + anchor.offset < 0:
                break
        for index, part in self._walk(anchor, -1):
            self.measure(index, part)
            above -= part.height
            if above < 0:
                break

    def settle_end(self, num_lines: int) -> None:
        """Make heights exact for so many lines at the end."""
        if self.items:
            index = len(self.items) - 1
            self.settle(Anchor(index, len(self.parts_of(index)) - 1, 0), num_lines, 0)

    def measure(self, index: int, part: Part, *, keep: bool = True) -> list[Line] | None:
        """Render a part if its height is not known yet, and correct the heights."""
        if part.exact:
            return part.lines
        lines = self._render(index, part)
        self._set_height(index, part, len(lines))
        if keep:
            self._keep(part, lines)
        return lines

    def measure_again(self, index: int, part: Part) -> None:
        """Render a part again after its entry changed."""
        self._correct(index, -part.height)
        self._put(index, part, part.lines, self._render(index, part))
        self._correct(index, part.height)

    def measure_item(self, index: int, until: float) -> bool:
        """Make an item's height exact, without keeping its lines; return False if `until` comes first."""
        for part in self.parts_of(index):
            if not part.exact:
                self.measure(index, part, keep=False)
                if time.perf_counter() > until:
                    return False
        return True

    def line(self, y: int) -> Line | None:
        """Return line `y`, or None after the end."""
        index = self.item_at(y)
        if index == len(self.items):
            after = y - self.start(index)
            return self.note[after] if after < len(self.note) else None
        offset = y - self.start(index)
        for part in self.parts_of(index):
            if offset < part.height:
                lines = self.lines_of(index, part)
                return lines[offset] if offset < len(lines) else self.page.blank()
            offset -= part.height
        return None

    def lines_of(self, index: int, part: Part) -> list[Line]:
        """Return the lines of a part, rendered again if they were not kept."""
        if part.lines is None:
            lines = self._render(index, part)
            self._set_height(index, part, len(lines))
            self._keep(part, lines)
            return lines
        self._kept.move_to_end(part)
        return part.lines

    def lines_of_item(self, index: int) -> Iterator[Line]:
        """Return every line of an item."""
        for part in self.parts_of(index):
            yield from self.lines_of(index, part)

    # -- changes

    def turn_page(self, page: Page) -> None:
        """Go on with another width or palette; heights are kept as guesses if the width is another one."""
        rewrapped = page.text_width != self.page.text_width
        self.page = page
        while self._kept:
            self._forget_oldest()
        for item in self.items:
            if rewrapped:
                if item.parts:
                    for part in item.parts[1:]:
                        part.exact = False
                        part.height = max(
                            1, estimate_height(part.block.text, page.text_width) + 1 if part.block else 1
                        )
                    item.height = sum([part.height for part in item.parts])
                else:
                    item.height = self._guess(item.entry)
            for part in item.parts:
                part.lines = None
        self._starts = [0]

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self.items.append(Item(entry, self._guess(entry)))

    def replace(self, index: int, entry: Entry) -> None:
        """Give an item another entry; blocks that stay the same keep their lines."""
        item = self.items[index]
        item.entry = entry
        if item.parts:
            blocks = split(clean(entry.text), markdown=item.is_markdown)
            self._set_parts(index, blocks, growing=False)

    def grow(self, index: int, text: str) -> int:
        """Show `text` (clean, longer than before) and a cursor as the text of a growing item.

        Return the first line that changed, counted from the start of the item.
        """
        item = self.items[index]
        return self._set_parts(index, resume(text, item.blocks, markdown=item.is_markdown), growing=True)

    def set_note(self, text: str | None) -> None:
        """Set the line after the last entry."""
        if text is None:
            self.note = []
            return
        room = self.page.text_width
        shown = clean(text).replace("\n", " ")[:room]
        segment = Segment(shown, self.page.styles.faint)
        self.note = [self.page.line([segment], segment.cell_length)]

    # -- inside

    def _guess(self, entry: Entry) -> int:
        return 3 + estimate_height(entry.text, self.page.text_width)

    def parts_of(self, index: int) -> list[Part]:
        """Return the parts of an item, its blocks found if nobody had looked at it."""
        item = self.items[index]
        if not item.parts:
            blocks = split(clean(item.entry.text), markdown=item.is_markdown)
            heading = len(render_heading(self.page, item.entry))
            width = self.page.text_width
            item.parts = [Part(None, heading, exact=True)]
            item.parts += [Part(block, estimate_height(block.text, width) + 1) for block in blocks]
            self._correct(index, sum([part.height for part in item.parts]) - item.height)
        return item.parts

    def _walk(self, anchor: Anchor, step: int) -> Iterator[tuple[int, Part]]:
        """Go over the parts from an anchor on: down with it, or up from the one before it."""
        index, number = anchor.item, anchor.part
        if index >= len(self.items):
            if step > 0 or not self.items:
                return
            index = len(self.items) - 1
            number = len(self.parts_of(index))
        if step < 0:
            number -= 1
        while 0 <= index < len(self.items):
            parts = self.parts_of(index)
            if 0 <= number < len(parts):
                yield index, parts[number]
                number += step
            else:
                index += step
                number = 0 if step > 0 else len(self.parts_of(index)) - 1 if index >= 0 else 0

    def _render(self, index: int, part: Part) -> list[Line]:
        item = self.items[index]
        if part.block is None:
            return render_heading(self.page, item.entry)
        lines = render_block(self.page, part.block, item.entry.role, leading=part is item.parts[1])
        if part.with_cursor:
            lines = with_cursor(self.page, lines, in_code=part.block.kind is Kind.CODE)
        return lines

    def _set_parts(self, index: int, blocks: list[Block], *, growing: bool) -> int:
        """Replace the blocks of an item; return the first line that changed."""
        item = self.items[index]
        old = item.parts
        heading = render_heading(self.page, item.entry)
        parts = [old[0] if old else Part(None, len(heading), exact=True)]
        changed = -1
        if parts[0].lines != heading:
            changed = self._put(index, parts[0], parts[0].lines, heading)
        if not blocks and growing:
            blocks = [Block(Kind.PLAIN, "", 0)]
        top = parts[0].height
        for number, block in enumerate(blocks, 1):
            before = old[number] if number < len(old) else None
            grows = growing and number == len(blocks)
            if before is not None and before.block == block and not before.with_cursor and not grows:
                parts.append(before)
                top += before.height
                continue
            part = Part(block, 0)
            part.with_cursor = grows
            parts.append(part)
            item.parts = parts
            first = self._put(index, part, before.lines if before else None, self._render(index, part))
            if changed < 0 and (first < part.height or before is None or before.height != part.height):
                changed = top + first
            top += part.height
        for part in old[len(parts) :]:
            self._forget(part)
        if changed < 0:
            changed = top
        item.parts = parts
        self._correct(index, top - item.height)
        return changed

    def _put(self, index: int, part: Part, before: list[Line] | None, lines: list[Line]) -> int:
        """Give a part its lines; those that are as before stay the same objects."""
        first = len(lines)
        for number, (old, new) in enumerate(zip(before or (), lines, strict=False)):
            if old.strip == new.strip and old[1:] == new[1:]:
                lines[number] = old
            else:
                first = min(first, number)
        part.height, part.exact = len(lines), True
        self._keep(part, lines)
        return min(first, len(before or ()))

    def _set_height(self, index: int, part: Part, height: int) -> None:
        delta = height - part.height
        part.height, part.exact = height, True
        self._correct(index, delta)

    def _correct(self, index: int, delta: int) -> None:
        if delta:
            self.items[index].height += delta
            del self._starts[index + 1 :]

    def _keep(self, part: Part, lines: list[Line]) -> None:
        self._forget(part)
        part.lines = lines
        self._kept[part] = None
        self._num_kept_lines += len(lines)
        while self._num_kept_lines > MAX_KEPT_LINES and len(self._kept) > 50:
            self._forget_oldest()

    def _forget(self, part: Part) -> None:
        if part in self._kept:
            del self._kept[part]
            self._num_kept_lines -= len(part.lines or ())
            part.lines = None

    def _forget_oldest(self) -> None:
        self._forget(next(iter(self._kept)))
