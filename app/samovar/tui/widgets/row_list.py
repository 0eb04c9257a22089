"""A list of rows with a cursor, drawn on demand, so that a thousand rows cost what ten cost.

Takes the keys of its rows and a function that draws one; posts where the cursor goes. The cursor belongs to
a row, not to a line: when the rows are sorted anew, it stays with its row.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from samovar.tui.theme import palette_of, rich_style
from samovar.tui.widgets.parts import Part


class RowList(ScrollView, can_focus=True):
    """Rows to choose from. With `follows_first`, a cursor on the first row stays on the first row."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "up", show=False),
        Binding("down", "move(1)", "down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
        Binding("home", "move(-1_000_000)", "first", show=False),
        Binding("end", "move(1_000_000)", "last", show=False),
    ]

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, row_list: "RowList") -> None:
            super().__init__()
            self.row_list = row_list

        @property
        def control(self) -> "RowList":
            return self.row_list

    class Chosen(Message):
        """The user clicked on the row under the cursor."""

    def __init__(
        self, empty: str, *, follows_first: bool = False, row_height: int = 1, id: str | None = None
    ) -> None:
        """`empty` is shown while there are no rows. A row of several lines has parts `"\\n"` between them."""
        super().__init__(id=id)
        self._row_height = row_height
        self._empty = empty
        self._follows_first = follows_first
        self._keys: tuple[str, ...] = ()
        self._draw: Callable[[str, int], Sequence[Part]] | None = None
        self._cursor = ""

    @property
    def keys(self) -> Sequence[str]:
        """The rows in the order shown."""
        return self._keys

    @property
    def cursor(self) -> str:
        """The row under the cursor; empty where there is none."""
        return self._cursor

    def set_rows(self, keys: Sequence[str], draw: Callable[[str, int], Sequence[Part]]) -> None:
        """Show these rows; `draw` makes the parts of one, by its key, for a width in cells."""
        old, keys, before = self._keys, tuple(keys), self._cursor
        self._keys, self._draw = keys, draw
        line = old.index(before) if before in old else 0
        if before not in keys or (self._follows_first and line == 0):
            self._cursor = keys[min(line, len(keys) - 1)] if keys else ""
        if keys != old:
            self.virtual_size = Size(self.size.width, len(keys) * self._row_height)
            self._show_cursor()
        self.refresh()
        if self._cursor != before:
            self.post_message(self.Moved(self))

    @property
    def row_width(self) -> int:
        """Cells that a row has for its parts."""
        return max(0, self.size.width - 3)

    def go_to(self, key: str) -> None:
        """Put the cursor on this row, if it is there."""
        if key in self._keys:
            self._go_to(self._keys.index(key))

    def set_empty(self, text: str) -> None:
        """What is shown while there are no rows."""
        if text != self._empty:
            self._empty = text
            self.refresh()

    # Drawing

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self.refresh())

    def render_line(self, y: int) -> Strip:
        palette = palette_of(self.app.current_theme)
        width = self.size.width
        line, part_line = divmod(y + self.scroll_offset.y, self._row_height)
        if not self._keys and y == 0:
            empty = Segment(f"  {self._empty}"[:width], rich_style(palette.faint, palette.ground))
            return Strip([empty]).adjust_cell_length(width, rich_style(None, palette.ground))
        if line >= len(self._keys) or self._draw is None:
            return Strip.blank(width, rich_style(None, palette.ground))
        has_cursor = self._keys[line] == self._cursor
        ground = palette.raised if has_cursor else palette.ground
        has_keys = self.has_focus or not self.can_focus  # those come from the text beside it
        bar = "▌" if has_cursor and has_keys else " "
        segments = [Segment(f"{bar} ", rich_style(palette.brass, ground))]
        segments += [
            Segment(text, rich_style(palette.color(color.removeprefix("$")), ground))
            for text, color in _line(self._draw(self._keys[line], self.row_width), part_line)
        ]
        return Strip(segments).adjust_cell_length(width, rich_style(None, ground))

    # Keys and mouse

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._keys) * self._row_height)
        self._show_cursor()

    def on_click(self, event: events.Click) -> None:
        line = (event.y + self.scroll_offset.y) // self._row_height
        if line < len(self._keys):
            was_there = self._keys[line] == self._cursor
            self._go_to(line)
            if was_there or event.chain == 2:
                self.post_message(self.Chosen())

    def action_move(self, step: int) -> None:
        if self._keys:
            self._go_to(max(0, min(self._keys.index(self._cursor) + step, len(self._keys) - 1)))

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self.size.height // self._row_height - 1))

    def _go_to(self, line: int) -> None:
        if self._keys[line] != self._cursor:
            self._cursor = self._keys[line]
            self._show_cursor()
            self.refresh()
            self.post_message(self.Moved(self))

    def _show_cursor(self) -> None:
        if self.size.height and self._cursor:
            line = Region(0, self._keys.index(self._cursor) * self._row_height, 1, self._row_height)
            self.scroll_to_region(line, animate=False, force=True)


def _line(parts: Sequence[Part], number: int) -> list[Part]:
    """The parts of one line of a row."""
    line = 0
    found: list[Part] = []
    for part in parts:
        if part[0] == "\n":
            line += 1
        elif line == number:
            found.append(part)
    return found
