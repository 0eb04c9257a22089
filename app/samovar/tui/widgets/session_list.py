"""The list of chats: one line each, asked for and drawn on demand, so that 20,000 cost what ten cost.

Takes ids and a function that makes a row, posts what the user wants; knows neither store nor client. The
cursor belongs to a chat, not to a line: when the list is sorted anew, cursor and view stay with it.
"""

import enum
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.actions import SkipAction
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
from samovar.tui.widgets.parts import fitted

GLYPHS: Final = {Tier.CONTEXT: "●", Tier.HOST: "◐", Tier.DISK: "◔", None: "○"}
AT_WORK: Final = "◉"  # its prompt is being read or its reply written
DRAFT: Final = "✎"  # there is a text in it that has not been sent
NEW: Final = ""  # the row that makes a new chat, in place of a chat's id
FAVOURITE: Final = "★"
ARCHIVED: Final = "▤"
REST_S: Final = 0.15
_COUNT_WIDTH: Final = 5
_TAGS_FROM: Final = 44  # cells of a line that has room for tags
_MAX_TAGS_SHARE: Final = 0.4


class SessionRow(msgspec.Struct, frozen=True):
    """One chat as lists show it: `tokens` None where nobody knows, `used_at` in seconds since the epoch."""

    id: str
    title: str
    tier: Tier | None = None
    tokens: int | None = None
    running: bool = False
    tags: tuple[str, ...] = ()
    is_favourite: bool = False
    is_archived: bool = False
    has_draft: bool = False
    used_at: float = 0.0


class Wish(enum.Enum):
    """What a key in the list asks for, of the chat under the cursor or of the list."""

    STAR = enum.auto()
    ARCHIVE = enum.auto()
    TAGS = enum.auto()
    ORDER = enum.auto()
    TAG_FILTER = enum.auto()
    ARCHIVED = enum.auto()
    FILTER = enum.auto()


_OF_A_CHAT: Final = (Wish.STAR, Wish.ARCHIVE, Wish.TAGS)


def shown_title(title: str) -> str:
    """A title on one line, without what a terminal would obey."""
    return " ".join(clean(title).split()) or "new chat"


def tag_words(tags: Sequence[str]) -> str:
    """`#work #ideas`."""
    return " ".join("#" + " ".join(clean(tag).split()) for tag in tags)


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
        Binding("s", "wish('STAR')", "star the chat: favourites come first", id="list.star"),
        Binding("a", "wish('ARCHIVE')", "archive the chat, or take it back", id="list.archive"),
        Binding("t", "wish('TAGS')", "edit the chat's tags", id="list.tags"),
        Binding(
            "g,number_sign",
            "wish('TAG_FILTER')",
            "list one tag alone",
            key_display="g,#",
            id="list.tag_filter",
        ),
        Binding("slash", "wish('FILTER')", "list titles with some words", key_display="/", id="list.filter"),
        Binding("o", "wish('ORDER')", "another order: recent, created, title, length", id="list.order"),
        Binding("A", "wish('ARCHIVED')", "list archived chats too, or not", id="list.archived"),
        Binding("escape", "clear_filter", "list all again", show=False),
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

    class Wished(Message):
        """The user wants something else of the list; `session` is `NEW` where that is about no chat."""

        def __init__(self, wish: Wish, session: str) -> None:
            super().__init__()
            self.wish = wish
            self.session = session

    class FilterLeft(Message):
        """The user wants to see all titles again."""

    class TypedAhead(Message):
        """A key for the filter came before that had the focus."""

        def __init__(self, key: events.Key) -> None:
            super().__init__()
            self.key = key

    class CursorMoved(Message):
        """The cursor is on another chat."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._ids: list[str] = []
        self._places: dict[str, int] = {}
        self._row_of: Callable[[str], SessionRow] = _unknown
        self._in_view: list[SessionRow] = []
        self.is_filtered = False
        self._gives_way = False
        self._shown = NEW
        self._cursor = NEW
        self._hover: int | None = None
        self._rest_timer: Timer | None = None

    @property
    def rows(self) -> Sequence[SessionRow]:
        """The chats in the order shown; made anew with every call."""
        return [self._row_of(session) for session in self._ids]

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the chats in the order shown."""
        return self._ids

    @property
    def cursor(self) -> str:
        """The chat the cursor rests on; `NEW` on the last line."""
        return self._cursor

    def row(self, session: str) -> SessionRow:
        """One of the chats."""
        return self._row_of(session)

    def set_rows(self, ids: list[str], row_of: Callable[[str], SessionRow]) -> None:
        """Show these chats, in this order; `row_of` makes the row of one when it is drawn."""
        if ids == self._ids:
            self.set_row_of(row_of)
            return
        line = self._line_of(self._cursor)
        above = line - self.scroll_offset.y
        in_view = 0 <= above < self.size.height
        self._ids, self._row_of = ids, row_of
        self._places = {session: place for place, session in enumerate(ids)}
        if (
            self._cursor not in self._places and self._cursor != NEW
        ):  # it was deleted: its neighbour takes over
            self._cursor = ids[min(line, len(ids) - 1)] if ids else NEW
            self.post_message(self.CursorMoved())
        self.virtual_size = Size(self.size.width, len(ids) + 2)
        if in_view and self._line_of(self._cursor) != line:
            self.scroll_to(y=max(0, self._line_of(self._cursor) - above), animate=False, force=True)
        self._in_view = self._visible_rows()
        self.refresh()

    def set_row_of(self, row_of: Callable[[str], SessionRow]) -> None:
        """Draw the same chats as `row_of` has them now, if what is in view reads differently."""
        self._row_of = row_of
        in_view = self._visible_rows()
        if in_view != self._in_view:
            self._in_view = in_view
            self.refresh()

    def _visible_rows(self) -> list[SessionRow]:
        top = self.scroll_offset.y
        return [self._row_of(session) for session in self._ids[top : top + self.size.height]]

    def go_to_first(self) -> None:
        """Put the cursor on the first chat."""
        self._put_cursor(0)

    def set_shown(self, session: str) -> None:
        """Mark the chat that is open, and put the cursor on it when it is another one."""
        if session != self._shown:
            self._shown = self._cursor = session
            self._show_cursor()
            self.refresh()
            self.post_message(self.CursorMoved())

    def row_region(self, session: str) -> Region:
        """Where a chat's title is drawn now, relative to this widget."""
        return Region(4, self._line_of(session) - self.scroll_offset.y, max(8, self.size.width - 5), 1)

    # Drawing

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self.refresh())

    def render_line(self, y: int) -> Strip:
        width, line = self.size.width, y + self.scroll_offset.y
        if line < len(self._ids):
            return self._draw_row(self._row_of(self._ids[line]), width, hovered=line == self._hover)
        if line == len(self._ids) + 1:
            return self._draw_new(width, hovered=line == self._hover)
        return Strip.blank(width, rich_style(None, palette_of(self.app.current_theme).side))

    def _draw_row(self, row: SessionRow, width: int, *, hovered: bool) -> Strip:
        palette = palette_of(self.app.current_theme)
        is_shown, has_cursor = row.id == self._shown, row.id == self._cursor and self.has_focus
        ground = palette.raised if is_shown or has_cursor or hovered else palette.side
        tokens = "" if row.tokens is None else short_count(row.tokens)
        mark = FAVOURITE if row.is_favourite else ARCHIVED if row.is_archived else ""
        room = max(1, width - 5 - _COUNT_WIDTH - (2 if mark else 0))
        tags = tag_words(row.tags) if width >= _TAGS_FROM else ""
        if tags:
            tags = " " + set_cell_size(tags, min(cell_len(tags), int(room * _MAX_TAGS_SHARE)))
        has_draft = DRAFT if row.has_draft and not is_shown else " "
        is_here = row.running or row.tier is not None
        color = session_color(palette, row.id) if is_here else palette.secondary
        foreground = palette.text if is_shown or row.title else palette.secondary
        if row.is_archived:
            foreground = palette.faint
        marks = rich_style(palette.brass if row.is_favourite else palette.faint, ground)
        title = fitted(shown_title(row.title), max(1, room - cell_len(tags)))
        segments = [
            Segment("▌" if has_cursor else " ", rich_style(palette.brass, ground)),
            Segment(" " + (AT_WORK if row.running else GLYPHS[row.tier]), rich_style(color, ground)),
            Segment(f" {mark}" if mark else "", marks),
            Segment(" " + title, rich_style(foreground, ground, bold=is_shown)),
            Segment(tags, rich_style(palette.faint, ground)),
            Segment(tokens.rjust(_COUNT_WIDTH), rich_style(palette.secondary, ground)),
            Segment("▸" if row.running else has_draft, rich_style(palette.brass, ground)),
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
        self._gives_way = False
        self.refresh()

    def on_blur(self) -> None:
        self._gives_way = False
        self.refresh()

    async def _on_key(self, event: events.Key) -> None:
        """What comes in one piece with `/` is the filter's: here its letters would archive and delete."""
        if self._gives_way:
            self.post_message(self.TypedAhead(events.Key(event.key, event.character)))
        elif event.key == "slash":
            self._gives_way = True
            self.action_wish(Wish.FILTER.name)
        else:
            return
        event.prevent_default()
        event.stop()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._ids) + 2)
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
        self._put_cursor(self._places.get(self._cursor, len(self._ids)) + step)
        if self._rest_timer is not None:
            self._rest_timer.stop()
        self._rest_timer = self.set_timer(REST_S, self._tell_rest)

    def _put_cursor(self, place: int) -> None:
        """Put the cursor on the chat at this place, or the nearest; behind the last comes a new one."""
        place = max(0, min(place, len(self._ids)))
        self._cursor = self._ids[place] if place < len(self._ids) else NEW
        self._show_cursor()
        self.refresh()
        self.post_message(self.CursorMoved())

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

    def action_wish(self, name: str) -> None:
        wish = Wish[name]
        if wish not in _OF_A_CHAT:
            self.post_message(self.Wished(wish, NEW))
        elif self._cursor != NEW:
            self.post_message(self.Wished(wish, self._cursor))

    def action_clear_filter(self) -> None:
        """List all titles again; where no filter is set, the key is the screen's."""
        if not self.is_filtered:
            raise SkipAction
        self.post_message(self.FilterLeft())

    def _at(self, y: int) -> str | None:
        """The chat (or `NEW`) drawn in line `y` of the widget."""
        line = y + self.scroll_offset.y
        if line < len(self._ids):
            return self._ids[line]
        return NEW if line == len(self._ids) + 1 else None

    def _line_of(self, session: str) -> int:
        return self._places.get(session, len(self._ids) + 1)

    def _show_cursor(self) -> None:
        if self.size.height:
            line = Region(0, self._line_of(self._cursor), 1, 1)
            self.scroll_to_region(line, animate=False, force=True)

    def _set_hover(self, line: int | None) -> None:
        if line != self._hover:
            self._hover = line
            self.refresh()


def _unknown(session: str) -> SessionRow:
    return SessionRow(session, "")
