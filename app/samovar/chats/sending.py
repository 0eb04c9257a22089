"""A message on its way: stored first, then shown, then answered.

What the user changes of the chat while its message is being stored is not lost. Runs in the event loop. Never
imports Textual.
"""

import msgspec

from samovar.chats import changes
from samovar.chats.answers import Answers
from samovar.chats.chat import Chat
from samovar.chats.draft_keeper import unsent_text
from samovar.chats.file_counts import FileCounts
from samovar.chats.profile import ChatProfile, Profile
from samovar.chats.shared import Shared
from samovar.chats.turns import Turn, create_chat, head_of, store_end, store_turn
from samovar.chats.watch import Watch
from samovar.core.errors import SamovarError
from samovar.sessions.encoding import storable
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import MessageState, Session, Store


class Sending:
    """Stores messages and has them answered."""

    def __init__(
        self, shared: Shared, answers: Answers, profile: Profile, file_counts: FileCounts, watch: Watch
    ) -> None:
        self._shared = shared
        self._answers = answers
        self._profile = profile
        self._file_counts = file_counts
        self._watch = watch

    async def send(self, chat: Chat, text: str) -> str:
        """Store a message, then ask for its reply. If it cannot be stored, nothing is sent: says why."""
        text, head, num_changes = storable(text), head_of(chat.path), self._shared.num_changes
        is_new, sent_as = not chat.in_store, ChatProfile.of(chat)
        seen = None if chat.path is None else tuple(chat.path)
        unsent = unsent_text(chat, sending=text)

        def work(store: Store) -> Turn:
            def create() -> None:
                create_chat(store, chat.id, sent_as)

            return store_turn(store, chat.id, text, head, seen, create if is_new else None, unsent)

        chat.sending = True
        try:
            turn = await self._shared.archive.run(work)
        except SamovarError as error:
            return str(error)
        finally:
            chat.sending = False
        chat.in_store = True
        if num_changes == self._shared.num_changes:
            chat.take(turn.session)
        else:
            self.take_stored(chat, turn.session, sent_as, is_new=is_new)
        chat.updated_at = turn.reply.created_at
        if turn.path is not None:
            chat.path = turn.path
            self._shared.notify(changes.PathChanged(chat.id))
        assert chat.path is not None
        chat.path.append(turn.message)
        self._shared.notify(changes.MessageAdded(chat.id, turn.message))
        self.answer(chat, turn)
        return ""

    def answer(self, chat: Chat, turn: Turn, settings: SessionSettings | None = None) -> None:
        """Ask for the reply, unless the chat has been deleted while its message was being stored."""
        chat.compactions = turn.compactions
        if chat.id in self._shared.roster.chats:
            self._answers.ask(chat, turn.reply, settings)
            self._file_counts.count(chat, turn.message)
            self._shared.archive.spawn(self._watch.look())
            return
        if chat not in self._shared.roster.deleted:
            self._shared.roster.deleted.append(chat)

        def work(store: Store) -> None:
            store_end(store, msgspec.structs.replace(turn.reply, state=MessageState.STOPPED, error=""))
            store.delete(chat.id)

        # A list read meanwhile still has it.
        self._shared.keep(chat, "the chat is still in the store", work)

    def take_stored(self, chat: Chat, session: Session, sent_as: ChatProfile, *, is_new: bool) -> None:
        """Take in what the store says of a chat, but for what was changed here while it was stored.

        A chat that was new then knew no place to store such changes.
        """
        wanted = ChatProfile.of(chat)
        chat.title = chat.title or session.title
        if is_new:
            chat.title, chat.system_prompt = session.title, session.system_prompt
            self._profile.take(chat, sent_as, wanted)
