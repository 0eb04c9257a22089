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
_FIRST: Final = ("/samples brings ten example chats to look around in", "$faint")


class Welcome(Widget):
    """Samovar's name and three quiet lines."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._notes: tuple[str, ...] = ()
        self._is_first = False

    def set_first_run(self, is_first: bool) -> None:
        """Whether there is no chat yet: then there is something to try."""
        if is_first != self._is_first:
            self._is_first = is_first
            self.refresh(layout=True)

    def set_notes(self, notes: Sequence[str]) -> None:
        """Sentences about the loaded model, shown above the rest."""
        if tuple(notes) != self._notes:
            self._notes = tuple(notes)
            self.refresh(layout=True)

    def render(self) -> Content:
        lines = [Content.assemble((clean(note), "$faint")) for note in self._notes]
        lines += [Content("")] if lines else []
        lines += [Content.assemble(("samovar", "bold $brass")), Content("")]
        shown = (*_LINES, _FIRST) if self._is_first else _LINES
        return Content("\n").join([*lines, *(Content.assemble(line) for line in shown)])
