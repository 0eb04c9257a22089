"""The meter of a chat: how much of the context it takes, and would take with what stands in the composer.

What is typed is counted by the engine, a moment after the last key. The same figures say before a message is
sent that it will not fit. Runs in the event loop. Never imports Textual.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from samovar.chats import changes, slash
from samovar.chats.chat import Chat, Reply
from samovar.chats.host_state import HostPhase, HostState
from samovar.chats.mentions import attached, mentions
from samovar.chats.prompts import prompt_text
from samovar.chats.sent import LeftOut, Sender
from samovar.chats.shared import Shared
from samovar.chats.token_counts import TokenCounts
from samovar.chats.window import FRAME_TOKENS
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.figures import count
from samovar.sessions.store import MessageState, Store, StoredMessage

LOOK_AFTER_S: Final = 0.3  # since the last key
_MOST_BYTES_PER_TOKEN: Final = 16  # of any text that people read


class ContextUse(msgspec.Struct, frozen=True):
    """Tokens of a context of `total_tokens`: in use, and with the draft (`forecast_tokens`).

    From `mark_tokens` on it fills up; what goes beyond `room_tokens` cannot be answered. Messages that are
    `left_out` count for nothing.
    """

    used_tokens: int
    forecast_tokens: int
    total_tokens: int
    mark_tokens: int
    room_tokens: int
    left_out: LeftOut | None = None

    @property
    def is_filling(self) -> bool:
        return self.forecast_tokens > self.mark_tokens

    @property
    def is_full(self) -> bool:
        """Whether the next message will not fit as it is."""
        return self.forecast_tokens > self.room_tokens


class Meter:
    """The figures of all chats. `host` tells the state of the engine."""

    def __init__(
        self, shared: Shared, sender: Sender, counts: TokenCounts, host: Callable[[], HostState]
    ) -> None:
        self._shared = shared
        self._sender = sender
        self._counts = counts
        self._host = host
        self._known: dict[str, int] = {}  # tokens of texts that have been counted
        self._sizes: dict[
            str, tuple[object, int, LeftOut | None]
        ] = {}  # of chats, with what they were measured by
        self._timer: asyncio.TimerHandle | None = None

    def context_use(self, chat: Chat) -> ContextUse | None:
        """How full the context is with this chat; None while that is not known."""
        total, mark, room = self._sender.context_tokens, self._sender.mark(chat), self._sender.room(chat)
        if total is None or mark is None or room is None or chat.path is None:
            return None
        path = self._path(chat)
        text = "" if slash.is_command(chat.draft) else chat.draft.strip()
        if not (path or text or chat.system_prompt):
            return ContextUse(0, 0, total, mark, room)
        size, left_out = self._next(chat, path, text)
        used = self._growing(chat.reply) or size
        forecast = used + (self._tokens_of(chat, text) if text else 0)
        return ContextUse(used, forecast, total, mark, room, left_out)

    def draft_changed(self, chat: Chat) -> None:
        """What stands in the composer is another text: count it once the user pauses."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOK_AFTER_S, self._look, chat)

    async def refusal(self, chat: Chat, text: str) -> str:
        """Why this message cannot be sent, in figures and with what can be done; empty if it can."""
        total, room = self._sender.context_tokens, self._sender.room(chat)
        if total is None or room is None or chat.path is None:
            return ""
        path = self._path(chat)
        full = await self._full_text(path, text)
        stops = self._sender.context_full(chat) == "stop"
        system, base = self._sender.base_text(chat, path), self._sender.base_size(chat, path)
        others = self._sender.size(chat, path) if stops else base
        num_bytes = len(full.encode(errors="replace"))
        if others + num_bytes + FRAME_TOKENS <= room:
            return ""  # no token is shorter than a byte
        await self._count(full, system)
        if system and system in self._known:
            base += self._known[system] - self._sender.size_of_text(chat, system) + FRAME_TOKENS
        others = others if stops else base
        if full not in self._known and num_bytes <= _MOST_BYTES_PER_TOKEN * room:
            return ""  # nobody can say now: the engine has the last word
        alone = self._tokens_of(chat, full)
        if base + alone > room:
            before = f" beside {count(base)} of the system prompt" if base else ""
            return (
                f"this message has {count(alone)} tokens{before}, and the context holds {count(total)}: "
                "shorten it, or attach less"
            )
        if others + alone > room:
            return (
                f"this message will not fit: {count(others)} + {count(alone)} tokens, and the context holds "
                f"{count(total)}. /compact summarizes the oldest messages, /set context_full shift drops them"
            )
        return ""

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # Inside

    def _look(self, chat: Chat) -> None:
        self._timer = None
        text = chat.draft.strip()
        if text and not slash.is_command(text) and self._host().phase is HostPhase.READY:
            self._shared.archive.spawn(self._look_at(chat, text))
        self._shared.notify(changes.ContextChanged(chat.id))

    async def _look_at(self, chat: Chat, text: str) -> None:
        full = await self._full_text(self._path(chat), text)
        await self._count(full)
        if full != text and full in self._known:
            self._known[text] = self._known[full]
        self._shared.notify(changes.ContextChanged(chat.id))

    async def _count(self, *texts: str) -> None:
        if all(text in self._known for text in texts) or self._host().phase is not HostPhase.READY:
            return
        counted = await self._counts.count(texts)
        if counted is not None:  # the last ones are all that is asked for again
            self._known = dict(zip(texts, counted, strict=False))

    async def _full_text(self, path: Sequence[StoredMessage], text: str) -> str:
        """The text with the files it names, as the model will read it."""
        if not mentions(text):
            return text

        def work(store: Store) -> str:
            files = attached(text, path, store.paste)
            return prompt_text(
                StoredMessage(0, "", None, Role.USER, text, 0.0, MessageState.COMPLETE, attachments=files)
            )

        try:
            return await self._shared.archive.run(work)
        except SamovarError:
            return text  # sending says what is wrong with it

    def _tokens_of(self, chat: Chat, text: str) -> int:
        known = self._known.get(text)
        return self._sender.size_of_text(chat, text) if known is None else known + FRAME_TOKENS

    @staticmethod
    def _growing(reply: Reply | None) -> int:
        """The tokens of a running reply and its prompt; 0 while the prompt is not known."""
        if reply is None or reply.stats is None:
            return 0
        return reply.stats.prompt_tokens + reply.num_tokens

    def _next(self, chat: Chat, path: Sequence[StoredMessage], text: str) -> tuple[int, LeftOut | None]:
        """The tokens before a next message, and what is left out; found anew where something has changed."""
        reply, last = chat.reply, path[-1] if path else None
        known = (self._sender.context_tokens, self._sender.template_tokens)
        running = None if reply is None else (reply.request_id, reply.room is None, reply.stats)
        key = (len(path), last, text, running, chat.compactions, chat.system_prompt, chat.settings, known)
        found = self._sizes.get(chat.id)
        if found is None or found[0] != key:
            size = self._sender.next_size(chat, path, text)
            found = self._sizes[chat.id] = (key, size, self._sender.left_out(chat, path))
        return found[1], found[2]

    @staticmethod
    def _path(chat: Chat) -> Sequence[StoredMessage]:
        """What stands before the draft."""
        path = chat.path or []
        if chat.editing is None:
            return path
        place = next((i for i, message in enumerate(path) if message.id == chat.editing.id), len(path))
        return path[:place]
