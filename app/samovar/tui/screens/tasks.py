"""Side tasks on a screen of their own: all runs in a table, and what came of the chosen one below it.

The app hands it each `Change` while it is there. Owns no run: those are `SideTasks`'.
"""

import textwrap
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from samovar.chats import changes
from samovar.chats.conversation import Conversations
from samovar.chats.side_tasks import TaskRun
from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.tasks.spec import Output
from samovar.tui import task_text
from samovar.tui.screens.answer_panel import Taken
from samovar.tui.screens.help import HelpGroup, HelpScreen, group_of
from samovar.tui.theme import palette_of, session_color
from samovar.tui.widgets.growing_text import GrowingText
from samovar.tui.widgets.parts import Part
from samovar.tui.widgets.row_list import RowList

_KEYS: Final = (
    "enter opens the chat · i insert · c copy · r again · x stop · d discard · n new · esc back",
    "enter chat · i insert · c copy · r again · x stop · d discard · n new · esc",
    "f1 help · esc back",
)
_SUGGESTED: Final = "1 2 3 puts that reply into the composer"
_EMPTY: Final = "no side task yet: n runs one, or write /summary, /aside, /suggest"


class NewTask(msgspec.Struct, frozen=True):
    """The user wants to run another task on the shown chat."""


class TasksScreen(Screen[Taken | NewTask | None]):
    """Ends with what goes into the composer, or with the wish for another task."""

    AUTO_FOCUS = "#task-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open its chat", id="tasks.open"),
        Binding("i", "insert", "insert the result into the composer", id="tasks.insert"),
        Binding(
            "1",
            "suggest(0)",
            "put that suggested reply into the composer",
            key_display="1 2 3",
            id="tasks.suggest",
        ),
        Binding("2", "suggest(1)", show=False),
        Binding("3", "suggest(2)", show=False),
        Binding("c", "copy", "copy the result", id="tasks.copy"),
        Binding("r", "again", "run it again", id="tasks.again"),
        Binding("x", "cancel", "stop it", id="tasks.cancel"),
        Binding("d,delete", "discard", "discard it and its result", id="tasks.discard"),
        Binding("n", "new", "run a task on the shown chat", id="tasks.new"),
        Binding("tab,shift+tab", "other_part", "between the table and the result", id="tasks.part"),
        Binding("f1", "help", "help", show=False),
        Binding("escape,f8,q", "leave", "back to the chat", id="tasks.leave"),
    ]

    def __init__(
        self, conversations: Conversations, clock: Callable[[], float], *, max_fps: float, run_id: str = ""
    ) -> None:
        """`run_id` is the run to begin with."""
        super().__init__()
        self._conversations = conversations
        self._tasks = conversations.tasks
        self._clock = clock
        self._list = RowList(_EMPTY, follows_first=not run_id, id="task-list")
        self._text = GrowingText(max_fps=max_fps, id="task-text")
        self._begin_with = run_id
        self._notice: Part = ("", "")

    @staticmethod
    def help_group() -> HelpGroup:
        """The keys of this screen."""
        return group_of("SIDE TASKS · f8 goes there, esc back", TasksScreen.BINDINGS)

    def compose(self) -> ComposeResult:
        yield Static("", id="tasks-title")
        with Vertical(id="task-table"):
            yield Static("", id="task-head")
            yield self._list
        yield Static("", id="task-heading")
        yield self._text
        yield Static("", id="tasks-problems")
        yield Static("", id="tasks-notice")
        yield Static("", id="tasks-keys")

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())
        self._draw()
        if self._begin_with:
            self._list.go_to(self._begin_with)
        self._draw_result()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    # Changes

    def apply(self, change: changes.Change) -> None:
        """Show what has happened."""
        if not self.is_mounted:
            return
        match change:
            case changes.TasksChanged() | changes.ChatsChanged():
                self._draw()
            case changes.Noticed(text, is_error):
                self._say(text, "$red" if is_error else "$secondary")
            case _:
                pass

    # Drawing

    def _color(self, session: str) -> str:
        return session_color(palette_of(self.app.current_theme), session)

    def _title(self, run: TaskRun) -> str:
        """What its chat is called now."""
        chat = self._conversations.chats.get(run.session)
        return run.chat_title if chat is None else chat.title

    def _draw(self) -> None:
        runs = {run.id: run for run in task_text.in_order(self._tasks.runs)}

        def parts(run_id: str, width: int) -> list[Part]:
            run = runs[run_id]
            return task_text.task_row(run, self._title(run), self._color(run.session), width)

        self._list.styles.height = max(2, min(len(runs), self.size.height // 3))  # the result has the rest
        self._list.set_rows(list(runs), parts)
        num_open = sum(run.is_open for run in runs.values())
        facts = f"   {num_open} under way" if num_open else ""
        title = Content.assemble(("side tasks", "bold $brass"), (facts, "$secondary"))
        self.query_one("#tasks-title", Static).update(title)
        head = Content.assemble(*task_text.task_head(self._list.row_width)) if runs else Content("")
        self.query_one("#task-head", Static).update(head)
        self._draw_problems()
        self._draw_result()

    def _draw_problems(self) -> None:
        """Say what is wrong with files of the user's, as far as there is room."""
        static, width = self.query_one("#tasks-problems", Static), max(20, self.size.width - 4)
        problems = self._tasks.problems
        static.display = bool(problems)
        if not problems:
            return
        rows = [row for problem in problems for row in textwrap.wrap(f"× {clean(problem)}", width)]
        room = max(2, self.size.height // 4)
        if len(rows) > room:
            rows = [*rows[: room - 1], "  and more: mend these first"]
        head = Content.assemble((f"cannot be used, in {self._tasks.tasks_dir}:", "$secondary"))
        lines = [head, *(Content.assemble((row, "$red")) for row in rows)]
        static.update(Content("\n").join(line.truncate(width, ellipsis=True) for line in lines))

    @on(RowList.Moved)
    def _draw_result(self) -> None:
        """Show what came of the chosen run, and what keys do with it."""
        run, width = self._run, max(20, self.size.width - 4)
        heading = self.query_one("#task-heading", Static)
        heading.display = run is not None
        if run is None:
            self._text.show("", "", grows=False)
        else:
            lines = [
                task_text.heading(run, self._title(run), self._color(run.session), width),
                task_text.cost_line(run, self._clock(), width),
            ]
            heading.update(Content("\n").join(lines))
            self._text.show(run.id, task_text.shown_text(run), grows=run.is_open, note=run.error)
        is_suggestion = run is not None and run.spec.output is Output.COMPOSER and bool(run.results)
        text, color = self._notice if self._notice[0] else (_SUGGESTED if is_suggestion else "", "$faint")
        notice = Content.assemble((text, color)).truncate(width, ellipsis=True)
        self.query_one("#tasks-notice", Static).update(notice)
        keys = (
            next((text for text in self._keys(run) if len(text) <= width), "")
            if run is not None
            else "n runs a task · esc back"
        )
        self.query_one("#tasks-keys", Static).update(Content.assemble((keys, "$faint")))

    def _keys(self, run: TaskRun) -> Sequence[str]:
        """What keys do with a run, in falling length."""
        if task_text.taken_text(run):
            return _KEYS
        return [text.replace("i insert · c copy · ", "") for text in _KEYS]

    def _say(self, text: str, color: str = "$secondary") -> None:
        self._notice = (clean(text), color)
        self._draw_result()

    # Keys

    @property
    def _run(self) -> TaskRun | None:
        """The run under the cursor."""
        return next((run for run in self._tasks.runs if run.id == self._list.cursor), None)

    @on(RowList.Chosen)
    def action_open(self) -> None:
        """Show the chat that the run is about."""
        if (run := self._run) is None:
            return
        if run.session not in self._conversations.chats:
            self._say("this chat has been deleted")
            return
        self.dismiss(None)
        if run.session != self._conversations.shown.id:
            self._conversations.show(run.session)

    def action_insert(self) -> None:
        run = self._run
        if run is None:
            return
        if run.is_open or not task_text.taken_text(run):
            self._say("there is nothing to insert yet" if run.is_open else "there is nothing to insert")
            return
        self.dismiss(Taken(task_text.taken_text(run)))

    def action_suggest(self, place: int) -> None:
        run = self._run
        if run is not None and run.spec.output is Output.COMPOSER and place < len(run.results):
            self.dismiss(Taken(run.results[place], run.session))

    def action_copy(self) -> None:
        if (run := self._run) is not None and (text := task_text.taken_text(run)):
            self.app.copy_to_clipboard(text)
            self._say(f"copied: {task_text.name_of(run)}")
        elif run is not None:
            self._say("there is nothing to copy")

    def action_again(self) -> None:
        if (run := self._run) is None:
            return
        try:
            again = self._tasks.again(run.id)
        except SamovarError as error:
            self._say(str(error), "$red")
            return
        self._draw()
        self._list.go_to(again.id)

    def action_cancel(self) -> None:
        if (run := self._run) is not None and not self._tasks.cancel(run.id):
            self._say("it has ended already")

    def action_discard(self) -> None:
        if (run := self._run) is not None:
            self._notice = ("", "")
            self._tasks.discard(run.id)

    def action_new(self) -> None:
        self.dismiss(NewTask())

    def action_other_part(self) -> None:
        """Give the keys to the result, to scroll it, or back to the table."""
        if self._list.has_focus and self._run is not None:
            self._text.focus()
        else:
            self._list.focus()

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen([TasksScreen.help_group()]))
