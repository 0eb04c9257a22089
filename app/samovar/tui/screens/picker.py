"""Choosing one of many by typing: a line to write in, and under it what fits, the best first.

What there is and what fits is a subclass's; the keys, the cursor and the mouse are here.
"""

from collections.abc import Sequence
from typing import ClassVar, Final, TypeVar

import msgspec
from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from samovar.core.safe_text import clean
from samovar.tui.widgets.line import Line
from samovar.tui.widgets.parts import Part, fitted
from samovar.tui.widgets.row_list import RowList

T = TypeVar("T")
_KEYS: Final = "up and down choose · enter takes it · esc leaves"
_FIGURE_WIDTH: Final = 8
_SHORT_KEYS: Final = "enter takes it · esc leaves"


class Picker(ModalScreen[T]):
    """Ends with what was chosen, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", show=False),
        Binding("up", "move(-1)", "up", show=False),
        Binding("down", "move(1)", "down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
    ]

    def __init__(self, title: str, placeholder: str, empty: str) -> None:
        """`empty` is shown where nothing fits."""
        super().__init__()
        self._title = title
        self._input = Line(placeholder=placeholder, compact=True, id="picker-input")
        self._input.cursor_blink = False
        self._list = RowList(empty, id="picker-list")
        self._list.can_focus = False
        self._searched = ""

    def find(self, text: str) -> Sequence[str]:
        """The keys of what fits a text, the best first."""
        raise NotImplementedError

    def parts(self, key: str, width: int) -> Sequence[Part]:
        """The line for one of them, in so many cells."""
        raise NotImplementedError

    def choose(self, key: str) -> None:
        """One of them has been chosen."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        with Vertical(id="picker"):
            yield Static(Content.assemble((self._title, "bold $brass")), id="picker-title")
            yield self._input
            yield self._list
            yield Static("", id="picker-keys")

    def on_mount(self) -> None:
        self._input.focus()
        self._show("")

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw_keys)

    def _draw_keys(self) -> None:
        keys = self.query_one("#picker-keys", Static)
        text = _KEYS if keys.size.width >= len(_KEYS) else _SHORT_KEYS
        keys.update(Content.assemble((text, "$faint")))

    @property
    def text(self) -> str:
        """What has been typed."""
        return self._input.value

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._show(event.value)

    def _show(self, text: str) -> None:
        """Show what fits, the cursor on the best."""
        self._searched = text
        self._list.set_rows((), self.parts)
        self._list.set_rows(self.find(text), self.parts)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value != self._searched:
            self._show(event.value)
        if self._list.cursor:
            self.choose(self._list.cursor)

    @on(RowList.Chosen)
    def _chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        self.choose(self._list.cursor)

    def action_move(self, step: int) -> None:
        self._list.action_move(step)

    def action_page(self, step: int) -> None:
        self._list.action_page(step)

    def action_leave(self) -> None:
        self.dismiss(None)


class Choice(msgspec.Struct, frozen=True):
    """One of a few things to choose from; `aside` stands in a column of its own, figures at its right."""

    label: str
    aside: str = ""


class Chooser(Picker[int]):
    """Ends with the place of the chosen one."""

    def __init__(self, title: str, placeholder: str, choices: Sequence[Choice]) -> None:
        super().__init__(title, placeholder, "nothing has these words")
        self._choices = choices
        self._are_figures = all(cell_len(one.aside) <= _FIGURE_WIDTH for one in choices)
        self._label_width = max((cell_len(clean(one.label)) for one in choices if one.aside), default=0)

    def find(self, text: str) -> Sequence[str]:
        words = text.casefold().split()
        lines = (f"{choice.label} {choice.aside}".casefold() for choice in self._choices)
        return [str(place) for place, line in enumerate(lines) if all(word in line for word in words)]

    def parts(self, key: str, width: int) -> Sequence[Part]:
        choice = self._choices[int(key)]
        label, aside = (" ".join(clean(text).split()) for text in (choice.label, choice.aside))
        if not aside:
            return [(fitted(label, width), "$text")]
        if self._are_figures:
            return [(fitted(label, max(1, width - cell_len(aside) - 2)), "$text"), (f"  {aside}", "$faint")]
        room = min(self._label_width, width * 2 // 3)
        return [(fitted(label, room), "$text"), ("  " + fitted(aside, max(1, width - room - 2)), "$faint")]

    def choose(self, key: str) -> None:
        self.dismiss(int(key))
