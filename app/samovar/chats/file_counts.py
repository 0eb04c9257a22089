"""How many tokens attached files take: asked of the engine once a message is stored, kept with it.

Runs in the event loop. Never imports Textual.
"""

import uuid

import msgspec

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.shared import Shared
from samovar.core.commands import CountTokens
from samovar.core.events import TokensCounted
from samovar.sessions.store import StoredMessage


class FileCounts:
    """The counts that the engine has been asked for."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._asked: dict[str, tuple[Chat, int]] = {}  # by request: a message of a chat

    def count(self, chat: Chat, message: StoredMessage) -> None:
        """Find out about the files of a message that has just been stored."""
        if any(one.num_tokens is None for one in message.attachments):
            request_id = uuid.uuid4().hex
            self._asked[request_id] = (chat, message.id)
            texts = tuple("" if one.repeated else one.text for one in message.attachments)
            self._shared.client.send(CountTokens(request_id, texts))

    def handle(self, event: TokensCounted) -> None:
        """Keep what the engine has counted; where it could not, the files are shown by their size."""
        chat, message_id = self._asked.pop(event.request_id, (None, 0))
        message = chat.message(message_id) if chat is not None else None
        if chat is None or chat.path is None or message is None or event.counts is None:
            return
        counted = tuple(
            msgspec.structs.replace(one, num_tokens=None if one.repeated else num_tokens)
            for one, num_tokens in zip(message.attachments, event.counts, strict=True)
        )
        changed = msgspec.structs.replace(message, attachments=counted)
        chat.path[chat.path.index(message)] = changed
        self._shared.keep(
            chat,
            "the size of a file cannot be stored",
            lambda store: store.messages.set_attachments(message_id, counted),
        )
        self._shared.notify(changes.MessageChanged(chat.id, changed))
