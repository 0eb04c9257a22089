"""The left column: Samovar's name, the list of chats, and some lines for keys and what has just been done."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import msgspec
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.widgets import Input, Static

from samovar.core.errors import SamovarError
from samovar.sessions.tags import joined_tags, split_tags
from samovar.tui.widgets.line import Line
from samovar.tui.widgets.parts import fitted
from samovar.tui.widgets.session_list import NEW, SessionList, SessionRow, Wish, tag_words
from samovar.tui.widgets.task_lines import TaskLines

_TITLE_KEYS: Final = "enter saves · esc cancels"
_TAG_KEYS: Final = "tags, with spaces between\nenter saves · esc cancels"
_FILTER_KEYS: Final = "words of the titles\nenter opens · esc clears"
_NO_MATCH: Final = "no title has these words\nesc clears"
_OPEN_KEYS: Final = "enter opens · r renames"
_LIST_KEYS: Final = "s star · a archive · t tags\nx deletes · / filter · f1"
_MIN_WIDTH: Final = 6


class TitleInput(Line):
    """A line in place of a chat's title, while that or its tags are being changed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "keep the title", show=False)]

    class Left(Message):
        """The user is done with it, without a new title."""

    def show_end(self) -> None:
        """Put the cursor at the end, and the beginning in view where both fit; needs its width."""
        self.scroll_to(0, animate=False, force=True)
        self.cursor_position = 0
        self.cursor_position = len(self.value)

    def action_cancel(self) -> None:
        self.post_message(self.Left())

    def on_blur(self, event: events.Blur) -> None:
        self.post_message(self.Left())


class FilterInput(Line):
    """The words that the listed titles have. Up and down are the list's."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "list all again", show=False),
        Binding("up", "step(-1)", "up", show=False),
        Binding("down", "step(1)", "down", show=False),
    ]

    class Left(Message):
        """The user wants to see all titles again."""

    class Stepped(Message):
        """The list's cursor shall move."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def action_leave(self) -> None:
        self.post_message(self.Left())

    def action_step(self, step: int) -> None:
        self.post_message(self.Stepped(step))


class _Edit(msgspec.Struct, frozen=True):
    """What the line over a title is changing."""

    session: str
    of_tags: bool


class Sidebar(Vertical):
    """The list with its heading. The list's own messages pass through."""

    class Renamed(Message):
        """A chat shall have another title."""

        def __init__(self, session: str, title: str) -> None:
            super().__init__()
            self.session = session
            self.title = title

    class Tagged(Message):
        """A chat shall have these tags."""

        def __init__(self, session: str, tags: tuple[str, ...]) -> None:
            super().__init__()
            self.session = session
            self.tags = tags

    class Filtered(Message):
        """Only titles with these words shall be listed; all of them where `words` is empty."""

        def __init__(self, words: str) -> None:
            super().__init__()
            self.words = words

    class RenameEnded(Message):
        """The line over a title is gone again."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sessions = SessionList(id="sessions")
        self._heading = Static("", id="chats-heading")
        self._second = Static("", id="chats-arrangement")
        self._filter = FilterInput(
            id="filter-input", compact=True, select_on_focus=False, placeholder="words"
        )
        self._filter.cursor_blink = False
        self._lines = Static("", id="list-note")
        self.tasks = TaskLines(id="task-lines")
        self._num_chats = -1
        self._arrangement = ""
        self._note = ""
        self._edit: _Edit | None = None
        self._goes_to_first = False

    def compose(self) -> ComposeResult:
        yield Static("samovar", id="brand")
        yield self._heading
        yield self._second
        yield self._filter
        yield self.sessions
        yield self._lines
        yield self.tasks
        yield TitleInput(id="title-input", compact=True, select_on_focus=False)

    def set_rows(
        self, ids: list[str], row_of: Callable[[str], SessionRow], shown: str, arrangement: str
    ) -> None:
        """Show these chats; `shown` is the one that is open, `arrangement` says how they are arranged."""
        self.sessions.set_rows(ids, row_of)
        self.sessions.set_shown(shown)
        if self._goes_to_first:
            self._goes_to_first = False
            self.sessions.go_to_first()
        if (len(ids), arrangement) != (self._num_chats, self._arrangement):
            self._num_chats, self._arrangement = len(ids), arrangement
            self._draw_heading()
        self._draw_note()

    def on_resize(self) -> None:
        self._draw_heading()
        self.tasks.set_room(self.size.height)

    def _draw_heading(self) -> None:
        """`CHATS · #work   12`: a long arrangement goes to the next line."""
        width = max(_MIN_WIDTH, self.size.width - 3)
        count = f" {max(0, self._num_chats):,}"
        aside = f" · {self._arrangement}" if self._arrangement else ""
        fits = len("CHATS" + aside + count) <= width
        room = width - len("CHATS") - len(count)
        self._heading.update(
            Content.assemble(
                ("CHATS", "$secondary"), (fitted(aside if fits else "", room), "$brass"), (count, "$faint")
            )
        )
        self._second.update(Content.assemble(("" if fits else fitted(self._arrangement, width), "$brass")))

    # The lines under the list

    def set_note(self, text: str) -> None:
        """Show a line or two under the list, empty for none."""
        self._note = text
        self._draw_note()

    def end_note(self, text: str) -> None:
        """Take this note back, unless another has come."""
        if text == self._note:
            self.set_note("")

    def on_descendant_focus(self) -> None:
        self._draw_note()

    def on_descendant_blur(self) -> None:
        self._draw_note()

    @on(SessionList.CursorMoved)
    def _cursor_moved(self, event: SessionList.CursorMoved) -> None:
        event.stop()
        self._draw_note()

    def _draw_note(self) -> None:
        """What has just been done; else what the keys do, under the tags of the chat at the cursor."""
        if not self.is_mounted:
            return
        note = self._lines
        if self._note:
            note.update(Content.assemble((self._note, "$secondary")))
        elif self._edit is not None:
            note.update(Content.assemble((_TAG_KEYS if self._edit.of_tags else _TITLE_KEYS, "$faint")))
        elif self._filter.has_focus:
            note.update(Content.assemble((_FILTER_KEYS if self.sessions.ids else _NO_MATCH, "$faint")))
        else:
            note.update(Content.assemble(self._tag_line(), "\n", (_LIST_KEYS, "$faint")))
        needs_it = self.sessions.has_focus or self._filter.has_focus
        note.display = needs_it or self._edit is not None or bool(self._note)

    def _tag_line(self) -> Content:
        """The tags of the chat at the cursor, or else the first keys: so that nothing jumps."""
        tags = "" if self.sessions.cursor == NEW else tag_words(self.sessions.row(self.sessions.cursor).tags)
        text = fitted(tags, max(_MIN_WIDTH, self.size.width - 3)) if tags else _OPEN_KEYS
        return Content.assemble((text, "$secondary" if tags else "$faint"))

    # Changing a title or tags where the title stands

    def rename(self, session: str, title: str) -> None:
        """Let the user change a title."""
        self._begin(_Edit(session, of_tags=False), title)

    def edit_tags(self, session: str, tags: Sequence[str]) -> None:
        """Let the user change the tags of a chat."""
        self._begin(_Edit(session, of_tags=True), joined_tags(tags))

    def _begin(self, edit: _Edit, text: str) -> None:
        sessions = self.sessions
        line: Region = sessions.row_region(edit.session)
        field = self.query_one(TitleInput)
        field.value = text
        field.styles.offset = (
            line.x,
            sessions.virtual_region.y + max(0, min(line.y, sessions.size.height - 1)),
        )
        field.styles.width = line.width
        field.display = True
        field.focus()
        self._edit = edit
        self._note = ""
        self._draw_note()
        self.call_after_refresh(field.show_end)

    @on(Input.Submitted, "#title-input")
    def _take_line(self, event: Input.Submitted) -> None:
        event.stop()
        edit = self._edit
        if edit is None:
            return
        if edit.of_tags:
            try:
                self.post_message(self.Tagged(edit.session, split_tags(event.value)))
            except SamovarError as error:
                self.set_note(str(error))
                return
        else:
            self.post_message(self.Renamed(edit.session, event.value))
        self._edit = None
        self._note = ""
        self._end()

    @on(TitleInput.Left)
    def _leave(self, event: TitleInput.Left) -> None:
        event.stop()
        if self._edit is not None:
            self._edit = None
            self._note = ""
            self._end()

    def _end(self) -> None:
        self.query_one(TitleInput).display = False
        self._draw_note()
        self.post_message(self.RenameEnded())

    # Filtering titles

    @on(SessionList.Wished)
    def _begin_filter(self, event: SessionList.Wished) -> None:
        if event.wish is Wish.FILTER:
            event.stop()
            self._second.display, self._filter.display = False, True
            self._filter.focus()

    @on(SessionList.TypedAhead)
    def _typed_ahead(self, event: SessionList.TypedAhead) -> None:
        event.stop()
        self._filter.post_message(event.key)

    @on(Input.Changed, "#filter-input")
    def _filter_changed(self, event: Input.Changed) -> None:
        event.stop()
        words = event.value.strip()
        self.sessions.is_filtered = bool(words)
        self._goes_to_first = bool(words)
        self.post_message(self.Filtered(words))

    @on(FilterInput.Stepped)
    def _step(self, event: FilterInput.Stepped) -> None:
        event.stop()
        self.sessions.action_move(event.step)

    @on(Input.Submitted, "#filter-input")
    def _open_found(self, event: Input.Submitted) -> None:
        event.stop()
        if self.sessions.ids:
            self.post_message(SessionList.Opened(self.sessions.cursor))

    @on(FilterInput.Left)
    @on(SessionList.FilterLeft)
    def _leave_filter(self, event: Message) -> None:
        event.stop()
        self.end_filter()
        self.sessions.focus()

    @on(SessionList.Opened)
    def _opened(self) -> None:
        self.end_filter()

    @on(events.DescendantBlur)
    def _left_filter(self, event: events.DescendantBlur) -> None:
        """A filter without words needs no line."""
        if event.widget is self._filter and not self._filter.value.strip():
            self.end_filter()

    def end_filter(self) -> None:
        """List all titles again."""
        self._filter.value = ""
        self._second.display, self._filter.display = True, False
