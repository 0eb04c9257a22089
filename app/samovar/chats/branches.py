"""Branches of a chat: edit a message, answer again, go on, go through versions, fork, delete, undo.

Each is done in the store first and shown then, since another window may be at work in the same chat. Runs in
the event loop. Never imports Textual.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.shared import Shared
from samovar.chats.turns import Turn, store_again, store_edit, store_edited_reply, store_going_on, store_retry
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.encoding import storable
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import Session, Store, StoredMessage

FORK: Final = "↳"  # before the title of a fork: its end may be cut off

T = TypeVar("T")


class _Deleted(msgspec.Struct, frozen=True):
    """A branch taken away: where it began, and what was shown before."""

    session: str
    message_id: int
    head_id: int | None


class Branches:
    """`answer` asks for the reply of a stored turn; `appear` shows a chat that has just been stored.

    `keep_draft` hears of drafts that have changed other than by typing.
    """

    def __init__(
        self,
        shared: Shared,
        answer: Callable[[Chat, Turn, SessionSettings | None], None],
        appear: Callable[[Session], None],
        keep_draft: Callable[[Chat], None],
    ) -> None:
        self._shared = shared
        self._answer = answer
        self._appear = appear
        self._keep_draft = keep_draft
        self._deleted: list[_Deleted] = []

    def refusal(self, chat: Chat) -> str:
        """Why nothing can be branched in this chat right now; empty if it can."""
        if chat.reply is not None:
            return "the reply is still being written: esc stops it"
        if chat.sending:
            return "the last message is still being stored"
        return "" if chat.in_store else "there is no message to answer yet"

    # Editing happens in the composer

    def begin_edit(self, chat: Chat, message_id: int) -> None:
        """Put a message into the chat's draft, to be sent as another version of it."""
        message = chat.message(message_id)
        if message is None:
            self._shared.complain("this message cannot be edited")
            return
        if chat.editing is None:
            chat.set_aside = chat.draft
        chat.editing, chat.draft = message, message.content
        self._shared.notify(changes.DraftChanged(chat.id))

    def cancel_edit(self, chat: Chat) -> bool:
        """Leave the message as it is, and bring back the draft from before; False if none is edited."""
        if chat.editing is None:
            return False
        chat.editing, chat.draft, chat.set_aside = None, chat.set_aside, ""
        self._keep_draft(chat)
        self._shared.notify(changes.DraftChanged(chat.id))
        return True

    async def send_edit(self, chat: Chat, edited: StoredMessage, text: str) -> str:
        """Send the text of the composer as another version of a message that has been edited there.

        Says why not, if so.
        """
        if refusal := await self.edit(chat, edited, text):
            return refusal
        if chat.editing is not edited:
            return ""  # the user has left the edit meanwhile, and the draft from before is back
        since = chat.draft if chat.draft not in (text, edited.content) else ""
        chat.draft = "\n".join(part for part in (chat.set_aside, since) if part)
        chat.editing, chat.set_aside = None, ""
        self._keep_draft(chat)
        self._shared.notify(changes.DraftChanged(chat.id))
        return ""

    async def edit(self, chat: Chat, message: StoredMessage, text: str) -> str:
        """Store another version of a message, and have it answered if it is the user's; else say why not."""
        if refusal := self.refusal(chat):
            return refusal
        text = storable(text)
        if message.role is not Role.ASSISTANT:
            return await self._turn(chat, lambda store: store_edit(store, chat.id, message.id, text))
        path = await self._stored(chat, lambda store: store_edited_reply(store, chat.id, message.id, text))
        if isinstance(path, str):
            return path
        self._show(chat, path)
        return ""

    # Replies

    async def retry(self, chat: Chat, settings: SessionSettings | None = None) -> str:
        """Have the last message answered again, `settings` for this reply alone; else say why not."""
        seen = tuple(chat.path or ())
        return await self._turn(chat, lambda store: store_retry(store, chat.id, seen), settings)

    async def again(self, chat: Chat, message_id: int, settings: SessionSettings | None = None) -> str:
        """Have any message answered again, or a reply replaced by another one; else say why not."""
        return await self._turn(chat, lambda store: store_again(store, chat.id, message_id), settings)

    async def go_on(self, chat: Chat, message_id: int | None = None) -> str:
        """Go on with a reply that was cut (the last one, unless another is named); else say why not."""
        if message_id is None:
            last = chat.path[-1] if chat.path else None
            if last is None or last.role is not Role.ASSISTANT:
                return "there is no reply to go on with"
            message_id = last.id
        wanted = message_id
        return await self._turn(chat, lambda store: store_going_on(store, chat.id, wanted))

    # Versions

    async def step(self, chat: Chat, message_id: int, step: int) -> str:
        """Show the next or previous version of a message; says why not."""

        def work(store: Store) -> list[StoredMessage] | None:
            siblings = store.messages.siblings(message_id)
            place = siblings.index(message_id) + step
            if not 0 <= place < len(siblings):
                return None
            store.messages.show(chat.id, siblings[place])
            return store.path(chat.id)

        return await self._shown(chat, work, nothing="there is no other version of this message there")

    async def show(self, chat: Chat, message_id: int) -> str:
        """Show the branch that a message is on (one that was found, say)."""

        def work(store: Store) -> list[StoredMessage]:
            store.messages.show(chat.id, message_id)
            return store.path(chat.id)

        if any(message.id == message_id for message in chat.path or ()):
            return ""
        return await self._shown(chat, work)

    async def fork(self, chat: Chat, message_id: int | None = None) -> str:
        """Make a new chat that begins as this one does up to a message (the last one), and show it."""
        if not chat.in_store or not chat.path:
            return "there is no message to fork from yet"
        wanted = chat.path[-1].id if message_id is None else message_id
        title = f"{FORK} {chat.title.removeprefix(FORK).strip()}"
        fork = await self._stored(chat, lambda store: store.fork(chat.id, wanted, title))
        if isinstance(fork, str):
            return fork
        self._appear(fork)
        return ""

    async def delete(self, chat: Chat, message_id: int) -> str:
        """Take a message and what follows it out of the chat; `undo` brings it back. Says why not."""

        def work(store: Store) -> list[StoredMessage]:
            head = store.messages.delete_branch(message_id)
            self._deleted.append(_Deleted(chat.id, message_id, head))
            return store.path(chat.id)

        return await self._shown(chat, work)

    async def undo(self, chat: Chat) -> str:
        """Bring back the branch of this chat that was deleted last, here or at another time; says why not."""
        last = next((found for found in reversed(self._deleted) if found.session == chat.id), None)

        def work(store: Store) -> list[StoredMessage] | None:
            message_id = store.messages.last_deleted(chat.id) if last is None else last.message_id
            if message_id is None:
                return None
            store.messages.restore_branch(message_id, None if last is None else last.head_id)
            if last is not None:
                self._deleted.remove(last)
            return store.path(chat.id)

        return await self._shown(chat, work, nothing="no message of this chat has been deleted")

    def can_undo(self, chat: Chat) -> bool:
        """Whether a branch of this chat has been deleted here."""
        return any(found.session == chat.id for found in self._deleted)

    # Inside

    async def _turn(
        self, chat: Chat, work: Callable[[Store], Turn], settings: SessionSettings | None = None
    ) -> str:
        turn = await self._stored(chat, work)
        if isinstance(turn, str):
            return turn
        assert turn.path is not None
        chat.updated_at = turn.reply.created_at
        self._show(chat, [*turn.path, turn.message])
        self._answer(chat, turn, settings)
        return ""

    async def _shown(
        self, chat: Chat, work: Callable[[Store], list[StoredMessage] | None], nothing: str = ""
    ) -> str:
        path = await self._stored(chat, work)
        if isinstance(path, str):
            return path
        if path is None:
            return nothing
        self._show(chat, path)
        return ""

    async def _stored(self, chat: Chat, work: Callable[[Store], T]) -> T | str:
        """The result of work in the store during which nothing else is sent; the reason where it fails."""
        if refusal := self.refusal(chat):
            return refusal
        chat.sending = True
        self._shared.num_changes += 1
        try:
            return await self._shared.archive.run(work)
        except SamovarError as error:
            return str(error)
        finally:
            chat.sending = False

    def _show(self, chat: Chat, path: list[StoredMessage]) -> None:
        chat.path = path
        self._shared.notify(changes.PathChanged(chat.id))
        self._shared.notify(changes.ChatsChanged())
