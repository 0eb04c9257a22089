"""What the store of chats hands out: immutable values."""

import enum

import msgspec

from samovar.core.chat import Role
from samovar.core.request import RequestStats


class MessageState(enum.Enum):
    """How far a message got. All but STREAMING are final."""

    COMPLETE = "complete"
    STREAMING = "streaming"
    STOPPED = "stopped"
    FAILED = "failed"


class Session(msgspec.Struct, frozen=True):
    """A chat. Times are seconds since the epoch; `num_messages` counts the whole tree, not the shown path."""

    id: str
    title: str
    system_prompt: str
    created_at: float
    updated_at: float
    head_id: int | None
    num_messages: int


class StoredMessage(msgspec.Struct, frozen=True):
    """One message of a chat's tree. `tokens` are ids that the model generated, valid under `tokenizer`."""

    id: int
    session_id: str
    parent_id: int | None
    role: Role
    content: str
    created_at: float
    state: MessageState
    tokens: tuple[int, ...]
    tokenizer: str
    stats: RequestStats | None
    error: str
