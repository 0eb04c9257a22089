"""The cell map: what fills the context, as small squares, two to a character.

Runs in the UI thread; draws whole lines from one style per pair of colours. It takes runs of cells and a
mapping from colour keys to colours; what the keys mean is the app's business ("shared" and "free" have
colours of their own).
"""

from collections.abc import Mapping, Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from samovar.tui.theme import palette_of, rich_style

SHARED, FREE = "shared", "free"


class CellMap(Widget):
    """Half-block cells, filled row by row in the order of the runs."""

    DEFAULT_CSS = """
    CellMap {
        height: 6;
        width: 1fr;
    }
    """

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._runs: tuple[tuple[str, int], ...] = ()
        self._total = 0
        self._colors: dict[str, str] = {}
        self._strips: list[Strip] = []
        self._drawn_for: tuple[object, ...] = ()

    def set_runs(self, runs: Sequence[tuple[str, int]], total: int) -> None:
        """Show runs of cells as (colour key, count); what is missing up to `total` cells is free."""
        if (tuple(runs), total) != (self._runs, self._total):
            self._runs, self._total = tuple(runs), total
            self.refresh()

    def set_colors(self, colors: Mapping[str, str]) -> None:
        """Say what colour each key has: a colour, or the name of one of the theme's ("brass")."""
        if dict(colors) != self._colors:
            self._colors = dict(colors)
            self.refresh()

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self.refresh())

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        state = (self._runs, self._total, self.size, self.app.theme, tuple(self._colors.items()))
        if state != self._drawn_for:
            self._drawn_for = state
            self._strips = self._draw(width, height)
        return self._strips[y] if y < len(self._strips) else Strip.blank(width)

    def _draw(self, width: int, height: int) -> list[Strip]:
        palette = palette_of(self.app.current_theme)
        defaults = {SHARED: palette.cream, FREE: palette.track}
        squares = [
            palette.color(self._colors.get(key, defaults.get(key, key)))
            for key in sample(self._runs, self._total, width * height * 2)
        ]
        styles: dict[tuple[str, str], Style] = {}
        strips = []
        for row in range(height):
            top = squares[2 * row * width : (2 * row + 1) * width]
            bottom = squares[(2 * row + 1) * width : (2 * row + 2) * width]
            segments: list[Segment] = []
            start = 0
            for x in range(1, width + 1):
                if x == width or (top[x], bottom[x]) != (top[start], bottom[start]):
                    pair = top[start], bottom[start]
                    style = styles.setdefault(pair, rich_style(*pair))
                    segments.append(Segment("▀" * (x - start), style))
                    start = x
            strips.append(Strip(segments, width))
        return strips


def sample(runs: Sequence[tuple[str, int]], total: int, num_squares: int) -> list[str]:
    """Return the key of each square: of the cell that lies at its place when `total` cells fill all squares.

    A run that is there at all gets at least one square, as long as there are as many squares as runs.
    """
    shown = [(key, count) for key, count in runs if count > 0]
    used = sum(count for _, count in shown)
    total = max(total, used, 1)
    squares: list[str] = []
    cells = 0
    for number, (key, count) in enumerate(shown):
        cells += count
        room_for_others = num_squares - (len(shown) - number - 1)
        end = min(
            max(round(cells * num_squares / total), len(squares) + 1), max(room_for_others, len(squares))
        )
        squares += [key] * (end - len(squares))
    squares = squares[:num_squares]
    return squares + [FREE] * (num_squares - len(squares))
