"""Drafts: kept a moment after the user has typed, and brought back after a crash or a quit.

Runs in the event loop. Never imports Textual.
"""

import asyncio
from typing import Final

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.mentions import mention_of
from samovar.chats.shared import Shared
from samovar.core.errors import SamovarError
from samovar.sessions.store import Store
from samovar.sessions.values import Attachment

SAVE_AFTER_S: Final = 0.5


class DraftKeeper:
    """The drafts of all chats of this window."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._unsaved: dict[str, Chat] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._has_failed = False

    def typed(self, chat: Chat, text: str) -> None:
        """The text in a chat's composer is another one."""
        if text != chat.draft:
            chat.draft = text
            self.keep(chat)

    def keep(self, chat: Chat) -> None:
        """Store in a moment what has not been sent in this chat: draft, queue, what an edit has put aside."""
        self._unsaved[chat.id] = chat
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SAVE_AFTER_S, self.flush)

    def forget(self, chat: Chat) -> None:
        """The chat has been deleted, and its draft with it; `keep` brings that back."""
        self._unsaved.pop(chat.id, None)
        work = self._shared.archive.try_run(
            "the draft cannot be removed", lambda store: store.drafts.save(chat.id, "")
        )
        self._shared.archive.spawn(work)

    def keep_paste(self, chat: Chat, paste: Attachment) -> None:
        """Store a pasted text that the draft is about to name.

        Its name is stored with it: a text that nothing names is cleared away when a program starts.
        """
        draft = "\n\n".join(part for part in (unsent_text(chat), mention_of(paste.name)) if part)

        def work(store: Store) -> None:
            with store.transaction():
                store.keep_pastes([paste])
                store.drafts.save(chat.id, draft)

        self._shared.archive.spawn(self._shared.archive.try_run("the paste cannot be stored", work))
        self.keep(chat)

    def flush(self) -> None:
        """Store what has not been stored yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._unsaved = self._unsaved, {}
        texts = {chat.id: unsent_text(chat) for chat in waiting.values()}
        if texts:

            def work(store: Store) -> None:
                for session, text in texts.items():
                    store.drafts.save(session, text)

            self._shared.archive.spawn(self._told(self._shared.archive.run(work)))

    async def _told(self, stored: asyncio.Future[None]) -> None:
        """Where it fails, the user hears it once: a message that is sent then says it again."""
        try:
            await stored
        except SamovarError as error:
            if not self._has_failed:
                self._shared.complain(f"the draft cannot be stored: {error}")
            self._has_failed = True

    def bring_back(self, found: dict[str, str]) -> None:
        """Put the drafts of windows that are gone where they were, in a new chat if it was one."""
        roster = self._shared.roster
        for session, text in found.items():
            chat = roster.chats.get(session)
            if chat is None:
                prompt, now = self._shared.config.system_prompt, self._shared.clock()
                chat = Chat.fresh(prompt, now, session)
                roster.chats[session] = chat
            chat.draft = "\n".join(part for part in (text, chat.draft) if part)
            self._shared.notify(changes.DraftChanged(session))


def unsent_text(chat: Chat, sending: str = "") -> str:
    """What must not be lost of a chat's composer: what waits to be sent, and the draft behind it.

    Also the draft that an edit has taken the place of; not the text that is on its way (`sending`).
    """
    coming = sending or chat.on_its_way
    draft = [chat.draft if chat.draft != coming else ""]
    if chat.editing is not None:
        draft = [chat.set_aside, draft[0] if draft[0] != chat.editing.content else ""]
    first = "" if sending else chat.on_its_way
    return "\n\n".join(part for part in (first, *chat.queued, *draft) if part)
