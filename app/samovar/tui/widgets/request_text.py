"""What requests cost and why, as lines of a given width: the list of the last ones, and one in full. Pure."""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from samovar.chats.cache_words import first_difference
from samovar.core.figures import clock_time, count, duration, rate
from samovar.core.request import Mismatch, RequestStats
from samovar.core.safe_text import clean
from samovar.core.snapshot import LastRequest
from samovar.tui.widgets.parts import Part, fitted
from samovar.tui.widgets.prompt_rows import Column

_PROMPT, _PROCESSED = Column("prompt", 7), Column("processed", 10)
_CONTEXT, _RAM, _DISK, _REUSED = (
    Column("context", 8),
    Column("RAM", 7),
    Column("disk", 7),
    Column("reused", 7),
)
_RESTORE, _PREFILL, _FIRST = Column("restored", 9), Column("read", 7), Column("first", 7)
_TIME_WIDTH: Final = 6
_MIN_TITLE: Final = 13
_LABELS: Final = ("before  ", "− cached", "+ asked ")


def request_columns(width: int) -> list[Column]:
    """The columns that fit beside time and a readable title, in their order."""
    for columns in (
        [_PROMPT, _CONTEXT, _RAM, _DISK, _PROCESSED, _RESTORE, _PREFILL, _FIRST],
        [_PROMPT, _CONTEXT, _RAM, _DISK, _PROCESSED, _RESTORE, _PREFILL],
        [_PROMPT, _REUSED, _PROCESSED, _RESTORE, _PREFILL],
        [_PROMPT, _REUSED, _PROCESSED],
    ):
        if sum(column.width for column in columns) + _TIME_WIDTH + 2 + _MIN_TITLE <= width:
            return columns
    return [_REUSED, _PROCESSED]


def request_head(width: int) -> list[Part]:
    """The line above the last requests."""
    columns = request_columns(width)
    title_width = width - sum(column.width for column in columns)
    return [
        (set_cell_size("LAST REQUESTS", title_width), "$secondary"),
        ("".join(column.head.rjust(column.width) for column in columns), "$faint"),
    ]


def request_row(last: LastRequest, color: str, width: int, now: float) -> list[Part]:
    """One request: when, for whom (`task ·` is a side task), what it reused from which tier, what it cost."""
    stats = last.stats
    figures: dict[Column, Part] = {
        _PROMPT: (count(stats.prompt_tokens), "$text"),
        _CONTEXT: (_or_dot(stats.reused.context), "$green"),
        _RAM: (_or_dot(stats.reused.host), "$green"),
        _DISK: (_or_dot(stats.reused.disk), "$teal"),
        _REUSED: (_or_dot(stats.reused.total), "$green"),
        _PROCESSED: (count(stats.processed_tokens), "$brass"),
        _RESTORE: (duration(stats.restore_ms) if stats.reused.total else "·", "$secondary"),
        _PREFILL: (duration(stats.prefill_ms), "$secondary"),
        _FIRST: ("–" if stats.first_token_ms is None else duration(stats.first_token_ms), "$secondary"),
    }
    columns = request_columns(width)
    title_width = width - _TIME_WIDTH - 2 - sum(column.width for column in columns)
    at = clock_time(last.finished_at, now)[-5:] if last.finished_at else "–"
    kind = "task · " if last.side_task else ""
    title = fitted(f"{kind}{' '.join(clean(last.title).split()) or 'untitled'}", title_width)
    parts = [(at.ljust(_TIME_WIDTH), "$faint"), ("■ ", color)]
    parts.append((title, "$secondary" if last.side_task else "$text"))
    for column in columns:
        text, style = figures[column]
        parts.append((text.rjust(column.width), "$faint" if text == "·" else style))
    return parts


def request_detail(last: LastRequest, width: int, now: float, *, roomy: bool) -> Content:
    """One request in full: tiers, times, the first difference as a small diff; `roomy` with its title."""
    stats = last.stats
    title = " ".join(clean(last.title).split()) or "untitled"
    about = [clock_time(last.finished_at, now)] if last.finished_at else []
    about += ["a side task"] if last.side_task else []
    head = Content.assemble((fitted(" · ".join([title, *about]), width).rstrip(), "$text"))
    costs = [_tiers(stats), Content.assemble((_times(stats), "$secondary"))]
    diff = mismatch_lines(stats.mismatch, width)
    lines = [head, *costs, Content(""), *diff] if roomy else [*costs, *diff]
    return Content("\n").join(line.truncate(width, ellipsis=True) for line in lines)


def mismatch_lines(mismatch: Mismatch | None, width: int) -> list[Content]:
    """The first difference: where, why, and the tokens of either side, one shade a token."""
    if mismatch is None:
        return [Content.assemble(("all but the last token was reused", "$green"))]
    lines = [Content.assemble((first_difference(mismatch), "$brass"))]
    sides = zip(_LABELS, (mismatch.before, mismatch.cached, mismatch.asked), strict=True)
    room = width - len(_LABELS[0]) - 1
    for (label, tokens), shades in zip(
        sides, (("$secondary", "$faint"), ("$secondary", "$faint"), ("$text", "$secondary")), strict=True
    ):
        if not (mismatch.before or mismatch.cached or mismatch.asked):
            break
        shown = _token_parts(tokens, shades, room, from_end=label == _LABELS[0])
        lines.append(Content.assemble((f"{label} ", "$faint"), *(shown or [("nothing", "$faint")])))
    return lines


def _tiers(stats: RequestStats) -> Content:
    """`3,912 tokens: 3,200 from context · 688 from RAM · 24 processed · 96 ahead`."""
    parts: list[Part] = [(f"{count(stats.prompt_tokens)} tokens: ", "$secondary")]
    tiers = (("context", stats.reused.context, "$green"), ("RAM", stats.reused.host, "$green"))
    for name, tokens, color in (*tiers, ("disk", stats.reused.disk, "$teal")):
        if tokens:
            parts += [(count(tokens), color), (f" from {name} · ", "$secondary")]
    parts += [(count(stats.processed_tokens), "$brass"), (" processed", "$secondary")]
    if stats.ahead_tokens:
        parts += [(" · ", "$secondary"), (count(stats.ahead_tokens), "$green"), (" ahead", "$secondary")]
    return Content.assemble(*parts)


def _times(stats: RequestStats) -> str:
    parts = [f"waited {duration(stats.queued_ms)}"] if stats.queued_ms >= 1 else []
    parts += [f"restored in {duration(stats.restore_ms)}"] if stats.reused.total else []
    parts.append(f"read in {duration(stats.prefill_ms)}")
    if stats.first_token_ms is not None:
        parts.append(f"first token {duration(stats.first_token_ms)}")
    if stats.tokens_per_second is not None:
        parts.append(f"{rate(stats.tokens_per_second)} tok/s")
    return " · ".join(parts)


def _token_parts(tokens: Sequence[str], shades: tuple[str, str], room: int, *, from_end: bool) -> list[Part]:
    """Tokens as visible text in `room` cells, shades taking turns; `from_end` keeps the last ones."""
    parts: list[Part] = []
    used = 0
    numbered = list(enumerate(tokens))
    for number, token in reversed(numbered) if from_end else numbered:
        text = _visible(token)
        if used + cell_len(text) > room - 1:
            parts.append(("…", "$faint"))
            break
        used += cell_len(text)
        parts.append((text, shades[number % 2]))
    return parts[::-1] if from_end else parts


def _visible(token: str) -> str:
    """A token's text on one line: a line break as ↵, a tab as ⇥."""
    return clean(token).replace("\n", "↵").replace("\t", "⇥")


def _or_dot(tokens: int) -> str:
    return count(tokens) if tokens else "·"
