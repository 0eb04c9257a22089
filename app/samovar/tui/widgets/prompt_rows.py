"""The table of prompts: snapshot rows in, styled lines of a given width out. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from rich.cells import set_cell_size
from textual.content import Content

from samovar.core.figures import age, count, mib
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot, PromptRow
from samovar.tui.widgets.parts import Part, fitted
from samovar.tui.widgets.session_list import AT_WORK, GLYPHS


class Column(msgspec.Struct, frozen=True):
    """One column of figures in the table of prompts."""

    head: str
    width: int


TOKENS, OWN, HITS = Column("tokens", 7), Column("MiB", 6), Column("×", 4)
SHARED, USED, LAST_USED = Column("shared", 7), Column("used", 5), Column("used", 6)
IN_CONTEXT, IN_RAM, ON_DISK = Column("context", 8), Column("RAM", 7), Column("disk", 7)
BY_TITLE: Final = "title"
PINNED: Final = "◆"
_MIN_TITLE: Final = 15


def columns_for(width: int) -> list[Column]:
    """The columns that fit beside a readable title, in their order."""
    room = width - _MIN_TITLE - 4 - TOKENS.width - OWN.width - HITS.width
    extra = []
    if room >= USED.width:
        extra.append(USED)
        room -= USED.width
    shared = [SHARED] if room >= SHARED.width else []
    return [TOKENS, OWN, *shared, HITS, *extra]


def all_columns(width: int) -> list[Column]:
    """The columns of the big table that fit beside a readable title: with the tokens in every tier."""
    for columns in (
        [TOKENS, OWN, SHARED, IN_CONTEXT, IN_RAM, ON_DISK, HITS, LAST_USED],
        [TOKENS, OWN, IN_CONTEXT, IN_RAM, ON_DISK, HITS, LAST_USED],
    ):
        if sum(column.width for column in columns) + 4 + _MIN_TITLE <= width:
            return columns
    return columns_for(width)


def prompt_head(columns: Sequence[Column], width: int, sorted_by: str = "") -> list[Part]:
    """The line above the prompts; an arrow marks the column they are sorted by."""
    title_width = width - 4 - sum(column.width for column in columns)
    heads = [
        (f"{'↓' if column.head == sorted_by else ''}{column.head}".rjust(column.width), "$faint")
        for column in columns
    ]
    title = "PROMPTS ↓" if sorted_by == BY_TITLE else "PROMPTS"
    return [(set_cell_size(title, title_width + 2), "$secondary"), *heads]


def prompt_row(row: PromptRow, columns: Sequence[Column], color: str, width: int, now: float) -> list[Part]:
    """One line of the table of prompts; a diamond in place of the square is a pinned one."""
    last_used = age(max(0.0, now - row.last_used))
    figures = {
        TOKENS: count(row.tokens),
        OWN: mib(row.own_bytes),
        SHARED: mib(row.shared_bytes) if row.shared_bytes else "·",
        HITS: count(row.hits),
        USED: last_used,
        LAST_USED: last_used,
        IN_CONTEXT: _tokens_or_dot(row.context_tokens),
        IN_RAM: _tokens_or_dot(row.host_tokens),
        ON_DISK: _tokens_or_dot(row.disk_tokens),
    }
    title_width = width - 4 - sum(column.width for column in columns)
    title = fitted(" ".join(clean(row.title).split()) or "untitled", title_width)
    mark = PINNED if row.pinned else "■"
    return [
        (f"{mark} ", color),
        (title, "$text" if row.tier or row.running else "$secondary"),
        *(
            (figures[column].rjust(column.width), "$text" if column is TOKENS else "$secondary")
            for column in columns
        ),
        (f" {AT_WORK if row.running else GLYPHS[row.tier]}", color),
    ]


def prompt_lines(
    snapshot: CacheSnapshot, colors: Mapping[str, str], width: int, max_rows: int, now: float
) -> Content:
    """The table of prompts; `colors` are those of the sessions."""
    columns = columns_for(width)
    title_width = width - 4 - sum(column.width for column in columns)
    lines: list[Content] = [Content.assemble(*prompt_head(columns, width))]
    for row in snapshot.prompts[:max_rows]:
        color = colors.get(row.session, "$secondary")
        lines.append(Content.assemble(*prompt_row(row, columns, color, width, now)))
    if (more := len(snapshot.prompts) - max_rows) > 0:
        lines.append(Content.assemble((f"  and {count(more)} more", "$faint")))
    sharing = [row.shared_bytes for row in snapshot.prompts if row.shared_bytes]
    if len(sharing) > 1:
        figures = {OWN: mib(max(sharing)), HITS: count(len(sharing))}
        if snapshot.bytes_per_token:
            figures[TOKENS] = count(round(max(sharing) / snapshot.bytes_per_token))
        texts = [figures.get(column, "").rjust(column.width) for column in columns]
        shared = Content.assemble(
            ("■ ", "$cream"),
            (fitted("shared prefix", title_width), "$secondary"),
            ("".join(texts), "$secondary"),
        )
        lines.append(shared)
    return Content("\n").join(lines)


def _tokens_or_dot(tokens: int) -> str:
    return count(tokens) if tokens else "·"
