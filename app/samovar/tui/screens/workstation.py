"""The workstation: chats, the shown chat, the cache. Turns changes into a picture, and keys into deeds.

Owns no chat and no figure: all of that is `Conversations`'; here is only what is on the screen.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget

from samovar.core.errors import SamovarError
from samovar.core.snapshot import LastRequest
from samovar.tui import changes, slash
from samovar.tui.activity import activity
from samovar.tui.chat import Chat
from samovar.tui.conversation import Conversations
from samovar.tui.entries import chat_entries, message_entries, reply_entry, reply_meta
from samovar.tui.rows import prompt_colors, session_rows
from samovar.tui.safe_text import clean
from samovar.tui.screens.help import GLYPH_KEYS, HelpScreen, command_group, group_of
from samovar.tui.theme import palette_of
from samovar.tui.widgets.cache_panel import CachePanel
from samovar.tui.widgets.composer import Composer, MessageInput
from samovar.tui.widgets.session_list import NEW, SessionList
from samovar.tui.widgets.sidebar import Sidebar
from samovar.tui.widgets.status_bar import StatusBar, StatusFigures
from samovar.tui.widgets.transcript import Entry, Transcript
from samovar.tui.widgets.welcome import Welcome

UNDO_WITHIN_S: Final = 30.0
NOTICE_S: Final = 8.0
ACTIVITY_EVERY_S: Final = 0.4
HISTORY_LENGTH: Final = 64


class Workstation(Screen[None]):
    """The main screen. The app hands it each `Change`."""

    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - not ClassVar in Textual either
        (0, "-narrow"),
        (110, "-medium"),
        (140, "-wide"),
        (180, "-huge"),
    ]
    AUTO_FOCUS = "#input"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "help", id="help"),
        Binding("f2", "chats", "go to the chats", id="chats", priority=True),
        Binding("f4", "cache", "show or hide the cache", id="cache", priority=True),
        Binding("ctrl+n", "new", "new chat", id="new", priority=True),
        Binding("f6", "rename", "rename the chat", id="rename", priority=True),
        Binding("ctrl+up", "step(-1)", "previous chat", id="previous", priority=True),
        Binding("ctrl+down", "step(1)", "next chat", id="next", priority=True),
        *(Binding(f"alt+{n}", f"nth({n})", f"chat {n}", show=False, priority=True) for n in range(1, 10)),
        Binding("escape", "stop", "stop the reply, or go back to writing", id="stop"),
        Binding("ctrl+r", "retry", "answer the last message again", id="retry", priority=True),
    ]

    def __init__(self, conversations: Conversations, max_fps: int, clock: Callable[[], float]) -> None:
        super().__init__()
        self._conversations = conversations
        self._max_fps = max_fps
        self._clock = clock
        self._on_screen: Chat = conversations.shown
        self._notice = ""
        self._notice_timer: Timer | None = None
        self._activity_at = 0.0
        self._last_request: LastRequest | None = None
        self._hit_ratios = deque[float](maxlen=HISTORY_LENGTH)
        self._speeds = deque[float](maxlen=HISTORY_LENGTH)
        self._before_rename: Widget | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="body"):
            yield Sidebar(id="sidebar")
            with Vertical(id="chat"):
                yield Welcome(id="welcome")
                yield Transcript(max_fps=self._max_fps, id="transcript")
                yield Composer(id="composer")
            yield CachePanel(clock=self._clock, id="panel")
        yield StatusBar(id="status")

    def on_mount(self) -> None:
        self._sidebar, self._sessions = self.query_one(Sidebar), self.query_one(SessionList)
        self._transcript, self._composer = self.query_one(Transcript), self.query_one(Composer)
        self._panel, self._status = self.query_one(CachePanel), self.query_one(StatusBar)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw_cache())
        self._show_chat()
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
                self._show_chat()
            case changes.CacheDrawn():
                self._draw_rows()
                self._draw_cache()
            case changes.HostChanged():
                self._draw_status()
                self._draw_activity()
            case changes.Noticed(text, is_error):
                self._say_error(text) if is_error else self._say(text)
            case changes.SendFailed(session, text, error):
                self._give_back(session, text)
                self._say_error(error)
            case _ if change.session == self._on_screen.id:
                self._apply_to_chat(change)

    def _apply_to_chat(
        self,
        change: changes.PathChanged
        | changes.MessageAdded
        | changes.ReplyBegan
        | changes.ReplyProgressed
        | changes.ReplyGrew
        | changes.ReplyEnded,
    ) -> None:
        """A change of the chat that is on the screen."""
        chat, now = self._on_screen, self._clock()
        match change:
            case changes.PathChanged():
                self._load_transcript()
            case changes.MessageAdded(message=message):
                self._append(message_entries(message, now))
                self._composer.set_history(chat.sent_texts())
            case changes.ReplyBegan() if chat.reply is not None:
                self._show_welcome(False)
                self._transcript.begin_stream(reply_entry(chat.reply, now))
            case changes.ReplyGrew(text=text):
                self._transcript.stream(text)
            case changes.ReplyProgressed() if chat.reply is not None:
                self._transcript.update_meta(chat.reply.request_id, reply_meta(chat.reply, now))
            case changes.ReplyEnded(entry_id=entry_id, message=message, notice=notice):
                entry, *notes = message_entries(message, now, entry_id)
                self._transcript.end_stream(entry)
                if notice:
                    notes.append(Entry(f"{entry_id} notice", "note", notice))
                self._append(notes)
            case _:
                pass
        is_text = isinstance(change, changes.ReplyGrew)
        if not is_text or time.monotonic() - self._activity_at >= ACTIVITY_EVERY_S:
            self._draw_activity()

    def _show_chat(self) -> None:
        """Put the current chat on the screen, and its draft into the composer."""
        chat = self._conversations.shown
        if chat is not self._on_screen:
            self._on_screen.draft = self._composer.text
        self._on_screen = chat
        self._draw_rows()
        self._sessions.set_shown(chat.id)
        self._composer.set_text(chat.draft)
        self._composer.set_error("")
        self._notice = ""
        self._load_transcript()
        self._draw_activity()

    def _load_transcript(self) -> None:
        chat, now = self._on_screen, self._clock()
        entries = chat_entries(chat, now)
        self._show_welcome(chat.path == [] and not entries and chat.reply is None)
        self._transcript.load(entries)
        if chat.reply is not None:
            self._transcript.begin_stream(reply_entry(chat.reply, now))
        self._composer.set_history(chat.sent_texts())

    def _append(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._show_welcome(False)
            self._transcript.append(entry)

    def _show_welcome(self, shown: bool) -> None:
        welcome = self.query_one(Welcome)
        if welcome.display != shown or self._transcript.display == shown:
            welcome.display, self._transcript.display = shown, not shown

    def _draw_rows(self) -> None:
        conversations = self._conversations
        chats = conversations.ordered()
        self._sessions.set_rows(session_rows(chats, conversations.snapshot))
        self._sidebar.set_count(sum(chat.in_store for chat in chats))

    def _draw_cache(self) -> None:
        snapshot = self._conversations.snapshot
        palette = palette_of(self.app.current_theme)
        if snapshot.last is not None and snapshot.last != self._last_request:
            stats = snapshot.last.stats
            self._hit_ratios.append(stats.reused.total / max(1, stats.prompt_tokens))
            if stats.tokens_per_second is not None:
                self._speeds.append(stats.tokens_per_second)
            self._last_request = snapshot.last
            self._panel.set_history(self._hit_ratios, self._speeds)
        self._panel.set_snapshot(snapshot, prompt_colors(self._conversations.chats, snapshot, palette))
        self._draw_status()

    def _draw_status(self) -> None:
        snapshot = self._conversations.snapshot
        stats = snapshot.last.stats if snapshot.last is not None else None
        self._status.set_figures(
            StatusFigures(
                self._conversations.host,
                snapshot.decode_tokens_per_second,
                stats.first_token_ms if stats is not None else None,
                snapshot.totals.saved_ms,
            )
        )

    def _draw_activity(self) -> None:
        self._activity_at = time.monotonic()
        state = activity(self._conversations.host, self._on_screen, self._notice, self._clock())
        self._composer.set_activity(state)
        if error := self._conversations.host.error:
            self._composer.set_error(error)

    def _say(self, text: str) -> None:
        """Show a short line for some seconds."""
        self._notice = text
        if self._notice_timer is not None:
            self._notice_timer.stop()
        self._notice_timer = self.set_timer(NOTICE_S, self._end_notice)
        self._draw_activity()

    def _end_notice(self) -> None:
        self._notice = ""
        self._draw_activity()

    def _say_error(self, text: str) -> None:
        self._composer.set_error(text)

    def _give_back(self, session: str, text: str) -> None:
        """Put a text that could not be sent back where it was written, before what was written since."""
        chat = self._conversations.chats.get(session)
        if chat is None:
            return
        if chat is self._on_screen:
            self._composer.set_text("\n".join(part for part in (text, self._composer.text) if part))
        else:
            chat.draft = "\n".join(part for part in (text, chat.draft) if part)

    # What widgets ask for

    @on(Composer.Sent)
    def _send(self, event: Composer.Sent) -> None:
        self._composer.set_error("")
        if slash.is_command(event.text):
            self._run_command(event.text)
            return
        chat = self._on_screen
        if refusal := self._conversations.refusal(chat):
            self._say(refusal)
            return
        self._composer.set_text("")
        self._transcript.following = True
        self.run_worker(self._conversations.send(chat, event.text), group="send")

    def _run_command(self, text: str) -> None:
        try:
            command = slash.parse(text)
        except SamovarError as error:
            self._composer.set_error(str(error))
            return
        self._composer.set_text("")
        match command:
            case slash.SlashCommand("new"):
                self.action_new()
            case slash.SlashCommand("rename", title):
                self._conversations.rename(self._on_screen.id, title)
            case slash.SlashCommand("delete"):
                self._delete(self._on_screen.id)
            case slash.SlashCommand("undo"):
                self.action_undo_delete()
            case slash.SlashCommand("system", argument):
                self._system_prompt(argument)
            case slash.SlashCommand("retry"):
                self.action_retry()
            case slash.SlashCommand("ram", limit):
                self._conversations.set_ram_limit(limit)
                self._say(f"RAM limit: {limit}")
            case slash.SlashCommand("cache"):
                self.action_cache()
            case slash.SlashCommand("help"):
                self.action_help()
            case slash.SlashCommand("quit"):
                self.app.run_worker(self.app.action_quit())

    def _system_prompt(self, argument: str) -> None:
        if argument:
            self._conversations.set_system_prompt("" if argument == "-" else argument)
            self._say(
                "the system prompt counts from the next message on" if argument != "-" else "no system prompt"
            )
        else:
            self._say(self._on_screen.system_prompt or "this chat has no system prompt")

    @on(SessionList.Opened)
    def _open(self, event: SessionList.Opened) -> None:
        if event.session == NEW:
            self.action_new()
            return
        if event.session != self._on_screen.id:
            self._conversations.show(event.session)
        self._back_to_writing()

    @on(SessionList.RenameWanted)
    def _rename(self, event: SessionList.RenameWanted) -> None:
        self._before_rename = self._sessions
        self._sidebar.rename(event.session, self._conversations.chats[event.session].title)

    @on(Sidebar.Renamed)
    def _renamed(self, event: Sidebar.Renamed) -> None:
        if event.session in self._conversations.chats:
            self._conversations.rename(event.session, event.title)

    @on(Sidebar.RenameEnded)
    def _rename_ended(self) -> None:
        if self._before_rename is self._sessions:
            self._sessions.focus()
        else:
            self._back_to_writing()

    @on(SessionList.DeleteWanted)
    def _delete_wanted(self, event: SessionList.DeleteWanted) -> None:
        self._delete(event.session)

    @on(SessionList.UndoWanted)
    def action_undo_delete(self) -> None:
        """Bring the last deleted chat back."""
        chat = self._conversations.undo_delete()
        self._sidebar.set_note("")
        self._say(f"“{_short(chat.title)}” is back" if chat else "no chat has been deleted")

    @on(Transcript.CopyRequested)
    def _copy(self, event: Transcript.CopyRequested) -> None:
        self.app.copy_to_clipboard(event.text)
        self._say(f"copied: {event.what}")

    def _delete(self, session: str) -> None:
        chat = self._conversations.delete(session)
        if not chat.in_store:
            return
        self._sidebar.set_note(f"deleted “{_short(chat.title)}” · u undoes")
        self._say("deleted · /undo brings it back")
        self.set_timer(UNDO_WITHIN_S, lambda: self._forget(session))

    def _forget(self, session: str) -> None:
        self._sidebar.set_note("")
        self._conversations.forget_deleted(session)

    # Keys

    def action_help(self) -> None:
        groups = [
            group_of("EVERYWHERE", [*Workstation.BINDINGS, *self.app.BINDINGS]),
            group_of("WRITING", MessageInput.BINDINGS),
            group_of("CHATS", SessionList.BINDINGS),
            group_of("READING", Transcript.BINDINGS),
            command_group(),
            GLYPH_KEYS,
        ]
        self.app.push_screen(HelpScreen(groups))

    def action_chats(self) -> None:
        """Go to the list of chats, or back from it."""
        if self._sessions.has_focus:
            self._back_to_writing()
        else:
            self.add_class("-list-open")
            self._sessions.focus()

    def action_cache(self) -> None:
        """Show or hide the cache panel: in its column where there is one, else over the chat."""
        self.toggle_class(
            "-panel-hidden" if self.has_class("-wide") or self.has_class("-huge") else "-panel-open"
        )

    def action_new(self) -> None:
        self._conversations.new()
        self._back_to_writing()

    def action_rename(self) -> None:
        """Rename the chat under the list's cursor, or the shown one."""
        in_list = self._sessions.has_focus
        session = self._sessions.cursor if in_list else self._on_screen.id
        if session == NEW:
            return
        self._before_rename = self._sessions if in_list else None
        self.add_class("-list-open")
        self.call_after_refresh(self._sidebar.rename, session, self._conversations.chats[session].title)

    def action_delete(self) -> None:
        """Delete the shown chat."""
        self._delete(self._on_screen.id)

    def action_step(self, step: int) -> None:
        """Show the next or previous chat of the list."""
        order = [chat.id for chat in self._conversations.ordered()]
        place = order.index(self._on_screen.id) + step
        if 0 <= place < len(order):
            self._conversations.show(order[place])

    def action_nth(self, number: int) -> None:
        """Show the chat on the list's line `number`, from 1 on."""
        order = self._conversations.ordered()
        if number <= len(order) and order[number - 1] is not self._on_screen:
            self._conversations.show(order[number - 1].id)

    def action_stop(self) -> None:
        """Close what lies over the chat; else stop its reply; in any case go back to writing."""
        lies_over = self.has_class("-panel-open") or (
            self.has_class("-list-open") and self.has_class("-narrow")
        )
        if not lies_over:
            self._conversations.stop(self._on_screen)
            self._composer.set_error("")
        self._back_to_writing()

    def action_retry(self) -> None:
        if refusal := self._conversations.retry(self._on_screen):
            self._say(refusal)

    def _back_to_writing(self) -> None:
        self.remove_class("-list-open", "-panel-open")
        self._composer.focus_input()


def _short(title: str) -> str:
    text = " ".join(clean(title).split()) or "new chat"
    return text if len(text) <= 24 else text[:23] + "…"
