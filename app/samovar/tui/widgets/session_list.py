"""The list of chats: one line each, drawn on demand, so that a thousand cost what ten cost.

Takes rows, posts what the user wants; knows neither store nor client. The cursor belongs to a chat, not to a
line: when the list is sorted anew, cursor and view stay with it.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from samovar.core.figures import short_count
from samovar.core.safe_text import clean
from samovar.core.snapshot import Tier
from samovar.tui.theme import palette_of, rich_style, session_color

GLYPHS: Final = {Tier.CONTEXT: "●", Tier.HOST: "◐", Tier.DISK: "◔", None: "○"}
AT_WORK: Final = "◉"  # its prompt is being read or its reply written
NEW: Final = ""  # the row that makes a new chat, in place of a chat's id
REST_S: Final = 0.15
_COUNT_WIDTH: Final = 5


class SessionRow(msgspec.Struct, frozen=True):
    """One chat as the list shows it. `tokens` is None where nobody knows."""

    id: str
    title: str
    ordinal: int
    tier: Tier | None = None
    tokens: int | None = None
    running: bool = False


class SessionList(ScrollView, can_focus=True):
    """Chats to choose from, and a last line for a new one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "up", show=False),
        Binding("down", "move(1)", "down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
        Binding("home", "move(-1_000_000)", "first", show=False),
        Binding("end", "move(1_000_000)", "last", show=False),
        Binding("enter", "open", "open the chat", id="list.open"),
        Binding("r", "rename", "rename the chat", id="list.rename"),
        Binding("delete,x", "delete", "delete the chat", id="list.delete"),
        Binding("u", "undo", "undo the last delete", id="list.undo"),
    ]

    class Opened(Message):
        """The user chose a chat; `NEW` for a fresh one."""

        def __init__(self, session: str) -> None:
            super().__init__()
            self.session = session

    class Rested(Message):
        """The cursor has stayed on a chat for a moment: it may be opened next."""

        def __init__(self, session: str) -> None:
            super().__init__()
            self.session = session

    class RenameWanted(Message):
        """The user wants to give a chat another title."""

        def __init__(self, session: str) -> None:
            super().__init__()
            self.session = session

    class DeleteWanted(Message):
        """The user wants to be rid of a chat."""

        def __init__(self, session: str) -> None:
            super().__init__()
            self.session = session

    class UndoWanted(Message):
        """The user wants the last deleted chat back."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: tuple[SessionRow, ...] = ()
        self._places: dict[str, int] = {}
        self._shown = NEW
        self._cursor = NEW
        self._hover: int | None = None
        self._rest_timer: Timer | None = None

    @property
    def rows(self) -> Sequence[SessionRow]:
        """The chats in the order shown."""
        return self._rows

    @property
    def cursor(self) -> str:
        """The chat the cursor rests on; `NEW` on the last line."""
        return self._cursor

    def set_rows(self, rows: Sequence[SessionRow]) -> None:
        """Show these chats, in this order."""
        rows = tuple(rows)
        if rows == self._rows:
            return
        line = self._line_of(self._cursor)
        above = line - self.scroll_offset.y
        in_view = 0 <= above < self.size.height
        old = self._rows
        self._rows = rows
        self._places = {row.id: place for place, row in enumerate(rows)}
        if (
            self._cursor not in self._places and self._cursor != NEW
        ):  # it was deleted: its neighbour takes over
            place = next((i for i, row in enumerate(old) if row.id == self._cursor), 0)
            self._cursor = rows[min(place, len(rows) - 1)].id if rows else NEW
        self.virtual_size = Size(self.size.width, len(rows) + 2)
        if in_view and self._line_of(self._cursor) != line:
            self.scroll_to(y=max(0, self._line_of(self._cursor) - above), animate=False, force=True)
        self.refresh()

    def set_shown(self, session: str) -> None:
        """Mark the chat that is open, and put the cursor on it when it is another one."""
        if session != self._shown:
            self._shown = self._cursor = session
            self._show_cursor()
            self.refresh()

    def row_region(self, session: str) -> Region:
        """Where a chat's title is drawn now, relative to this widget."""
        return Region(4, self._line_of(session) - self.scroll_offset.y, max(8, self.size.width - 5), 1)

    # Drawing

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self.refresh())

    def render_line(self, y: int) -> Strip:
        width, line = self.size.width, y + self.scroll_offset.y
        if line < len(self._rows):
            return self._draw_row(self._rows[line], width, hovered=line == self._hover)
        if line == len(self._rows) + 1:
            return self._draw_new(width, hovered=line == self._hover)
        return Strip.blank(width, rich_style(None, palette_of(self.app.current_theme).side))

    def _draw_row(self, row: SessionRow, width: int, *, hovered: bool) -> Strip:
        palette = palette_of(self.app.current_theme)
        is_shown, has_cursor = row.id == self._shown, row.id == self._cursor and self.has_focus
        ground = palette.raised if is_shown or has_cursor or hovered else palette.side
        title = " ".join(clean(row.title).split()) or "new chat"
        tokens = "" if row.tokens is None else short_count(row.tokens)
        room = max(1, width - 5 - _COUNT_WIDTH)
        if cell_len(title) > room:
            title = set_cell_size(title, room - 1) + "…"
        color = session_color(palette, row.ordinal)
        foreground = palette.text if is_shown or row.title else palette.secondary
        segments = [
            Segment("▌" if has_cursor else " ", rich_style(palette.brass, ground)),
            Segment(" " + (AT_WORK if row.running else GLYPHS[row.tier]), rich_style(color, ground)),
            Segment(" " + set_cell_size(title, room), rich_style(foreground, ground, bold=is_shown)),
            Segment(tokens.rjust(_COUNT_WIDTH), rich_style(palette.secondary, ground)),
            Segment("▸" if row.running else " ", rich_style(palette.brass, ground)),
        ]
        return Strip(segments).adjust_cell_length(width, rich_style(None, ground))

    def _draw_new(self, width: int, *, hovered: bool) -> Strip:
        palette = palette_of(self.app.current_theme)
        has_cursor = self._cursor == NEW and self.has_focus
        ground = palette.raised if has_cursor or hovered else palette.side
        text = rich_style(palette.text if has_cursor or hovered else palette.faint, ground)
        segments = [
            Segment("▌" if has_cursor else " ", rich_style(palette.brass, ground)),
            Segment(" + new chat", text),
        ]
        return Strip(segments).adjust_cell_length(width, text)

    # Keys and mouse

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._rows) + 2)
        self._show_cursor()

    def on_click(self, event: events.Click) -> None:
        session = self._at(event.y)
        if session is not None:
            self._cursor = session
            self.post_message(self.Opened(session))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._set_hover(event.y + self.scroll_offset.y if self._at(event.y) is not None else None)

    def on_leave(self) -> None:
        self._set_hover(None)

    def action_move(self, step: int) -> None:
        order = [row.id for row in self._rows] + [NEW]
        place = self._places.get(self._cursor, len(self._rows)) + step
        self._cursor = order[max(0, min(place, len(order) - 1))]
        self._show_cursor()
        self.refresh()
        if self._rest_timer is not None:
            self._rest_timer.stop()
        self._rest_timer = self.set_timer(REST_S, self._tell_rest)

    def _tell_rest(self) -> None:
        if self._cursor != NEW and self.has_focus:
            self.post_message(self.Rested(self._cursor))

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self.size.height - 1))

    def action_open(self) -> None:
        self.post_message(self.Opened(self._cursor))

    def action_rename(self) -> None:
        if self._cursor != NEW:
            self.post_message(self.RenameWanted(self._cursor))

    def action_delete(self) -> None:
        if self._cursor != NEW:
            self.post_message(self.DeleteWanted(self._cursor))

    def action_undo(self) -> None:
        self.post_message(self.UndoWanted())

    def _at(self, y: int) -> str | None:
        """The chat (or `NEW`) drawn in line `y` of the widget."""
        line = y + self.scroll_offset.y
        if line < len(self._rows):
            return self._rows[line].id
        return NEW if line == len(self._rows) + 1 else None

    def _line_of(self, session: str) -> int:
        return self._places.get(session, len(self._rows) + 1)

    def _show_cursor(self) -> None:
        if self.size.height:
            line = Region(0, self._line_of(self._cursor), 1, 1)
            self.scroll_to_region(line, animate=False, force=True)

    def _set_hover(self, line: int | None) -> None:
        if line != self._hover:
            self._hover = line
            self.refresh()
