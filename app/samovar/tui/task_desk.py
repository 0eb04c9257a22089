"""What keys, commands and the palette do about side tasks: run one, show one, list them all.

Between the screens, which only say what is wanted, and `SideTasks`, which does it. UI thread.
"""

from collections.abc import Callable, Sequence

from samovar.chats.chat import Chat
from samovar.chats.conversation import Conversations
from samovar.chats.side_tasks import TaskRun, TaskState
from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.tasks.spec import Output, TaskSpec
from samovar.tui.screens.answer_panel import AnswerPanel, Listed, Taken
from samovar.tui.screens.ask_line import AskLine
from samovar.tui.screens.picker import Choice, Chooser
from samovar.tui.screens.tasks import NewTask, TasksScreen
from samovar.tui.task_text import calls
from samovar.tui.widgets.chat_view import ChatView

_WITH_PANEL = (Output.PANEL, Output.COMPOSER)


class TaskDesk:
    """`clock` gives seconds since the epoch."""

    def __init__(
        self, conversations: Conversations, view: ChatView, clock: Callable[[], float], max_fps: float
    ) -> None:
        self._conversations = conversations
        self._tasks = conversations.tasks
        self._view = view
        self._clock = clock
        self._max_fps = max_fps
        self._told: list[TaskRun] = []  # under way, and the user has been told so

    def open_screen(self, run_id: str = "") -> None:
        """List all runs; `run_id` is the one to begin with."""
        screen = TasksScreen(self._conversations, self._clock, max_fps=self._max_fps, run_id=run_id)
        self._view.app.push_screen(screen, self._take)

    def show(self, run: TaskRun) -> None:
        """Show what a run answers, if that is something to be read; what others do shows by itself."""
        if run.spec.output in _WITH_PANEL:
            has_keys = not self._view.composer.input.has_focus
            panel = AnswerPanel(
                self._conversations, run, self._clock, max_fps=self._max_fps, has_keys=has_keys
            )
            self._view.app.push_screen(panel, self._take)
        else:
            self._told.append(run)
            self._view.say(f"{clean(run.spec.name)} is under way; f8 lists side tasks")

    def look(self) -> None:
        """Say what has come of runs that the user has been told of, once they have ended."""
        ended = [run for run in self._told if not run.is_open]
        self._told = [run for run in self._told if run.is_open]
        for run in ended:
            name = clean(run.spec.name)
            if run.error:
                self._view.say_error(f"{name}: {clean(run.error)}")
            elif run.state is TaskState.CANCELLED:
                self._view.say(f"{name}: stopped")
            else:
                self._view.say(clean(run.did or f"{name}: {run.note or run.result}"))

    def start(self, chat: Chat, spec: TaskSpec, message_id: int | None = None) -> None:
        """Run a task on a chat, or on one message of it; what it needs to know is asked for first."""
        if not spec.needs_input:
            self._run(chat, spec, "", message_id)
            return
        if refusal := self._tasks.refusal(chat, spec, text="x", message_id=message_id):
            self._view.say_error(refusal)
            return

        def given(text: str | None) -> None:
            if text:
                self._run(chat, spec, text, message_id)

        line = AskLine(clean(spec.name), "enter runs it", spec.needs_input.lower(), spec.default_input)
        self._view.app.push_screen(line, given)

    def start_named(self, chat: Chat, name: str, message_id: int | None = None) -> None:
        """Run the task of this name, unless it has been turned off."""
        try:
            spec = self._tasks.spec(name)
        except SamovarError as error:
            self._view.say_error(str(error))
            return
        self.start(chat, spec, message_id)

    def choose(self, chat: Chat) -> None:
        """Let the user choose a task to run on this chat."""
        specs: Sequence[TaskSpec] = self._tasks.specs
        choices = [Choice(calls(spec), clean(spec.help or f"“{spec.prompt}”")) for spec in specs]

        def chosen(place: int | None) -> None:
            if place is not None:
                self.start(chat, specs[place])

        self._view.app.push_screen(Chooser("run a side task", "letters of its name", choices), chosen)

    def insert(self, taken: Taken) -> None:
        """Put a text into the composer, behind what stands there."""
        if taken.session in self._conversations.chats and taken.session != self._view.chat.id:
            self._conversations.show(taken.session)
        composer = self._view.composer
        composer.set_text("\n".join(part for part in (composer.text, taken.text) if part))
        composer.focus_input()

    def _run(self, chat: Chat, spec: TaskSpec, text: str, message_id: int | None) -> None:
        try:
            run = self._tasks.run(chat, spec, text=text, message_id=message_id)
        except SamovarError as error:
            self._view.say_error(str(error))
            return
        self.show(run)

    def _take(self, wanted: Taken | NewTask | Listed | None) -> None:
        if isinstance(wanted, Taken):
            self.insert(wanted)
        elif isinstance(wanted, NewTask):
            self.choose(self._view.chat)
        elif isinstance(wanted, Listed):
            self.open_screen(wanted.run_id)
