"""Renders the blocks of entries, one by one, to finished lines. Pure."""

from rich.cells import cell_len
from rich.segment import Segment

from samovar.tui.widgets.transcript.blocks import Block, Kind
from samovar.tui.widgets.transcript.markdown import paint_markdown
from samovar.tui.widgets.transcript.page import Line, Page
from samovar.tui.widgets.transcript.thoughts import render_thought, render_thought_line, thought_gap
from samovar.tui.widgets.transcript.wrap import wrap

CURSOR = "▌"


def render_block(page: Page, block: Block, role: str, *, leading: bool) -> list[Line]:
    """Return the lines of one block; `leading` says that it follows the heading directly."""
    in_thought = block.of_thought and block.kind is not Kind.THOUGHT_LINE
    gap = thought_gap(page) if in_thought else page.blank()
    lines = [] if leading or not block.first else [gap]
    if block.kind is Kind.THOUGHT_LINE:
        return lines + render_thought_line(page, block.text)
    if block.kind is Kind.CODE:
        return lines + _code(page, block)
    if block.of_thought:
        return lines + render_thought(page, block.text)
    if block.kind is Kind.MARKDOWN:
        text = f"{block.head}\n{block.text}" if block.head else block.text
        return lines + paint_markdown(page, text, skip_table_head=bool(block.head))
    style = {"user": page.styles.text, "note": page.styles.faint}.get(role, page.styles.secondary)
    return lines + [
        page.line(row.segments, row.cells, row.joint)
        for row in wrap([(block.text.expandtabs(4), style)], page.text_width)
    ]


def _code(page: Page, block: Block) -> list[Line]:
    lines = [page.code_pad()] if block.first else []
    lines += [page.code_line(row) for row in page.code_rows(block.text, block.language, page.text_width)]
    if block.last:
        label = f"{block.language} · c copies" if block.language else "c copies"
        label = label if cell_len(label) <= page.text_width else "c copies"
        line = page.line([Segment(label, page.styles.faint)], cell_len(label))
        lines += [page.code_pad(), line._replace(end=0, left=0)]
    return lines


def with_cursor(page: Page, lines: list[Line], *, in_code: bool) -> list[Line]:
    """Return `lines` with the cursor of a growing reply behind the last text."""
    index = len(lines) - 1
    while in_code and index > 0 and (lines[index].end == 0 or lines[index].left == 0):
        index -= 1
    if index < 0:
        return [page.line([Segment(CURSOR, page.styles.cursor)], 1)]
    line = lines[index]
    cells = cell_len(line.text[: line.end])
    if cells >= line.cells:
        return lines
    before, after = line.strip.crop(0, cells), line.strip.crop(cells + 1, line.cells)
    style = page.styles.cursor
    if in_code:
        style = page.styles.highlight["name"]
    segments = [*before, Segment(CURSOR, style), *after]
    return [*lines[:index], line._replace(segments=segments), *lines[index + 1 :]]


def estimate_height(text: str, width: int) -> int:
    """Guess how many lines a text takes, fast; only the scrollbar relies on it, and not for long."""
    return 1 + text.count("\n") + len(text) // width
