"""The right column: what fills the context and the RAM, every cached prompt, and what the last request cost.

Takes snapshots. While it is hidden it draws nothing and keeps the last one.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from samovar.core.figures import percent, rate
from samovar.core.snapshot import FREE, SHARED, CacheSnapshot
from samovar.tui.widgets import cell_map, panel_text, running_text
from samovar.tui.widgets.cell_map import CellMap
from samovar.tui.widgets.meter import History, Meter
from samovar.tui.widgets.prompt_rows import prompt_lines

AGES_EVERY_S: Final = 20.0
HISTORY_LENGTH: Final = 64
_OTHER_LINES: Final = 35  # what the panel needs beside the rows of prompts


class CachePanel(VerticalScroll):
    """The cache at one moment."""

    def __init__(self, *, clock: Callable[[], float] = time.time, id: str | None = None) -> None:
        super().__init__(id=id)
        self._clock = clock
        self._snapshot = CacheSnapshot()
        self._colors: Mapping[str, str] = {}
        self._is_ahead_off = False
        self._hit_ratios = deque[float](maxlen=HISTORY_LENGTH)
        self._speeds = deque[float](maxlen=HISTORY_LENGTH)

    def compose(self) -> ComposeResult:
        yield Static("", id="context-line")
        yield CellMap(id="cells")
        yield Static("", id="ram-line")
        yield Meter(id="ram-meter")
        yield Static("", id="ram-notes")
        yield Static("", id="disk-line")
        yield Meter(id="disk-meter")
        yield Static("", id="disk-notes")
        yield Static("", id="prompts")
        yield Static("LAST REQUEST", id="request-heading")
        yield Meter(id="request-meter")
        yield Static("", id="request")
        with Horizontal(id="hit-row", classes="rate"):
            yield Static("", id="hit")
            yield History(id="hit-history")
        with Horizontal(id="speed-row", classes="rate"):
            yield Static("", id="speed")
            yield History(id="speed-history")
        yield Static("", id="saved")
        yield Static("", id="ahead")
        yield Static("", id="swaps")
        yield Static("", id="losses")
        yield Static("", id="running")
        yield Static("", id="more")

    def on_mount(self) -> None:
        self.set_interval(AGES_EVERY_S, self._draw)
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def on_show(self) -> None:
        self._draw()

    def set_snapshot(
        self, snapshot: CacheSnapshot, colors: Mapping[str, str], *, is_ahead_off: bool = False
    ) -> None:
        """Show this state of the cache; `colors` are those of the sessions."""
        self._is_ahead_off = is_ahead_off
        last = snapshot.last
        if last is not None and last != self._snapshot.last:
            self._hit_ratios.append(last.stats.reused.total / max(1, last.stats.prompt_tokens))
            if last.stats.tokens_per_second is not None:
                self._speeds.append(last.stats.tokens_per_second)
        self._snapshot, self._colors = snapshot, colors
        self._draw()

    def _draw(self) -> None:
        width = self.scrollable_content_region.width
        if not self.display or not self.is_mounted or width < 10:
            return
        snapshot = self._snapshot
        self._set("context-line", panel_text.context_line(snapshot, width))
        keys = {SHARED: cell_map.SHARED, FREE: cell_map.FREE}
        cells = self.query_one(CellMap)
        cells.set_colors(self._colors)
        runs = [(keys.get(run.owner, run.owner), run.num_cells) for run in snapshot.context.runs]
        cells.set_runs(runs, snapshot.context.total_tokens)
        for name, use, color in (("ram", snapshot.host, "brass"), ("disk", snapshot.disk, "teal")):
            self._set(f"{name}-line", panel_text.tier_line(name.upper(), use, width))
            meter = self.query_one(f"#{name}-meter", Meter)
            meter.display = not use.off and use.limit_bytes is not None
            meter.set_segments([(color, use.bytes)], use.limit_bytes or 1)
            self._set_or_hide(f"{name}-notes", panel_text.tier_notes(use, width, with_small=name == "disk"))
        running = running_text.running_lines(snapshot, self._colors, width)
        self._set_or_hide("running", running)
        self._draw_prompts(width, num_taken=running.plain.count("\n") + 2 if running.plain else 0)
        self._draw_request(width)
        self._draw_totals(width)
        self._set("more", panel_text.more_line(snapshot))

    def _draw_prompts(self, width: int, num_taken: int) -> None:
        snapshot = self._snapshot
        if snapshot.prompts:
            max_rows = max(6, self.size.height - _OTHER_LINES - num_taken)
            content = prompt_lines(snapshot, self._colors, width, max_rows, self._clock())
        else:
            content = panel_text.empty_lines(width)
        self._set("prompts", content)

    def _draw_request(self, width: int) -> None:
        last = self._snapshot.last
        for name in ("#request-heading", "#request-meter", "#request"):
            self.query_one(name).display = last is not None
        if last is not None:
            self.query_one("#request-meter", Meter).set_segments(
                panel_text.request_parts(last.stats), last.stats.prompt_tokens
            )
            self._set("request", panel_text.request_lines(last.stats, last.title, width))

    def _draw_totals(self, width: int) -> None:
        totals = self._snapshot.totals
        for name in ("#hit-row", "#speed-row", "#saved"):
            self.query_one(name).display = totals.requests > 0
        if totals.requests:
            speed = self._snapshot.decode_tokens_per_second
            self._set(
                "hit", Content.assemble(("HIT RATIO  ", "$secondary"), (percent(totals.hit_ratio), "$text"))
            )
            self._set("speed", Content.assemble(("TOK/S      ", "$secondary"), (rate(speed), "$text")))
            self.query_one("#hit-history", History).set_values(
                tuple(self._hit_ratios), highest=1.0, color="green"
            )
            self.query_one("#speed-history", History).set_values(tuple(self._speeds), color="brass")
            self._set("saved", panel_text.saved_line(totals, self._snapshot.totals_ever, width))
        self._set_or_hide("ahead", panel_text.ahead_line(totals, width, is_off=self._is_ahead_off))
        self._set_or_hide("swaps", panel_text.swaps_line(totals, width))
        self._set_or_hide("losses", panel_text.losses_line(totals, width))

    def _set_or_hide(self, name: str, content: Content) -> None:
        self.query_one(f"#{name}").display = bool(content.plain)
        self._set(name, content)

    def _set(self, name: str, content: Content) -> None:
        """Update one text; lay out only where its height or width may change."""
        static = self.query_one(f"#{name}", Static)
        old = static.content
        if isinstance(old, Content):
            if old.is_same(content):
                return
            same_height = old.plain.count("\n") == content.plain.count("\n") and bool(old.plain)
            static.update(content, layout=not same_height)
        else:
            static.update(content)
