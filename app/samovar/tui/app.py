"""The Textual application: themes, the client's events, start and end. What is on the screen is `screens/`'s.

The event loop's only home; the store is used through `Archive`'s thread. Never imports the engine.
"""

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import ClassVar, Final

from textual import events
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import TextArea

from samovar.chats.changes import Change, LimitRefused, Noticed
from samovar.chats.command_desk import CommandDesk
from samovar.chats.conversation import Conversations
from samovar.chats.slash import USAGES
from samovar.client.interface import Client
from samovar.config import Config
from samovar.core.errors import SamovarError
from samovar.core.events import HostFailed
from samovar.sessions.store import Store
from samovar.tui.alt_digits import make_alt_digits_keys
from samovar.tui.bridge import Bridge
from samovar.tui.screens.answer_panel import AnswerPanel
from samovar.tui.screens.cache import CacheScreen
from samovar.tui.screens.compare import CompareScreen
from samovar.tui.screens.tasks import TasksScreen
from samovar.tui.screens.workstation import Workstation
from samovar.tui.theme import COLOR_NAMES, DEFAULT_THEME, load_themes, palette_of

QUIT_TWICE_WITHIN_S: Final = 2.0
_SAYING: Final = (CacheScreen, CompareScreen, TasksScreen)  # screens that show notices in their own place
_NAMED_ABOVE: Final = frozenset("new delete undo rename retry compare tasks search cache help quit".split())


def check_terminal(env: Mapping[str, str]) -> None:
    """Raise SamovarError where the terminal cannot place text on a screen."""
    if env.get("TERM") == "dumb":
        raise SamovarError("This terminal (TERM=dumb) cannot show the workstation. Use: samovar chat")


class SamovarApp(App[None]):
    """The workstation over one client, which it closes, and one store, which its opener closes."""

    TITLE = "samovar"
    ENABLE_COMMAND_PALETTE = True
    CSS_PATH: ClassVar[list[str | PurePath]] = [
        "app.tcss",
        "screens/workstation.tcss",
        "screens/cache.tcss",
        "screens/compare.tcss",
        "screens/tasks.tcss",
        "screens/help.tcss",
        "screens/question.tcss",
        "screens/search.tcss",
        "screens/picker.tcss",
        "screens/chat_settings.tcss",
        "widgets/form.tcss",
        "widgets/sidebar.tcss",
        "widgets/session_list.tcss",
        "widgets/chat_view.tcss",
        "widgets/composer.tcss",
        "widgets/cache_panel.tcss",
        "widgets/row_list.tcss",
        "widgets/status_bar.tcss",
        "widgets/tiers.tcss",
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+p", "command_palette", "all commands", id="palette", priority=True),
        Binding("ctrl+q", "quit", "quit", id="quit", priority=True),
        Binding("ctrl+c", "copy_or_quit", "copy the selection; twice: quit", id="copy", priority=True),
    ]

    def __init__(
        self,
        client: Client,
        store: Store,
        config: Config,
        *,
        themes_dir: Path | None = None,
        personas_dir: Path | None = None,
        tasks_dir: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The folders may hold the user's own. `clock` gives seconds since the epoch."""
        themes, self._theme_problems = load_themes(themes_dir)
        super().__init__()
        make_alt_digits_keys()
        for theme in themes.values():
            self.register_theme(theme)
        if config.theme in self.available_themes:
            self.theme = config.theme
        else:
            self._theme_problems.append(f"there is no theme “{config.theme}”: {DEFAULT_THEME} is used")
            self.theme = DEFAULT_THEME
        self._client = client
        self._max_fps = config.max_fps
        self._clock = clock
        self.conversations = Conversations(client, store, config, self._show, clock, tasks_dir)
        self._desk = CommandDesk(self.conversations, personas_dir)
        self._bridge = Bridge(self.conversations.handle, config.max_fps)
        self._workstation: Workstation | None = None
        self._ctrl_c_at = 0.0
        self._closed = False

    # Start and end

    def get_default_screen(self) -> Screen[None]:
        self._workstation = Workstation(self.conversations, self._desk, self._max_fps, self._clock)
        return self._workstation

    def on_mount(self) -> None:
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """Once the screen stands: listen to the host, start it, read the chats."""
        self.run_worker(self._bridge.run(self._client.events()), name="events")
        self.run_worker(self._start_client(), name="start")
        self.run_worker(self._load_chats(), name="chats")
        for problem in self._theme_problems:
            self.notify(problem, markup=False)

    async def _load_chats(self) -> None:
        await self.conversations.load()
        gc.freeze()  # what is there now stays: looking through it for garbage would hold up the screen

    async def _start_client(self) -> None:
        try:
            await self._client.start()
        except SamovarError as error:
            self.conversations.handle(HostFailed(str(error)))

    async def action_quit(self) -> None:
        """Store what has arrived, and leave."""
        await self._close()
        self.exit()

    async def on_unmount(self) -> None:
        self._workstation = None  # nothing can be shown any more
        await self._close()

    async def _close(self) -> None:
        if not self._closed:
            self._closed = True
            await self.conversations.close()
            await self._client.close()

    def _show(self, change: Change) -> None:
        if self._workstation is None:
            return
        above = [screen for screen in self.screen_stack if isinstance(screen, (*_SAYING, AnswerPanel))]
        for screen in above:
            screen.apply(change)
        if not any(isinstance(screen, _SAYING) for screen in above) or not isinstance(
            change, Noticed | LimitRefused
        ):
            self._workstation.apply(change)

    # Themes

    def get_css_variables(self) -> dict[str, str]:
        """Textual's variables and ours; one of Textual's own themes gets ours too, as near as it goes."""
        variables = super().get_css_variables()
        palette = palette_of(self.current_theme)
        ours = {name: palette.color(name) for name in COLOR_NAMES} | {"track": palette.track}
        self.theme_variables = {**variables, **ours}
        return self.theme_variables

    # Keys and commands

    async def on_event(self, event: events.Event) -> None:
        """Let the screen choose who gets the keys before any of them is on its way."""
        is_typing = isinstance(event, events.Key | events.Paste) and not event.is_forwarded
        if is_typing and self._workstation is not None:
            if self.screen is self._workstation:
                self._workstation.direct(event)
            elif isinstance(self.screen, AnswerPanel) and self.screen.leaves(event):
                self._workstation.write(event)
                return
        await super().on_event(event)

    async def action_copy_or_quit(self) -> None:
        """Copy what is selected; where nothing is, the second press within two seconds quits."""
        focused = self.focused
        if isinstance(focused, TextArea) and focused.selected_text:
            self.copy_to_clipboard(focused.selected_text)
        elif selected := self.screen.get_selected_text():
            self.copy_to_clipboard(selected)
        elif time.monotonic() - self._ctrl_c_at < QUIT_TWICE_WITHIN_S:
            await self.action_quit()
        else:
            self._ctrl_c_at = time.monotonic()
            self.notify("press ctrl+c again to quit", timeout=QUIT_TWICE_WITHIN_S)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        station = self._workstation
        if station is None:
            return
        yield SystemCommand("New chat", "ctrl+n", station.action_new)
        yield SystemCommand("Chats", "f2: go to the list of chats", station.action_chats)
        yield SystemCommand("Search", "f3: in all chats", station.action_search)
        yield SystemCommand("Go to chat", "ctrl+o: by a few letters of its title", station.action_go_to_chat)
        yield SystemCommand(
            "Chat settings", "f7: system prompt, persona, sampling, tags", station.action_settings
        )
        yield SystemCommand("Cache", "f4: show or hide the cache panel", station.action_cache)
        yield SystemCommand(
            "All of the cache", "f5: every prompt, the last requests", station.action_whole_cache
        )
        yield SystemCommand("Rename chat", "f6: give this chat another title", station.action_rename)
        yield SystemCommand("Delete chat", "undo brings it back", station.action_delete)
        yield SystemCommand("Undo delete", "bring back the chat deleted last", station.action_undo_delete)
        yield SystemCommand("Answer again", "ctrl+r: after a stop or a failure", station.action_retry)
        yield SystemCommand(
            "Compare", "several answers to the last message, side by side", station.action_compare
        )
        yield SystemCommand("Side tasks", "f8: what runs, what came of it", station.action_tasks)
        yield SystemCommand("Run a side task", "choose one for this chat", station.action_run_task)
        yield SystemCommand("Stop reply", "esc", station.action_stop)
        yield SystemCommand("Theme", "choose other colours", self.action_change_theme)
        yield SystemCommand("Help", "f1: all keys and commands", station.action_help)
        yield SystemCommand("Quit", "ctrl+q", self.action_quit)
        for usage in USAGES:
            if usage.name not in _NAMED_ABOVE:
                title = usage.name.capitalize()
                yield SystemCommand(
                    title, f"/{usage.name}: {usage.help}", partial(station.begin_command, usage)
                )
