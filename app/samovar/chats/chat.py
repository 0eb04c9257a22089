"""One chat while Samovar runs: what the store knows of it, its draft, and the reply that is being written.

Owned by `conversation`, in the event loop. Never imports Textual.
"""

import asyncio
import enum
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from samovar.core.chat import ChatMessage, Role
from samovar.core.request import RequestStats
from samovar.sessions.encoding import storable
from samovar.sessions.store import Session, StoredMessage

MAX_AUTO_TITLE: Final = 40


class Phase(enum.Enum):
    """How far a running reply has got."""

    WAITING = "waiting"  # for the engine, or for its turn
    READING = "reading"  # the prompt is being processed
    WRITING = "writing"


@dataclass(slots=True)
class Reply:
    """A reply that is being written. `message_id` is its place in the store, None where nothing is stored."""

    request_id: str
    message_id: int | None
    created_at: float
    parts: list[str] = field(default_factory=list)
    phase: Phase = Phase.WAITING
    num_tokens: int = 0
    first_token_at: float | None = None
    read_tokens: int = 0
    to_read_tokens: int = 0
    remaining_ms: float | None = None
    stats: RequestStats | None = None
    stopping: bool = False
    save_timer: asyncio.TimerHandle | None = None

    @property
    def text(self) -> str:
        """All that has arrived."""
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""


@dataclass(slots=True)
class Chat:
    """`path` is None until it has been read from the store; `ordinal` chooses the chat's colour."""

    id: str
    ordinal: int
    title: str
    system_prompt: str
    updated_at: float
    path: list[StoredMessage] | None
    in_store: bool
    draft: str = ""
    sending: bool = False
    reply: Reply | None = None

    @classmethod
    def fresh(cls, ordinal: int, system_prompt: str, now: float) -> "Chat":
        """A chat nobody has written in yet; it enters the store with its first message."""
        return cls(uuid.uuid4().hex, ordinal, "", storable(system_prompt), now, path=[], in_store=False)

    @classmethod
    def known(cls, session: Session, ordinal: int) -> "Chat":
        """A chat as the store lists it."""
        return cls(
            session.id, ordinal, session.title, session.system_prompt, session.updated_at, None, in_store=True
        )

    @property
    def num_tokens(self) -> int | None:
        """Tokens of its last prompt and reply, None where that is not known."""
        for message in reversed(self.path or ()):
            if message.stats is not None and message.stats.prompt_tokens:
                return message.stats.prompt_tokens + message.stats.generated_tokens
        return None

    def sent_texts(self) -> list[str]:
        """What the user has written here, oldest first."""
        return [message.content for message in self.path or () if message.role is Role.USER]


def auto_title(text: str) -> str:
    """The beginning of a first message, on one line, cut between words where that is possible."""
    line = " ".join(text.split())
    if len(line) <= MAX_AUTO_TITLE:
        return line
    cut = line[: MAX_AUTO_TITLE - 1]
    head, space, _ = cut.rpartition(" ")
    return (head if space and len(head) >= MAX_AUTO_TITLE // 2 else cut).rstrip(" ,;:.-") + "…"


def prompt_messages(system_prompt: str, path: Sequence[StoredMessage]) -> tuple[ChatMessage, ...]:
    """The messages of a request for this path.

    A reply that brought no text is left out; the user's messages around it become one, since many
    templates refuse two of the same role in a row.
    """
    system = [ChatMessage(Role.SYSTEM, system_prompt)] if system_prompt else []
    messages = list[ChatMessage]()
    for message in path:
        if message.role is Role.ASSISTANT and not message.content:
            continue
        if message.role is Role.USER and messages and messages[-1].role is Role.USER:
            messages[-1] = ChatMessage(Role.USER, f"{messages[-1].content}\n\n{message.content}")
            continue
        messages.append(ChatMessage(message.role, message.content, message.tokens, message.tokenizer))
    return (*system, *messages)


def by_recency(chats: Iterable[Chat]) -> list[Chat]:
    """Empty new chats first, then the most recently used."""
    return sorted(chats, key=lambda chat: (chat.in_store, -chat.updated_at))
