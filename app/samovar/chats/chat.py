"""One chat while Samovar runs: what the store knows of it, its draft, and the reply that is being written.

Owned by `conversation` and its parts, in the event loop. Never imports Textual.
"""

import asyncio
import enum
import uuid
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from samovar.core.chat import Role
from samovar.core.events import RequestQueued
from samovar.core.reasoning import Phase as Thinking
from samovar.core.reasoning import Reasoning
from samovar.core.request import RequestStats
from samovar.sessions.encoding import storable
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import Session, StoredMessage
from samovar.sessions.values import Compaction

MAX_AUTO_TITLE: Final = 40
_NUM_COLORS: Final = 8  # of the sessions in our themes
_MAX_DRAWN: Final = 64
_NO_SETTINGS: Final = SessionSettings()


class Phase(enum.Enum):
    """How far a running reply has got."""

    SUMMARIZING = "summarizing"  # the oldest messages, since the next one would not fit
    WAITING = "waiting"  # for the engine, or for its turn
    READING = "reading"  # the prompt is being processed
    WRITING = "writing"


@dataclass(slots=True)
class Reply:
    """A reply that is being written. `row` is its place in the store, None where nothing is stored.

    `goes_on` is the cut reply that it continues: `parts` begin with its text.
    """

    request_id: str
    row: StoredMessage | None
    created_at: float
    goes_on: StoredMessage | None = None
    parts: list[str] = field(default_factory=list)
    phase: Phase = Phase.WAITING
    num_tokens: int = 0
    first_token_at: float | None = None
    read_tokens: int = 0
    to_read_tokens: int = 0
    remaining_ms: float | None = None
    waits: RequestQueued | None = None  # its place in the engine's queue, as told last
    stats: RequestStats | None = None
    stopping: bool = False
    thinks: bool = False  # its prompt has opened the thinking
    reasoning: Reasoning = field(default_factory=Reasoning)
    thinking_tokens: int = 0
    thinking_ms: float = 0.0
    grown_at: float | None = None
    save_timer: asyncio.TimerHandle | None = None
    room: asyncio.Task[None] | None = None  # waits until there is room for it

    @property
    def text(self) -> str:
        """All that has arrived."""
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""

    @property
    def is_thinking(self) -> bool:
        """Whether what is being written is reasoning."""
        return self.reasoning.phase is Thinking.THINKING

    def begin(self, *, thinks: bool) -> None:
        """The prompt is known, and so whether the reply begins inside of a thinking part."""
        self.thinks = thinks
        self.reasoning = Reasoning(thinks=thinks)
        self.reasoning.push(self.text)

    def grow(self, text: str, num_tokens: int, now: float) -> None:
        """Take in what has arrived, `now` in seconds; figures of the thinking are rough until the end."""
        self.parts.append(text)
        self.num_tokens += num_tokens
        before, after = self.is_thinking, self.reasoning.push(text)
        if before or after is Thinking.THINKING:
            self.thinking_tokens += num_tokens
            self.thinking_ms += 1000 * (now - (self.grown_at or now))
        self.grown_at = now


@dataclass(slots=True, eq=False)
class Chat:
    """`path` is None until it has been read from the store, as it was at `path_revision`.

    `draft` is what stands in the composer; with `editing` it takes the place of that message. `queued` are
    messages that wait for the reply before them; `queue_paused` says why none of them is sent.
    """

    id: str
    title: str
    system_prompt: str
    created_at: float
    updated_at: float
    path: list[StoredMessage] | None
    in_store: bool
    settings: SessionSettings = _NO_SETTINGS
    tags: tuple[str, ...] = ()
    is_favourite: bool = False
    is_archived: bool = False
    num_messages: int = 0
    draft: str = ""
    editing: StoredMessage | None = None
    set_aside: str = ""  # the draft that an edit has taken the place of
    queued: list[str] = field(default_factory=list)
    queue_paused: str = ""
    on_its_way: str = ""  # a message that has left composer or queue, and is not stored yet
    path_revision: int = 0
    compactions: tuple[Compaction, ...] = ()  # of all its branches, the oldest first
    num_left_out: int = 0  # messages that its last request has left out
    sending: bool = False
    reply: Reply | None = None

    @classmethod
    def fresh(cls, system_prompt: str, now: float, chat_id: str = "") -> "Chat":
        """A chat nobody has written in yet; it enters the store with its first message."""
        return cls(chat_id or uuid.uuid4().hex, "", storable(system_prompt), now, now, [], in_store=False)

    @classmethod
    def known(cls, session: Session) -> "Chat":
        """A chat as the store lists it."""
        prompt, created, updated = session.system_prompt, session.created_at, session.updated_at
        chat = cls(session.id, session.title, prompt, created, updated, None, in_store=True)
        chat.take(session)
        return chat

    def take(self, session: Session) -> None:
        """Take over what the store says of this chat."""
        self.title, self.system_prompt, self.settings = session.title, session.system_prompt, session.settings
        self.tags, self.num_messages = session.tags, session.num_messages
        self.is_favourite, self.is_archived = session.is_favourite, session.is_archived
        self.updated_at = max(self.updated_at, session.updated_at)

    @property
    def is_busy(self) -> bool:
        """Whether a message is being stored or a reply written."""
        return self.sending or self.reply is not None

    @property
    def has_unsent(self) -> bool:
        """Whether the user has written something here that has not been sent."""
        return bool(self.draft.strip() or self.queued)

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

    def message(self, message_id: int) -> StoredMessage | None:
        """The message of the shown path with this id."""
        return next((message for message in self.path or () if message.id == message_id), None)


def color_number(session: str) -> int:
    """What chooses a session's colour: by its id alone, so that it keeps it whatever else comes and goes."""
    return zlib.crc32(session.encode())


def new_id(neighbours: Collection[str]) -> str:
    """An id for a new chat, of another colour than those with the ids in `neighbours` if one is left."""
    taken = {color_number(session) % _NUM_COLORS for session in neighbours}
    for _ in range(_MAX_DRAWN):
        drawn = uuid.uuid4().hex
        if color_number(drawn) % _NUM_COLORS not in taken:
            break
    return drawn


def auto_title(text: str) -> str:
    """The beginning of a first message, on one line, cut between words where that is possible."""
    line = " ".join(text.split())
    if len(line) <= MAX_AUTO_TITLE:
        return line
    cut = line[: MAX_AUTO_TITLE - 1]
    head, space, _ = cut.rpartition(" ")
    return (head if space and len(head) >= MAX_AUTO_TITLE // 2 else cut).rstrip(" ,;:.-") + "…"
