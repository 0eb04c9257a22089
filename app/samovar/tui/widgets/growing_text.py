"""One text as Markdown that may still be growing, under no heading: an answer in a panel or below a table."""

from samovar.tui.widgets.transcript import Entry
from samovar.tui.widgets.transcript.view import ChatScroll

_Shown = tuple[str, str, bool, str]


class GrowingText(ChatScroll):
    """Shows what it is given last: one that grows at its end, a whole one from its beginning.

    With `has_bar` off, the bar that tells who has the keys is left to what it stands in.
    """

    _shown: _Shown = ("", "", False, "")
    has_bar = True

    def show(self, key: str, text: str, *, grows: bool, note: str = "") -> None:
        """Show the text of `key`; `note` is a line of Samovar's own below it, such as why it failed."""
        before, self._shown = self._shown, (key, text, grows, note)
        if before == self._shown:
            return
        was_growing = before[0] == key and before[2]
        if was_growing and grows and text.startswith(before[1]):
            self.stream(text[len(before[1]) :])
            return
        if was_growing and not grows:
            self.end_stream(Entry("answer", "answer", text))
        elif grows:
            self.load([])
            self.begin_stream(Entry("answer", "answer", text, state="streaming"))
        else:
            self.load([Entry("answer", "answer", text)] if text else [])
        if note:
            self.append(Entry("note", "note", note))

    def _marked_lines(self) -> range:
        return super()._marked_lines() if self.has_bar else range(0)

    def _opened(self) -> None:
        super()._opened()
        if not self._shown[2]:
            self.go_to_line(0)
