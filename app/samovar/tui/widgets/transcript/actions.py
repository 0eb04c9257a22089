"""What the keys of the transcript look for: code to copy, the next message. Pure."""

from samovar.tui.widgets.transcript.blocks import Kind
from samovar.tui.widgets.transcript.layout import Layout, Part
from samovar.tui.widgets.transcript.markdown import code_in

Found = tuple[str, str]
"""Text to copy, and what it is."""


def nearest_code(layout: Layout, y: int) -> Found | None:
    """Return the last code block that begins above line `y` or on it, or the first one below."""
    if not layout.items:
        return None
    here = layout.anchor_at(y)
    for index in range(min(here.item, len(layout.items) - 1), -1, -1):
        if _may_hold_code(layout, index):
            parts = layout.parts_of(index)
            last = here.part if index == here.item else len(parts) - 1
            for number in range(last, -1, -1):
                if (found := _code_at(parts, number)) is not None:
                    return found
    for index in range(here.item, len(layout.items)):
        if _may_hold_code(layout, index):
            for number in range(len(parts := layout.parts_of(index))):
                if (found := _code_at(parts, number)) is not None:
                    return found
    return None


def code_of_label(layout: Layout, y: int) -> Found | None:
    """Return the code whose label line `y` is."""
    anchor = layout.anchor_at(y)
    if anchor.item >= len(layout.items):
        return None
    parts = layout.parts_of(anchor.item)
    part = parts[anchor.part]
    is_label = part.block is not None and part.block.last and anchor.offset == part.height - 1
    return _code_at(parts, anchor.part) if is_label and part.block and part.block.kind is Kind.CODE else None


def neighbour(layout: Layout, y: int, step: int) -> int:
    """Return the line of the heading before or after the one at the top line `y`."""

    def target(index: int) -> int:
        return layout.start(index) + 1 if index else 0

    index = layout.item_at(y)
    if step > 0:
        index += index < len(layout.items) and target(index) <= y
    else:
        index -= index >= len(layout.items) or target(index) >= y
    return layout.height if index >= len(layout.items) else target(max(0, index))


def _may_hold_code(layout: Layout, index: int) -> bool:
    text = layout.items[index].entry.text
    return bool(layout.items[index].parts) or "```" in text or "~~~" in text or "    " in text


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
