"""Where the user writes: a text of up to eight lines, what is going on, and what the keys do.

Takes texts, posts what the user wants sent; knows neither chats nor client.
"""

from collections.abc import Sequence
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

from samovar.chats.slash import matching

_NEW_LINE_KEYS: Final = ("ctrl+j", "shift+enter", "alt+enter")
_HINTS: Final = (
    "enter sends · ctrl+j new line · esc stops · / commands",
    "enter sends · esc stops · / commands",
    "esc stops · / commands",
    "/ commands",
)


class MessageInput(TextArea):
    """A text area in which Enter sends. Up in an empty one brings back what was sent."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "send", id="composer.send"),
        Binding(",".join(_NEW_LINE_KEYS), "new_line", "new line", id="composer.new_line"),
        Binding("tab", "complete", "complete a /command, or go to the next part", show=False),
    ]

    class Submitted(Message):
        """The user wants this text sent."""

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

    def set_history(self, texts: Sequence[str]) -> None:
        """The texts that Up brings back, oldest first."""
        self._history = texts
        self._recalled = None

    async def _on_key(self, event: events.Key) -> None:
        """Runs before the text area's own handler, which would make Enter a line break.

        The text area takes letters here. A binding would run later: keys that come fast would overtake it.
        """
        if event.key == "enter":
            event.prevent_default()
            event.stop()
            self.action_submit()
        elif event.key in _NEW_LINE_KEYS:
            event.prevent_default()
            event.stop()
            self.action_new_line()

    async def _on_paste(self, event: events.Paste) -> None:
        """Runs before the text area's own handler: a paste that bubbled up to the app would come back."""
        event.stop()

    def action_submit(self) -> None:
        """Hand the text over and start an empty one at once: the next key belongs to that."""
        if text := self.text if self.text.strip() else "":
            self.load_text("")
            self.post_message(self.Submitted(text))

    def action_new_line(self) -> None:
        start, end = self.selection
        self._replace_via_keyboard("\n", start, end)

    def action_complete(self) -> None:
        found = matching(self.text) if " " not in self.text else []
        if found:
            self.text = f"/{found[0].name}{' ' if found[0].argument else ''}"
            self.move_cursor(self.document.end)
        else:
            self.screen.focus_next()

    def action_cursor_up(self, select: bool = False) -> None:
        if select or not self._recall(-1):
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
        self._command = ""

    def set_activity(self, activity: Content) -> None:
        """Say what is going on."""
        if not activity.is_same(self._activity):
            self._activity = activity
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
        if self._command:
            return Content.assemble((_explained(self._command), "$faint")).truncate(width, ellipsis=True)
        activity = self._activity.truncate(width, ellipsis=True)
        room = width - activity.cell_length - (2 if activity.plain else 0)
        hint = next((hint for hint in (self._aside, *_HINTS) if hint and cell_len(hint) <= room), "")
        gap = width - activity.cell_length - cell_len(hint)
        return Content.assemble(activity, " " * max(0, gap), (hint, "$faint"))


def _explained(text: str) -> str:
    """What a half-typed command can become."""
    found = matching(text)
    if len(found) != 1:
        return "  ".join(f"/{usage.name}" for usage in found)
    return f"/{found[0].name} {found[0].argument}".rstrip() + f" · {found[0].help}"


class Composer(Vertical):
    """The input, a line for what went wrong, and the foot."""

    class Sent(Message):
        """The user pressed Enter on a text that is not empty; it has left the input."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def compose(self) -> ComposeResult:
        yield MessageInput(id="input")
        yield Static("", id="error", markup=False)
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

    def set_activity(self, activity: Content, aside: str = "") -> None:
        """Say what is going on, on one line; `aside` stands at its end if there is room."""
        self.query_one(Foot).set_activity(activity)
        self.query_one(Foot).set_aside(aside)

    def set_error(self, text: str) -> None:
        """Say what went wrong and what to do; empty once that is past."""
        error = self.query_one("#error", Static)
        if error.display or text:
            error.update(Content(text))
            error.display = bool(text)

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
        first, is_long = event.text_area.document[0], event.text_area.document.line_count > 1
        self.query_one(Foot).set_command(first if matching(first) and not is_long else "")
