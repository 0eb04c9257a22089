"""A turn on disk: the user's message and the place of its reply, below what the chat really ends in.

Several front ends may write in one chat. What each remembers of it can be stale, so a turn goes below the
store's head, and where that is not what the writer has seen, the messages come back with it:

    seen here:    m1 ─ r1                       stored:  m1 ─ r1 ─ m2 ─ r2 ─ m3 ─ (r3)
    from others:  m1 ─ r1 ─ m2 ─ r2                                          └── the turn

An edit, another reply and a reply that is gone on with name the message they are about, and the path to it
comes back. Functions over a Store, for the thread that uses it.
"""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from samovar.chats.chat import auto_title
from samovar.chats.mentions import attached
from samovar.chats.profile import ChatProfile
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.store import MessageState, Session, Store, StoredMessage
from samovar.sessions.values import Compaction


class Turn(msgspec.Struct, frozen=True):
    """`path` are the messages before `message` where they are others than the writer has seen, else None.

    `reply` is the place of the reply; one with a text is to be gone on with. `compactions` are the chat's.
    """

    session: Session
    path: list[StoredMessage] | None
    message: StoredMessage
    reply: StoredMessage
    compactions: tuple[Compaction, ...]


def head_of(path: Sequence[StoredMessage] | None) -> int | UnsetType | None:
    """The head that the store must have for this path to be current (None: no message).

    UNSET if the path has to be read in any case: it never was, or another front end's reply grows in it.
    """
    if path is None or any(message.state is MessageState.STREAMING for message in path):
        return UNSET
    return path[-1].id if path else None


def store_turn(
    store: Store,
    session_id: str,
    text: str,
    head: int | UnsetType | None,
    seen: Sequence[StoredMessage] | None = None,
    create: Callable[[], object] | None = None,
    unsent: str = "",
) -> Turn:
    """Store a message of the user's with the files it names, and the place of its reply.

    `head` is `head_of` the writer's path, and `seen` that path; `create` stores the chat if it is a new one.
    The text is no draft any more, `unsent` is. Raises SamovarError for a file that cannot be attached, say;
    nothing is stored then, not even the chat.
    """
    found = session_or_none(store, session_id) if create is not None else store.session(session_id)
    stored_head = None if found is None else found.head_id
    path = seen if seen is not None and head == stored_head else store.messages.path_to(stored_head)
    files = attached(text, path, store.paste)  # before the transaction: a slow disk must hold up nobody
    with store.transaction():
        if found is None and create is not None:
            create()
        session = store.session(session_id)
        if not session.title:
            store.rename(session_id, auto_title(text))
            session = store.session(session_id)
        message, reply = store.messages.add_turn(session_id, text, attachments=files)
        store.drafts.save(session_id, unsent)
    unseen = _unseen(store, message.parent_id, seen)
    return Turn(session, unseen, message, reply, store.compactions.of(session_id))


def create_chat(store: Store, chat_id: str, profile: ChatProfile) -> None:
    """Within a transaction: store a chat that nobody has written in yet."""
    store.create_session(profile.title, profile.system_prompt, session_id=chat_id, settings=profile.settings)
    if profile.tags:
        store.set_tags(chat_id, profile.tags)
    if profile.is_favourite:
        store.set_favourite(chat_id, is_favourite=True)


def _unseen(
    store: Store, parent_id: int | None, seen: Sequence[StoredMessage] | None
) -> list[StoredMessage] | None:
    """The path to a message, None if it is the one that has been seen, and reads as it did."""
    if seen is None:
        return store.messages.path_to(parent_id)
    num_standing, messages = store.messages.path_from(parent_id, seen)
    if num_standing == len(seen) and not messages:
        return None
    return [*seen[:num_standing], *messages]


def store_edit(store: Store, session_id: str, message_id: int, text: str) -> Turn:
    """Store another version of a user's message beside it, and the place of its reply."""
    session = store.session(session_id)
    edited = store.messages.message(message_id)
    before = store.messages.path_to(edited.parent_id)
    parent = before[-1].id if before else None
    files = attached(text, before, store.paste, edited.attachments)
    message, reply = store.messages.add_turn(session_id, text, parent_id=parent, attachments=files)
    return Turn(session, before, message, reply, store.compactions.of(session_id))


def store_edited_reply(store: Store, session_id: str, message_id: int, text: str) -> list[StoredMessage]:
    """Store a reply as the user wants it to have been, beside the model's; returns the path to it."""
    original = store.messages.message(message_id)
    message = store.messages.add(session_id, original.role, text, parent_id=original.parent_id)
    return store.messages.path_to(message.id)


def store_again(store: Store, session_id: str, message_id: int) -> Turn:
    """Store the place of another reply: beside this one, or below this message of the user's."""
    session = store.session(session_id)
    path = store.messages.path_to(message_id)
    if path and path[-1].role is Role.ASSISTANT:
        if path[-1].state is MessageState.STREAMING:
            raise SamovarError("the reply is being written in another window")
        with store.transaction():
            return _without_empty(store, _another_reply(store, session, path[:-1]), path[-1:])
    return _another_reply(store, session, path)


def store_retry(store: Store, session_id: str, seen: Sequence[StoredMessage]) -> Turn:
    """Store the place of another reply to the last message of the user's.

    `seen` is the writer's path: a reply that has ended there has ended, whatever the store could take of it.
    """
    session = store.session(session_id)
    path = store.messages.path_to(session.head_id)
    last = next((i for i in reversed(range(len(path))) if path[i].role is Role.USER), None)
    if last is None:
        raise SamovarError("there is no message to answer yet")
    ended = {message.id for message in seen if message.state is not MessageState.STREAMING}
    for message in path[last + 1 :]:
        if message.state is MessageState.STREAMING and message.id not in ended:
            raise SamovarError("the reply is being written in another window")
    with store.transaction():
        turn = _another_reply(store, session, path[: last + 1])
        return _without_empty(store, turn, path[last + 1 :])


def store_going_on(store: Store, session_id: str, message_id: int) -> Turn:
    """Reopen a reply that was cut, to go on with it. It has to be the end of its branch."""
    session = store.session(session_id)
    path = store.messages.path_to(message_id)
    if len(path) < 2 or not path[-1].content:
        raise SamovarError("there is no beginning of a reply to go on with: answer again instead")
    if store.messages.newest_leaf(message_id) != message_id:
        raise SamovarError("the chat goes on after this reply: only a last one can be gone on with")
    reply = store.messages.reopen(message_id)
    return Turn(session, path[:-2], path[-2], reply, store.compactions.of(session_id))


def store_end(store: Store, reply: StoredMessage) -> None:
    """Store a reply as it ended."""
    store.messages.finish_reply(
        reply.id,
        reply.content,
        reply.state,
        tokens=reply.tokens,
        tokenizer=reply.tokenizer,
        stats=reply.stats,
        error=reply.error,
        model=reply.model,
    )


def session_or_none(store: Store, session_id: str) -> Session | None:
    """The chat with this id, None if there is none (any more)."""
    try:
        return store.session(session_id)
    except SamovarError:
        return None


def _another_reply(store: Store, session: Session, path: list[StoredMessage]) -> Turn:
    if not path or path[-1].role is not Role.USER:
        raise SamovarError("there is no message of yours to answer here")
    reply = store.messages.add_reply(session.id, path[-1].id, session.head_id)
    if reply is None:
        raise SamovarError("another window has just gone on with this chat")
    return Turn(session, path[:-1], path[-1], reply, store.compactions.of(session.id))


def _without_empty(store: Store, turn: Turn, replaced: Sequence[StoredMessage]) -> Turn:
    """Take replies that brought nothing out of sight: they are no version that anybody goes back to."""
    for message in replaced[:1]:
        if not message.content:
            store.messages.delete_branch(message.id)
    return msgspec.structs.replace(turn, reply=store.messages.message(turn.reply.id))
