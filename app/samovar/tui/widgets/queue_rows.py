"""The messages that wait for the reply before them: a quiet line each, in the composer's head.

Takes texts, posts what the user wants done with one of them. It takes no place while there are none.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.widget import Widget

from samovar.core.safe_text import clean
from samovar.tui.widgets.parts import Part, fitted, two_sides

MAX_ROWS: Final = 4
_LABEL: Final = "queued"
_HINTS: Final = ("up takes the last one back · tab: all of them", "up takes it back", "")
_FOCUSED_HINTS: Final = (
    "enter edits it · delete drops it · esc back",
    "enter edits · del drops · esc",
    "enter edits · del drops",
    "",
)


class QueueRows(Widget, can_focus=True):
    """The queue of the shown chat, with a cursor while it has the keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "up", show=False),
        Binding("down", "move(1)", "down, or back to writing", show=False),
        Binding("enter", "want(True)", "take the message back into the composer", id="queue.edit"),
        Binding("delete,backspace", "want(False)", "drop the message", id="queue.drop"),
        Binding("escape", "leave", "back to writing", show=False),
    ]

    class Wanted(Message):
        """A message (None: the last one) is to leave the queue: to be edited, or for good."""

        def __init__(self, text: str | None, *, edits: bool) -> None:
            super().__init__()
            self.text = text
            self.edits = edits

    class Left(Message):
        """The user wants to go on writing."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._texts: tuple[str, ...] = ()
        self._paused = ""
        self._cursor = 0

    def set_queue(self, texts: Sequence[str], paused: str) -> None:
        """Show these messages; `paused` says why none of them is sent, empty while they are."""
        if (tuple(texts), paused) == (self._texts, self._paused):
            return
        num_lines = self._num_lines
        self._texts, self._paused = tuple(texts), paused
        self._cursor = max(0, min(self._cursor, len(texts) - 1))
        self.display = bool(texts)
        self.refresh(layout=num_lines != self._num_lines)

    @property
    def _num_lines(self) -> int:
        return min(len(self._texts), MAX_ROWS) + bool(self._paused)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self._num_lines

    # Drawing

    def render(self) -> Content:
        width = self.content_size.width
        lines = [Content.assemble(*_pause(self._paused, width))] if self._paused else []
        first, num_shown = self._window()
        places = range(first, first + num_shown)
        lines += [self._row(place, width, is_top=place == first) for place in places]
        if (rest := len(self._texts) - first - num_shown) > 0:
            lines.append(
                Content.assemble((fitted(f"{'':{len(_LABEL)}}    and {rest:,} more", width), "$faint"))
            )
        return Content("\n").join(lines)

    def _window(self) -> tuple[int, int]:
        """The first row drawn and how many are; the last line is left to tell of those behind them."""
        if len(self._texts) <= MAX_ROWS:
            return 0, len(self._texts)
        first = max(0, min(self._cursor - MAX_ROWS + 2, len(self._texts) - MAX_ROWS)) if self.has_focus else 0
        is_end = first + MAX_ROWS == len(self._texts)
        return first, MAX_ROWS if is_end else MAX_ROWS - 1

    def _row(self, place: int, width: int, *, is_top: bool) -> Content:
        has_cursor = self.has_focus and place == self._cursor
        number = str(place + 1).rjust(len(str(len(self._texts))))
        label = f"{_LABEL if is_top else '':{len(_LABEL)}} {number}"
        left: list[Part] = [
            (f"{label} ", "$brass" if has_cursor else "$faint"),
            ("▌" if has_cursor else " ", "$brass"),
        ]
        text = " ".join(clean(self._texts[place]).split())
        room = width - len(label) - 2
        hints = (_FOCUSED_HINTS if self.has_focus else _HINTS) if is_top else ("",)
        hint = next(
            hint for hint in hints if cell_len(text) + cell_len(hint) + 3 <= room or len(hint) * 3 <= room
        )
        shown = fitted(text, room - (cell_len(hint) + 3 if hint else 0))
        color = "$text" if has_cursor else "$secondary"
        return two_sides([*left, (shown, color)], [(hint, "$faint")] if hint else [], width)

    # Keys and mouse

    def on_focus(self) -> None:
        self._cursor = len(self._texts) - 1
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        place = self._window()[0] + event.y - bool(self._paused)
        if 0 <= place < len(self._texts):
            self._cursor = place
            self.refresh()
            if event.chain == 2:
                self.action_want(edits=True)

    def action_move(self, step: int) -> None:
        if self._cursor + step >= len(self._texts):
            self.action_leave()
            return
        self._cursor = max(0, self._cursor + step)
        self.refresh()

    def action_want(self, edits: bool) -> None:
        if self._texts:
            self.post_message(self.Wanted(self._texts[self._cursor], edits=edits))

    def action_leave(self) -> None:
        self.post_message(self.Left())


def _pause(why: str, width: int) -> list[Part]:
    """`the queue waits: the reply was stopped · enter in an empty line goes on`, or less of it."""
    why = " ".join(clean(why).split())
    for told, hint in (
        (f"the queue waits: {why}", " · enter in an empty line goes on"),
        (f"the queue waits: {why}", " · enter goes on"),
        (why, " · enter goes on"),
        (why, " · enter"),
    ):
        if cell_len(told) + cell_len(hint) <= width:
            return [(told, "$brass"), (hint, "$faint")]
    return [(fitted(why, max(0, width - 8)), "$brass"), (" · enter", "$faint")]
