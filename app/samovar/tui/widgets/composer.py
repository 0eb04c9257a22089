"""Where the user writes: what is queued, a text of up to eight lines, what is going on, what the keys do.

Takes texts, posts what the user wants sent; knows neither chats nor client.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from rich.cells import cell_len
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static, TextArea

from samovar.chats.mentions import (
    as_attachment,
    common_start,
    completions,
    dropped_path,
    mention_of,
    paste_name,
)
from samovar.chats.slash import matching
from samovar.core.safe_text import clean
from samovar.sessions.attachments import digest_of
from samovar.sessions.encoding import storable
from samovar.sessions.values import Attachment
from samovar.tui.widgets.line import do_own_key
from samovar.tui.widgets.queue_rows import QueueRows

LONG_PASTE: Final = 4000  # characters
LONG_PASTE_LINES: Final = 40
_HALF_MENTION: Final = re.compile(r"(?:^|\s)@([^\s\"]*)$")
_NEW_LINE_KEYS: Final = ("ctrl+j", "shift+enter", "alt+enter")
_QUEUE_HINTS: Final = ("enter queues · esc stops · / commands", "enter queues · esc stops", "esc stops")
_HINTS: Final = (
    "enter sends · ctrl+j new line · esc stops · / commands",
    "enter sends · esc stops · / commands",
    "esc stops · / commands",
    "/ commands",
)


_HINT_CELLS: Final = 22  # of a hint that the bar of the meter does not push out
_ACTIVITY_CELLS: Final = 40  # of what is going on while a reply is written, mostly
_LEAST_ACTIVITY: Final = 44  # cells: the meter does not take these away


class MessageInput(TextArea):
    """A text area in which Enter sends. Up in an empty one brings back what is queued, or was sent."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "send", id="composer.send"),
        Binding(",".join(_NEW_LINE_KEYS), "new_line", "new line", id="composer.new_line"),
        Binding("alt+up", "take_back", "take the last queued message back", id="composer.take_back"),
        Binding("tab", "complete", "complete a /command or an @file, else go to the next part", show=False),
    ]

    class Pasted(Message):
        """A long text was pasted; its name stands in the message."""

        def __init__(self, paste: Attachment) -> None:
            super().__init__()
            self.paste = paste

    class Submitted(Message):
        """The user wants this text sent; an empty one: what is queued."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(
            id=id,
            compact=True,
            highlight_cursor_line=False,
            placeholder="write a message",
            tab_behavior="focus",
        )
        self.cursor_blink = False
        self._history: Sequence[str] = ()
        self._recalled: int | None = None
        self.has_queued = False

    def set_history(self, texts: Sequence[str]) -> None:
        """The texts that Up brings back, oldest first."""
        self._history = texts
        self._recalled = None

    async def _on_key(self, event: events.Key) -> None:
        """Runs before the text area's own handler, which would make Enter a line break.

        The text area takes letters here. A binding would run later: keys that come fast would overtake it
        (see `line`).
        """
        if event.key == "enter":
            event.prevent_default()
            event.stop()
            self.action_submit()
        elif event.key in _NEW_LINE_KEYS:
            event.prevent_default()
            event.stop()
            self.action_new_line()
        else:
            await do_own_key(self, event)

    async def _on_paste(self, event: events.Paste) -> None:
        """Runs before the text area's own handler: a paste that bubbled up to the app would come back.

        The path of a file becomes its mention; a long text is kept, and its name stands for it.
        """
        event.stop()
        text = event.text.replace("\r\n", "\n").replace(
            "\r", "\n"
        )  # many terminals paste lines as Enter sends
        if (path := dropped_path(text)) is not None:
            event.prevent_default()
            self._insert_mention(str(path))
        elif len(text) > LONG_PASTE or text.count("\n") >= LONG_PASTE_LINES:
            event.prevent_default()
            digest = digest_of(storable(text))
            paste = as_attachment(paste_name(digest), text)
            self.post_message(self.Pasted(paste))
            self._insert_mention(paste.name)

    def _insert_mention(self, name: str) -> None:
        """Put a file's name where the cursor is, as a word of its own."""
        row, column = self.selection.start
        before = self.document.get_line(row)[:column]
        space = " " if before and not before[-1].isspace() else ""
        self._replace_via_keyboard(f"{space}{mention_of(name)} ", *self.selection)

    def _complete_file(self, typed: str, name: str, *, is_whole: bool) -> None:
        """Put a file's name in place of what is typed behind the `@`."""
        is_file = is_whole and not name.endswith("/")
        mention = f"{mention_of(name)} " if is_file else f"@{name}"
        row, column = self.cursor_location
        self._replace_via_keyboard(mention, (row, column - len(typed) - 1), (row, column))

    @property
    def half_mention(self) -> str | None:
        """What has been typed behind an `@` up to the cursor; None if that is no mention."""
        row, column = self.cursor_location
        found = _HALF_MENTION.search(self.document.get_line(row)[:column])
        return found[1] if found else None

    def action_submit(self) -> None:
        """Hand the text over and start an empty one at once: the next key belongs to that."""
        text = self.text if self.text.strip() else ""
        if text:
            self.load_text("")
        self.post_message(self.Submitted(text))

    def action_take_back(self) -> None:
        self.post_message(QueueRows.Wanted(None, edits=True))

    def action_new_line(self) -> None:
        start, end = self.selection
        self._replace_via_keyboard("\n", start, end)

    def action_complete(self) -> None:
        found = matching(self.text) if " " not in self.text else []
        if (half := self.half_mention) is not None:
            files = completions(half, Path.cwd())
            if files:
                self._complete_file(half, common_start(half, files), is_whole=len(files) == 1)
        elif found:
            self.text = f"/{found[0].name}{' ' if found[0].argument else ''}"
            self.move_cursor(self.document.end)
        else:
            self.screen.focus_previous()

    def action_cursor_up(self, select: bool = False) -> None:
        if not select and self.has_queued and not self.text:
            self.action_take_back()
        elif select or not self._recall(-1):
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        if select or not self._recall(1):
            super().action_cursor_down(select)

    def _recall(self, step: int) -> bool:
        """Go through what was sent, while the text is empty or recalled; False to move the cursor."""
        here = self._recalled
        untouched = here is not None and here < len(self._history) and self._history[here] == self.text
        if self.text and not untouched:
            return False
        if not self.text:
            here = len(self._history)
        assert here is not None
        there = here + step
        if there < 0 or there > len(self._history) or (there == here):
            return bool(self.text)
        self._recalled = there
        self.text = self._history[there] if there < len(self._history) else ""
        self.move_cursor(self.document.end)
        return True


class Foot(Widget):
    """One line: what is going on at the left, what the keys do at the right. Never lays out the screen."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._activity = Content("")
        self._aside = ""
        self._hints: Sequence[str] = _HINTS
        self._command = ""
        self._files: Sequence[str] = ()
        self._meters: Sequence[Content] = ()

    def set_meter(self, meters: Sequence[Content]) -> None:
        """Show the first of these that there is room for, at the very right; nothing for none."""
        if list(meters) != list(self._meters):
            self._meters = meters
            self.refresh()

    def set_files(self, files: Sequence[str]) -> None:
        """Show what a half-typed `@` could become; nothing for none."""
        if files != self._files:
            self._files = files
            self.refresh()

    def set_activity(self, activity: Content) -> None:
        """Say what is going on."""
        if not activity.is_same(self._activity):
            self._activity = activity
            self.refresh()

    def set_hints(self, hints: Sequence[str]) -> None:
        """What the keys do: the longest one that fits is shown."""
        if hints != self._hints:
            self._hints = hints
            self.refresh()

    def set_aside(self, text: str) -> None:
        """Say something beside the activity, in place of the keys; empty for the keys."""
        if text != self._aside:
            self._aside = text
            self.refresh()

    def set_command(self, text: str) -> None:
        """Explain the command that is being typed; empty if none is."""
        if text != self._command:
            self._command = text
            self.refresh()

    def render(self) -> Content:
        width = self.size.width
        if self._files:
            names = "  ".join(clean(name) for name in self._files)
            return Content.assemble(("tab ", "$secondary"), (names, "$faint")).truncate(width, ellipsis=True)
        if self._command:
            return Content.assemble((_explained(self._command), "$faint")).truncate(width, ellipsis=True)
        told = self._activity.cell_length + (2 + cell_len(self._aside) if self._aside else 0)
        left = width - 3 - (told if self._aside and told <= width else min(told, _LEAST_ACTIVITY))
        *longer, shortest = self._meters or (Content(""),)
        fitting = (meter for meter in longer if meter.cell_length <= left - _HINT_CELLS)
        meter = next(fitting, shortest if shortest.cell_length <= left else Content(""))
        end = Content.assemble("   ", meter) if meter.plain else meter
        width -= end.cell_length
        activity = self._activity.truncate(width, ellipsis=True)
        room = width - activity.cell_length - (2 if activity.plain else 0)
        hint = next((hint for hint in (self._aside, *self._hints) if hint and cell_len(hint) <= room), "")
        gap = width - activity.cell_length - cell_len(hint)
        return Content.assemble(activity, " " * max(0, gap), (hint, "$faint"), end)


def _explained(text: str) -> str:
    """What a half-typed command can become."""
    found = matching(text)
    if len(found) != 1:
        return "  ".join(f"/{usage.name}" for usage in found)
    return f"/{found[0].name} {found[0].argument}".rstrip() + f" · {found[0].help}"


class Composer(Vertical):
    """The input, lines for what went wrong and for what is long to say, and the foot."""

    class Typed(Message):
        """The text is another one."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Sent(Message):
        """The user pressed Enter; the text has left the input. An empty one: what is queued is wanted."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def compose(self) -> ComposeResult:
        yield QueueRows(id="queue")
        yield MessageInput(id="input")
        yield Static("", id="error", markup=False)
        yield Static("", id="note", markup=False)
        yield Foot(id="foot")

    @property
    def text(self) -> str:
        """What has been typed."""
        return self.query_one(MessageInput).text

    @property
    def input(self) -> MessageInput:
        """What takes the keys."""
        return self.query_one(MessageInput)

    def set_text(self, text: str) -> None:
        """Put a text into the input, the cursor behind it."""
        area = self.query_one(MessageInput)
        if text != area.text:
            area.load_text(text)
            area.move_cursor(area.document.end)

    def set_history(self, texts: Sequence[str]) -> None:
        """The texts that Up brings back, oldest first."""
        self.query_one(MessageInput).set_history(texts)

    def set_queue(self, texts: Sequence[str], paused: str) -> None:
        """Show the messages that wait, and why none of them is sent (empty while they are)."""
        rows = self.query_one(QueueRows)
        if not texts and rows.has_focus:  # hidden, it would take the keys with it
            self.focus_input()
        rows.set_queue(texts, paused)
        self.input.has_queued = bool(texts)

    def set_activity(self, activity: Content, aside: str = "", *, queues: bool = False) -> None:
        """Say what is going on, on one line; `aside` stands at its end if there is room.

        `queues`: what is sent now waits for the reply before it.
        """
        self.query_one(Foot).set_activity(activity)
        self.query_one(Foot).set_hints(_QUEUE_HINTS if queues else _HINTS)
        self.query_one(Foot).set_aside(aside)

    def set_meter(self, meters: Sequence[Content]) -> None:
        """Show how full the context is, in the longest form that there is room for."""
        self.query_one(Foot).set_meter(meters)

    def set_error(self, text: str) -> None:
        """Say what went wrong and what to do; empty once that is past."""
        error = self.query_one("#error", Static)
        if error.display or text:
            error.update(Content(text))
            error.display = bool(text)

    def set_note(self, text: str, *, is_beside: bool = False) -> bool:
        """Show a text that is too long for the foot, on lines of its own; returns False for any other.

        `is_beside`: it would stand there beside what is going on.
        """
        note = self.query_one("#note", Static)
        width = self.query_one(Foot).size.width
        is_long = width > 0 and cell_len(text) > width - (_ACTIVITY_CELLS if is_beside and text else 0)
        if note.display or is_long:
            note.update(Content(text if is_long else ""))
            note.display = is_long
        return is_long

    @property
    def is_saying(self) -> bool:
        """Whether what went wrong, or what is long to say, stands on lines of its own."""
        return any(self.query_one(name).display for name in ("#error", "#note"))

    def focus_input(self) -> None:
        """Put the cursor into the text."""
        self.query_one(MessageInput).focus()

    @on(MessageInput.Submitted)
    def _send(self, event: MessageInput.Submitted) -> None:
        event.stop()
        self.post_message(self.Sent(event.text))

    @on(TextArea.Changed)
    def _text_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        area = self.query_one(MessageInput)
        half = area.half_mention
        self.query_one(Foot).set_files(() if half is None else tuple(completions(half, Path.cwd())))
        self.post_message(self.Typed(area.text))
        first, is_long = event.text_area.document[0], event.text_area.document.line_count > 1
        self.query_one(Foot).set_command(first if matching(first) and not is_long else "")
