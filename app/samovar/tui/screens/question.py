"""A question before something is deleted: `y` does it, any other key leaves everything as it is."""

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static


class Question(ModalScreen[bool]):
    """One sentence over what is on the screen; ends with whether the user said yes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(id="question"):
            yield Static(Content(self._text))
            yield Static(Content.assemble(("y", "$brass"), (" yes · any other key no", "$faint")))

    def on_key(self, event: events.Key) -> None:
        event.stop()
        self.dismiss(event.key in ("y", "Y"))
