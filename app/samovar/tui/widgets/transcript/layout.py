"""Knows which line of the chat is where, and renders only what somebody looks at.

Pure (no Textual widgets); used by the view in the UI thread. An item is an entry by its index; its parts are
its heading and its blocks. A part that nobody has looked at has a guessed height. Callers hold on to an
`Anchor` and ask for its line again after heights have become known, so what is on screen stays where it is.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from rich.segment import Segment

from samovar.core.safe_text import clean
from samovar.tui.widgets.transcript.blocks import Block, Kind, resume
from samovar.tui.widgets.transcript.entry import Entry
from samovar.tui.widgets.transcript.heading import hints_of, render_heading
from samovar.tui.widgets.transcript.heights import Heights
from samovar.tui.widgets.transcript.page import Line, Page
from samovar.tui.widgets.transcript.parts import Part, Parts
from samovar.tui.widgets.transcript.render import estimate_height, render_block, with_cursor
from samovar.tui.widgets.transcript.thoughts import MARKDOWN_ROLES, THOUGHT, answer, may_think, reply_blocks


class Anchor(NamedTuple):
    """A line of the chat that keeps its meaning while heights change."""

    item: int
    part: int
    offset: int


class Layout:
    """The entries of one chat on one page. `entries` is for reading: what changes them is below."""

    def __init__(self, page: Page, entries: Sequence[Entry] = ()) -> None:
        self.page = page
        self.entries = list(entries)
        self.note: list[Line] = []
        self.hinted: int | None = None
        """The item whose heading shows the keys of what can be done with it."""
        self.unfolded: set[tuple[str, int]] = set()
        """Files, and thinking, whose text is shown: the entry's id, and which one."""
        self._heights = Heights(self._guesses())
        self._parts = Parts()
        self._growing = ""  # the text of the item that grows

    # -- where things are

    @property
    def height(self) -> int:
        """The number of lines of the whole chat."""
        return self._heights.total + len(self.note)

    def start(self, index: int) -> int:
        """Return the first line of an item."""
        return self._heights.start(index)

    def item_at(self, y: int) -> int:
        """Return the index of the item that line `y` belongs to; the number of items after the end."""
        return self._heights.find(y)

    def is_exact(self, index: int) -> bool:
        """Whether the height of an item is known."""
        return self._parts.heights_of(index) is not None

    def lines_at(self, index: int) -> range:
        """Return the lines of an item without the empty one before it."""
        start = self.start(index)
        return range(start + 1, start + self._heights[index])

    def anchor_at(self, y: int) -> Anchor:
        """Return the anchor of line `y`."""
        index = self.item_at(max(0, y))
        if index == len(self.entries):
            return Anchor(index, 0, max(0, y - self.start(index)))
        offset = max(0, y) - self.start(index)
        for number, part in enumerate(self.parts_of(index)):
            if offset < part.height:
                return Anchor(index, number, offset)
            offset -= part.height
        parts = self.parts_of(index)
        return Anchor(index, len(parts) - 1, max(0, parts[-1].height - 1))

    def line_of(self, anchor: Anchor) -> int:
        """Return the line where an anchor is now."""
        if anchor.item >= len(self.entries):
            return self.start(len(self.entries)) + anchor.offset
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
        if self.entries:
            index = len(self.entries) - 1
            self.settle(Anchor(index, len(self.parts_of(index)) - 1, 0), num_lines, 0)

    def measure(self, index: int, part: Part, *, keep: bool = True) -> list[Line] | None:
        """Render a part if its height is not known yet, and correct the heights."""
        if part.exact:
            return part.lines
        lines = self._render(index, part)
        self._set_height(index, part, len(lines))
        if keep:
            self._parts.put_lines(part, lines)
        return lines

    def measure_item(self, index: int, until: float) -> bool:
        """Make an item's height exact, without keeping its lines; return False if `until` comes first."""
        if self.is_exact(index):
            return True
        for part in self.parts_of(index):
            if not part.exact:
                self.measure(index, part, keep=False)
                if time.perf_counter() > until:
                    return False
        return True

    def line(self, y: int) -> Line | None:
        """Return line `y`, or None after the end."""
        index = self.item_at(y)
        if index == len(self.entries):
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
            self._parts.put_lines(part, lines)
            return lines
        self._parts.touch(part)
        return part.lines

    def lines_of_item(self, index: int) -> Iterator[Line]:
        """Return every line of an item."""
        for part in self.parts_of(index):
            yield from self.lines_of(index, part)

    # -- changes

    def turn_page(self, page: Page) -> None:
        """Go on with another width or palette; what grows has to be grown again."""
        rewrapped = page.text_width != self.page.text_width
        self.page = page
        if rewrapped:
            self._parts.drop_all()
            self._heights = Heights(self._guesses())
        else:
            self._parts.drop_all_lines()

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self.entries.append(entry)
        self._heights.append(self._guess(entry))

    def truncate(self, num_entries: int) -> None:
        """Drop the entries after the first `num_entries`."""
        for index in range(num_entries, len(self.entries)):
            self._parts.drop(index)
        del self.entries[num_entries:]
        self._heights.truncate(num_entries)

    def replace(self, index: int, entry: Entry) -> None:
        """Give an item another entry; blocks that stay the same keep their lines."""
        self.entries[index] = entry
        if self._parts.get(index) is not None:
            self._set_parts(index, self._blocks_of(index), growing=False)
        else:
            self._parts.drop(index)
            self._correct(index, self._guess(entry) - self._heights[index])

    def set_meta(self, index: int, meta: tuple[tuple[str, str], ...]) -> None:
        """Change what stands behind the heading of an entry."""
        self.entries[index] = msgspec.structs.replace(self.entries[index], meta=meta)
        self._draw_heading(index)

    def set_hinted(self, index: int | None) -> None:
        """Show the keys of what can be done with this item, and no other's."""
        before, self.hinted = self.hinted, index
        if before != index:
            for item in (before, index):
                if item is not None and item < len(self.entries):
                    self._draw_heading(item)

    def fold(self, index: int, number: int, *, is_open: bool) -> None:
        """Show the text of a file, or only its name."""
        key = (self.entries[index].id, number)
        if is_open:
            self.unfolded.add(key)
        else:
            self.unfolded.discard(key)
        parts = self.parts_of(index)
        if number == THOUGHT:
            before = [part.block for part in parts if part.block is not None]
            growing = parts[-1].with_cursor
            text = self._growing if growing else clean(self.entries[index].text)
            self._set_parts(index, self._split(index, text, before, growing=growing), growing=growing)
        else:
            self._draw_heading(index)

    def is_unfolded(self, index: int) -> bool:
        """Whether the thinking of an item is shown."""
        return (self.entries[index].id, THOUGHT) in self.unfolded

    def set_thought(self, index: int, thought: str, *, thinks: bool) -> None:
        """Change what is known of an entry's thinking; it shows when the entry grows or is replaced."""
        self.entries[index] = msgspec.structs.replace(self.entries[index], thought=thought, thinks=thinks)

    def unfolded_of(self, entry: Entry) -> list[int]:
        """Return the numbers of the files of an entry whose text is shown."""
        return [number for number in range(len(entry.attachments)) if (entry.id, number) in self.unfolded]

    def grow(self, index: int, text: str) -> int:
        """Show `text` (clean, longer than before) and a cursor as the text of a growing item.

        Return the first line that changed, counted from the start of the item.
        """
        self._growing = text
        blocks = [part.block for part in self.parts_of(index) if part.block is not None]
        return self._set_parts(index, self._split(index, text, blocks, growing=True), growing=True)

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
        text = entry.text
        if may_think(entry, text) and (entry.id, THOUGHT) not in self.unfolded:
            text = answer(entry, text)
        return 2 + len(entry.attachments) + estimate_height(text, self.page.text_width)

    def _guesses(self) -> list[int]:
        return [self._guess(entry) for entry in self.entries]

    def parts_of(self, index: int) -> list[Part]:
        """Return the parts of an item, its blocks found if nobody had looked at it."""
        if (known := self._parts.get(index)) is not None:
            return known
        blocks = self._blocks_of(index)
        heights = self._parts.heights_of(index)
        if heights is not None and len(heights) == 1 + len(blocks):
            parts = [
                Part(block, height, exact=True)
                for block, height in zip([None, *blocks], heights, strict=True)
            ]
        else:
            width = self.page.text_width
            parts = [Part(None, len(self._heading(index)), exact=True)]
            parts += [Part(block, estimate_height(block.text, width) + 1) for block in blocks]
        self._put_parts(index, parts)
        return parts

    def _blocks_of(self, index: int) -> list[Block]:
        return self._split(index, clean(self.entries[index].text))

    def _split(
        self, index: int, text: str, before: Sequence[Block] = (), *, growing: bool = False
    ) -> list[Block]:
        entry = self.entries[index]
        if entry.role not in MARKDOWN_ROLES:
            return resume(text, list(before), markdown=False)
        is_open = self.is_unfolded(index)
        return reply_blocks(entry, text, is_open=is_open, before=before, growing=growing)

    def _walk(self, anchor: Anchor, step: int) -> Iterator[tuple[int, Part]]:
        """Go over the parts from an anchor on: down with it, or up from the one before it."""
        index, number = anchor.item, anchor.part
        if index >= len(self.entries):
            if step > 0 or not self.entries:
                return
            index = len(self.entries) - 1
            number = len(self.parts_of(index))
        if step < 0:
            number -= 1
        while 0 <= index < len(self.entries):
            parts = self.parts_of(index)
            if 0 <= number < len(parts):
                yield index, parts[number]
                number += step
            else:
                index += step
                number = 0 if step > 0 else len(self.parts_of(index)) - 1 if index >= 0 else 0

    def _heading(self, index: int) -> list[Line]:
        entry = self.entries[index]
        hints = hints_of(entry) if index == self.hinted else ()
        return render_heading(self.page, entry, hints=hints, unfolded=self.unfolded_of(entry))

    def _draw_heading(self, index: int) -> None:
        """Render a heading again, if anybody has looked at it."""
        if (parts := self._parts.get(index)) is not None:
            before = parts[0].height
            self._put(parts[0], parts[0].lines, self._heading(index))
            self._correct(index, parts[0].height - before)

    def _render(self, index: int, part: Part) -> list[Line]:
        if part.block is None:
            return self._heading(index)
        leading = part is self.parts_of(index)[1]
        lines = render_block(self.page, part.block, self.entries[index].role, leading=leading)
        if part.with_cursor:
            lines = with_cursor(self.page, lines, in_code=part.block.kind is Kind.CODE)
        return lines

    def _set_parts(self, index: int, blocks: list[Block], *, growing: bool) -> int:
        """Replace the blocks of an item; return the first line that changed."""
        old = self.parts_of(index)
        heading = self._heading(index)
        parts = [old[0]]
        changed = -1
        if parts[0].lines != heading:
            changed = self._put(parts[0], parts[0].lines, heading)
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
            lines = render_block(self.page, block, self.entries[index].role, leading=number == 1)
            if grows:
                lines = with_cursor(self.page, lines, in_code=block.kind is Kind.CODE)
            first = self._put(part, before.lines if before else None, lines)
            if changed < 0 and (first < part.height or before is None or before.height != part.height):
                changed = top + first
            top += part.height
        kept = set(parts)
        for part in old:
            if part not in kept:
                self._parts.drop_lines(part)
        self._put_parts(index, parts)
        return top if changed < 0 else changed

    def _put_parts(self, index: int, parts: list[Part]) -> None:
        self._parts.put(index, parts)
        self._correct(index, sum([part.height for part in parts]) - self._heights[index])

    def _put(self, part: Part, before: list[Line] | None, lines: list[Line]) -> int:
        """Give a part its lines, those that are as before as the same objects; return the first other one."""
        first = len(lines)
        for number, (old, new) in enumerate(zip(before or (), lines, strict=False)):
            if old == new:
                lines[number] = old
            else:
                first = min(first, number)
        part.height, part.exact = len(lines), True
        self._parts.put_lines(part, lines)
        return min(first, len(before or ()))

    def _set_height(self, index: int, part: Part, height: int) -> None:
        delta = height - part.height
        part.height, part.exact = height, True
        self._correct(index, delta)

    def _correct(self, index: int, delta: int) -> None:
        if delta:
            self._heights.change(index, delta)
