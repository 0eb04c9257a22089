"""The middle column: one chat's messages, or a welcome while there are none, and the composer under them.

Shows the chat it is given, and keeps the composer's text in that chat's draft when it is given another one.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer

from samovar.chats import changes
from samovar.chats.chat import Chat, Phase
from samovar.chats.host_state import HostPhase, HostState
from samovar.chats.meter import ContextUse
from samovar.chats.sent import LeftOut, standing
from samovar.sessions.values import Compaction
from samovar.tui.activity import activity
from samovar.tui.entries import (
    chat_entries,
    message_entries,
    reply_entry,
    reply_id,
    reply_meta,
    reply_thought,
)
from samovar.tui.widgets.composer import Composer
from samovar.tui.widgets.context_meter import context_meters
from samovar.tui.widgets.transcript import Entry, Transcript
from samovar.tui.widgets.welcome import Welcome

NOTICE_S: Final = 4.0
LONG_NOTICE_S: Final = 12.0
ACTIVITY_EVERY_S: Final = 0.4
MAX_WIDTH: Final = 100  # of the transcript's text, and so of the composer under it

ChatChange = (
    changes.PathChanged
    | changes.MessageAdded
    | changes.MessageChanged
    | changes.DraftChanged
    | changes.QueueChanged
    | changes.ReplyBegan
    | changes.ReplyProgressed
    | changes.ReplyGrew
    | changes.ReplyEnded
    | changes.ContextChanged
)


class ChatView(Vertical):
    """One chat. `clock` gives seconds since the epoch."""

    class Typed(Message):
        """What stands in a chat's composer is another text."""

        def __init__(self, chat: Chat, text: str) -> None:
            super().__init__()
            self.chat = chat
            self.text = text

    def __init__(
        self, chat: Chat, *, max_fps: int, clock: Callable[[], float], id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self.chat = chat
        self._clock = clock
        self._host = HostState()
        self._lasting = ""
        self._notice = ""
        self._refusal = ""
        self._notice_timer: Timer | None = None
        self._activity_at = 0.0
        self._phase: Phase | None = None
        self._summary: Compaction | None = None  # whose mark is shown
        self._left_out: LeftOut | None = None  # the same of what is no longer sent
        self._welcome = Welcome(id="welcome")
        self._transcript = Transcript(max_fps=max_fps, id="transcript")
        self._desk = Vertical(id="desk")
        self.composer = Composer(id="composer")

    def compose(self) -> ComposeResult:
        yield self._welcome
        yield self._transcript
        with self._desk:
            yield self.composer

    def on_mount(self) -> None:
        self.show(self.chat)

    def on_resize(self) -> None:
        """Put the composer under the transcript's text, whose margins depend on the width."""
        width = self.content_size.width - 1
        side = 3 if width >= 90 else 2 if width >= 40 else 1
        right = max(side, self.content_size.width - side - MAX_WIDTH)
        self._desk.styles.padding = (1, right, 1, side)

    @on(Composer.Typed)
    def _typed(self, event: Composer.Typed) -> None:
        event.stop()
        self.post_message(self.Typed(self.chat, event.text))

    # The chat

    def show(self, chat: Chat) -> None:
        """Show this chat, at its end, with its draft."""
        if chat is not self.chat:
            self.post_message(self.Typed(self.chat, self.composer.text))
        self.chat, self._left_out = chat, None
        self.composer.set_text(chat.draft)
        self.composer.set_queue(chat.queued, chat.queue_paused)
        self.say_error("")
        self._notice = ""
        self.composer.set_note("")
        self._load()
        self._draw_activity()

    def apply(self, change: ChatChange) -> None:
        """Show what has happened to the shown chat."""
        chat, now = self.chat, self._clock()
        match change:
            case changes.PathChanged():
                self._load(stay=True)
            case changes.MessageAdded(message=message):
                self._append(message_entries(message, now))
                self.composer.set_history(chat.sent_texts())
            case changes.MessageChanged(message=message):
                self._transcript.replace(message_entries(message, now)[0])
            case changes.DraftChanged():
                self.composer.set_text(chat.draft)
                self.composer.focus_input()
            case changes.QueueChanged():
                self.composer.set_queue(chat.queued, chat.queue_paused)
            case changes.ReplyBegan() if chat.reply is not None:
                self._show_welcome(False)
                self._notice = ""
                self._transcript.begin_stream(reply_entry(chat.reply, now))
            case changes.ReplyGrew(text=text):
                self._update_thought()
                self._transcript.stream(text)
                if chat.reply is not None and chat.reply.phase is not self._phase:  # all has been read
                    self._transcript.update_meta(reply_id(chat.reply), reply_meta(chat.reply, now))
            case changes.ReplyProgressed() if chat.reply is not None:
                self._update_thought()
                self._transcript.update_meta(reply_id(chat.reply), reply_meta(chat.reply, now))
            case changes.ReplyEnded(message=message):
                if self._refusal:
                    self.say_error("")
                entry, *notes = message_entries(message, now)
                self._transcript.end_stream(entry)
                self._append(notes)
            case changes.ContextChanged() if standing(chat.path or (), chat.compactions) != self._summary:
                self._load(stay=True)
            case _:
                pass
        phase = chat.reply.phase if chat.reply is not None else None
        is_same = isinstance(change, changes.ReplyGrew) and phase is self._phase
        if not is_same or time.monotonic() - self._activity_at >= ACTIVITY_EVERY_S:
            self._draw_activity()

    def _update_thought(self) -> None:
        reply = self.chat.reply
        if reply is not None and (reply.thinks or reply.thinking_tokens):
            thought = reply_thought(reply)
            self._transcript.update_thought(reply_id(reply), thought, thinks=reply.thinks)

    def set_context(self, use: ContextUse | None) -> None:
        """Show how full the context is with this chat, and from where on it is sent."""
        self.composer.set_meter(context_meters(use))
        left_out = use.left_out if use is not None else None
        if left_out != self._left_out:
            self._left_out = left_out
            self._load(stay=True)

    def take_text(self) -> str:
        """Empty the composer; returns what was in it."""
        text = self.composer.text
        self.composer.set_text("")
        return text

    def go_to(self, message_id: int | None, words: Sequence[str] = ()) -> None:
        """Bring a message of the shown chat into view, and the keys to it; `words` were found in it."""
        if message_id is not None:
            self._transcript.open_thought(str(message_id), words)
            self._transcript.select(str(message_id))
            self._transcript.focus()

    def follow(self) -> None:
        """Keep the end in view."""
        self._transcript.following = True

    def give_back(self, text: str) -> None:
        """Put a text that could not be sent before what has been written since."""
        self.composer.set_text("\n".join(part for part in (text, self.composer.text) if part))

    # What is going on

    def set_host(self, host: HostState, notes: Sequence[str]) -> None:
        """Take in what the engine host is at; `notes` are shown in an empty chat."""
        if host.phase is HostPhase.FAILED:
            self.composer.set_error(host.error)
        elif self._host.phase is HostPhase.FAILED:
            self.composer.set_error("")
        if host.phase is HostPhase.LOST:
            self._notice = ""
        self._host = host
        self._welcome.set_notes(notes)
        self._draw_activity()

    def set_first_run(self, is_first: bool) -> None:
        """Whether the user has no chats yet."""
        self._welcome.set_first_run(is_first)

    def set_lasting(self, text: str) -> None:
        """Say what stays so, such as that the model is asleep and what waking it costs; empty for nothing."""
        if text != self._lasting:
            self._lasting = text
            self._draw_activity()

    def say(self, text: str) -> None:
        """Show a short line for some seconds, in place of an error; empty to take it back."""
        if text:
            self.say_error("")
        is_long = self.composer.set_note(text)
        self._notice = "" if is_long else text
        if self._notice_timer is not None:
            self._notice_timer.stop()
        self._notice_timer = self.set_timer(LONG_NOTICE_S if is_long else NOTICE_S, self._end_notice)
        self._draw_activity()

    def say_if_quiet(self, text: str) -> None:
        """Show a short line for some seconds, unless something else is said or a reply is written."""
        if not self._notice and self.chat.reply is None and not self.composer.is_saying:
            self.say(text)

    def read(self) -> None:
        """Give the keys to the messages."""
        self._transcript.focus()

    def say_error(self, text: str) -> None:
        """Show what went wrong, in place of a notice, until something else is done; empty to take it back."""
        self._refusal = ""
        self.composer.set_error(text)
        if text:
            self._end_notice()

    def say_refusal(self, text: str) -> None:
        """Show why nothing is sent now, until the reply has ended."""
        self.say_error(text)
        self._refusal = text

    def _end_notice(self) -> None:
        self._notice = ""
        self.composer.set_note("")
        self._draw_activity()

    def _draw_activity(self) -> None:
        self._activity_at = time.monotonic()
        self._phase = self.chat.reply.phase if self.chat.reply is not None else None
        aside = self._notice if self.chat.reply is not None else ""
        doing = activity(self._host, self.chat, self._notice, self._lasting, self._clock())
        queues = self.chat.reply is not None and self.chat.editing is None
        self.composer.set_activity(doing, aside, queues=queues)

    def _load(self, *, stay: bool = False) -> None:
        chat, now = self.chat, self._clock()
        entries = chat_entries(chat, now, self._left_out)
        self._summary = standing(chat.path or (), chat.compactions)
        self._show_welcome(chat.path == [] and not entries and chat.reply is None)
        self._transcript.load(entries, stay=stay)
        if chat.reply is not None:
            self._transcript.begin_stream(reply_entry(chat.reply, now))
        self.composer.set_history(chat.sent_texts())

    def _append(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._show_welcome(False)
            self._transcript.append(entry)

    def _show_welcome(self, shown: bool) -> None:
        if self._welcome.display != shown or self._transcript.display == shown:
            if shown and self._transcript.has_focus:  # hidden, it would take the keys with it
                self.composer.focus_input()
            self._welcome.display, self._transcript.display = shown, not shown
