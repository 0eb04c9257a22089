"""What an empty chat shows in place of messages: what this is, and what to do."""

from typing import Final

from textual.content import Content
from textual.widget import Widget

_LINES: Final = (
    ("write below; enter sends", "$text"),
    ("every chat stays hot: coming back to it costs only what is new", "$secondary"),
    ("ctrl+n another chat   f2 all chats   f4 the cache   f1 help", "$faint"),
)


class Welcome(Widget):
    """Samovar's name and three quiet lines."""

    def render(self) -> Content:
        lines = [Content.assemble(("samovar", "bold $brass")), Content("")]
        return Content("\n").join([*lines, *(Content.assemble(line) for line in _LINES)])
