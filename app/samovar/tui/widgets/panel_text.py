"""The lines of the cache panel: a snapshot in, styled text of a given width out. Pure."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from rich.cells import cell_len, set_cell_size
from textual.content import Content

from samovar.core.figures import age, count, duration, mib, rate
from samovar.core.request import MismatchReason, RequestStats
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot, TierUse
from samovar.core.units import format_size
from samovar.tui.widgets.session_list import AT_WORK, GLYPHS

Part = tuple[str, str]

EMPTY: Final = (
    "what the model has read stays hot. here you will see every chat's prompt, where it lies, and what the"
    " next message costs"
)


class Column(msgspec.Struct, frozen=True):
    """One column of figures in the table of prompts."""

    head: str
    width: int


_TOKENS, _OWN, _HITS = Column("tokens", 7), Column("MiB", 6), Column("×", 4)
_SHARED, _USED = Column("shared", 7), Column("used", 5)
_MIN_TITLE: Final = 15


def empty_lines(width: int) -> Content:
    """What stands in place of the table while there is nothing to list."""
    return Content.assemble(("\n".join(textwrap.wrap(EMPTY, width)), "$faint"))


def two_sides(left: Sequence[Part], right: Sequence[Part], width: int) -> Content:
    """Parts at the left and at the right edge of a line of `width` cells."""
    gap = width - sum(cell_len(text) for text, _ in (*left, *right))
    return Content.assemble(*left, " " * max(1, gap), *right)


def context_line(snapshot: CacheSnapshot, width: int) -> Content:
    """`CONTEXT            4,915 / 8,192 cells`."""
    use = snapshot.context
    if not use.total_tokens:
        return two_sides([("CONTEXT", "$secondary")], [], width)
    total = count(use.total_tokens)
    used = count(use.used_tokens).rjust(len(total))
    right = [(used, "$text"), (f" / {total}", "$text"), (" cells", "$faint")]
    return two_sides([("CONTEXT", "$secondary")], right, width)


def tier_line(name: str, use: TierUse, width: int) -> Content:
    """`RAM    412 / 2,048 MiB        auto`; an unused tier is `off`."""
    left = [(name.ljust(7), "$secondary")]
    if use.off:
        return two_sides([*left, ("off", "$faint")], [], width)
    if use.limit_bytes is None:
        figures = [(format_size(use.bytes), "$text")]
    else:
        limit = mib(use.limit_bytes)
        figures = [(mib(use.bytes).rjust(len(limit)), "$text"), (f" / {limit}", "$text"), (" MiB", "$faint")]
    setting = use.setting if use.setting in ("auto", "unlimited") else ""
    return two_sides([*left, *figures], [(setting, "$faint")], width)


def columns_for(width: int) -> list[Column]:
    """The columns that fit beside a readable title, in their order."""
    room = width - _MIN_TITLE - 4 - _TOKENS.width - _OWN.width - _HITS.width
    extra = []
    if room >= _USED.width:
        extra.append(_USED)
        room -= _USED.width
    shared = [_SHARED] if room >= _SHARED.width else []
    return [_TOKENS, _OWN, *shared, _HITS, *extra]


def prompt_lines(
    snapshot: CacheSnapshot, colors: Mapping[str, str], width: int, max_rows: int, now: float
) -> Content:
    """The table of prompts; `colors` are those of the sessions."""
    columns = columns_for(width)
    title_width = width - 4 - sum(column.width for column in columns)
    heads = "".join(column.head.rjust(column.width) for column in columns)
    head = set_cell_size("PROMPTS", title_width + 2)
    lines: list[Content] = [Content.assemble((head, "$secondary"), (heads, "$faint"))]
    for row in snapshot.prompts[:max_rows]:
        figures = {
            _TOKENS: count(row.tokens),
            _OWN: mib(row.own_bytes),
            _SHARED: mib(row.shared_bytes) if row.shared_bytes else "·",
            _HITS: count(row.hits),
            _USED: age(max(0.0, now - row.last_used)),
        }
        title = _fitted(" ".join(clean(row.title).split()) or "untitled", title_width)
        color = colors.get(row.session, "$secondary")
        parts: list[Part] = [("■ ", color), (title, "$text" if row.tier or row.running else "$secondary")]
        for column in columns:
            style = "$text" if column is _TOKENS else "$secondary"
            parts.append((figures[column].rjust(column.width), style))
        parts.append((f" {AT_WORK if row.running else GLYPHS[row.tier]}", color))
        lines.append(Content.assemble(*parts))
    if (more := len(snapshot.prompts) - max_rows) > 0:
        lines.append(Content.assemble((f"  and {count(more)} more", "$faint")))
    sharing = [row.shared_bytes for row in snapshot.prompts if row.shared_bytes]
    if len(sharing) > 1:
        figures = {_OWN: mib(max(sharing)), _HITS: count(len(sharing))}
        if snapshot.bytes_per_token:
            figures[_TOKENS] = count(round(max(sharing) / snapshot.bytes_per_token))
        texts = [figures.get(column, "").rjust(column.width) for column in columns]
        shared = Content.assemble(
            ("■ ", "$cream"),
            (_fitted("shared prefix", title_width), "$secondary"),
            ("".join(texts), "$secondary"),
        )
        lines.append(shared)
    return Content("\n").join(lines)


def request_parts(stats: RequestStats) -> list[tuple[str, float]]:
    """The bar of a request: colours and tokens. Green is reused (teal: from disk), brass was processed."""
    return [
        ("green", stats.reused.context + stats.reused.host),
        ("teal", stats.reused.disk),
        ("brass", stats.processed_tokens),
    ]


def request_lines(stats: RequestStats, title: str, width: int) -> Content:
    """What the last request reused and cost, and where it first differed from the cache."""
    processed = count(stats.processed_tokens)
    first = [
        (count(stats.reused.total), "$green"),
        (" reused  ", "$secondary"),
        (processed, "$brass"),
        (" processed", "$secondary"),
    ]
    lines = [two_sides(first, [(duration(stats.restore_ms), "$text")] if stats.reused.total else [], width)]
    tiers = (("context", stats.reused.context), ("ram", stats.reused.host), ("disk", stats.reused.disk))
    sources = " · ".join(f"{count(tokens)} from {name}" for name, tokens in tiers if tokens)
    if sources:
        lines.append(Content.assemble((_fitted(sources, width), "$faint")))
    figures = []
    if stats.first_token_ms is not None:
        figures.append(f"first token {duration(stats.first_token_ms)}")
    if stats.tokens_per_second is not None:
        figures.append(f"{rate(stats.tokens_per_second)} tok/s")
    if figures:
        lines.append(Content.assemble((_fitted(" · ".join(figures), width), "$secondary")))
    if stats.mismatch is not None:
        text = f"first difference at {count(stats.mismatch.pos)}: {stats.mismatch.reason.value}"
        if stats.mismatch.reason is MismatchReason.NEW_CHAT:
            text = f"never seen from {count(stats.mismatch.pos)} on"
        lines.append(Content.assemble((_fitted(text, width), "$faint")))
    if title and width >= 30:
        lines.append(Content.assemble((_fitted(f"in {' '.join(clean(title).split())}", width), "$faint")))
    return Content("\n").join(lines)


def _fitted(text: str, width: int) -> str:
    """The text in exactly `width` cells."""
    return (
        set_cell_size(text, width)
        if cell_len(text) <= width
        else set_cell_size(text, max(0, width - 1)) + "…"
    )
