"""The chats of a JSON or JSONL file of another program, recognized by its first record."""

import itertools
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from samovar.core.errors import SamovarError
from samovar.sessions.transfer import chatgpt, llama_web, openai_messages
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.foreign import Fields, Raw, decode, shown, try_decode
from samovar.sessions.transfer.json_file import JsonFile, fields_of
from samovar.sessions.transfer.notes import Notes

_Record = Raw | memoryview


class _Format(Protocol):
    """A module that reads one kind of JSON object as a chat."""

    NAME: str

    def matches(self, fields: Fields) -> bool: ...

    def read(self, fields: Fields, notes: Notes) -> ChatDocument: ...


_FORMATS: Final[tuple[_Format, ...]] = (chatgpt, llama_web, openai_messages)


class JsonChats(msgspec.Struct, frozen=True):
    """What a file holds. `chats` reads it, once."""

    format_name: str
    chats: Iterator[ChatDocument]


def recognized(file: JsonFile, notes: Notes) -> JsonChats | None:
    """The file's chats, None if its first record is of no known kind. SamovarError if it is not JSON."""
    records = file.records()
    first = next(records, None)
    if first is None:
        return JsonChats("JSON", iter(()))
    records = itertools.chain((first,), records)
    fields = fields_of(first)
    if fields is None:
        if not _is_list_of_messages(first):
            return None
        return JsonChats(openai_messages.NAME, _lists(records, notes))
    if llama_web.is_session(fields):
        return JsonChats(llama_web.NAME, _sessions(records, notes))
    for kind in _FORMATS:
        if kind.matches(fields):
            return JsonChats(kind.NAME, _objects(kind, records, notes))
    if openai_messages.is_message(fields):
        return JsonChats(openai_messages.NAME, _one_chat(records, notes))
    return None


def _objects(kind: _Format, records: Iterator[_Record], notes: Notes) -> Iterator[ChatDocument]:
    for ordinal, record in enumerate(records, 1):
        fields = fields_of(record)
        if fields is None or not kind.matches(fields):
            raise SamovarError(f"entry {ordinal} is no chat of the kind that the first one is ({kind.NAME})")
        try:
            document = kind.read(fields, notes)
        except SamovarError as error:
            raise _in_chat(ordinal, _title(fields), error) from error
        yield document


def _lists(records: Iterator[_Record], notes: Notes) -> Iterator[ChatDocument]:
    for ordinal, record in enumerate(records, 1):
        try:
            document = openai_messages.read_messages(decode(record, list[Raw]), notes)
        except SamovarError as error:
            raise _in_chat(ordinal, "", error) from error
        yield document


def _one_chat(records: Iterator[_Record], notes: Notes) -> Iterator[ChatDocument]:
    yield openai_messages.read_messages(tuple(records), notes)


def _sessions(records: Iterator[_Record], notes: Notes) -> Iterator[ChatDocument]:
    """A chat for each `session` line with the lines up to the next one."""
    ordinal = 0
    session: Fields = {}
    lines: list[Fields] = []
    for record in itertools.chain(records, (None,)):
        fields = fields_of(record) if record is not None else None
        if record is not None and fields is None:
            raise SamovarError(f"a line of chat {ordinal} is no object")
        if fields is not None and not llama_web.is_session(fields):
            lines.append(fields)
            continue
        if session:
            try:
                document = llama_web.read_session(session, lines, notes)
            except SamovarError as error:
                raise _in_chat(ordinal, _title(session), error) from error
            yield document
        ordinal += 1
        session, lines = fields or {}, []


def _in_chat(ordinal: int, title: str, error: SamovarError) -> SamovarError:
    return SamovarError(f"in chat {ordinal}{f' ({shown(title)})' if title else ''}, {error}")


def _title(fields: Fields) -> str:
    """What the chat is called, for a sentence about what is wrong with it."""
    conversation = try_decode(bytes(fields["conv"])) if "conv" in fields else None
    if isinstance(conversation, dict):
        return str(conversation.get("name") or "")
    named = (try_decode(bytes(fields[name])) for name in ("title", "name") if name in fields)
    return next((title for title in named if isinstance(title, str)), "")


def _is_list_of_messages(record: _Record) -> bool:
    try:
        messages = decode(record, list[Raw])
    except SamovarError:
        return False
    if not messages:
        return False
    fields = fields_of(messages[0])
    return fields is not None and openai_messages.is_message(fields)
