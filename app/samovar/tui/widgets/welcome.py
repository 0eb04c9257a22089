"""What an empty chat shows in place of messages: what this is, and what to do."""

from collections.abc import Sequence
from typing import Final

from textual.content import Content
from textual.widget import Widget

from samovar.core.safe_text import clean

_LINES: Final = (
    ("write below; enter sends", "$text"),
    ("every chat stays hot: coming back to it costs only what is new", "$secondary"),
    ("ctrl+n another chat   f2 all chats   f4 the cache   f1 help", "$faint"),
)


class Welcome(Widget):
    """Samovar's name and three quiet lines."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._notes: tuple[str, ...] = ()

    def set_notes(self, notes: Sequence[str]) -> None:
        """Sentences about the loaded model, shown above the rest."""
        if tuple(notes) != self._notes:
            self._notes = tuple(notes)
            self.refresh(layout=True)

    def render(self) -> Content:
        lines = [Content.assemble((clean(note), "$faint")) for note in self._notes]
        lines += [Content("")] if lines else []
        lines += [Content.assemble(("samovar", "bold $brass")), Content("")]
        return Content("\n").join([*lines, *(Content.assemble(line) for line in _LINES)])
