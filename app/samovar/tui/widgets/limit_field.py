"""The line in which a limit of the cache is changed: a size, or `+` and `-` for the next power of two.

Takes the limit as it is, posts the one that is wanted; knows neither client nor cache.
"""

from typing import ClassVar, Final

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from samovar.core.errors import SamovarError
from samovar.core.units import parse_size
from samovar.tui.widgets.line import Line

_MIB: Final = 1 << 20
_MIN_STEP: Final = 16 * _MIB


def stepped(text: str, known_bytes: int, *, up: bool) -> str:
    """The next power of two above or below a size; `known_bytes` stands for a text such as `auto`."""
    try:
        size = parse_size(text)
    except SamovarError:
        size = known_bytes
    power = max(size, 1).bit_length()
    step = 1 << power if up else 1 << (power - 1 if size & (size - 1) else max(0, power - 2))
    step = max(step, _MIN_STEP)
    return f"{step >> 30}GiB" if step >= 1 << 30 else f"{step // _MIB}MiB"


class SizeInput(Line):
    """An input in which `+` and `-` are steps, not characters."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "keep the limit", show=False)]

    known_bytes = 0
    """Stands for a text that is no size."""

    class Left(Message):
        """The user is done with it, without another limit."""

    async def _on_key(self, event: events.Key) -> None:
        """Runs before the input's own handler, which would write the character."""
        if event.character in ("+", "-"):
            event.prevent_default()
            event.stop()
            # At once: what is typed right after it must find the size that it stepped to.
            self.value = stepped(self.value, self.known_bytes, up=event.character == "+")
            self.cursor_position = len(self.value)

    def action_cancel(self) -> None:
        self.post_message(self.Left())


class LimitField(Horizontal):
    """Hidden until `ask` opens it for one limit."""

    class Chosen(Message):
        """The user wants this limit; `limit` is the name given to `ask`."""

        def __init__(self, limit: str, text: str) -> None:
            super().__init__()
            self.limit = limit
            self.text = text

    class Closed(Message):
        """The field is hidden again."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._limit = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="limit-name")
        yield SizeInput(id="limit-input", compact=True)
        yield Static("", id="limit-hint")

    def ask(self, limit: str, label: str, text: str, hint: str, known_bytes: int = 0) -> None:
        """Let the user change a limit: `text` now, or `known_bytes` where that is no size."""
        self._limit = limit
        self.query_one("#limit-name", Static).update(Content.assemble((label, "$brass")))
        self.query_one("#limit-hint", Static).update(Content.assemble((hint, "$faint")))
        field = self.query_one(SizeInput)
        field.known_bytes = known_bytes
        field.value = text
        self.display = True
        field.focus()
        field.action_select_all()

    @on(Input.Submitted)
    def _take(self, event: Input.Submitted) -> None:
        event.stop()
        text = event.value.strip()
        self._close()
        if text:
            self.post_message(self.Chosen(self._limit, text))

    @on(SizeInput.Left)
    def _leave(self, event: SizeInput.Left) -> None:
        event.stop()
        self._close()

    def _close(self) -> None:
        self.display = False
        self.post_message(self.Closed())
