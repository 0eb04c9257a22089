"""Context, RAM and disk, how full each is and what is wrong with it: side by side, or as three lines.

Takes snapshots. Which of the two it is, is the class `-wide` of this widget, which its screen sets.
"""

from collections.abc import Mapping

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from samovar.core.snapshot import FREE, SHARED, CacheSnapshot
from samovar.tui.widgets import cell_map, panel_text
from samovar.tui.widgets.cell_map import CellMap
from samovar.tui.widgets.meter import Meter


class Tiers(Horizontal):
    """The three places where a prompt can be."""

    def compose(self) -> ComposeResult:
        for name, bar in (("context", CellMap()), ("ram", Meter()), ("disk", Meter())):
            with Vertical(id=f"{name}-tier", classes="tier"):
                with Horizontal(classes="tier-line"):
                    yield Static("", classes="tier-figures")
                    yield bar
                if name != "context":
                    yield Static("", classes="tier-notes")

    def set_snapshot(self, snapshot: CacheSnapshot, colors: Mapping[str, str]) -> None:
        """Show this state of the cache; `colors` are those of the sessions."""
        keys = {SHARED: cell_map.SHARED, FREE: cell_map.FREE}
        cells = self.query_one(CellMap)
        cells.set_colors(colors)
        runs = [(keys.get(run.owner, run.owner), run.num_cells) for run in snapshot.context.runs]
        cells.set_runs(runs, snapshot.context.total_tokens)
        width = self.query_one("#context-tier .tier-figures").size.width
        self._set("#context-tier .tier-figures", panel_text.context_line(snapshot, width))
        for name, use, color in (("ram", snapshot.host, "brass"), ("disk", snapshot.disk, "teal")):
            tier = self.query_one(f"#{name}-tier")
            self._set(f"#{name}-tier .tier-figures", panel_text.tier_line(name.upper(), use, width))
            meter = tier.query_one(Meter)
            meter.visible = not use.off and use.limit_bytes is not None
            meter.set_segments([(color, use.bytes)], use.limit_bytes or 1)
            is_wide = self.has_class("-wide")
            notes = panel_text.tier_notes(use, max(20, tier.size.width), with_small=is_wide)
            tier.query_one(".tier-notes").display = bool(notes.plain)
            self._set(f"#{name}-tier .tier-notes", notes)

    def _set(self, selector: str, content: Content) -> None:
        static = self.query_one(selector, Static)
        if not (isinstance(static.content, Content) and static.content.is_same(content)):
            static.update(content)
