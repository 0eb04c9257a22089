"""The left column: Samovar's name, the list of chats, and one line for what has just been done to it."""

from collections.abc import Sequence
from typing import ClassVar, Final

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from samovar.tui.widgets.session_list import SessionList, SessionRow

_TITLE_KEYS: Final = "enter saves · esc cancels"
_LIST_KEYS: Final = "enter opens · r renames\nx deletes · esc back"


class TitleInput(Input):
    """A line in place of a chat's title, while it is being changed."""

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


class Sidebar(Vertical):
    """The list with its heading. Posts `Renamed`; the list's own messages pass through."""

    class Renamed(Message):
        """A chat shall have another title."""

        def __init__(self, session: str, title: str) -> None:
            super().__init__()
            self.session = session
            self.title = title

    class RenameEnded(Message):
        """The line for the title is gone again."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sessions = SessionList(id="sessions")
        self._heading = Static("", id="chats-heading")
        self._num_chats = -1
        self._note = ""
        self._renaming: str | None = None

    def compose(self) -> ComposeResult:
        yield Static("samovar", id="brand")
        yield self._heading
        yield self.sessions
        yield Static("", id="list-note")
        yield TitleInput(id="title-input", compact=True, select_on_focus=False)

    def set_rows(self, rows: Sequence[SessionRow], shown: str) -> None:
        """Show these chats; `shown` is the one that is open."""
        self.sessions.set_rows(rows)
        self.sessions.set_shown(shown)
        if len(rows) != self._num_chats:
            self._num_chats = len(rows)
            self._draw_heading()

    def on_resize(self) -> None:
        self._draw_heading()

    def _draw_heading(self) -> None:
        """`CHATS` and their number, over the rows' figures."""
        width = max(6, self.size.width - 3)
        count = f"{max(0, self._num_chats):>{width - 5},}"
        self._heading.update(Content.assemble(("CHATS", "$secondary"), (count, "$faint")))

    def set_note(self, text: str) -> None:
        """Show one line under the list, empty for none."""
        self._note = text
        self._draw_note()

    def on_descendant_focus(self) -> None:
        self._draw_note()

    def on_descendant_blur(self) -> None:
        self._draw_note()

    def _draw_note(self) -> None:
        """What the keys do while a title is changed; else the note, or what they do in the list."""
        note = self.query_one("#list-note", Static)
        keys = _LIST_KEYS if self.sessions.has_focus else ""
        if self._renaming is not None:
            note.update(Content.assemble((_TITLE_KEYS, "$faint")))
        elif self._note:
            note.update(Content.assemble((self._note, "$secondary")))
        else:
            note.update(Content.assemble((keys, "$faint")))
        note.display = self._renaming is not None or bool(self._note or keys)

    def rename(self, session: str, title: str) -> None:
        """Let the user change a title where it stands."""
        sessions = self.sessions
        line = sessions.row_region(session)
        field = self.query_one(TitleInput)
        field.value = title
        field.styles.offset = (
            line.x,
            sessions.virtual_region.y + max(0, min(line.y, sessions.size.height - 1)),
        )
        field.styles.width = line.width
        field.display = True
        field.focus()
        self._renaming = session
        self._draw_note()
        self.call_after_refresh(field.show_end)

    @on(Input.Submitted)
    def _take_title(self, event: Input.Submitted) -> None:
        event.stop()
        session, self._renaming = self._renaming, None
        if session is not None:
            self.post_message(self.Renamed(session, event.value))
        self._end()

    @on(TitleInput.Left)
    def _leave(self, event: TitleInput.Left) -> None:
        event.stop()
        if self._renaming is not None:
            self._renaming = None
            self._end()

    def _end(self) -> None:
        self.query_one(TitleInput).display = False
        self._draw_note()
        self.post_message(self.RenameEnded())
