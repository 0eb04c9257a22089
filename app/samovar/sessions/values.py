"""What the store of chats hands out: immutable values."""

import enum

import msgspec

from samovar.core.chat import Role
from samovar.core.request import RequestStats
from samovar.sessions.settings import SessionSettings


class MessageState(enum.Enum):
    """How far a message got. All but STREAMING are final."""

    COMPLETE = "complete"
    STREAMING = "streaming"
    STOPPED = "stopped"  # by the user, or because the program ended
    CUT = "cut"  # max_tokens were reached, or the context was full
    FAILED = "failed"


class Attachment(msgspec.Struct, frozen=True):
    """A text file in a message. `digest` is that of `text` (see `attachments.digest_of`).

    `path` is where the user took it from; empty for a paste. A `repeated` one stands in an earlier message
    of the same path with the same text: the model has read it already, so the prompt only names it.
    """

    name: str
    text: str
    digest: str
    path: str = ""
    num_tokens: int | None = None
    repeated: bool = False


class Session(msgspec.Struct, frozen=True):
    """A chat. Times are seconds since the epoch; `num_messages` counts the whole tree, not the shown path.

    `revision` grows with every change of any chat, so the greatest one seen says what is new.
    """

    id: str
    title: str
    system_prompt: str
    created_at: float
    updated_at: float
    head_id: int | None
    num_messages: int
    settings: SessionSettings = SessionSettings()
    tags: tuple[str, ...] = ()
    is_favourite: bool = False
    is_archived: bool = False
    is_deleted: bool = False
    revision: int = 0


class StoredMessage(msgspec.Struct, frozen=True):
    """One message of a chat's tree. `tokens` are ids that the model generated, valid under `tokenizer`.

    It is number `place` (from 0 on) of `num_siblings` messages below the same parent. `model` names what
    wrote it, where that is known.
    """

    id: int
    session_id: str
    parent_id: int | None
    role: Role
    content: str
    created_at: float
    state: MessageState
    tokens: tuple[int, ...] = ()
    tokenizer: str = ""
    stats: RequestStats | None = None
    error: str = ""
    model: str = ""
    attachments: tuple[Attachment, ...] = ()
    place: int = 0
    num_siblings: int = 1


class Compaction(msgspec.Struct, frozen=True):
    """A summary of a chat up to and with message `upto_id`, which is sent in the place of all that.

    `num_messages` were summarized; they took `tokens_before` of the context, and take `tokens_after` as a
    summary. One that `is_undone` is kept, and counts for nothing.
    """

    id: int
    session_id: str
    upto_id: int
    summary: str
    created_at: float
    num_messages: int
    tokens_before: int
    tokens_after: int
    is_undone: bool = False
    model: str = ""
