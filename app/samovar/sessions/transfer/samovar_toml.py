"""One chat as TOML: all there is of it, made to be read and edited by hand. Pure.

    format = "samovar-chat"
    version = 1
    title = "Trip to Kyoto"

    [[messages]]
    role = "user"
    content = "What is worth seeing in March?"

Every name may be left out but the messages' `role` and `content`. A message follows the one above it, unless
`parent` names the id of another one (0: none); `head` is the id of the message shown last, by default the
last one of the file (0: none). Messages without an `id` are numbered 1, 2, 3 … around the ids that are given.
What TOML cannot hold stands as JSON in a text (`extra`), token ids as base64 of little-endian 32-bit numbers.
"""

import base64
import binascii
import codecs
import datetime as dt
import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from samovar.core.errors import SamovarError
from samovar.core.request import RequestStats
from samovar.core.safe_text import clean
from samovar.sessions.encoding import encode_stats, pack_tokens, unpack_tokens
from samovar.sessions.transfer import reading
from samovar.sessions.transfer.document import ChatDocument, CompactionDocument, MessageDocument
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.transfer.reading import Data, fault, json_value, list_of, table_of
from samovar.sessions.transfer.toml_text import lines, table, time_of
from samovar.sessions.values import MessageState

FORMAT: Final = "samovar-chat"
VERSION: Final = 1

_LOOK_BYTES: Final = 65_536
_MARK: Final = re.compile(
    rb"""^\s*(?:format\s*=\s*["']samovar-chat["']|\[\[\s*messages\s*\]\])""", re.MULTILINE
)

# Our names of TOML, where they differ from those of the documents.
_RENAMED: Final = {"favourite": "is_favourite", "archived": "is_archived"}
_CHAT_NAMES: Final = frozenset(
    "format version title created_at updated_at tags favourite archived head source system_prompt settings"
    " messages compactions extra".split()
)
_MESSAGE_NAMES: Final = reading.names_of(MessageDocument)


def matches(data: Data) -> bool:
    """Whether this looks like such a file; its beginning is read."""
    return _MARK.search(bytes(data[:_LOOK_BYTES]).removeprefix(codecs.BOM_UTF8)) is not None


def write(document: ChatDocument) -> bytes:
    """The chat as one file. Its message ids must be 1 or more, as `reading.accepted` holds."""
    ids = [message.id for message in document.messages]
    assert min(ids, default=1) >= 1, "0 stands for no message"
    last = ids[-1] if ids else None
    plain = {
        "format": FORMAT,
        "version": VERSION,
        "title": document.title,
        "created_at": time_of(document.created_at),
        "updated_at": time_of(document.updated_at),
        "tags": list(document.tags) or None,
        "favourite": document.is_favourite or None,
        "archived": document.is_archived or None,
        "head": None if document.head == last else document.head or 0,
        "source": document.source or None,
        "system_prompt": document.system_prompt or None,
    }
    parts = [*table(plain, document.extra, _CHAT_NAMES, "")]
    settings = msgspec.to_builtins(document.settings)
    if settings:
        parts += ["\n[settings]\n", *lines(settings)]
    for compaction in document.compactions:
        parts += ["\n[[compactions]]\n", *lines(_compaction_fields(compaction))]
    shown = _shown_ids(document)
    above = None
    for message in document.messages:
        parts += _message_parts(message, above, is_named=message.id in shown)
        above = message.id
    return "".join(parts).encode()


def read(data: Data, notes: Notes) -> ChatDocument:
    """The chat of a file; SamovarError says which line or message is at fault."""
    text = reading.text_of(data, "TOML")
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise fault("not valid TOML", error) from error
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else "a number with too many digits"
        raise fault("not valid TOML", what) from error
    if fields.get("format", FORMAT) != FORMAT:
        raise SamovarError(f'this TOML is no chat of Samovar: format must be "{FORMAT}"')
    if fields.get("version", VERSION) != VERSION:
        raise SamovarError(
            f"the file has version {clean(str(fields['version']))[:20]}, and this Samovar reads version"
            f" {VERSION}; import it with a newer Samovar"
        )
    if "messages" not in fields and "format" not in fields:
        raise SamovarError("this TOML is no chat of Samovar: it has no [[messages]]")
    extra = _extra(fields, _CHAT_NAMES, "", notes)
    tables = [table_of(item, "messages") for item in list_of(fields.pop("messages", []), "messages")]
    ids = _ids([_number(table, "id", f"message {n}") or None for n, table in enumerate(tables, start=1)])
    above = [None, *ids]
    messages = tuple(
        _message(table, number, parent, notes)
        for table, number, parent in zip(tables, ids, above, strict=False)
    )
    fields = {
        _RENAMED.get(name, name): value for name, value in fields.items() if name not in ("format", "version")
    }
    head = _number(fields, "head", "")
    fields["head"] = above[-1] if head is None else head or None
    for name in ("created_at", "updated_at"):
        if name in fields:
            fields[name] = _seconds(fields[name], name)
    for one in list_of(fields.get("compactions", []), "compactions"):
        if "created_at" in table_of(one, "compactions"):
            one["created_at"] = _seconds(one["created_at"], "compactions")
    return reading.chat_of(fields, messages, extra, "", notes)


# Ids


def _ids(given: Sequence[int | None]) -> list[int]:
    """Every message's id: those given, and between them 1, 2, 3 … without those given."""
    taken = {number for number in given if number is not None}
    free = (number for number in itertools.count(1) if number not in taken)
    return [next(free) if number is None else number for number in given]


def _shown_ids(document: ChatDocument) -> frozenset[int]:
    """The messages whose id is written: those that others name, so that a message put in by hand moves no
    branch; all, where the others' numbers would not come back.
    """
    ids = [message.id for message in document.messages]
    named = {
        message.parent
        for above, message in zip([None, *ids], document.messages, strict=False)
        if message.parent is not None and message.parent != above
    }
    if document.head is not None and document.head != ids[-1]:
        named.add(document.head)
    named |= {compaction.upto for compaction in document.compactions}
    return frozenset(named if _ids([number if number in named else None for number in ids]) == ids else ids)


# Writing


def _compaction_fields(compaction: CompactionDocument) -> dict[str, Any]:
    return {
        "upto": compaction.upto,
        "created_at": time_of(compaction.created_at),
        "num_messages": compaction.num_messages,
        "tokens_before": compaction.tokens_before,
        "tokens_after": compaction.tokens_after,
        "is_undone": compaction.is_undone or None,
        "model": compaction.model or None,
        "summary": compaction.summary,
    }


def _message_parts(message: MessageDocument, above: int | None, *, is_named: bool) -> Iterator[str]:
    plain = {
        "id": message.id if is_named else None,
        "parent": None if message.parent == above else message.parent or 0,
        "role": message.role.value,
        "created_at": time_of(message.created_at),
        "state": None if message.state is MessageState.COMPLETE else message.state.value,
        "model": message.model or None,
        "error": message.error or None,
        "content": message.content,
        "stats": None if message.stats is None else _stats_text(message.stats),
        "tokenizer": message.tokenizer or None,
        "tokens": base64.b64encode(pack_tokens(message.tokens)).decode() or None,
    }
    yield "\n[[messages]]\n"
    yield from table(plain, message.extra, _MESSAGE_NAMES, "messages")
    for attachment in message.attachments:
        yield "\n[[messages.attachments]]\n"
        yield from lines(
            {
                "name": attachment.name,
                "path": attachment.path or None,
                "num_tokens": attachment.num_tokens,
                "repeated": attachment.repeated or None,
                "text": attachment.text,
            }
        )


def _stats_text(stats: RequestStats) -> str:
    """The stats as JSON, without what is as it is by default."""
    default = msgspec.to_builtins(RequestStats())
    given = msgspec.json.decode(encode_stats(stats), type=dict[str, Any])
    return msgspec.json.encode({name: given[name] for name in given if given[name] != default[name]}).decode()


# Reading


def _message(fields: dict[str, Any], number: int, above: int | None, notes: Notes) -> MessageDocument:
    where = f"message {number}"
    extra = _extra(fields, _MESSAGE_NAMES, where, notes)
    parent = _number(fields, "parent", where)
    fields |= {"id": number, "parent": above if parent is None else parent or None}
    if "created_at" in fields:
        fields["created_at"] = _seconds(fields["created_at"], where)
    if isinstance(fields.get("stats"), str):
        fields["stats"] = table_of(json_value(fields["stats"], f"{where}, stats"), f"{where}, stats")
    if isinstance(fields.get("tokens"), str):
        fields["tokens"] = _tokens(fields["tokens"], where)
    return reading.message_of(fields, extra, where, notes)


def _extra(fields: dict[str, Any], known: frozenset[str], where: str, notes: Notes) -> dict[str, Any]:
    """What is not known, as JSON values, beside what the file keeps as such."""
    given = fields.pop("extra", {})
    if isinstance(given, str):
        given = json_value(given, f"{where}, extra".removeprefix(", "))
    given = table_of(given, where)
    unknown = reading.without(fields, known)
    reading.shallow(unknown, where)
    return {name: _as_json(value, notes) for name, value in (unknown | given).items()}


def _as_json(value: Any, notes: Notes) -> Any:  # noqa: ANN401 - any value of TOML
    if isinstance(value, dict):
        return {name: _as_json(item, notes) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item, notes) for item in value]
    if isinstance(value, dt.date | dt.time) or (isinstance(value, float) and not math.isfinite(value)):
        notes.add("dates, inf and nan under names that are not known are kept as texts")
        return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
    return value


def _number(fields: dict[str, Any], name: str, where: str) -> int | None:
    value = fields.pop(name, None)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise fault(where, f"{name} must be a whole number, the id of a message")
    return value


def _seconds(value: object, where: str) -> object:
    """A date as seconds since the epoch; one without an offset is in UTC, to be the same everywhere."""
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if isinstance(value, dt.datetime):
        try:
            return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()
        except OverflowError as error:
            raise fault(where, "the time is out of range") from error
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise fault(where, "a time must be written as 2026-11-22T09:15:00Z, without quotes")


def _tokens(text: str, where: str) -> tuple[int, ...]:
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise fault(where, "tokens must be base64; take the line out if it was edited") from error
    if len(packed) % 4:
        raise fault(where, "tokens are cut off; take the line out if it was edited")
    return unpack_tokens(packed)
