"""Lays out a Markdown table: no boxes, two cells between columns, a thin rule under the head. Pure."""

from collections.abc import Callable, Sequence

from markdown_it.token import Token
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from samovar.tui.widgets.transcript.page import Styles
from samovar.tui.widgets.transcript.wrap import Row, Span, wrap

_GAP = 3
_NARROWEST = 3


def paint_table(
    tokens: Sequence[Token],
    inline: Callable[[Token, Style], list[Span]],
    width: int,
    styles: Styles,
    *,
    skip_head: bool,
) -> list[Row]:
    """Return the rows of a table; `inline` turns a cell's token into styled text."""
    head: list[list[Span]] = []
    body: list[list[list[Span]]] = []
    aligns: list[str] = []
    for index, token in enumerate(tokens):
        if token.type == "tr_open":
            body.append([])
        elif token.type in {"th_open", "td_open"}:
            is_head = token.type == "th_open"
            body[-1].append(inline(tokens[index + 1], styles.table_head if is_head else styles.text))
            if is_head:
                aligns.append(str(token.attrGet("style") or "").removeprefix("text-align:"))
    if body:
        head = body.pop(0)
    widths = _widths([*([] if skip_head else [head]), *body], len(aligns), width)
    rows: list[Row] = []
    if not skip_head:
        rows += _lay_out(head, widths, aligns, width, styles)
        total = min(width, sum(widths) + _GAP * (len(widths) - 1))
        rows.append(Row([Segment("─" * total, styles.rule)], total, "\n"))
    for cells in body:
        rows += _lay_out(cells, widths, aligns, width, styles)
    return rows


def _widths(rows: Sequence[Sequence[Sequence[Span]]], num_columns: int, width: int) -> list[int]:
    """Give each column what it needs; where that is too much, the widest give way."""
    needed = [1] * num_columns
    for row in rows:
        for column, spans in enumerate(row[:num_columns]):
            needed[column] = max(needed[column], cell_len("".join([text for text, _ in spans])))
    room = max(num_columns * _NARROWEST, width - _GAP * (num_columns - 1))
    if sum(needed) <= room:
        return needed
    limit = room
    while limit > _NARROWEST and sum(min(cells, limit) for cells in needed) > room:
        limit -= 1
    widths = [min(cells, limit) for cells in needed]
    for column, cells in enumerate(needed):
        widths[column] += min(cells - widths[column], max(0, room - sum(widths)))
    return widths


def _lay_out(
    cells: Sequence[Sequence[Span]], widths: Sequence[int], aligns: Sequence[str], width: int, styles: Styles
) -> list[Row]:
    wrapped = [wrap(spans, cell_width) for spans, cell_width in zip(cells, widths, strict=False)]
    rows: list[Row] = []
    for number in range(max((len(lines) for lines in wrapped), default=0)):
        segments: list[Segment] = []
        column = 0
        end = 0
        for lines, cell_width, align in zip(wrapped, widths, aligns, strict=False):
            line = lines[number] if number < len(lines) else Row([], 0, "\n")
            spare = max(0, cell_width - line.cells)
            before = spare if align == "right" else spare // 2 if align == "center" else 0
            if column + cell_width > width:
                break
            if line.cells:
                if column + before > end:
                    segments.append(Segment(" " * (column + before - end), styles.text))
                segments += line.segments
                end = column + before + line.cells
            column += cell_width + _GAP
        rows.append(Row(segments, end, "\n"))
    return rows
