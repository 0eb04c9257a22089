"""The transcript: a chat in which one message is the current one, and keys and clicks that work on it.

Runs in the UI thread. It takes entries and posts what the user wants (see `messages`); it knows nothing of
clients or stores.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final, TypeAlias

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Offset
from textual.selection import Selection
from textual.timer import Timer

from samovar.core.safe_text import clean
from samovar.tui.widgets.transcript import actions, messages
from samovar.tui.widgets.transcript.entry import SUMMARY, Entry
from samovar.tui.widgets.transcript.heading import NAME_LINE, step_at
from samovar.tui.widgets.transcript.layout import Anchor, Layout
from samovar.tui.widgets.transcript.selecting import key_of, word_at
from samovar.tui.widgets.transcript.thoughts import THOUGHT, answer, opens_for
from samovar.tui.widgets.transcript.view import ChatScroll

HIGHLIGHT_S: Final = 1.5

_NEAR_THE_END: Final = 4  # lines


class Transcript(ChatScroll):
    """The messages of one chat, to be read and worked on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "left_square_bracket", "jump(-1)", "previous message", key_display="[", id="transcript.previous"
        ),
        Binding("right_square_bracket", "jump(1)", "next message", key_display="]", id="transcript.next"),
        Binding("home", "first", "first message", id="transcript.first"),
        Binding("end", "last", "last message", id="transcript.last"),
        Binding("e", "edit", "edit the message, as a new version of it", id="transcript.edit"),
        Binding("r", "again", "answer again", id="transcript.again"),
        Binding("g", "go_on", "go on with a reply that was cut", id="transcript.go_on"),
        Binding("left", "version(-1)", "previous version of the message", id="transcript.version_before"),
        Binding("right", "version(1)", "next version of the message", id="transcript.version_after"),
        Binding("f", "fork", "a new chat that goes as far as the message", id="transcript.fork"),
        Binding("d", "delete", "delete the message and all below it", id="transcript.delete"),
        Binding("u", "undo", "undo the last delete, or a summary on its mark", id="transcript.undo"),
        Binding("o", "unfold", "show or hide its files' text, or its thinking", id="transcript.unfold"),
        Binding("t", "task('translate')", "translate the message", id="transcript.translate"),
        Binding("w", "task('explain')", "what the message means: explain it", id="transcript.explain"),
        Binding("a", "task('aside')", "ask something aside about the chat", id="transcript.aside"),
        Binding("y", "copy", "copy the message", id="transcript.copy"),
        Binding("c", "copy_code", "copy code", id="transcript.copy_code"),
    ]

    LETTERS: ClassVar = frozenset(
        binding.key
        for binding in BINDINGS
        if isinstance(binding, Binding) and (len(binding.key) == 1 or binding.key.endswith("bracket"))
    )
    """The printable keys that mean something here."""

    EditWanted: TypeAlias = messages.EditWanted
    AgainWanted: TypeAlias = messages.AgainWanted
    ForkWanted: TypeAlias = messages.ForkWanted
    DeleteWanted: TypeAlias = messages.DeleteWanted
    TaskWanted: TypeAlias = messages.TaskWanted
    UndoWanted: TypeAlias = messages.UndoWanted
    ContinueWanted: TypeAlias = messages.ContinueWanted
    SiblingWanted: TypeAlias = messages.SiblingWanted
    CopyRequested: TypeAlias = messages.CopyRequested
    NothingToCopy: TypeAlias = messages.NothingToCopy

    def __init__(
        self,
        *,
        max_fps: float = 15,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(max_fps=max_fps, name=name, id=id, classes=classes)
        self._cursor: int | None = None
        """The current message, by its index."""
        self._to_select: tuple[str, bool] | None = None
        """What is to be selected once there is a layout, and whether it is to stand out."""
        self._lit = False
        self._lit_timer: Timer | None = None

    # -- the current message

    @property
    def current(self) -> str | None:
        """The id of the entry that keys work on; None until the transcript has had the focus."""
        layout = self._layout_of_chat
        if layout is None:
            return self._to_select[0] if self._to_select is not None else None
        return layout.entries[self._cursor].id if self._cursor is not None else None

    def select(self, entry_id: str, *, highlight: bool = True) -> bool:
        """Make an entry the current one and bring it into view, with `highlight` so that it stands out for a
        moment; returns False if there is none of this id. It may be called before there is anything to see.
        """
        entries = self._entries
        index = next((number for number, entry in enumerate(entries) if entry.id == entry_id), None)
        index = _message_of(entries, index) if index is not None else None
        if index is None:
            return False
        if self._layout_of_chat is None:
            self._to_select = (entries[index].id, highlight)
        else:
            self._select(self._layout_of_chat, index, highlight=highlight)
        return True

    def open_thought(self, entry_id: str, words: Sequence[str]) -> None:
        """Show the thinking of an entry if some words that were found stand nowhere else in it."""
        entry = next((entry for entry in self._entries if entry.id == entry_id), None)
        if entry is None or not opens_for(entry, words):
            return
        layout = self._layout_of_chat
        if layout is None:
            self._unfolded.add((entry_id, THOUGHT))
        else:
            self._fold_thought(layout, layout.entries.index(entry), is_open=True)

    def load(self, entries: Sequence[Entry], *, stay: bool = False) -> None:
        """Show another chat, at its end; or with `stay` the same chat after a change, where it is, with the
        same current message or what has taken its place.
        """
        current, place = (self.current, self._cursor) if stay else (None, None)
        self._cursor = None
        self._to_select = None
        self._end_highlight()
        super().load(entries, stay=stay)
        if current is not None and (layout := self._layout_of_chat) is not None:
            index = next((n for n, entry in enumerate(layout.entries) if entry.id == current), place)
            self._set_cursor(_message_of(layout.entries, index))

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        at_last = self._is_at_last
        super().append(entry)
        self._keep_up(at_last)

    def begin_stream(self, entry: Entry) -> None:
        """Add an entry whose text will grow; one that is the last message already goes on growing."""
        at_last = self._is_at_last
        super().begin_stream(entry)
        self._keep_up(at_last)

    @property
    def _view(self) -> range:
        """The lines of the chat that are in view."""
        top = self.scroll_offset.y
        return range(top, top + self.size.height)

    @property
    def _is_at_last(self) -> bool:
        """Whether the current message is the last one, and its end in view."""
        entries = self._entries
        return self.following and self._cursor is not None and self._cursor == _message_of(entries, None)

    def _keep_up(self, at_last: bool) -> None:
        """Go on to a new last message from the one that was last; without the focus, at the next one."""
        if at_last and self._layout_of_chat is not None:
            self._set_cursor(_message_of(self._entries, None) if self.has_focus else None)

    def _set_cursor(self, index: int | None) -> None:
        if index != self._cursor:
            self._cursor = index
            self._end_highlight()
        self._draw_cursor()

    def _draw_cursor(self) -> None:
        if (layout := self._layout_of_chat) is not None:
            layout.set_hinted(self._cursor if self.has_focus else None)
            self.refresh(self.size.region)

    def _find_cursor(self) -> None:
        """Have a current message that is in view."""
        if (layout := self._layout_of_chat) is None:
            return
        if self._cursor is None and self.following:
            self._set_cursor(_message_of(layout.entries, None))
        else:
            self._set_cursor(actions.message_in_view(layout, self._view, self._cursor))

    def _opened(self) -> None:
        layout = self._layout_of_chat
        assert layout is not None
        if self._to_select is not None:
            entry_id, highlight = self._to_select
            self._to_select = None
            index = next((n for n, entry in enumerate(layout.entries) if entry.id == entry_id), None)
            if index is not None:
                self._select(layout, index, highlight=highlight)
        elif self.has_focus:
            self._find_cursor()

    def _moved(self) -> None:
        if self._cursor is not None:
            self._find_cursor()

    def _marked_lines(self) -> range:
        layout, index = self._layout_of_chat, self._cursor
        if layout is None or index is None:
            return super()._marked_lines()
        return layout.lines_at(index) if self.has_focus or self._lit else range(0)

    def _lit_lines(self) -> range:
        return self._marked_lines() if self._lit else range(0)

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        if has_focus:
            self._find_cursor()
        self._draw_cursor()

    # -- going there

    def _select(self, layout: Layout, index: int, *, highlight: bool) -> None:
        self._set_cursor(index)
        height = self.size.height
        layout.settle(Anchor(index, 0, 0), height, 2 * height)
        lines = layout.lines_at(index)
        if not _is_within(lines, self._view):
            above = max(0, min(height // 4, height - len(lines)))
            self.go_to_line(lines.start - above)
        if highlight:
            self._lit = True
            self._lit_timer = self.set_timer(HIGHLIGHT_S, self._end_highlight, name="transcript highlight")
        self.refresh(self.size.region)

    def _end_highlight(self) -> None:
        if self._lit_timer is not None:
            self._lit_timer.stop()
            self._lit_timer = None
        if self._lit:
            self._lit = False
            self.refresh(self.size.region)

    def _bring_into_view(self, layout: Layout, index: int) -> None:
        """Scroll no further than is needed to see all of a message, or its beginning where it is long."""
        height = self.size.height
        layout.settle(Anchor(index, 0, 0), height, 2 * height)
        lines, view = layout.lines_at(index), self._view
        if not _is_within(lines, view):
            fits_below = len(lines) <= height and lines.stop > view.stop
            self.go_to_line(lines.stop - height if fits_below else lines.start if index else 0)

    def action_jump(self, step: int) -> None:
        """Make the next or previous message the current one; back from within a long one, its beginning."""
        layout = self._layout_of_chat
        if layout is None:
            return
        if self._cursor is None:
            self._find_cursor()
        if (index := self._cursor) is None:
            return
        if step > 0 or layout.lines_at(index).start >= self._view.start:
            found = actions.message_near(layout, index + step, step)
            if found is None:
                self.go_to_line(layout.height if step > 0 else 0)
                return
            index = found
        self._set_cursor(index)
        self._bring_into_view(layout, index)

    def action_first(self) -> None:
        """Go to the first message."""
        if (layout := self._layout_of_chat) is not None and layout.entries:
            layout.settle(Anchor(0, 0, 0), 0, 2 * self.size.height)
            self.go_to_line(0)
            self._set_cursor(actions.message_near(layout, 0, 1))

    def action_last(self) -> None:
        """Go to the last message, and follow the end again."""
        self.following = True
        self._set_cursor(_message_of(self._entries, None))

    # -- what is wanted

    def action_edit(self) -> None:
        self._want(self.EditWanted)

    def action_again(self) -> None:
        self._want(self.AgainWanted)

    def action_go_on(self) -> None:
        self._want(self.ContinueWanted)

    def action_fork(self) -> None:
        self._want(self.ForkWanted)

    def action_delete(self) -> None:
        self._want(self.DeleteWanted)

    def action_undo(self) -> None:
        self.post_message(self.UndoWanted(self, self.current))

    def action_task(self, name: str) -> None:
        if (entry_id := self.current) is not None:
            self.post_message(self.TaskWanted(self, entry_id, name))

    def action_version(self, step: int) -> None:
        """Ask for the next or previous version of the current message, where there is one."""
        if (layout := self._layout_of_chat) is not None and self._cursor is not None:
            self._want_version(layout.entries[self._cursor], step)

    def action_unfold(self) -> None:
        """Show the text of all files of the current message, or of none; of a reply, what it thought."""
        layout, index = self._layout_of_chat, self._cursor
        if layout is None or index is None:
            return
        entry = layout.entries[index]
        if entry.role == "assistant":
            self._fold_thought(layout, index, is_open=not layout.is_unfolded(index))
            return
        is_open = not layout.unfolded_of(entry)
        self._fold(layout, index, range(len(entry.attachments)), is_open=is_open)
        if entry.attachments and is_open:
            self._bring_into_view(layout, index)
        elif entry.attachments and (heading := layout.lines_at(index).start) not in self._view:
            self.go_to_line(heading)

    def action_copy(self) -> None:
        """Copy the current message, or the last reply where none is current."""
        entries, index = self._entries, self._cursor
        if index is None:
            replies = (n for n in range(len(entries) - 1, -1, -1) if entries[n].role == "assistant")
            index = next(replies, None)
        if index is None:
            self.post_message(self.NothingToCopy(self, "reply"))
            return
        is_growing = self._live and entries[index].id == self._live_id
        own = entries[index].attachments[0].text if entries[index].role == SUMMARY else entries[index].text
        text = answer(entries[index], self._live_text if is_growing else clean(own))
        self._request_copy((text, actions.kind_of(entries[index])))

    def action_copy_code(self) -> None:
        """Copy the code block that is nearest to the bottom of the view."""
        if (layout := self._layout_of_chat) is not None:
            bottom = min(self._view.stop, layout.height) - 1
            if (code := actions.nearest_code(layout, bottom)) is not None:
                self._request_copy(code)
            else:
                self.post_message(self.NothingToCopy(self, "code"))

    def _fold(self, layout: Layout, index: int, numbers: Iterable[int], *, is_open: bool) -> None:
        """Show or hide the text of files; what is at the top of the view stays there."""
        top = layout.anchor_at(self._view.start)
        for number in numbers:
            layout.fold(index, number, is_open=is_open)
        self.go_to_line(layout.line_of(top))
        if is_open:
            self._reveal(layout, index, layout.lines_at(index).start)

    def _reveal(self, layout: Layout, index: int, line: int) -> None:
        """Bring what has been opened below a line into view, where that line is among the last ones in it."""
        below = layout.lines_at(index).stop - self._view.stop
        if below > 0 and self._view.stop - _NEAR_THE_END <= line < self._view.stop:
            self.go_to_line(min(line, self._view.start + below))

    def _fold_thought(self, layout: Layout, index: int, *, is_open: bool) -> None:
        """Show or hide what a reply thought; its line comes into view, or stays where it is."""
        line = next((y for y in layout.lines_at(index) if actions.is_thought_line(layout, index, y)), None)
        if line is not None:
            following = self.following and not is_open
            self._fold(layout, index, [THOUGHT], is_open=is_open)
            if following:
                self.following = True
            elif line not in self._view:
                self.go_to_line(line)
            elif is_open:
                self._reveal(layout, index, line)

    def _want(self, kind: type[messages.Wanted]) -> None:
        if (entry_id := self.current) is not None:
            self.post_message(kind(self, entry_id))

    def _want_version(self, entry: Entry, step: int) -> None:
        if 0 <= entry.place + step < entry.num_siblings:
            self.post_message(self.SiblingWanted(self, entry.id, step))

    def _request_copy(self, found: actions.Found) -> None:
        self.post_message(self.CopyRequested(self, *found))

    # -- mouse

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Make the message that is pressed the current one."""
        layout = self._layout_of_chat
        if layout is not None and layout.entries:
            index = min(layout.item_at(event.y + self._view.start), len(layout.entries) - 1)
            self._set_cursor(_message_of(layout.entries, index))

    def on_click(self, event: events.Click) -> None:
        """A click works an arrow, a file's line or the label beneath code; two select a word."""
        layout = self._layout_of_chat
        event.prevent_default()
        if layout is None:
            return
        y = event.y + self._view.start
        line = layout.line(y)
        if line is None:
            return
        if event.chain == 1:
            self._click_once(layout, event.x, y)
        elif (span := word_at(line, event.x) if event.chain == 2 else (line.left, line.end)) is not None:
            key = key_of(layout, y)
            self.screen.selections = {self: Selection(Offset(span[0], key), Offset(span[1], key))}

    def _click_once(self, layout: Layout, x: int, y: int) -> None:
        index = layout.item_at(y)
        if index >= len(layout.entries):
            return
        entry = layout.entries[index]
        if y - layout.start(index) == NAME_LINE and entry.is_message:
            if step := step_at(layout.page, entry, x):
                self._want_version(entry, step)
        elif (number := actions.file_at(layout, index, y)) is not None:
            is_open = number not in layout.unfolded_of(entry)
            self._fold(layout, index, [number], is_open=is_open)
            if is_open and entry.role == SUMMARY:
                self._bring_into_view(layout, index)
        elif actions.is_thought_line(layout, index, y):
            self._fold_thought(layout, index, is_open=not layout.is_unfolded(index))
        elif (code := actions.code_of_label(layout, y)) is not None:
            self._request_copy(code)


def _message_of(entries: Sequence[Entry], index: int | None) -> int | None:
    """Return the message at `index` or the next one above it; from the end for None."""
    index = len(entries) - 1 if index is None else min(index, len(entries) - 1)
    while index >= 0 and not entries[index].is_message:
        index -= 1
    return index if index >= 0 else None


def _is_within(inner: range, outer: range) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop
