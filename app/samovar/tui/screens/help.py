"""The help screen: every key and command, made from the bindings themselves."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

import msgspec
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from samovar.chats.slash import USAGES

_KEY_WIDTH: Final = 24
_MIN_TEXT_WIDTH: Final = 24
_NARROW_INDENT: Final = 4


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
        ("◆  pinned", "stays in the cache, in place of the ■ in the table of prompts"),
        ("★  favourite", "comes first in the list"),
        ("▤  archived", "is listed only while archived chats are wanted"),
        ("✎  a draft", "there is a text in the chat that has not been sent"),
        ("◉  at work", "its prompt is being read, or its reply written"),
    ),
)


WRITING_KEYS: Final = (
    ("tab", "complete a /command or an @file; else go to the messages"),
    ("enter", "while a reply is written: queue the message; in an empty line: go on with a paused queue"),
    ("up", "in an empty line: the last queued message, or what you have sent before"),
    ("@FILE", "attach a text file; pasting its path does the same"),
)
"""What the composer does with keys that have another meaning elsewhere in a text."""


def key_name(key: str) -> str:
    """A key as people write it: `ctrl+j`, `page up`."""
    names = {
        "pageup": "page up",
        "pagedown": "page down",
        "left_square_bracket": "[",
        "right_square_bracket": "]",
    }
    return names.get(key, key.replace("question_mark", "?"))


def group_of(title: str, bindings: Iterable[BindingType], more: Iterable[tuple[str, str]] = ()) -> HelpGroup:
    """The bindings that say what they do, keys for the same action on one line; behind them, `more`."""
    lines: list[tuple[str, str]] = []
    for binding in bindings:
        assert isinstance(binding, Binding)
        if binding.description and binding.id:
            shown = binding.key_display or binding.key
            first, *others = [key_name(key.strip()) for key in shown.split(",")]
            keys = f"{first} or {others[0]}" if others and len(others[0]) == 1 else first
            lines.append((keys, binding.description))
    return HelpGroup(title, (*lines, *more))


def command_group() -> HelpGroup:
    """The commands of the composer."""
    return HelpGroup(
        "COMMANDS", tuple((f"/{usage.name} {usage.argument}".rstrip(), usage.help) for usage in USAGES)
    )


def group_text(group: HelpGroup, width: int) -> Content:
    """A group in `width` cells: descriptions beside the keys, or under them where it is narrow."""
    lines = [Content.assemble((group.title, "$secondary"))]
    indent = _KEY_WIDTH if width - _KEY_WIDTH >= _MIN_TEXT_WIDTH else _NARROW_INDENT
    for key, text in group.keys:
        first, *others = textwrap.wrap(text, max(8, width - indent)) or [""]
        if indent == _KEY_WIDTH and cell_len(key) < indent:
            lines.append(Content.assemble((key.ljust(indent), "$text"), (first, "$secondary")))
        else:
            lines.append(Content.assemble((key, "$text")))
            others = [first, *others]
        lines += [Content.assemble((" " * indent + other, "$secondary")) for other in others]
    return Content("\n").join(lines)


class GroupText(Widget):
    """One group, wrapped to the width there is."""

    def __init__(self, group: HelpGroup, *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._group = group

    def render(self) -> Content:
        return group_text(self._group, self.content_size.width)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return group_text(self._group, width).plain.count("\n") + 1


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
                yield GroupText(group, classes="group")

    def on_mount(self) -> None:
        self.query_one("#help").focus()
