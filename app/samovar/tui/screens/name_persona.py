"""Asks under which name a system prompt and its settings are kept as a persona."""

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from samovar.core.errors import SamovarError
from samovar.tui.widgets.form import Field


class NamePersona(ModalScreen[str | None]):
    """Ends with the name, or None. `keep` gets name and description; its SamovarError is shown, all stays."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave", show=False)]

    def __init__(self, keep: Callable[[str, str], object]) -> None:
        super().__init__()
        self._keep = keep
        self._called = Field("name", "name", "", "editor")
        self._description = Field("description", "description", "", "a patient copy editor")

    def compose(self) -> ComposeResult:
        with Vertical(id="name-persona"):
            yield Static(Content.assemble(("save as persona", "bold $brass")), classes="form-title")
            yield self._called
            yield self._description
            yield Static(Content.assemble(("enter saves · esc leaves", "$faint")), classes="form-keys")

    def on_mount(self) -> None:
        self._called.input.focus()

    @on(Input.Submitted)
    def _save(self, event: Input.Submitted) -> None:
        event.stop()
        name = self._called.value.strip()
        try:
            self._keep(name, self._description.value.strip())
        except SamovarError as error:
            self._called.set_error(str(error))
            self._called.input.focus()
            return
        self.dismiss(name)

    def action_leave(self) -> None:
        self.dismiss(None)
