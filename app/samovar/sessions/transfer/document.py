"""A chat on its way in or out: what every format is read into and written from. Values only.

A `ChatDocument` holds a whole tree and nothing of the store: no row ids, no other chats. What a foreign file
says that has no place here goes to `extra` (JSON values under the file's own names) or is told in `notes`.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.request import RequestStats
from samovar.sessions.settings import SessionSettings
from samovar.sessions.values import Attachment, MessageState


class MessageDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message. `id` is its number within the chat, `parent` that of the message before it.

    `created_at` is seconds since the epoch, None where the file does not say. `tokens` are ids that a model
    generated for the content, valid under `tokenizer`. `extra` are JSON values that we do not know.
    """

    id: int
    parent: int | None = None
    role: Role
    content: str
    created_at: float | None = None
    state: MessageState = MessageState.COMPLETE
    model: str = ""
    error: str = ""
    attachments: tuple[Attachment, ...] = ()
    tokens: tuple[int, ...] = ()
    tokenizer: str = ""
    stats: RequestStats | None = None
    extra: dict[str, Any] = {}


_Count = Annotated[int, Meta(ge=0, le=2**53)]


class CompactionDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A summary of the messages up to and with the one whose id is `upto` (see `Compaction`)."""

    upto: int
    summary: str
    created_at: float | None = None
    num_messages: _Count = 0
    tokens_before: _Count = 0
    tokens_after: _Count = 0
    is_undone: bool = False
    model: str = ""


class ChatDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One chat. `messages` are in an order in which parents come first; `head` is the message shown last.

    A first message may have no parent; several make a forest, as editing a first message does. `source` says
    which program and id the chat comes from (`chatgpt 68f0…`), empty for our own.
    """

    title: str = ""
    system_prompt: str = ""
    created_at: float | None = None
    updated_at: float | None = None
    settings: SessionSettings = SessionSettings()
    tags: tuple[str, ...] = ()
    is_favourite: bool = False
    is_archived: bool = False
    head: int | None = None
    messages: tuple[MessageDocument, ...] = ()
    compactions: tuple[CompactionDocument, ...] = ()
    source: str = ""
    extra: dict[str, Any] = {}


def check(document: ChatDocument) -> ChatDocument:
    """The same document; SamovarError if it is no tree: an id twice, a parent that does not come before.

    No STREAMING message comes in: nobody writes it.
    """
    seen = set[int]()
    for message in document.messages:
        if message.id in seen:
            raise SamovarError(f"two messages have the id {message.id}")
        if message.parent is not None and message.parent not in seen:
            raise SamovarError(
                f"message {message.id} follows {message.parent}, which does not come before it"
            )
        if message.state is MessageState.STREAMING:
            raise SamovarError(f"message {message.id} is in the state “streaming”, which is none of a file")
        seen.add(message.id)
    if document.head is not None and document.head not in seen:
        raise SamovarError(f"head is {document.head}, and there is no such message")
    for compaction in document.compactions:
        if compaction.upto not in seen:
            raise SamovarError(f"a summary goes up to {compaction.upto}, and there is no such message")
    return document
