"""Thin bars of one line: `Meter` for parts of a whole, `History` for the last values of a figure.

Run in the UI thread; a new value repaints one line and never lays out the screen.
"""

from collections.abc import Sequence

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from samovar.tui.theme import Palette, palette_of, rich_style

_BARS = "▁▂▃▄▅▆▇█"


class _Line(Widget):
    """A widget of one line, drawn by `draw`."""

    DEFAULT_CSS = """
    _Line {
        height: 1;
        width: 1fr;
    }
    """

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self.refresh())

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y or not width:
            return Strip.blank(width, self.rich_style)
        segments = self.draw(palette_of(self.app.current_theme), width)
        # Text alone has a foreground; the ground is whatever the widget stands on.
        ground = self.rich_style
        return Strip(
            [Segment(text, ground + style if style else ground) for text, style, _ in segments], width
        )

    def draw(self, palette: Palette, width: int) -> list[Segment]:
        """Return segments of `width` cells in all."""
        raise NotImplementedError


class Meter(_Line):
    """Coloured parts of a whole as one thin line."""

    _segments: tuple[tuple[str, float], ...] = ()
    _total: float = 0

    def set_segments(self, segments: Sequence[tuple[str, float]], total: float) -> None:
        """Show (colour or name of a colour, amount) from the left; the rest up to `total` stays faint."""
        if (tuple(segments), total) != (self._segments, self._total):
            self._segments, self._total = tuple(segments), total
            self.refresh()

    def draw(self, palette: Palette, width: int) -> list[Segment]:
        parts = meter_cells([amount for _, amount in self._segments], self._total, width)
        segments = [
            Segment("━" * cells, rich_style(palette.color(color)))
            for (color, _), cells in zip(self._segments, parts, strict=True)
            if cells
        ]
        rest = width - sum(parts)
        return [*segments, Segment("━" * rest, rich_style(palette.track))] if rest else segments


class History(_Line):
    """The last values of a figure as small bars, the newest at the right."""

    _values: tuple[float, ...] = ()
    _highest: float | None = None
    _color: str = "brass"

    def set_values(
        self, values: Sequence[float], *, highest: float | None = None, color: str = "brass"
    ) -> None:
        """Show the last values there is room for, on a scale from 0 to `highest` or their maximum."""
        if (tuple(values), highest, color) != (self._values, self._highest, self._color):
            self._values, self._highest, self._color = tuple(values), highest, color
            self.refresh()

    def draw(self, palette: Palette, width: int) -> list[Segment]:
        values = self._values[-width:]
        highest = self._highest if self._highest is not None else max(values, default=0)
        bars = "".join(
            _BARS[round(min(1.0, max(0.0, value / highest)) * (len(_BARS) - 1))] if highest > 0 else _BARS[0]
            for value in values
        )
        return [
            Segment(" " * (width - len(bars)), None),
            Segment(bars, rich_style(palette.color(self._color))),
        ]


def meter_cells(amounts: Sequence[float], total: float, width: int) -> list[int]:
    """Return how many of `width` cells each amount gets; at least one if it is above 0."""
    total = max(total, sum(amounts))
    cells: list[int] = []
    running = 0.0
    for amount in amounts:
        running += max(0.0, amount)
        taken = sum(cells)
        wanted = round(running * width / total) - taken if total > 0 else 0
        cells.append(min(width - taken, max(wanted, 1 if amount > 0 else 0)))
    return cells
