"""All chats of this front end: which there are, which one is shown, in what order they stand.

State of the event loop, owned by `Conversations` and its parts. No I/O. Never imports Textual.
"""

import enum
from collections.abc import Callable, Iterable
from typing import Any, Final

from samovar.chats.chat import Chat
from samovar.sessions.store import Session


class Order(enum.Enum):
    """How the list is sorted."""

    RECENT = "recent"
    CREATED = "created"
    TITLE = "title"
    LENGTH = "length"


_KEYS: Final[dict[Order, Callable[[Chat], Any]]] = {
    Order.RECENT: lambda chat: -chat.updated_at,
    Order.CREATED: lambda chat: -chat.created_at,
    Order.TITLE: lambda chat: (chat.title.casefold(), -chat.updated_at),
    Order.LENGTH: lambda chat: (-chat.num_messages, -chat.updated_at),
}


class Roster:
    """The chats by id. `first` is a fresh one, shown until another is."""

    def __init__(self, first: Chat) -> None:
        self.chats: dict[str, Chat] = {first.id: first}
        self.shown = first
        self.deleted: list[Chat] = []
        self.order = Order.RECENT
        self.tag = ""  # only chats with this tag; empty for all
        self.with_archived = False

    def listed(self) -> list[Chat]:
        """The chats of the list in their order: empty new ones, favourites, then the others.

        A fresh one is there while it is shown or written in, an archived one while it is shown or wanted.
        """
        key = _KEYS[self.order]
        chats = [chat for chat in self.chats.values() if chat is self.shown or self._is_listed(chat)]
        return sorted(chats, key=lambda chat: (chat.in_store, not chat.is_favourite, key(chat)))

    def take(self, sessions: Iterable[Session]) -> set[str]:
        """Take in chats as the store says they are; returns those that now read differently."""
        changed = set[str]()
        for session in sorted(sessions, key=lambda session: session.created_at):
            chat = self.chats.get(session.id)
            if session.is_deleted:
                if chat is not None and chat.in_store and not self._is_used(chat):
                    del self.chats[chat.id]
                continue
            if chat is None:  # new, or deleted here and brought back elsewhere
                chat = next((chat for chat in self.deleted if chat.id == session.id), None)
                if chat is not None:
                    self.deleted.remove(chat)
                chat = chat or Chat.known(session, self.next_ordinal())
                self.chats[session.id] = chat
            if chat.in_store:
                if chat.system_prompt != session.system_prompt or chat.settings != session.settings:
                    changed.add(chat.id)
                chat.take(session)
        return changed

    def next_ordinal(self) -> int:
        """A colour that no chat has yet."""
        return 1 + max((chat.ordinal for chat in (*self.chats.values(), *self.deleted)), default=-1)

    def _is_listed(self, chat: Chat) -> bool:
        if not chat.in_store:
            return chat.sending or bool(chat.draft.strip())
        if chat.is_archived and not self.with_archived:
            return False
        return not self.tag or self.tag in chat.tags

    def _is_used(self, chat: Chat) -> bool:
        return chat is self.shown or chat.is_busy or bool(chat.draft.strip())
