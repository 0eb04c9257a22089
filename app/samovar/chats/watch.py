"""What other front ends change in the same store: looked for a few times a second, taken in as it comes.

A look costs next to nothing while nothing happens (SQLite's `data_version`), and what is new where something
does: chats by their revision, messages from the point on where a path differs. Runs in the event loop. Never
imports Textual.
"""

import asyncio
from typing import Final

import msgspec

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.shared import Shared
from samovar.chats.turns import head_of, session_or_none
from samovar.core.errors import SamovarError
from samovar.sessions.store import Session, Store, StoredMessage
from samovar.sessions.values import Compaction

LOOK_EVERY_S: Final = 0.4


class _Seen(msgspec.Struct, frozen=True):
    """What a look brought. `path` is (how many messages still stand, those after them), None for no news;
    `revision` that of the chat.
    """

    version: int
    sessions: list[Session]
    path: tuple[int, list[StoredMessage]] | None
    compactions: tuple[Compaction, ...]
    revision: int
    is_gone: bool


class Watch:
    """Keeps the roster and the shown chat as the store has them."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._version: int | None = None
        self._revision = 0
        self._is_behind = False  # something came while the chat was busy: there is more to be seen
        self._gone = ""  # the chat whose deletion the user has been told of
        self._task: asyncio.Task[None] | None = None

    def begin(self, version: int, sessions: list[Session]) -> None:
        """Take in the list as it was read first, and look for changes from then on."""
        self._version = version
        self._take(sessions)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self, chat: Chat | None = None) -> None:
        """Take in what others have changed: the list of chats, and this chat's messages."""
        shared = self._shared
        if self._gone and shared.roster.leave_out(self._gone):
            self._gone = ""
            shared.notify(changes.ChatsChanged())
        num_changes, revision = shared.num_changes, self._revision
        is_idle = chat is not None and chat.in_store and not chat.is_busy
        session, known = (chat.id, chat.path) if chat is not None and is_idle else ("", None)
        head, num_known = head_of(known), len(known or ())
        path_revision = chat.path_revision if chat is not None else 0

        def work(store: Store) -> _Seen:
            version = store.outside_version()
            sessions = store.changed_since(revision)
            stored = session_or_none(store, session) if session else None
            path = None
            compactions: tuple[Compaction, ...] = ()
            # A reply that is gone on with changes, and the head stays.
            if stored is not None and (stored.head_id != head or stored.revision != path_revision):
                path = store.messages.path_from(stored.head_id, known or ())
                compactions = store.compactions.of(session)
            current = stored.revision if stored is not None else path_revision
            return _Seen(
                version, sessions, path, compactions, current, is_gone=bool(session) and stored is None
            )

        seen = await shared.archive.try_run("the chats cannot be read", work)
        if seen is None:
            return
        # A look at the list alone, or at a busy chat, leaves the messages for later.
        is_unread = chat is not None and chat.in_store
        self._is_behind = not is_idle and (is_unread or self._is_behind or seen.version != self._version)
        if num_changes == shared.num_changes:
            self._version = seen.version
            if seen.sessions:
                self._take(seen.sessions)
                shared.notify(changes.ChatsChanged())
        if is_idle and not seen.is_gone and self._gone == session:
            self._gone = ""
        if seen.is_gone and chat is shared.roster.shown and self._gone != session:
            self._gone = session
            shared.notify(changes.Noticed("this chat has been deleted in another window", is_error=True))
        if seen.path is None or chat is None:
            return
        if chat.is_busy or chat.path is not known or len(known or ()) != num_known:
            self._is_behind = True
            return
        chat.path_revision = seen.revision
        is_summarized_anew = chat.compactions != seen.compactions
        chat.compactions = seen.compactions
        if chat.path is None or seen.path != (num_known, []):
            self._take_path(chat, *seen.path)
        if is_summarized_anew:
            shared.notify(changes.ContextChanged(chat.id))

    async def _run(self) -> None:
        """Look when the store has changed, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            shown = self._shared.roster.shown
            if self._is_behind and shown.in_store and not shown.is_busy:
                await self.look(shown)
                continue
            try:
                version = await self._shared.archive.run(lambda store: store.outside_version())
            except SamovarError:
                continue  # a disk that fails for a moment; who reads or writes says so
            if version != self._version:
                await self.look(shown)

    def _take(self, sessions: list[Session]) -> None:
        self._revision = max((session.revision for session in sessions), default=self._revision)
        for session in self._shared.roster.take(sessions):
            self._shared.notify(changes.PathChanged(session))

    def _take_path(self, chat: Chat, num_standing: int, messages: list[StoredMessage]) -> None:
        """Show what is new of a path: by growing where it only grew, else anew."""
        shared = self._shared
        before = chat.path
        chat.path = [*(before or ())[:num_standing], *messages]
        grown = 0 if before is None else len(before) - num_standing
        is_growth = before is not None and [message.id for message in before[num_standing:]] == [
            message.id for message in messages[:grown]
        ]
        if not is_growth:
            shared.notify(changes.PathChanged(chat.id))
            return
        for message in messages[:grown]:
            shared.notify(changes.MessageChanged(chat.id, message))
        for message in messages[grown:]:
            shared.notify(changes.MessageAdded(chat.id, message))
