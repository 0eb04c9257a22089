"""The parts of a form: a line with its name and what is wrong with it, a mark to set, a deed to do."""

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from samovar.tui.widgets.line import Line


class Field(Vertical):
    """One line to write in. `name` is that of the value."""

    def __init__(self, name: str, label: str, value: str, placeholder: str = "") -> None:
        super().__init__(name=name, classes="field")
        self._label = label
        self.input = Line(value, placeholder=placeholder, compact=True, select_on_focus=False, name=name)
        self.input.cursor_blink = False
        self._error = Static("", classes="field-error")

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static(Content.assemble((self._label, "$secondary")), classes="field-label")
            yield self.input
        yield self._error

    @property
    def value(self) -> str:
        """What is written."""
        return self.input.value

    @value.setter
    def value(self, text: str) -> None:
        self.input.value = text

    def set_error(self, text: str) -> None:
        """Say under the line what is wrong with it; empty once that is past."""
        self._error.update(Content(text))
        self._error.display = bool(text)


class Tick(Widget, can_focus=True):
    """Something that is so or is not."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "turn", "turn", show=False)]

    def __init__(self, label: str, *, value: bool, id: str | None = None) -> None:
        super().__init__(id=id, classes="tick")
        self._label = label
        self.value = value

    def render(self) -> Content:
        mark = ("■ ", "$brass") if self.value else ("□ ", "$secondary")
        return Content.assemble(
            mark, (self._label, "$text" if self.value or self.has_focus else "$secondary")
        )

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.action_turn()

    def set_value(self, *, value: bool) -> None:
        """Make it so, or not."""
        self.value = value
        self.refresh()

    def action_turn(self) -> None:
        self.set_value(value=not self.value)


class Deed(Widget, can_focus=True):
    """A word that does something."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "do", "do it", show=False)]

    class Done(Message):
        """The user wants it done."""

        def __init__(self, deed: "Deed") -> None:
            super().__init__()
            self.deed = deed

        @property
        def control(self) -> "Deed":
            return self.deed

    def __init__(self, label: str, aside: str = "", *, id: str | None = None) -> None:
        """`aside` is the key that does the same, or what stands behind the word."""
        super().__init__(id=id, classes="deed")
        self._label = label
        self._aside = aside

    def set_aside(self, text: str) -> None:
        """Show this behind the word."""
        self._aside = text
        self.refresh(layout=True)

    def render(self) -> Content:
        label = (self._label, "$brass" if self.has_focus else "$text")
        return Content.assemble(label, (f" {self._aside}" if self._aside else "", "$faint"))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.action_do()

    def action_do(self) -> None:
        self.post_message(self.Done(self))
