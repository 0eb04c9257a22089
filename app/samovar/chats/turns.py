"""A turn on disk: the user's message and the place of its reply, below what the chat really ends in.

Several front ends may write in one chat. What each remembers of it can be stale, so a turn goes below the
store's head, and where that is not what the writer has seen, the messages come back with it:

    seen here:    m1 ─ r1                       stored:  m1 ─ r1 ─ m2 ─ r2 ─ m3 ─ (r3)
    from others:  m1 ─ r1 ─ m2 ─ r2                                          └── the turn

Functions over a Store, for the thread that uses it.
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from samovar.chats.chat import auto_title
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.store import MessageState, Session, Store, StoredMessage


class Turn(msgspec.Struct, frozen=True):
    """`path` are the messages before `message` where they are others than the writer has seen, else None."""

    session: Session
    path: list[StoredMessage] | None
    message: StoredMessage
    reply: StoredMessage


def head_of(path: Sequence[StoredMessage] | None) -> int | UnsetType | None:
    """The head that the store must have for this path to be current (None: no message).

    UNSET if the path has to be read in any case: it never was, or another front end's reply grows in it.
    """
    if path is None or any(message.state is MessageState.STREAMING for message in path):
        return UNSET
    return path[-1].id if path else None


def store_turn(store: Store, session_id: str, text: str, head: int | UnsetType | None) -> Turn:
    """Store a message of the user's and the place of its reply; `head` is `head_of` the writer's path."""
    session = store.session(session_id)
    if not session.title:
        store.rename(session_id, auto_title(text))
        session = store.session(session_id)
    message, reply = store.messages.add_turn(session_id, text)
    path = None if message.parent_id == head else store.messages.path_to(message.parent_id)
    return Turn(session, path, message, reply)


def store_retry(store: Store, session_id: str, seen: Sequence[StoredMessage]) -> Turn:
    """Store the place of another reply to the last message; SamovarError where that is not to be answered.

    `seen` is the writer's path: a reply that has ended there has ended, whatever the store could take of it.
    """
    session = store.session(session_id)
    path = store.messages.path_to(session.head_id)
    last = next((i for i in reversed(range(len(path))) if path[i].role is Role.USER), None)
    if last is None:
        raise SamovarError("there is no message to answer yet")
    ended = {message.id for message in seen if message.state is not MessageState.STREAMING}
    for message in path[last + 1 :]:
        if message.state is MessageState.COMPLETE:
            raise SamovarError("the last reply is complete")
        if message.state is MessageState.STREAMING and message.id not in ended:
            raise SamovarError("the reply is being written in another window")
    reply = store.messages.add_reply(session_id, path[last].id, session.head_id)
    if reply is None:
        raise SamovarError("another window has just gone on with this chat")
    return Turn(session, path[:last], path[last], reply)


def session_or_none(store: Store, session_id: str) -> Session | None:
    """The chat with this id, None if there is none (any more)."""
    try:
        return store.session(session_id)
    except SamovarError:
        return None
