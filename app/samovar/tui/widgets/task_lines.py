"""Side tasks under the list of chats: what runs, then what has ended, as many lines as there is room for.

Takes runs and draws them; posts which one was clicked on.
"""

from collections.abc import Callable, Sequence
from typing import Final

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from samovar.chats.side_tasks import TaskRun
from samovar.tui.task_text import in_order, sidebar_line

MAX_LINES: Final = 5
_LIST_LINES: Final = 26  # of the sidebar that are the list's before anything is taken from it
_HEAD_LINES: Final = 2


class TaskLines(Static):
    """Nothing at all while there are no runs, or no room."""

    class Chosen(Message):
        """The user wants to see a run; an empty id means all."""

        def __init__(self, run_id: str) -> None:
            super().__init__()
            self.run_id = run_id

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", id=id)
        self._runs: list[TaskRun] = []
        self._color_of: Callable[[str], str] = lambda _: "$text"
        self._room = 0

    def set_runs(self, runs: Sequence[TaskRun], color_of: Callable[[str], str]) -> None:
        """Show these, the newest first; `color_of` gives the colour of a chat."""
        self._runs, self._color_of = in_order(runs), color_of
        self._draw()

    def set_room(self, num_lines: int) -> None:
        """Draw for a sidebar of this height."""
        self._room = max(0, min(MAX_LINES, (num_lines - _LIST_LINES) // 2))
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        shown = self._runs[: self._room]
        self.display = bool(shown)
        if not shown:
            return
        width = max(12, self.content_size.width)
        num_open = sum(run.is_open for run in self._runs)
        aside = f" {num_open}" if num_open else ""
        lines = [Content.assemble(("SIDE TASKS", "$secondary"), (aside, "$faint")), Content("")]
        lines += [sidebar_line(run, self._color_of(run.session), width) for run in shown]
        content = Content("\n").join(lines)
        if not (isinstance(self.content, Content) and self.content.is_same(content)):
            self.update(content)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        place = event.y - _HEAD_LINES - self.gutter.top
        self.post_message(self.Chosen(self._runs[place].id if 0 <= place < len(self._runs) else ""))
