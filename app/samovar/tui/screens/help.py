"""The help screen: every key and command, made from the bindings themselves."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from samovar.chats.slash import USAGES

_KEY_WIDTH = 20


class HelpGroup(msgspec.Struct, frozen=True):
    """Keys that work in one place: (key, what it does)."""

    title: str
    keys: tuple[tuple[str, str], ...]


GLYPH_KEYS = HelpGroup(
    "GLYPHS",
    (
        ("●  in the context", "answers at once"),
        ("◐  in RAM", "back in the context in milliseconds"),
        ("◔  on disk", "read from disk first"),
        ("○  nowhere", "will be processed again"),
        ("◉  at work", "its prompt is being read, or its reply written"),
    ),
)


def key_name(key: str) -> str:
    """A key as people write it: `ctrl+j`, `page up`."""
    names = {
        "pageup": "page up",
        "pagedown": "page down",
        "left_square_bracket": "[",
        "right_square_bracket": "]",
    }
    return names.get(key, key.replace("question_mark", "?"))


def group_of(title: str, bindings: Iterable[BindingType]) -> HelpGroup:
    """The bindings that say what they do, keys for the same action on one line."""
    lines = []
    for binding in bindings:
        assert isinstance(binding, Binding)
        if binding.description and binding.id:
            shown = binding.key_display or binding.key
            first, *others = [key_name(key.strip()) for key in shown.split(",")]
            keys = f"{first} or {others[0]}" if others and len(others[0]) == 1 else first
            lines.append((keys, binding.description))
    return HelpGroup(title, tuple(lines))


def command_group() -> HelpGroup:
    """The commands of the composer."""
    return HelpGroup(
        "COMMANDS", tuple((f"/{usage.name} {usage.argument}".rstrip(), usage.help) for usage in USAGES)
    )


class HelpScreen(ModalScreen[None]):
    """All keys, over the workstation."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q", "dismiss", "close", show=False),
    ]

    def __init__(self, groups: Sequence[HelpGroup]) -> None:
        super().__init__()
        self._groups = groups

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(Content.assemble(("help", "bold $brass"), ("   esc closes", "$faint")))
            for group in self._groups:
                yield Static(_group_text(group), classes="group")

    def on_mount(self) -> None:
        self.query_one("#help").focus()


def _group_text(group: HelpGroup) -> Content:
    lines = [Content.assemble((group.title, "$secondary"))]
    for key, text in group.keys:
        lines.append(Content.assemble((key.ljust(_KEY_WIDTH), "$text"), (text, "$secondary")))
    return Content("\n").join(lines)
