"""What `conversation` tells the screen, as values in the past tense."""

import msgspec

from samovar.core.snapshot import CacheSnapshot, LastRequest
from samovar.sessions.store import StoredMessage


class ChatsChanged(msgspec.Struct, frozen=True):
    """Titles, order, or what runs where."""


class ChatShown(msgspec.Struct, frozen=True):
    """Another chat is the current one; its path may still be on its way from the store."""

    session: str


class PathChanged(msgspec.Struct, frozen=True):
    """A chat's messages have been read, or changed other than by growing."""

    session: str


class MessageAdded(msgspec.Struct, frozen=True):
    """A message of the user's is in the store."""

    session: str
    message: StoredMessage


class MessageChanged(msgspec.Struct, frozen=True):
    """A message that is shown has another text, state or number of siblings."""

    session: str
    message: StoredMessage


class DraftChanged(msgspec.Struct, frozen=True):
    """The text in a chat's composer is another one, not by typing."""

    session: str


class QueueChanged(msgspec.Struct, frozen=True):
    """Other messages wait for the reply before them, or the queue has stopped or goes on."""

    session: str


class ReplyBegan(msgspec.Struct, frozen=True):
    session: str


class ReplyProgressed(msgspec.Struct, frozen=True):
    """Its phase or its figures changed, not its text."""

    session: str


class ReplyGrew(msgspec.Struct, frozen=True):
    session: str
    text: str


class ReplyEnded(msgspec.Struct, frozen=True):
    session: str
    message: StoredMessage


class SendFailed(msgspec.Struct, frozen=True):
    """A message could not be stored; `text` goes back to its writer."""

    session: str
    text: str
    error: str


class HostChanged(msgspec.Struct, frozen=True):
    """The engine host's state is another one."""


class CacheDrawn(msgspec.Struct, frozen=True):
    """A new picture of the cache."""

    snapshot: CacheSnapshot


class LimitRefused(msgspec.Struct, frozen=True):
    """The host did not take a limit; `command` is the name of the `/` command that sets it."""

    command: str
    text: str
    error: str


class VerifyMoved(msgspec.Struct, frozen=True):
    """`done` of `total` files on disk have been verified; a total of 0: all is done."""

    done: int
    total: int


class RequestsTold(msgspec.Struct, frozen=True):
    """What the last requests cost, the newest first."""

    requests: tuple[LastRequest, ...]


class ContextChanged(msgspec.Struct, frozen=True):
    """What of a chat is summarized, or how much of the context it takes with its draft, is known anew."""

    session: str


class TasksChanged(msgspec.Struct, frozen=True):
    """A side task began, went on or ended, or its result is gone."""


class ComparisonGrew(msgspec.Struct, frozen=True):
    """`text` has come behind answer number `place` (from 0 on) of the comparison in a chat."""

    session: str
    place: int
    text: str


class ComparisonChanged(msgspec.Struct, frozen=True):
    """States or figures of the answers that are compared in a chat; or the comparison is over."""

    session: str


class CameBack(msgspec.Struct, frozen=True):
    """The chat that has just been opened lies in the context again: told where nothing else is."""

    text: str


class Noticed(msgspec.Struct, frozen=True):
    """One line for the user."""

    text: str
    is_error: bool = False


Change = (
    ChatsChanged
    | ChatShown
    | PathChanged
    | MessageAdded
    | MessageChanged
    | DraftChanged
    | QueueChanged
    | ReplyBegan
    | ReplyProgressed
    | ReplyGrew
    | ReplyEnded
    | SendFailed
    | HostChanged
    | CacheDrawn
    | LimitRefused
    | VerifyMoved
    | RequestsTold
    | ContextChanged
    | TasksChanged
    | ComparisonGrew
    | ComparisonChanged
    | CameBack
    | Noticed
)
