"""The chats of this front end: their list, what is sent in them, and what the host's events mean for them.

Runs in the event loop and owns every `Chat`. Disk work goes to `archive`, replies to `answers`, commands to
the client; the screen hears of all of it as `changes`. Never imports Textual.
"""

import time
from collections.abc import Callable

from msgspec import UNSET, UnsetType

from samovar.chats import changes
from samovar.chats.answers import Answers
from samovar.chats.archive import Archive
from samovar.chats.chat import Chat, auto_title, by_recency
from samovar.chats.host_state import HostState
from samovar.client.interface import Client
from samovar.config import Config
from samovar.core.chat import Role
from samovar.core.commands import Focus, Forget, Rename, SetRamLimit, SetTokenLimit
from samovar.core.errors import SamovarError
from samovar.core.events import (
    CacheChanged,
    CommandRefused,
    Event,
    HostReady,
    ModelInfo,
    PrefillProgressed,
    RequestFinished,
    RequestStarted,
    SwapFinished,
    TokensGenerated,
    Welcome,
)
from samovar.core.figures import count, duration
from samovar.core.snapshot import CacheSnapshot
from samovar.sessions.store import MessageState, Session, Store, StoredMessage


class Conversations:
    """All chats of this front end. `notify` is called in the event loop and must not block."""

    def __init__(
        self,
        client: Client,
        store: Store,
        config: Config,
        notify: Callable[[changes.Change], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._archive = Archive(store, lambda text: notify(changes.Noticed(text, is_error=True)))
        self._answers = Answers(client, self._archive, config, notify, clock)
        self._config = config
        self._notify = notify
        self._clock = clock
        self._deleted: list[Chat] = []
        first = Chat.fresh(0, config.system_prompt, clock())
        self.chats: dict[str, Chat] = {first.id: first}
        self.shown = first
        self.host = HostState()
        self.snapshot = CacheSnapshot()

    # The list

    async def load(self) -> None:
        """Read the list of chats from the store, after marking what a killed program left half written."""
        sessions = await self._archive.try_run("the chats cannot be read", _recover_and_list)
        for session in sorted(sessions or (), key=lambda session: session.created_at):
            if session.id not in self.chats:
                self.chats[session.id] = Chat.known(session, len(self.chats))
        self._notify(changes.ChatsChanged())

    def ordered(self) -> list[Chat]:
        """The chats in the order of the list. A fresh one is there while it is shown or written in."""
        chats = self.chats.values()
        return by_recency(
            chat
            for chat in chats
            if chat.in_store or chat.sending or chat.draft.strip() or chat is self.shown
        )

    def new(self) -> Chat:
        """Show a fresh chat; an empty one that is there already will do."""
        chat = next((chat for chat in self.chats.values() if not chat.in_store and not chat.sending), None)
        if chat is None:
            ordinals = (chat.ordinal for chat in (*self.chats.values(), *self._deleted))
            chat = Chat.fresh(1 + max(ordinals, default=-1), self._config.system_prompt, self._clock())
            self.chats[chat.id] = chat
            self._notify(changes.ChatsChanged())
        self.show(chat.id)
        return chat

    def show(self, session: str) -> None:
        """Make this chat the current one; its messages follow as `PathChanged` if they have to be read."""
        self.shown = chat = self.chats[session]
        self._client.send(Focus(session))
        self._notify(changes.ChatShown(session))
        if chat.path is None:
            self._archive.spawn(self._read_path(chat))

    def rename(self, session: str, title: str) -> None:
        """Give a chat another title: here, in the store and in the host's table."""
        chat, title = self.chats[session], " ".join(title.split())
        if not title or title == chat.title:
            return
        chat.title = title
        self._client.send(Rename(session, title))
        self._notify(changes.ChatsChanged())
        self._keep(chat, "the title cannot be stored", lambda store: store.rename(session, title))

    def set_system_prompt(self, text: str) -> None:
        """Set the shown chat's system prompt, empty for none; it counts from the next message on."""
        chat = self.shown
        chat.system_prompt = text
        self._notify(changes.PathChanged(chat.id))
        what = "the system prompt cannot be stored"
        self._keep(chat, what, lambda store: store.set_system_prompt(chat.id, text))

    def delete(self, session: str) -> Chat:
        """Take a chat from the list; `undo_delete` brings it back. Its neighbour is shown in its place."""
        place = [chat.id for chat in self.ordered()].index(session)
        chat = self.chats.pop(session)
        self._answers.stop(chat)
        if chat.in_store:
            self._deleted.append(chat)
            what = "the chat is still in the store"
            self._keep(chat, what, lambda store: store.delete(session))
        if self.shown is chat:
            rest = self.ordered()
            if rest:
                self.show(rest[min(place, len(rest) - 1)].id)
            else:
                self.new()
        self._notify(changes.ChatsChanged())
        return chat

    def undo_delete(self) -> Chat | None:
        """Bring back the chat that was deleted last, and show it."""
        if not self._deleted:
            return None
        chat = self._deleted.pop()
        self.chats[chat.id] = chat
        self._keep(chat, "the chat is still deleted", lambda store: store.restore(chat.id))
        self._notify(changes.ChatsChanged())
        self.show(chat.id)
        return chat

    def forget_deleted(self, session: str) -> None:
        """Let go of a deleted chat's cache, unless the chat is back."""
        if any(chat.id == session for chat in self._deleted):
            self._client.send(Forget(session))

    # Sending

    def refusal(self, chat: Chat) -> str:
        """Why nothing can be sent in this chat right now; empty if it can."""
        if chat.reply is not None:
            return "the reply is still being written: esc stops it, your text stays here"
        return "the last message is still being stored" if chat.sending else ""

    async def send(self, chat: Chat, text: str) -> None:
        """Store a message, then ask for its reply. If it cannot be stored: `SendFailed`, nothing is sent."""
        assert not self.refusal(chat)
        was_unread = chat.path is None
        chat.sending = True
        try:
            message = await self._store_message(chat, text)
        except SamovarError as error:
            self._notify(changes.SendFailed(chat.id, text, str(error)))
            return
        finally:
            chat.sending = False
        assert chat.path is not None
        chat.path.append(message)
        chat.updated_at = message.created_at
        added = changes.PathChanged(chat.id) if was_unread else changes.MessageAdded(chat.id, message)
        self._notify(added)
        if chat.id in self.chats:  # it may have been deleted meanwhile
            self._answers.ask(chat)

    def retry(self, chat: Chat) -> str:
        """Answer the last message again if its reply was stopped, failed or never came; else say why not."""
        if refusal := self.refusal(chat):
            return refusal
        path = chat.path or []
        last = next((i for i in reversed(range(len(path))) if path[i].role is Role.USER), None)
        if last is None:
            return "there is no message to answer yet"
        if any(message.state is MessageState.COMPLETE for message in path[last + 1 :]):
            return "the last reply is complete"
        chat.path = path[: last + 1]
        self._notify(changes.PathChanged(chat.id))
        self._answers.ask(chat)
        return ""

    def stop(self, chat: Chat) -> bool:
        """End the chat's running reply; what has arrived stays. False if none is running."""
        return self._answers.stop(chat)

    def set_ram_limit(self, limit: str) -> None:
        """Change the host's limit of the cache in RAM; the host refuses what is no limit."""
        self._client.send(SetRamLimit(limit))

    def set_token_limit(self, limit: str) -> None:
        """Change the host's limit of tokens in RAM; the host refuses what is no limit."""
        self._client.send(SetTokenLimit(limit))

    # Events

    def handle(self, event: Event) -> None:
        """Take in one event of the host's."""
        host = self.host.after(event)
        if host is not self.host:
            self.host = host
            self._notify(changes.HostChanged())
        match event:
            case RequestStarted() | PrefillProgressed() | TokensGenerated() | RequestFinished():
                self._answers.handle(event)
            case CacheChanged(snapshot):
                self.snapshot = snapshot
                self._notify(changes.CacheDrawn(snapshot))
            case HostReady() | Welcome(model=ModelInfo()):
                self._client.send(Focus(self.shown.id))
            case CommandRefused(message):
                self._notify(changes.Noticed(message, is_error=True))
            case SwapFinished(session, True, num_tokens, _, ms) if session == self.shown.id and num_tokens:
                text = f"{count(num_tokens)} tokens back in the context in {duration(ms)}"
                self._notify(changes.Noticed(text))
            case _:
                pass

    async def close(self) -> None:
        """Stop what runs, let go of deleted chats, and wait until everything is on disk."""
        await self._answers.close()
        for chat in self._deleted:
            self._client.send(Forget(chat.id))
        await self._archive.close()

    # Storing

    async def _store_message(self, chat: Chat, text: str) -> StoredMessage:
        """Put a message of the user's on disk, and its chat before it. Raises SamovarError."""
        if chat.path is None:
            chat.path = await self._archive.run(lambda store: store.path(chat.id))
        title = chat.title or auto_title(text)
        parent: int | UnsetType | None = chat.path[-1].id if chat.path else None
        if isinstance(parent, int) and parent < 0:  # a reply whose end is being stored at this moment
            parent = UNSET

        def work(store: Store) -> StoredMessage:
            if not chat.in_store and not _has(store, chat.id):
                store.create_session(title, chat.system_prompt, session_id=chat.id)
            elif not chat.title:
                store.rename(chat.id, title)
            return store.add_message(chat.id, Role.USER, text, parent_id=parent)

        message = await self._archive.run(work)
        chat.in_store, chat.title = True, title
        return message

    def _keep(self, chat: Chat, what: str, work: Callable[[Store], None]) -> None:
        """Store a change of a chat that is in the store; a fresh one brings it along later."""
        if chat.in_store:
            self._archive.spawn(self._archive.try_run(what, work))

    async def _read_path(self, chat: Chat) -> None:
        path = await self._archive.try_run("the chat cannot be read", lambda store: store.path(chat.id))
        if path is not None and chat.path is None:
            chat.path = path
            self._notify(changes.PathChanged(chat.id))


def _recover_and_list(store: Store) -> list[Session]:
    store.recover()
    return store.sessions()


def _has(store: Store, session: str) -> bool:
    try:
        store.session(session)
    except SamovarError:
        return False
    return True
