"""What the cache has done since start and for ever, and whose blocks lie on disk, as lines. Pure."""

from collections.abc import Sequence
from typing import Final

from rich.cells import set_cell_size
from textual.content import Content

from samovar.core.figures import count, duration, mib, percent
from samovar.core.safe_text import clean
from samovar.core.snapshot import DiskModel, Totals
from samovar.tui.widgets.panel_text import mean
from samovar.tui.widgets.parts import Part, fitted

_LABEL_WIDTH: Final = 17
_MAX_FIGURE_WIDTH: Final = 18
_BLOCKS_WIDTH: Final = 9
_MIB_WIDTH: Final = 8
_STATE_WIDTH: Final = 9


def total_lines(now: Totals, ever: Totals | None, width: int) -> Content:
    """Two columns of counters; the second one is left out where nothing may be kept."""
    columns = [("since start", now), *([("for ever", ever)] if ever is not None else [])]
    room = min(_MAX_FIGURE_WIDTH, (width - _LABEL_WIDTH) // len(columns))
    heads = "".join(head.rjust(room) for head, _ in columns)
    lines = [Content.assemble((set_cell_size("TOTALS", _LABEL_WIDTH), "$secondary"), (heads, "$faint"))]
    tables = [_figures(totals) for _, totals in columns]
    for number, (label, _, color) in enumerate(tables[0]):
        parts: list[Part] = [(label.ljust(_LABEL_WIDTH), "$secondary")]
        parts += [(table[number][1].rjust(room), color) for table in tables]
        lines.append(Content.assemble(*parts))
    return Content("\n").join(lines)


def _figures(totals: Totals) -> list[tuple[str, str, str]]:
    """Label, figure and colour of every counter."""

    def times(number: int, ms: float) -> str:
        return f"{count(number)} × {mean(ms, number)}" if number else "0"

    return [
        ("requests", count(totals.requests), "$text"),
        ("with a hit", count(totals.hits), "$text"),
        ("hit ratio", percent(totals.hit_ratio) if totals.prompt_tokens else "–", "$text"),
        ("tokens reused", count(totals.reused_tokens), "$green"),
        ("tokens processed", count(totals.processed_tokens), "$brass"),
        ("processed ahead", count(totals.ahead_tokens), "$text"),
        ("  used", count(totals.ahead_used_tokens), "$green"),
        ("  wasted", count(totals.ahead_wasted_tokens), "$brass"),
        ("time saved", duration(totals.saved_ms), "$green"),
        ("swaps in", times(totals.swaps_in, totals.swap_in_ms), "$text"),
        ("swaps out", times(totals.swaps_out, totals.swap_out_ms), "$text"),
        ("disk reads", times(totals.disk_reads, totals.disk_read_ms), "$text"),
        ("disk writes", times(totals.disk_writes, totals.disk_write_ms), "$text"),
        ("evicted", f"{count(totals.evictions)} + {count(totals.disk_evictions)} disk", "$text"),
        ("did not fit", count(totals.not_stored), "$text"),
        ("set aside", count(totals.quarantined), "$brass" if totals.quarantined else "$text"),
    ]


def model_lines(models: Sequence[DiskModel], width: int) -> Content:
    """The models on disk: name, blocks, MiB, and whether they can still be used."""
    room = max(8, width - _BLOCKS_WIDTH - _MIB_WIDTH - _STATE_WIDTH)
    lines = [
        Content.assemble(
            (set_cell_size("MODELS ON DISK", room), "$secondary"),
            ("blocks".rjust(_BLOCKS_WIDTH) + "MiB".rjust(_MIB_WIDTH), "$faint"),
        )
    ]
    for model in models:
        name = f"{' '.join(clean(model.name).split()) or 'unknown'} {clean(model.fingerprint)[:6]}"
        state, color = ("in use", "$green") if model.current else ("", "$faint")
        if model.stale:
            state, color = "gone", "$brass"
        figures = count(model.blocks).rjust(_BLOCKS_WIDTH) + mib(model.bytes).rjust(_MIB_WIDTH)
        lines.append(
            Content.assemble(
                (fitted(name, room), "$secondary" if model.stale else "$text"),
                (figures, "$secondary"),
                (state.rjust(_STATE_WIDTH), color),
            )
        )
    if not models:
        lines.append(Content.assemble(("nothing lies on disk", "$faint")))
    return Content("\n").join(lines)
