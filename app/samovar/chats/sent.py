"""What of a chat is sent: its messages as a request holds them, with what does not fit left out.

The one place that knows this, so that a side task, work ahead and the chat's own turn begin with the same
tokens. Pure but for the model's context, which it is told. Never imports Textual.
"""

from collections.abc import Sequence

import msgspec

from samovar.chats.chat import Chat
from samovar.chats.prompts import prompt_messages
from samovar.chats.window import window_start
from samovar.config import Config
from samovar.core.chat import ChatMessage, Role
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import StoredMessage


class Sent(msgspec.Struct, frozen=True):
    """The messages of a request; the chat's first `num_left_out` ones are not among them."""

    messages: tuple[ChatMessage, ...]
    num_left_out: int = 0


class Sender:
    """Says what is sent of a chat. `context_tokens` is the size of the loaded model's context."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.context_tokens: int | None = None

    def sent(
        self,
        chat: Chat,
        path: Sequence[StoredMessage] | None = None,
        settings: SessionSettings | None = None,
    ) -> Sent:
        """What a request for this path (the chat's own, if none is given) holds."""
        path = chat.path or () if path is None else path
        settings = chat.settings if settings is None else settings
        messages = prompt_messages(chat.system_prompt, path)
        if not messages or self.context_tokens is None:
            return Sent(messages)
        if (settings.context_full or self._config.context_full) == "stop":
            return Sent(messages)
        reply_tokens = settings.reply_tokens(self._config.sampling) or self.context_tokens // 4
        num_left_out = window_start(messages, self.context_tokens, reply_tokens)
        first = 1 if messages[0].role is Role.SYSTEM else 0
        return Sent((*messages[:first], *messages[first + num_left_out :]), num_left_out)
