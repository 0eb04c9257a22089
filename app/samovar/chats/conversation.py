"""The chats of this front end: their list, what is sent in them, and what the host's events mean for them.

Other front ends write in the same store: what they have changed is taken in when a chat is shown and when a
message is sent. Runs in the event loop and owns every `Chat`. Disk work goes to `archive`, replies to
`answers`, the cache to `cache_desk`; the screen hears of all of it as `changes`. Never imports Textual.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from samovar.chats import cache_words, changes
from samovar.chats.answers import Answers
from samovar.chats.archive import Archive
from samovar.chats.cache_desk import CacheDesk
from samovar.chats.chat import Chat, by_recency
from samovar.chats.host_state import HostPhase, HostState
from samovar.chats.turns import Turn, head_of, session_or_none, store_retry, store_turn
from samovar.client.interface import Client
from samovar.config import Config
from samovar.core.commands import Focus, Forget, Rename
from samovar.core.errors import SamovarError
from samovar.core.events import (
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
from samovar.core.lint import prompt_warning
from samovar.core.snapshot import CacheSnapshot
from samovar.sessions.encoding import storable
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
        self._num_changes = 0  # of titles, system prompts and the list, made here
        self._seen_version: int | None = None  # of the store, as far as others change it
        first = Chat.fresh(0, config.system_prompt, clock())
        self.chats: dict[str, Chat] = {first.id: first}
        self.shown = first
        self.host = HostState()
        self.cache = CacheDesk(client, notify)

    @property
    def snapshot(self) -> CacheSnapshot:
        """The last picture of the cache."""
        return self.cache.snapshot

    # The list

    async def load(self) -> None:
        """Read the list of chats from the store, after marking what a killed program left half written."""
        found = await self._archive.try_run("the chats cannot be read", _recover_and_list)
        if found is not None:
            self._seen_version, sessions = found
            self._take_list(sessions)
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
            chat = Chat.fresh(self._next_ordinal(), self._config.system_prompt, self._clock())
            self.chats[chat.id] = chat
            self._notify(changes.ChatsChanged())
        self.show(chat.id)
        return chat

    def show(self, session: str) -> None:
        """Make this chat the current one.

        `PathChanged` follows if its messages have to be read, or others have written in it.
        """
        self.shown = chat = self.chats[session]
        self._client.send(Focus(session))
        self._notify(changes.ChatShown(session))
        self._archive.spawn(self._look(chat))

    def prefetch(self, session: str) -> None:
        """The user may open this chat next: what lies on disk of it comes to RAM."""
        if session in self.chats and session != self.shown.id and self.host.phase is HostPhase.READY:
            self.cache.prefetch(session)

    def rename(self, session: str, title: str) -> None:
        """Give a chat another title: here, in the store and in the host's table."""
        chat, title = self.chats[session], storable(" ".join(title.split()))
        if not title or title == chat.title:
            return
        chat.title = title
        self._num_changes += 1
        self._client.send(Rename(session, title))
        self._notify(changes.ChatsChanged())
        self._keep(chat, "the title cannot be stored", lambda store: store.rename(session, title))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the loaded model, and about the system prompt of new chats, for who starts."""
        warning = prompt_warning(self._config.system_prompt)
        return (*(self.host.model.notes if self.host.model else ()), *((warning,) if warning else ()))

    def set_system_prompt(self, text: str) -> str:
        """Set the shown chat's system prompt, empty for none; it counts from the next message on.

        Returns a warning if the cache will suffer from it, else an empty text.
        """
        chat, text = self.shown, storable(text)
        chat.system_prompt = text
        self._num_changes += 1
        self._notify(changes.PathChanged(chat.id))
        what = "the system prompt cannot be stored"
        self._keep(chat, what, lambda store: store.set_system_prompt(chat.id, text))
        return prompt_warning(text)

    def delete(self, session: str) -> Chat:
        """Take a chat from the list; `undo_delete` brings it back. Its neighbour is shown in its place."""
        place = [chat.id for chat in self.ordered()].index(session)
        chat = self.chats.pop(session)
        self._num_changes += 1
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
        self._num_changes += 1
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
        text, head, num_changes = storable(text), head_of(chat.path), self._num_changes
        is_new, title, system_prompt = not chat.in_store, chat.title, chat.system_prompt

        def work(store: Store) -> Turn:
            if is_new and session_or_none(store, chat.id) is None:
                store.create_session(title, system_prompt, session_id=chat.id)
            return store_turn(store, chat.id, text, head)

        chat.sending = True
        try:
            turn = await self._archive.run(work)
        except SamovarError as error:
            self._notify(changes.SendFailed(chat.id, text, str(error)))
            return
        finally:
            chat.sending = False
        chat.in_store = True
        self._take_turn(chat, turn, is_current=num_changes == self._num_changes)
        if turn.path is not None:
            chat.path = turn.path
            self._notify(changes.PathChanged(chat.id))
        assert chat.path is not None
        chat.path.append(turn.message)
        self._notify(changes.MessageAdded(chat.id, turn.message))
        self._answer(chat, turn)

    async def retry(self, chat: Chat) -> str:
        """Answer the last message again if its reply was stopped, failed or never came; else say why not."""
        if refusal := self.refusal(chat):
            return refusal
        if not chat.in_store:
            return "there is no message to answer yet"
        seen, num_changes = tuple(chat.path or ()), self._num_changes
        chat.sending = True
        try:
            turn = await self._archive.run(lambda store: store_retry(store, chat.id, seen))
        except SamovarError as error:
            return str(error)
        finally:
            chat.sending = False
        self._take_turn(chat, turn, is_current=num_changes == self._num_changes)
        chat.path = [*(turn.path or ()), turn.message]
        self._notify(changes.PathChanged(chat.id))
        self._answer(chat, turn)
        return ""

    def stop(self, chat: Chat) -> bool:
        """End the chat's running reply; what has arrived stays. False if none is running."""
        return self._answers.stop(chat)

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
            case HostReady() | Welcome(model=ModelInfo()):
                self._client.send(Focus(self.shown.id))
            case SwapFinished(session, into_context=True) if session == self.shown.id and event.num_tokens:
                self._notify(changes.Noticed(cache_words.swapped(event)))
            case _:
                self.cache.handle(event)

    async def close(self) -> None:
        """Stop what runs, let go of deleted chats, and wait until everything is on disk."""
        await self._answers.close()
        for chat in self._deleted:
            self._client.send(Forget(chat.id))
        await self._archive.close()

    # Storing

    def _take_turn(self, chat: Chat, turn: Turn, *, is_current: bool) -> None:
        """Take in what a turn says of its chat, unless title or system prompt were changed here meanwhile."""
        if is_current:
            chat.title, chat.system_prompt = turn.session.title, turn.session.system_prompt
        else:
            title, system_prompt = chat.title or turn.session.title, chat.system_prompt
            chat.title = title
            self._keep(chat, "the title cannot be stored", lambda store: store.rename(chat.id, title))
            what = "the system prompt cannot be stored"
            self._keep(chat, what, lambda store: store.set_system_prompt(chat.id, system_prompt))
        chat.updated_at = turn.reply.created_at

    def _answer(self, chat: Chat, turn: Turn) -> None:
        """Ask for the reply, unless the chat has been deleted while its message was being stored."""
        if chat.id in self.chats:
            self._answers.ask(chat, turn.reply.id)
            self._archive.spawn(self._look())
            return
        if chat not in self._deleted:
            self._deleted.append(chat)
        self._num_changes += 1  # a list read meanwhile still has it

        def work(store: Store) -> None:
            store.messages.finish_reply(turn.reply.id, "", MessageState.STOPPED)
            store.delete(chat.id)

        self._keep(chat, "the chat is still in the store", work)

    def _keep(self, chat: Chat, what: str, work: Callable[[Store], None]) -> None:
        """Store a change of a chat that is in the store; a fresh one brings it along later."""
        if chat.in_store:
            self._archive.spawn(self._archive.try_run(what, work))

    # What others have changed

    async def _look(self, chat: Chat | None = None) -> None:
        """Take in what other front ends have changed: the list of chats, and this chat's messages."""
        num_changes, version = self._num_changes, self._seen_version
        is_idle = chat is not None and chat.in_store and chat.reply is None and not chat.sending
        session, head = (chat.id, head_of(chat.path)) if chat is not None and is_idle else ("", None)

        def work(store: Store) -> _Seen:
            found = store.outside_version()
            sessions = None if found == version else store.sessions()
            stored = session_or_none(store, session) if session else None
            is_stale = stored is not None and stored.head_id != head
            path = store.messages.path_to(stored.head_id) if stored is not None and is_stale else None
            return _Seen(found, sessions, path, is_gone=bool(session) and stored is None)

        seen = await self._archive.try_run("the chats cannot be read", work)
        if seen is None:
            return
        if seen.sessions is not None and num_changes == self._num_changes:
            self._seen_version = seen.version
            if self._take_list(seen.sessions):
                self._notify(changes.ChatsChanged())
        if seen.is_gone and chat is self.shown:
            self._notify(changes.Noticed("this chat has been deleted in another window", is_error=True))
        if seen.path is None or chat is None or chat.reply is not None or chat.sending:
            return
        if head_of(chat.path) == head:  # nothing has happened here meanwhile
            chat.path = seen.path
            self._notify(changes.PathChanged(chat.id))

    def _take_list(self, sessions: Sequence[Session]) -> bool:
        """Make the list that of the store, but for what is in use here; says whether anything changed."""
        before = [(chat.id, chat.title, chat.updated_at) for chat in self.chats.values()]
        for session in sorted(sessions, key=lambda session: session.created_at):
            chat = self.chats.get(session.id)
            if chat is None:  # new, or deleted here and brought back elsewhere
                chat = next((chat for chat in self._deleted if chat.id == session.id), None)
                if chat is not None:
                    self._deleted.remove(chat)
                self.chats[session.id] = chat or Chat.known(session, self._next_ordinal())
            elif chat.in_store:
                chat.title, chat.updated_at = session.title, max(chat.updated_at, session.updated_at)
                if chat.system_prompt != session.system_prompt:
                    chat.system_prompt = session.system_prompt
                    self._notify(changes.PathChanged(chat.id))
        stored = {session.id for session in sessions}
        for chat in list(self.chats.values()):
            is_used = chat is self.shown or chat.reply is not None or chat.sending or chat.draft.strip()
            if chat.in_store and chat.id not in stored and not is_used:
                del self.chats[chat.id]
        return before != [(chat.id, chat.title, chat.updated_at) for chat in self.chats.values()]

    def _next_ordinal(self) -> int:
        return 1 + max((chat.ordinal for chat in (*self.chats.values(), *self._deleted)), default=-1)


class _Seen(msgspec.Struct, frozen=True):
    """What a look into the store brought; None for what is as it was."""

    version: int
    sessions: list[Session] | None
    path: list[StoredMessage] | None
    is_gone: bool


def _recover_and_list(store: Store) -> tuple[int, list[Session]]:
    store.recover()
    version = store.outside_version()
    return version, store.sessions()
