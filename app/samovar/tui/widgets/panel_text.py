"""The lines of the cache panel: a snapshot in, styled text of a given width out. Pure."""

import textwrap
from typing import Final

from textual.content import Content

from samovar.chats import cache_words
from samovar.core.figures import count, duration, mib, rate, short_count
from samovar.core.request import RequestStats
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot, TierUse, Totals
from samovar.core.units import format_size
from samovar.tui.widgets.parts import fitted, two_sides

WARNING: Final = "▲"
EMPTY: Final = (
    "what the model has read stays hot. here you will see every chat's prompt, where it lies, and what the"
    " next message costs"
)


def empty_lines(width: int) -> Content:
    """What stands in place of the table while there is nothing to list."""
    return Content.assemble(("\n".join(textwrap.wrap(EMPTY, width)), "$faint"))


def context_line(snapshot: CacheSnapshot, width: int) -> Content:
    """`CONTEXT            4,915 / 8,192 cells`."""
    use = snapshot.context
    if snapshot.asleep:
        cost = "" if snapshot.wake_ms is None else f" · waking {duration(snapshot.wake_ms)}"
        return two_sides([("CONTEXT", "$secondary")], [("asleep", "$text"), (cost, "$faint")], width)
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


def tier_notes(use: TierUse, width: int, *, with_small: bool) -> Content:
    """What is to be said under a tier's meter: what is wrong with it; `with_small`, its blocks too."""
    lines: list[Content] = []
    small = [f"{count(use.blocks)} {'block' if use.blocks == 1 else 'blocks'}"]
    if use.queued_bytes:
        small.append(f"{format_size(use.queued_bytes)} being written")
    if with_small and not use.off:
        lines.append(Content.assemble((fitted(" · ".join(small), width).rstrip(), "$faint")))
    problem = " ".join(clean(use.problem).split())
    for text, color in (
        (cache_words.lowered(use), "$brass"),
        (cache_words.set_aside(use.quarantined), "$brass"),
        (problem, "$red"),
    ):
        if text:
            wrapped = textwrap.wrap(f"{WARNING} {text}", width)
            lines += [Content.assemble((line, color)) for line in wrapped]
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
        lines.append(Content.assemble((fitted(sources, width), "$faint")))
    figures = []
    if stats.first_token_ms is not None:
        figures.append(f"first token {duration(stats.first_token_ms)}")
    if stats.tokens_per_second is not None:
        figures.append(f"{rate(stats.tokens_per_second)} tok/s")
    if stats.ahead_tokens:
        figures.append(f"{count(stats.ahead_tokens)} ahead")
    if figures:
        lines.append(Content.assemble((fitted(" · ".join(figures), width), "$secondary")))
    if stats.mismatch is not None:
        text = cache_words.first_difference(stats.mismatch)
        lines.append(Content.assemble((fitted(text, width), "$faint")))
    if title and width >= 30:
        lines.append(Content.assemble((fitted(f"in {' '.join(clean(title).split())}", width), "$faint")))
    return Content("\n").join(lines)


def swaps_line(totals: Totals, width: int) -> Content:
    """`SWAPS      12 in 6 ms · 14 out 1 ms`: how many, and how long one took on average; empty if none."""
    if not totals.swaps_in and not totals.swaps_out:
        return Content("")
    swaps = (("in", totals.swaps_in, totals.swap_in_ms), ("out", totals.swaps_out, totals.swap_out_ms))
    text = " · ".join(f"{count(number)} {name} {mean(ms, number)}" for name, number, ms in swaps)
    return Content.assemble(("SWAPS      ", "$secondary"), (fitted(text, width - 11).rstrip(), "$text"))


def losses_line(totals: Totals, width: int) -> Content:
    """`EVICTED    12 blocks · 3 from disk`; empty if nothing was."""
    parts = []
    if totals.evictions:
        parts.append(f"{count(totals.evictions)} blocks")
    if totals.disk_evictions:
        parts.append(f"{count(totals.disk_evictions)} from disk")
    if totals.not_stored:
        parts.append(f"{count(totals.not_stored)} did not fit")
    if not parts:
        return Content("")
    text = fitted(" · ".join(parts), width - 11).rstrip()
    return Content.assemble(("EVICTED    ", "$secondary"), (text, "$text"))


def saved_line(totals: Totals, ever: Totals | None, width: int) -> Content:
    """`SAVED      3 m 12 s           ever 2 h 5 m`."""
    left = [("SAVED      ", "$secondary"), (duration(totals.saved_ms), "$green")]
    if ever is None:
        return Content.assemble(*left)
    return two_sides(left, [("ever ", "$faint"), (duration(ever.saved_ms), "$green")], width)


def ahead_line(totals: Totals, width: int, *, is_off: bool = False) -> Content:
    """`AHEAD      412, 380 used, 32 wasted`: tokens processed ahead, and whether it paid; `off` where nothing
    is any more, empty where nothing has been yet.
    """
    if not totals.ahead_tokens and not is_off:
        return Content("")
    used, wasted = short_count(totals.ahead_used_tokens), short_count(totals.ahead_wasted_tokens)
    told = ["off"] if is_off else []
    if totals.ahead_tokens:
        told.append(f"{short_count(totals.ahead_tokens)}, {used} used, {wasted} wasted")
    text = " · ".join(told)
    return Content.assemble(("AHEAD      ", "$secondary"), (fitted(text, width - 11).rstrip(), "$text"))


def more_line(snapshot: CacheSnapshot) -> Content:
    """What a token costs here, and where there is more."""
    size = f"{format_size(snapshot.bytes_per_token)} a token · " if snapshot.bytes_per_token else ""
    return Content.assemble((f"{size}f5 shows everything", "$faint"))


def mean(total_ms: float, number: int) -> str:
    """`6 ms`, or `–` where there is nothing to take the mean of."""
    return duration(total_ms / number) if number else "–"
