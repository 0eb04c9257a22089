"""All chats of this front end: which there are, which one is shown, in what order they stand.

State of the event loop, owned by `Conversations` and its parts. No I/O. Never imports Textual.
"""

import enum
import heapq
from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from samovar.chats.chat import Chat, new_id
from samovar.sessions.store import Session


class Order(enum.Enum):
    """How the list is sorted."""

    RECENT = "recent"
    CREATED = "created"
    TITLE = "title"
    LENGTH = "length"


_NUM_NEIGHBOURS: Final = 3


class Roster:
    """The chats by id. `first` is a fresh one, shown until another is."""

    def __init__(self, first: Chat) -> None:
        self.chats: dict[str, Chat] = {first.id: first}
        self.shown = first
        self.deleted: list[Chat] = []
        self.order = Order.RECENT
        self.tag = ""  # only chats with this tag; empty for all
        self.with_archived = False
        self.words = ""  # only chats with all of these in their titles; empty for all

    def listed(self) -> list[Chat]:
        """The chats of the list in their order: empty new ones, favourites, then the others.

        A fresh one is there while it is shown or written in, an archived one while it is shown or wanted.
        Sorted by one attribute after another, which with 20,000 chats takes a quarter of what keys of
        several parts take.
        """
        chats = [chat for chat in self.chats.values() if chat is self.shown or self._is_listed(chat)]
        for word in self.words.casefold().split():
            chats = [chat for chat in chats if word in chat.title.casefold()]
        chats.sort(
            key=attrgetter("created_at" if self.order is Order.CREATED else "updated_at"), reverse=True
        )
        if self.order is Order.TITLE:
            chats.sort(key=lambda chat: chat.title.casefold())
        elif self.order is Order.LENGTH:
            chats.sort(key=attrgetter("num_messages"), reverse=True)
        chats.sort(key=attrgetter("is_favourite"), reverse=True)
        chats.sort(key=attrgetter("in_store"))
        return chats

    def take(self, sessions: Iterable[Session]) -> set[str]:
        """Take in chats as the store says they are; returns those that now read differently."""
        changed = set[str]()
        for session in sessions:
            chat = self.chats.get(session.id)
            if session.is_deleted:
                if chat is not None and chat.in_store and not self._is_used(chat):
                    del self.chats[chat.id]
                continue
            if chat is None:  # new, or deleted here and brought back elsewhere
                chat = next((chat for chat in self.deleted if chat.id == session.id), None)
                if chat is not None:
                    self.deleted.remove(chat)
                chat = chat or Chat.known(session)
                self.chats[session.id] = chat
            if chat.in_store:
                if chat.system_prompt != session.system_prompt or chat.settings != session.settings:
                    changed.add(chat.id)
                chat.take(session)
        return changed

    def leave_out(self, session: str) -> bool:
        """Drop a chat that is in the store no more, unless it is looked at or written in; whether it went."""
        chat = self.chats.get(session)
        if chat is None or self._is_used(chat):
            return False
        del self.chats[session]
        return True

    def new_id(self) -> str:
        """An id for a new chat, of another colour than the newest ones."""
        newest = heapq.nlargest(_NUM_NEIGHBOURS, self.chats.values(), key=attrgetter("created_at"))
        return new_id([chat.id for chat in newest])

    def _is_listed(self, chat: Chat) -> bool:
        if not chat.in_store:
            return chat.sending or chat.has_unsent
        if chat.is_archived and not self.with_archived:
            return False
        return not self.tag or self.tag in chat.tags

    def _is_used(self, chat: Chat) -> bool:
        return chat is self.shown or chat.is_busy or chat.has_unsent
