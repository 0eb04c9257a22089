"""The workstation: chats, the shown chat, the cache. Turns changes into a picture, and keys into deeds.

Owns no chat and no figure: all of that is `Conversations`'; here is only what is on the screen.
"""

from collections.abc import Callable
from typing import ClassVar, Final

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal

from samovar.chats import cache_words, changes, slash
from samovar.chats.chat import Chat
from samovar.chats.command_desk import ANSWERED, TASKS, CommandDesk
from samovar.chats.conversation import Conversations
from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.sessions.search import Hit
from samovar.tui.list_desk import ListDesk
from samovar.tui.rows import arrangement, prompt_colors, row_maker
from samovar.tui.screens.answer_panel import AnswerPanel
from samovar.tui.screens.cache import CacheScreen
from samovar.tui.screens.chat_settings import ChatSettings
from samovar.tui.screens.compare import CompareScreen
from samovar.tui.screens.help import GLYPH_KEYS, WRITING_KEYS, HelpScreen, command_group, group_of
from samovar.tui.screens.message_keys import MessageKeys
from samovar.tui.screens.search import SearchScreen
from samovar.tui.screens.tasks import TasksScreen
from samovar.tui.task_desk import TaskDesk
from samovar.tui.theme import palette_of, session_color
from samovar.tui.widgets.cache_panel import CachePanel
from samovar.tui.widgets.chat_view import ChatView
from samovar.tui.widgets.composer import Composer, MessageInput
from samovar.tui.widgets.queue_rows import QueueRows
from samovar.tui.widgets.session_list import NEW, SessionList, SessionRow
from samovar.tui.widgets.sidebar import Sidebar
from samovar.tui.widgets.status_bar import StatusBar, status_figures
from samovar.tui.widgets.task_lines import TaskLines
from samovar.tui.widgets.transcript import Transcript

UNDO_WITHIN_S: Final = 30.0
METER_STEP: Final = 8  # tokens


class Workstation(MessageKeys):
    """The main screen. The app hands it each `Change`."""

    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - not ClassVar in Textual either
        (0, "-tiny"),
        (60, "-narrow"),
        (110, "-medium"),
        (140, "-wide"),
        (180, "-huge"),
    ]
    AUTO_FOCUS = "#input"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "this help", id="help"),
        Binding("f2", "chats", "go to the chats", id="chats", priority=True),
        Binding("f3", "search", "search in all chats", id="search", priority=True),
        Binding("f4", "cache", "show or hide the cache", id="cache", priority=True),
        Binding(
            "f5", "whole_cache", "all of the cache, on a screen of its own", id="whole_cache", priority=True
        ),
        Binding("ctrl+n", "new", "new chat", id="new", priority=True),
        Binding("ctrl+o", "go_to_chat", "go to a chat by a few letters", id="go_to_chat", priority=True),
        Binding("f6", "rename", "rename the chat", id="rename", priority=True),
        Binding("f7", "settings", "settings of the chat", id="settings", priority=True),
        Binding("f8", "tasks", "side tasks: what runs, what came of it", id="tasks", priority=True),
        Binding("ctrl+up", "step(-1)", "previous chat", id="previous", priority=True),
        Binding("ctrl+down", "step(1)", "next chat", id="next", priority=True),
        Binding(
            "alt+1", "nth(1)", "one of the first chats", key_display="alt+1 … 9", id="nth", priority=True
        ),
        *(Binding(f"alt+{n}", f"nth({n})", show=False, priority=True) for n in range(2, 10)),
        Binding("escape", "stop", "stop the reply, or go back to writing", id="stop"),
        Binding("ctrl+r", "retry", "answer the last message again", id="retry", priority=True),
    ]

    def __init__(
        self, conversations: Conversations, desk: CommandDesk, max_fps: int, clock: Callable[[], float]
    ) -> None:
        view = ChatView(conversations.shown, max_fps=max_fps, clock=clock, id="chat")
        super().__init__(conversations, view, TaskDesk(conversations, view, clock, max_fps))
        self._desk = desk
        self._clock = clock
        self._max_fps = max_fps
        self._sidebar = Sidebar(id="sidebar")
        self._panel = CachePanel(clock=clock, id="panel")
        self._status = StatusBar(id="status")
        self._list_desk = ListDesk(conversations, desk, self._sidebar, self._view.say, clock)
        self._rename_from_list = False
        self._deleted_last = ""
        self._drawn_step = 0

    def compose(self) -> ComposeResult:
        with Horizontal(id="body"):
            yield self._sidebar
            yield self._view
            yield self._panel
        yield self._status

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw_cache())
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw_tasks())
        self._draw_rows()
        self._draw_cache()

    # Changes

    def apply(self, change: changes.Change) -> None:
        """Show what has happened."""
        if not self.is_mounted:
            return
        match change:
            case changes.ChatsChanged():
                self._draw_rows()
            case changes.ChatShown():
                self._view.show(self._conversations.shown)
                self._draw_rows()
                self._draw_meter()
            case changes.CacheDrawn():
                self._sidebar.sessions.set_row_of(self._row_maker())
                self._draw_cache()
            case changes.HostChanged():
                self._view.set_host(self._conversations.host, self._conversations.notes)
                self._draw_status()
                self._draw_meter()
            case changes.Noticed(text, is_error):
                if is_error:
                    self._view.say_error(text)
                else:
                    self._view.say(text)
            case changes.CameBack(text):
                self._view.say_if_quiet(text)
            case changes.LimitRefused(command, text, error):
                self._view.give_back(f"/{command} {text}")
                self._view.say_error(error)
            case changes.TasksChanged():
                self._draw_tasks()
                self._task_desk.look()
            case changes.VerifyMoved() | changes.RequestsTold():
                pass  # the cache screen asked for it
            case changes.ComparisonGrew() | changes.ComparisonChanged():
                pass  # that has a screen of its own
            case changes.SendFailed(session, text, error):
                self._give_back(session, text)
                self._view.say_error(error)
            case _ if change.session == self._view.chat.id:
                self._view.apply(change)
                step = self._reply_step()
                if not isinstance(change, changes.ReplyGrew) or step != self._drawn_step:
                    self._drawn_step = step
                    self._draw_meter()

    def _reply_step(self) -> int:
        """How far the shown reply has come, in the steps in which the meter follows it."""
        reply = self._view.chat.reply
        return 0 if reply is None else reply.num_tokens // METER_STEP

    def _draw_meter(self) -> None:
        self._view.set_context(self._conversations.meter.context_use(self._view.chat))

    def _draw_rows(self) -> None:
        ids = [chat.id for chat in self._conversations.ordered()]
        shown = self._conversations.shown.id
        self._view.set_first_run(self._conversations.is_first_run)
        if self._deleted_last in self._conversations.chats:  # it is back, by whatever way
            self._deleted_last = ""
            self._sidebar.set_note("")
        self._sidebar.set_rows(ids, self._row_maker(), shown, arrangement(self._conversations.roster))

    def _draw_tasks(self) -> None:
        palette = palette_of(self.app.current_theme)
        self._sidebar.tasks.set_runs(
            self._conversations.tasks.runs, lambda session: session_color(palette, session)
        )

    def _row_maker(self) -> Callable[[str], SessionRow]:
        return row_maker(self._conversations.chats, self._conversations.snapshot)

    def _draw_cache(self) -> None:
        snapshot = self._conversations.snapshot
        palette = palette_of(self.app.current_theme)
        is_ahead_off = self._conversations.work_ahead.setting == "off"
        self._panel.set_snapshot(snapshot, prompt_colors(snapshot, palette), is_ahead_off=is_ahead_off)
        self._draw_status()

    def _draw_status(self) -> None:
        snapshot = self._conversations.snapshot
        read_only = "nothing can be stored now" if self._conversations.upkeep.is_read_only else ""
        self._view.set_lasting(read_only or cache_words.asleep(snapshot))
        self._status.set_figures(status_figures(self._conversations.host, snapshot))

    def _give_back(self, session: str, text: str) -> None:
        """Put a text that could not be sent back where it was written."""
        chat = self._conversations.chats.get(session)
        if chat is self._view.chat:
            self._view.give_back(text)
        elif chat is not None:
            draft = "\n".join(part for part in (text, chat.draft) if part)
            self._conversations.drafts.typed(chat, draft)

    # What widgets ask for

    @on(Composer.Sent)
    def _send(self, event: Composer.Sent) -> None:
        if event.text and isinstance(panel := self.app.screen, AnswerPanel):
            panel.dismiss(None)  # the user goes on with the chat
        if not event.text:
            if self._conversations.outbox.go_on(self._view.chat):
                self._view.follow()
            return
        self._view.say_error("")
        self._view.say("")
        if slash.is_command(event.text):
            self._run_command(event.text)
            return
        self.run_worker(self._send_text(self._view.chat, event.text), group="send")

    @on(QueueRows.Wanted)
    def _unqueue(self, event: QueueRows.Wanted) -> None:
        """Take a message out of the queue, into the composer or away."""
        chat = self._view.chat
        if event.edits and chat.editing is not None:
            self._view.say("another message is being edited: esc leaves that first")
            return
        text = self._conversations.outbox.take(chat, event.text)
        if text is not None and event.edits:
            self._view.give_back(text)
            self._view.composer.focus_input()
        elif text is not None:
            self._view.say("taken out of the queue")

    @on(QueueRows.Left)
    def _queue_left(self) -> None:
        self._view.composer.focus_input()

    @on(ChatView.Typed)
    def _typed(self, event: ChatView.Typed) -> None:
        if event.text != event.chat.draft:
            self._conversations.drafts.typed(event.chat, event.text)
            self._conversations.meter.draft_changed(event.chat)
            self._conversations.work_ahead.typed(event.chat)

    @on(MessageInput.Pasted)
    def _pasted(self, event: MessageInput.Pasted) -> None:
        self._conversations.drafts.keep_paste(self._view.chat, event.paste)
        num_lines = len(event.paste.text.splitlines())
        size = f"{num_lines:,} {'line' if num_lines == 1 else 'lines'}"
        self._view.say(f"pasted {size} as {event.paste.name}: it travels with the message as a file")

    async def _send_text(self, chat: Chat, text: str) -> None:
        """Send, queue or give back the text. Asked here: two texts may be sent before a worker begins."""
        if self._conversations.can_queue(chat):
            self._conversations.outbox.add(chat, text)
            self._view.follow()
            return
        if refusal := self._conversations.refusal(chat):
            self._give_back(chat.id, text)
            self._view.say_refusal(refusal)
            return
        self._view.follow()
        await self._conversations.send(chat, text)

    def begin_command(self, usage: slash.Usage) -> None:
        """Run a command that takes nothing after it; else write its beginning, for its argument to follow."""
        if not usage.argument:
            self._run_command(f"/{usage.name}")
        elif not self._view.composer.text:
            self._view.composer.set_text(f"/{usage.name} ")
            self._back_to_writing()
        else:
            self._view.say(f"what you have written would be lost: write /{usage.name} in an empty line")

    def _run_command(self, text: str) -> None:
        try:
            command = slash.parse(text)
        except SamovarError as error:
            self._view.give_back(text)
            self._view.say_error(str(error))
            return
        if command.name in TASKS:
            self._start_task(text, command)
            return
        if command.name in ANSWERED:
            self.run_worker(self._answer_command(text, command), group="command")
            return
        typed_since = self._view.take_text()  # it belongs to the chat that the command leads to
        self._carry_out(command)
        self._view.give_back(typed_since)

    def _start_task(self, text: str, command: slash.SlashCommand) -> None:
        try:
            run = self._desk.start_task(command)
        except SamovarError as error:
            self._view.give_back(text)
            self._view.say_error(str(error))
            return
        self._task_desk.show(run)

    async def _answer_command(self, text: str, command: slash.SlashCommand) -> None:
        """Do it; what cannot be done goes back to its writer."""
        try:
            answer = await self._desk.run(command)
        except SamovarError as error:
            if command.argument:
                self._view.give_back(text)
            self._view.say_error(str(error))
            return
        if command.name == "ahead":
            self._draw_cache()
        if answer:
            self._view.say(answer)

    def _carry_out(self, command: slash.SlashCommand) -> None:
        match command.name:
            case "new":
                self.action_new()
            case "delete":
                self._delete(self._view.chat.id)
            case "cache":
                self.action_cache()
            case "search":
                self.action_search(command.argument)
            case "tasks":
                self.action_tasks()
            case "compare":
                self.action_compare(command.argument)
            case "help":
                self.action_help()
            case _:
                self.app.call_later(self.app.action_quit)

    @on(SessionList.Opened)
    def _open(self, event: SessionList.Opened) -> None:
        if event.session == NEW:
            self.action_new()
            return
        if event.session != self._view.chat.id:
            self._conversations.show(event.session)
        self._back_to_writing()

    @on(SessionList.Rested)
    def _rested(self, event: SessionList.Rested) -> None:
        self._conversations.prefetch(event.session)

    @on(SessionList.RenameWanted)
    def _rename(self, event: SessionList.RenameWanted) -> None:
        self._rename_from_list = True
        if event.session in self._conversations.chats:
            self._sidebar.rename(event.session, self._conversations.chats[event.session].title)

    @on(Sidebar.Renamed)
    def _renamed(self, event: Sidebar.Renamed) -> None:
        if event.session in self._conversations.chats:
            self._conversations.profile.rename(self._conversations.chats[event.session], event.title)

    @on(Sidebar.RenameEnded)
    def _rename_ended(self) -> None:
        if self._rename_from_list:
            self._sidebar.sessions.focus()
        else:
            self._back_to_writing()

    @on(SessionList.Wished)
    def _wished(self, event: SessionList.Wished) -> None:
        self._rename_from_list = True
        self._list_desk.carry_out(event.wish, event.session)

    @on(Sidebar.Tagged)
    def _tagged(self, event: Sidebar.Tagged) -> None:
        if event.session in self._conversations.chats:
            self._conversations.profile.set_tags(self._conversations.chats[event.session], event.tags)

    @on(Sidebar.Filtered)
    def _filtered(self, event: Sidebar.Filtered) -> None:
        self._list_desk.filter_titles(event.words)

    @on(SessionList.DeleteWanted)
    def _delete_wanted(self, event: SessionList.DeleteWanted) -> None:
        self._delete(event.session)

    @on(SessionList.UndoWanted)
    def action_undo_delete(self) -> None:
        """Bring the last deleted chat back."""
        chat = self._conversations.undo_delete()
        self._sidebar.set_note("")
        self._view.say(f"“{_short(chat.title)}” is back" if chat else "no chat has been deleted")

    def _delete(self, session: str) -> None:
        if session not in self._conversations.chats:
            return
        chat = self._conversations.delete(session)
        if not chat.in_store and not chat.draft.strip():
            return
        self._deleted_last = session
        undo = "u" if self._sidebar.sessions.has_focus else "/undo"
        self._sidebar.set_note(f"deleted “{_short(chat.title)}”\n{undo} brings it back")
        self._view.say("deleted; /undo brings it back")
        self.set_timer(UNDO_WITHIN_S, lambda: self._forget(session))

    def _forget(self, session: str) -> None:
        if self._deleted_last == session:
            self._sidebar.set_note("")
        self._conversations.forget_deleted(session)

    # Keys

    def direct(self, event: events.Event) -> None:
        """Give the focus to the composer for what is typed or pasted while something beside it has it."""
        if isinstance(self.focused, Transcript | QueueRows | CachePanel):
            letters = () if isinstance(self.focused, CachePanel) else Transcript.LETTERS
            is_text = isinstance(event, events.Paste) or (
                isinstance(event, events.Key) and event.is_printable and event.key not in letters
            )
            if is_text:
                self.set_focus(self._view.composer.input, scroll_visible=False)

    def write(self, event: events.Event) -> None:
        """Take in what is typed or pasted while a panel lies over the chat."""
        self._view.composer.input._forward_event(event)

    def action_help(self) -> None:
        groups = [
            group_of("EVERYWHERE", [*Workstation.BINDINGS, *self.app.BINDINGS]),
            group_of("WRITING", MessageInput.BINDINGS, WRITING_KEYS),
            group_of("QUEUE · tab or a click goes there, esc back", QueueRows.BINDINGS),
            group_of("CHATS · f2 goes there, esc back", SessionList.BINDINGS),
            group_of("READING · tab or a click goes there, esc back", Transcript.BINDINGS),
            group_of("CHAT SETTINGS · f7 goes there", ChatSettings.BINDINGS),
            CacheScreen.help_group(),
            TasksScreen.help_group(),
            CompareScreen.help_group(),
            command_group(),
            GLYPH_KEYS,
        ]
        self.app.push_screen(HelpScreen(groups))

    def action_chats(self) -> None:
        """Go to the list of chats, or back from it."""
        if self._sidebar.sessions.has_focus:
            self._back_to_writing()
        else:
            self.add_class("-list-open")
            self._sidebar.sessions.focus()

    def action_go_to_chat(self) -> None:
        """Go to a chat by a few letters of its title."""
        self._list_desk.open_switcher(self._go_to, self.action_search)

    def _go_to(self, session: str) -> None:
        self._conversations.show(session)
        self._back_to_writing()

    def action_settings(self) -> None:
        """Change the settings of the chat under the list's cursor, or of the shown one."""
        in_list = self._sidebar.sessions.has_focus and self._sidebar.sessions.cursor != NEW
        session = self._sidebar.sessions.cursor if in_list else self._view.chat.id
        self._list_desk.open_settings(self._conversations.chats[session])

    def action_search(self, text: str = "") -> None:
        """Search in all chats."""
        screen = SearchScreen(self._conversations.finder.find, self._clock, text)
        self.app.push_screen(screen, self._open_found)

    async def _open_found(self, hit: Hit | None) -> None:
        """Show the message that the user chose among those found."""
        if hit is None:
            return
        if problem := await self._conversations.show_found(hit.session_id, hit.message_id):
            self._view.say_error(problem)
            return
        self._view.go_to(hit.message_id, [part.text for part in hit.snippet if part.is_match])

    def action_cache(self) -> None:
        """Show or hide the cache panel: in its column if there is one, else over the chat, with the keys."""
        if self.has_class("-wide") or self.has_class("-huge"):
            self.toggle_class("-panel-hidden")
        elif self.has_class("-panel-open"):
            self._back_to_writing()
        else:
            self.add_class("-panel-open")
            self._panel.focus(scroll_visible=False)

    def action_whole_cache(self) -> None:
        """Show everything about the cache."""
        self.remove_class("-panel-open")
        self.app.push_screen(CacheScreen(self._conversations, self._clock))

    def action_tasks(self) -> None:
        """Show all side tasks."""
        self._task_desk.open_screen()

    @on(TaskLines.Chosen)
    def _show_task(self, event: TaskLines.Chosen) -> None:
        self._task_desk.open_screen(event.run_id)

    def action_run_task(self) -> None:
        """Choose a side task to run on the shown chat."""
        self._task_desk.choose(self._view.chat)

    def action_compare(self, argument: str = "") -> None:
        """Have the last message, or a new text, answered several times side by side."""
        self.run_worker(self._compare(self._view.chat, argument), group="command")

    async def _compare(self, chat: Chat, argument: str) -> None:
        comparisons = self._conversations.comparisons
        try:
            wish = comparisons.wish(chat, argument, self._desk.personas_dir)
            comparison = await comparisons.begin(chat, wish)
        except SamovarError as error:
            if argument:
                self._view.give_back(f"/compare {argument}")
            say = self._view.say_refusal if chat.is_busy else self._view.say_error
            say(str(error))
            return
        screen = CompareScreen(comparisons, comparison, max_fps=self._max_fps)
        self.app.push_screen(screen, lambda told: self._view.say(told or ""))

    def action_new(self) -> None:
        self._conversations.new()
        self._back_to_writing()

    def action_rename(self) -> None:
        """Rename the chat under the list's cursor, or the shown one."""
        in_list = self._sidebar.sessions.has_focus
        session = self._sidebar.sessions.cursor if in_list else self._view.chat.id
        if session == NEW:
            return
        self._rename_from_list = in_list
        self.add_class("-list-open")
        self.call_after_refresh(self._sidebar.rename, session, self._conversations.chats[session].title)

    def action_delete(self) -> None:
        """Delete the shown chat."""
        self._delete(self._view.chat.id)

    def action_step(self, step: int) -> None:
        """Show the next or previous chat of the list."""
        order, shown = self._sidebar.sessions.ids, self._view.chat.id
        place = order.index(shown) + step if shown in order else 0
        if 0 <= place < len(order):
            self._conversations.show(order[place])

    def action_nth(self, number: int) -> None:
        """Show the chat on the list's line `number`, from 1 on."""
        order = self._sidebar.sessions.ids
        if number <= len(order) and order[number - 1] != self._view.chat.id:
            self._conversations.show(order[number - 1])

    def action_stop(self) -> None:
        """Close what lies over the chat; else stop its reply; in any case go back to writing."""
        lies_over = self.has_class("-panel-open") or (self.has_class("-list-open") and self._is_small)
        if not lies_over and self._conversations.branches.cancel_edit(self._view.chat):
            self._view.say_error("")
        elif not lies_over:
            self._conversations.stop(self._view.chat)
            self._view.say_error("")
        self._back_to_writing()

    async def action_retry(self) -> None:
        if refusal := await self._conversations.branches.retry(self._view.chat):
            self._view.say(refusal)

    @property
    def _is_small(self) -> bool:
        """Whether the list lies over the chat instead of beside it."""
        return self.has_class("-narrow") or self.has_class("-tiny")

    def _back_to_writing(self) -> None:
        self.remove_class("-list-open", "-panel-open")
        self._sidebar.end_filter()
        self._view.composer.focus_input()


def _short(title: str) -> str:
    text = " ".join(clean(title).split()) or "new chat"
    return text if len(text) <= 24 else text[:23] + "…"
