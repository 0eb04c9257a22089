"""Rows of the database as values, and values as columns."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from samovar.core.chat import Role
from samovar.sessions.database import Database
from samovar.sessions.encoding import decode_stats, storable, unpack_tokens
from samovar.sessions.settings import SessionSettings
from samovar.sessions.values import Attachment, MessageState, Session, StoredMessage

_ROLES: Final = {role.value: role for role in Role}
_STATES: Final = {state.value: state for state in MessageState}
_NO_SETTINGS: Final = SessionSettings()


class _AttachmentRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """An `Attachment` without its text, which stands in `files`."""

    name: str
    digest: str
    path: str = ""
    num_tokens: int | None = None
    repeated: bool = False


_ATTACHMENTS: Final = msgspec.json.Decoder(tuple[_AttachmentRow, ...])


def session_of(row: tuple[Any, ...]) -> Session:
    """A row of `SELECT_SESSION`. Settings that another release wrote and nobody can read are left out."""
    session_id, title, prompt, created_at, updated_at, head_id, num_messages, settings, tags, *flags = row
    is_favourite, is_archived, is_deleted, revision = flags
    return Session(
        session_id,
        title,
        prompt,
        created_at,
        updated_at,
        head_id,
        num_messages,
        _NO_SETTINGS if settings == "{}" else decode_settings(settings),
        tuple(sorted(tags.split("\n"))) if tags else (),
        bool(is_favourite),
        bool(is_archived),
        bool(is_deleted),
        revision,
    )


def decode_settings(text: str) -> SessionSettings:
    """Settings from their JSON; the defaults where another release wrote other ones."""
    try:
        return msgspec.json.decode(text, type=SessionSettings)
    except (msgspec.DecodeError, RecursionError):
        return _NO_SETTINGS


def encode_settings(settings: SessionSettings) -> str:
    return msgspec.json.encode(settings).decode()


def messages_of(db: Database, rows: Sequence[tuple[Any, ...]]) -> list[StoredMessage]:
    """Rows of `MESSAGE_COLUMNS`, with the texts of their attachments."""
    listed = {row[0]: _listed(db, row[12]) for row in rows if row[12] != "[]"}
    texts = _texts(db, {attachment.digest for found in listed.values() for attachment in found})
    messages = []
    for row in rows:
        (message_id, session_id, parent_id, role, content, created_at, state, *costs) = row
        (tokens, tokenizer, stats, error, model, _, place, num_siblings) = costs
        try:
            message = StoredMessage(
                message_id,
                session_id,
                parent_id,
                _ROLES[role],
                content,
                created_at,
                _STATES[state],
                unpack_tokens(tokens) if tokens else (),
                tokenizer,
                decode_stats(stats),
                error,
                model,
                tuple(_with_text(item, texts) for item in listed.get(message_id, ())),
                place,
                num_siblings,
            )
        except KeyError as unknown:
            raise db.damaged(f"message {message_id} is marked {unknown}") from unknown
        messages.append(message)
    return messages


def encode_attachments(attachments: Iterable[Attachment]) -> str:
    """The column `attachments`; the texts go to `files` by `keep_files`."""
    listed = [
        _AttachmentRow(
            storable(one.name), one.digest, storable(one.path), one.num_tokens, repeated=one.repeated
        )
        for one in attachments
    ]
    return msgspec.json.encode(listed).decode()


def keep_files(db: Database, attachments: Iterable[Attachment]) -> None:
    """Within a transaction: store the texts that are not stored yet."""
    for one in attachments:
        db.change("INSERT OR IGNORE INTO files (digest, text) VALUES (?, ?)", one.digest, one.text)


def _listed(db: Database, column: str) -> tuple[_AttachmentRow, ...]:
    try:
        return _ATTACHMENTS.decode(column)
    except msgspec.DecodeError as error:
        raise db.damaged(f"an attachment: {error}") from error


def _texts(db: Database, digests: set[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for digest in digests:
        for (text,) in db.rows("SELECT text FROM files WHERE digest = ?", digest):
            texts[digest] = text
    return texts


def _with_text(row: _AttachmentRow, texts: Mapping[str, str]) -> Attachment:
    text = texts.get(row.digest, "")
    return Attachment(row.name, text, row.digest, row.path, row.num_tokens, repeated=row.repeated)
