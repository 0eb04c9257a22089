"""Messages that wait for the reply before them: queued, taken back, sent one after the other.

    reply ends well         the next one is sent at once
    reply stopped, failed   the queue pauses: what was written for that reply may not be wanted any more
    a message cannot be     it is the first one again, and the queue pauses
    stored

A reply that ends well, and the user, let a paused queue go on. The texts are kept with the chat's draft, so a
crash costs none of them. Runs in the event loop; owns every chat's queue. Never imports Textual.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.shared import Shared
from samovar.sessions.encoding import storable
from samovar.sessions.store import MessageState

_PAUSES: Final = {
    MessageState.STOPPED: "the reply was stopped",
    MessageState.FAILED: "the reply failed",
}


class Outbox:
    """The queues of all chats. `send` sends a message and returns why it could not; it must not raise.

    `keep_draft` hears of chats whose unsent texts have changed.
    """

    def __init__(
        self,
        shared: Shared,
        send: Callable[[Chat, str], Awaitable[str]],
        keep_draft: Callable[[Chat], None],
    ) -> None:
        self._shared = shared
        self._send = send
        self._keep_draft = keep_draft
        self._after_stop = set[str]()  # chats whose first message was written after the reply was stopped
        self._is_closed = False

    def add(self, chat: Chat, text: str) -> None:
        """Send a message as soon as the reply before it has ended.

        One that is written after the user has stopped that reply is meant to follow it, before all others.
        """
        stopping = chat.reply is not None and chat.reply.stopping
        if stopping and chat.id not in self._after_stop:
            self._after_stop.add(chat.id)
            chat.queued.insert(0, storable(text))
        else:
            chat.queued.append(storable(text))
        self._changed(chat)
        self._look(chat)

    def take(self, chat: Chat, text: str | None = None) -> str | None:
        """Take this message out of the queue, or else the last one; None if it is not there any more."""
        if not chat.queued or (text is not None and text not in chat.queued):
            return None
        if text is None:
            text = chat.queued.pop()
        else:
            chat.queued.remove(text)
        if not chat.queued:
            self._forget_pause(chat)
        self._changed(chat)
        return text

    def go_on(self, chat: Chat) -> bool:
        """Send what is queued although the queue has paused; False if nothing is."""
        if not chat.queued:
            return False
        self._forget_pause(chat)
        self._changed(chat)
        self._look(chat)
        return True

    def pause(self, chat: Chat, why: str) -> None:
        """Send nothing of this chat's queue until it goes on."""
        self._after_stop.discard(chat.id)
        if chat.queued:
            chat.queue_paused = why
            self._shared.notify(changes.QueueChanged(chat.id))

    def hear(self, change: changes.Change) -> None:
        """Take in what has happened: it may be the next message's turn."""
        match change:
            case changes.ReplyEnded(session, message):
                chat = self._shared.roster.chats.get(session)
                if chat is not None and chat.queued:
                    self._after(chat, message.state)
            case (
                changes.PathChanged(session) | changes.ChatShown(session) | changes.DraftChanged(session)
            ) if session in self._shared.roster.chats:
                self._look(self._shared.roster.chats[session])
            case _:
                pass

    def close(self) -> None:
        """Send nothing more."""
        self._is_closed = True

    def _after(self, chat: Chat, state: MessageState) -> None:
        if chat.id in self._after_stop and state is MessageState.STOPPED:
            self._after_stop.discard(chat.id)
            self._look(chat)
        elif why := _PAUSES.get(state, ""):
            self.pause(chat, why)
        else:
            self.go_on(chat)

    def _look(self, chat: Chat) -> None:
        if self._is_due(chat):
            self._shared.archive.spawn(self._send_next(chat))

    def _is_due(self, chat: Chat) -> bool:
        """Whether the first message is to be sent now; an edit that is under way comes first."""
        if not chat.queued or chat.queue_paused or chat.is_busy or chat.editing is not None:
            return False
        return not self._is_closed and chat.id in self._shared.roster.chats

    async def _send_next(self, chat: Chat) -> None:
        if not self._is_due(chat):  # what has told us of its end may begin something else at once
            return
        text = chat.queued.pop(0)
        self._changed(chat)
        if problem := await self._send(chat, text):
            chat.queued.insert(0, text)
            self._keep_draft(chat)
            self.pause(chat, problem)
            if chat is self._shared.roster.shown:
                self._shared.complain(problem)

    def _forget_pause(self, chat: Chat) -> None:
        chat.queue_paused = ""
        self._after_stop.discard(chat.id)

    def _changed(self, chat: Chat) -> None:
        self._keep_draft(chat)
        self._shared.notify(changes.QueueChanged(chat.id))
