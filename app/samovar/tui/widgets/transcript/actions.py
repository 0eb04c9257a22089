"""What keys and clicks in the transcript look for: code to copy, a message, a file. Pure."""

from typing import Final

from samovar.tui.widgets.transcript.attachments import render_attachments
from samovar.tui.widgets.transcript.blocks import Kind
from samovar.tui.widgets.transcript.entry import SUMMARY, Entry
from samovar.tui.widgets.transcript.heading import FIRST_FILE_LINE
from samovar.tui.widgets.transcript.layout import Layout
from samovar.tui.widgets.transcript.markdown import code_in
from samovar.tui.widgets.transcript.parts import Part

_MAX_SEARCHED: Final = 500  # messages in one direction, when looking for code

Found = tuple[str, str]
"""Text to copy, and what it is."""


def nearest_code(layout: Layout, y: int) -> Found | None:
    """Return the last code block that begins above line `y` or on it, or the first one below."""
    if not layout.entries:
        return None
    here = layout.anchor_at(y)
    nearest = min(here.item, len(layout.entries) - 1)
    for index in range(nearest, max(-1, nearest - _MAX_SEARCHED), -1):
        if _may_hold_code(layout, index):
            parts = layout.parts_of(index)
            last = here.part if index == here.item else len(parts) - 1
            for number in range(last, -1, -1):
                if (found := _code_at(parts, number)) is not None:
                    return found
    for index in range(here.item, min(len(layout.entries), here.item + _MAX_SEARCHED)):
        if _may_hold_code(layout, index):
            for number in range(len(parts := layout.parts_of(index))):
                if (found := _code_at(parts, number)) is not None:
                    return found
    return None


def code_of_label(layout: Layout, y: int) -> Found | None:
    """Return the code whose label line `y` is."""
    anchor = layout.anchor_at(y)
    if anchor.item >= len(layout.entries):
        return None
    parts = layout.parts_of(anchor.item)
    part = parts[anchor.part]
    is_label = part.block is not None and part.block.last and anchor.offset == part.height - 1
    return _code_at(parts, anchor.part) if is_label and part.block and part.block.kind is Kind.CODE else None


def file_at(layout: Layout, index: int, y: int) -> int | None:
    """Return which file of an item line `y` is the folded line of."""
    entry = layout.entries[index]
    offset = y - layout.start(index) - FIRST_FILE_LINE
    files = render_attachments(layout.page, entry, layout.unfolded_of(entry))
    return files[offset][0] if 0 <= offset < len(files) else None


def is_thought_line(layout: Layout, index: int, y: int) -> bool:
    """Whether line `y` of an item is the one that stands for its thinking."""
    anchor = layout.anchor_at(y)
    if anchor.item != index or anchor.part >= len(parts := layout.parts_of(index)):
        return False
    block = parts[anchor.part].block
    return block is not None and block.kind is Kind.THOUGHT_LINE


def message_near(layout: Layout, index: int, step: int) -> int | None:
    """Return the first message from item `index` on, downwards or upwards; notes are none."""
    while 0 <= index < len(layout.entries):
        if layout.entries[index].is_message:
            return index
        index += step
    return None


def message_in_view(layout: Layout, view: range, current: int | None) -> int | None:
    """Return the current message if some of it is in view, else the message in view that is nearest to it;
    without a current one the first that begins in view.
    """
    if not layout.entries:
        return None
    last = len(layout.entries) - 1
    if current is not None:
        lines = layout.lines_at(current)
        if lines.start < view.stop and lines.stop > view.start:
            return current
        if lines.start >= view.stop:  # it has left at the bottom
            found = min(layout.item_at(view.stop - 1), last)
            found -= layout.lines_at(found).start >= view.stop
            return message_near(layout, found, -1)
    found = min(layout.item_at(view.start), last)
    begins_above = layout.lines_at(found).start < view.start
    if begins_above and found < last and layout.lines_at(found + 1).start < view.stop:
        found += 1
    down = message_near(layout, found, 1)
    if down is not None and layout.lines_at(down).start < view.stop:
        return down
    return message_near(layout, found, -1)


def kind_of(entry: Entry) -> str:
    """Return what one calls an entry that is copied."""
    return {"assistant": "reply", "user": "message", SUMMARY: "summary"}.get(
        entry.role, f"{entry.role} prompt"
    )


def _may_hold_code(layout: Layout, index: int) -> bool:
    text = layout.entries[index].text
    is_last = index == len(layout.entries) - 1  # its text may still be growing
    return is_last or "```" in text or "~~~" in text or "    " in text


def _code_at(parts: list[Part], number: int) -> Found | None:
    block = parts[number].block
    if block is None:
        return None
    if block.kind is Kind.MARKDOWN:
        if "```" in block.text or "~~~" in block.text or "    " in block.text:
            inside = code_in(block.text)
            return (inside[-1][1], f"{inside[-1][0]} code".strip()) if inside else None
        return None
    if block.kind is not Kind.CODE:
        return None
    first = last = number
    while first > 0 and (at := parts[first].block) is not None and not at.first:
        first -= 1
    while last + 1 < len(parts) and (at := parts[last].block) is not None and not at.last:
        last += 1
    text = "\n".join([part.block.text for part in parts[first : last + 1] if part.block is not None])
    return text, f"{block.language} code".strip()
