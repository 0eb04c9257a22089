"""What a side task answers, in a panel over the chat, as it comes. Closing it leaves the task running.

It opens by itself while the user may be writing: what is typed goes on into the composer below, until tab or
a click gives the panel the keys.

The app hands it each `Change` while it is there. Owns no run: those are `SideTasks`'.
"""

from collections.abc import Callable
from typing import ClassVar, Final

import msgspec
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from samovar.chats import changes
from samovar.chats.conversation import Conversations
from samovar.chats.side_tasks import TaskRun
from samovar.tasks.spec import Output
from samovar.tui import task_text
from samovar.tui.theme import palette_of, session_color
from samovar.tui.widgets.growing_text import GrowingText

_KEYS: Final = "i inserts, c copies · esc closes"
_SUGGESTION_KEYS: Final = "1 2 3 into the composer, c copies · esc closes"
_OPEN_KEYS: Final = "x stops it · esc closes, it goes on · f8 lists it"
_NO_KEYS: Final = "esc closes"
_FIRST: Final = "tab, then "
_OF_WRITING: Final = frozenset(
    "enter backspace delete left right home end ctrl+j shift+enter alt+enter ctrl+w ctrl+u ctrl+k".split()
)
"""Keys that change or send a text, besides those that write something."""


class Taken(msgspec.Struct, frozen=True):
    """A text for the composer: of the chat `session`, or of the one that is shown where that is empty."""

    text: str
    session: str = ""


class Listed(msgspec.Struct, frozen=True):
    """The user wants to see this run among all of them."""

    run_id: str


class AnswerPanel(ModalScreen[Taken | Listed | None]):
    """Ends with what goes into the composer, or with the wish for the list.

    `clock` gives seconds since the epoch.
    """

    AUTO_FOCUS = "#answer-text"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", "close", show=False),
        Binding("i,enter", "insert", "insert into the composer", show=False),
        Binding("c", "copy", "copy", show=False),
        Binding("x", "cancel", "stop", show=False),
        Binding("f8", "list", "list all", show=False),
        Binding("tab,shift+tab", "change_keys", "the panel, or writing", show=False),
        *(Binding(str(number), f"suggest({number - 1})", show=False) for number in range(1, 4)),
    ]

    def __init__(
        self,
        conversations: Conversations,
        run: TaskRun,
        clock: Callable[[], float],
        *,
        max_fps: float,
        has_keys: bool = False,
    ) -> None:
        """`has_keys`: nothing that is typed is meant for the composer."""
        super().__init__()
        self._has_keys = has_keys
        self._conversations = conversations
        self._run = run
        self._clock = clock
        self._text = GrowingText(max_fps=max_fps, id="answer-text")
        self._text.has_bar = False

    def compose(self) -> ComposeResult:
        with Vertical(id="answer-panel"):
            yield Static("", id="answer-title")
            yield self._text
            yield Static("", id="answer-cost")
            yield Static("", id="answer-keys")

    def on_mount(self) -> None:
        self._set_keys(self._has_keys)

    def on_click(self) -> None:
        self._set_keys(True)

    def leaves(self, event: events.Event) -> bool:
        """Whether what is typed or pasted is the composer's."""
        if self._has_keys:
            return False
        return not isinstance(event, events.Key) or event.is_printable or event.key in _OF_WRITING

    def _set_keys(self, has_keys: bool) -> None:
        self._has_keys = has_keys
        self.set_class(has_keys, "-has-keys")
        self._draw()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def apply(self, change: changes.Change) -> None:
        """Show what has happened."""
        if isinstance(change, changes.TasksChanged) and self.is_mounted:
            self._draw()

    def _draw(self) -> None:
        run = self._run
        width = max(20, self.query_one("#answer-title").content_size.width)
        chat = self._conversations.chats.get(run.session)
        title = run.chat_title if chat is None else chat.title
        color = session_color(palette_of(self.app.current_theme), run.session)
        self.query_one("#answer-title", Static).update(task_text.heading(run, title, color, width))
        self._text.show(run.id, task_text.shown_text(run), grows=run.is_open, note=run.error)
        self.query_one("#answer-cost", Static).update(task_text.cost_line(run, self._clock(), width))
        self.query_one("#answer-keys", Static).update(Content.assemble((self._keys(), "$faint")))

    def _keys(self) -> str:
        """What keys do now."""
        run = self._run
        if not run.is_open and not task_text.taken_text(run):
            return _NO_KEYS
        is_suggestion = run.spec.output is Output.COMPOSER
        keys = _OPEN_KEYS if run.is_open else _SUGGESTION_KEYS if is_suggestion else _KEYS
        return keys if self._has_keys else _FIRST + keys

    # Keys

    def action_insert(self) -> None:
        """Put the answer into the composer; of suggestions, the first one."""
        if self._run.spec.output is Output.COMPOSER:
            self.action_suggest(0)
        elif not self._run.is_open and (text := task_text.taken_text(self._run)):
            self.dismiss(Taken(text))

    def action_suggest(self, place: int) -> None:
        run = self._run
        if run.spec.output is Output.COMPOSER and place < len(run.results):
            self.dismiss(Taken(run.results[place], run.session))

    def action_copy(self) -> None:
        if text := task_text.taken_text(self._run):
            self.app.copy_to_clipboard(text)
            keys = self.query_one("#answer-keys", Static)
            keys.update(Content.assemble(("copied", "$secondary")))

    def action_change_keys(self) -> None:
        """Give the keys to the panel, or back to writing."""
        self._set_keys(not self._has_keys)

    def action_list(self) -> None:
        self.dismiss(Listed(self._run.id))

    def action_cancel(self) -> None:
        self._conversations.tasks.cancel(self._run.id)
