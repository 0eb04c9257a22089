"""One line asked for over what is on the screen: a question for an aside, a language."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from samovar.tui.widgets.line import Line


class AskLine(ModalScreen[str | None]):
    """Ends with what was written, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "leave", show=False)]

    def __init__(self, title: str, hint: str, placeholder: str, text: str = "") -> None:
        """`hint` says what enter does."""
        super().__init__()
        self._title = title
        self._hint = hint
        self._line = Line(text, placeholder=placeholder, compact=True, id="ask-line")
        self._line.cursor_blink = False

    def compose(self) -> ComposeResult:
        with Vertical(id="ask"):
            yield Static(Content.assemble((self._title, "bold $brass")), id="ask-title")
            yield self._line
            yield Static(Content.assemble((f"{self._hint} · esc leaves", "$faint")), id="ask-keys")

    def on_mount(self) -> None:
        self._line.focus()

    @on(Input.Submitted)
    def _taken(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip():
            self.dismiss(event.value.strip())
