"""What reading a file of our own has in common: bytes to text, plain values to documents. Pure.

A file comes from anywhere, so every fault is a SamovarError of one sentence that says where and what to do.
"""

import codecs
from collections.abc import Mapping
from mmap import mmap
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.sessions.attachments import digest_of
from samovar.sessions.settings import SessionSettings, checked
from samovar.sessions.transfer.document import ChatDocument, MessageDocument, check
from samovar.sessions.transfer.notes import Notes

Data: TypeAlias = bytes | memoryview | mmap

MAX_TEXT_BYTES: Final = 128 * 1024 * 1024
"""The largest TOML or Markdown that is read: both are held in memory several times over."""

MAX_DEPTH: Final = 64
"""How deep values that we do not know may be nested, so that writing them can never fail."""

_MAX_ID: Final = 2**63 - 1
_MAX_TOKEN: Final = 2**32 - 1
_TIMES_S: Final = (-62_135_596_800.0, 253_402_300_799.0)  # years 1 to 9999
_ADVICE: Final = "correct it in an editor, then import it again"

T = TypeVar("T")


def fault(where: str, what: object) -> SamovarError:
    """The error for something that is wrong `where`, which may be empty; both may quote the file."""
    said = clean(str(what)).replace("\n", " ").rstrip(".")
    said = said if len(said) <= 200 else said[:199] + "…"
    return SamovarError(f"{where}: {said}; {_ADVICE}" if where else f"{said}; {_ADVICE}")


def text_of(data: Data, what: str) -> str:
    """The bytes as text, without a byte order mark. `what` names the format for SamovarError."""
    if len(data) > MAX_TEXT_BYTES:
        most = MAX_TEXT_BYTES // 1024**2
        raise SamovarError(f"{what} of more than {most} MiB is not read; export the chat as JSON instead")
    content = bytes(data).removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line, column = position(content, error.start)
        raise SamovarError(
            f"line {line}, byte {column}: not UTF-8; save the file as UTF-8, then import it again"
        ) from error


def position(data: Data, offset: int) -> tuple[int, int]:
    """Line and column in bytes, both from 1 on, of a byte of the file."""
    line, start = 1, 0
    for begin in range(0, offset, 1 << 20):
        chunk = bytes(data[begin : min(begin + (1 << 20), offset)])
        if b"\n" in chunk:
            line += chunk.count(b"\n")
            start = begin + chunk.rindex(b"\n") + 1
    return line, offset - start + 1


def table_of(value: object, where: str) -> dict[str, Any]:
    """The value as an object with names; SamovarError if it is something else."""
    if not isinstance(value, dict):
        raise fault(where, f"there must be named values here, not {_kind(value)}")
    return value


def list_of(value: object, where: str) -> list[Any]:
    """The value as a list; SamovarError if it is something else."""
    if not isinstance(value, list):
        raise fault(where, f"there must be a list here, not {_kind(value)}")
    return value


def without(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Takes out of `fields` what is not known, and returns it."""
    return {name: fields.pop(name) for name in list(fields) if name not in known}


def message_of(fields: dict[str, Any], extra: Mapping[str, Any], where: str, notes: Notes) -> MessageDocument:
    """A message from plain values under the names of `MessageDocument`; `extra` are those we do not know.

    Digests are made here: a file could name a text by the digest of another one.
    """
    if "attachments" in fields:
        fields["attachments"] = [
            _with_digest(table_of(item, where), where) for item in list_of(fields["attachments"], where)
        ]
    fields["extra"] = shallow(extra, where)
    message = _convert(fields, MessageDocument, where)
    for given in (*fields.get("attachments", ()), fields.get("stats")):
        known = message.stats if given is fields.get("stats") else message.attachments[0]
        for name in _unknown(given, msgspec.to_builtins(known)):
            notes.add(f"values of attachments and statistics that are not known are left out: {clean(name)}")
    return message


def chat_of(
    fields: dict[str, Any],
    messages: tuple[MessageDocument, ...],
    extra: Mapping[str, Any],
    where: str,
    notes: Notes,
) -> ChatDocument:
    """A chat from plain values under the names of `ChatDocument` and its messages, checked as a whole."""
    extra = dict(extra)
    if "settings" in fields:
        settings = fields["settings"] = dict(table_of(fields["settings"], where))
        unknown = without(settings, names_of(SessionSettings))
        if unknown:
            names = ", ".join(map(clean, unknown))
            notes.add(f"settings that are not known are kept, and change nothing: {names}")
            extra["settings"] = unknown | table_of(extra.get("settings", {}), where)
    fields["extra"] = shallow(extra, where)
    document = _convert(fields, ChatDocument, where)
    return accepted(msgspec.structs.replace(document, messages=messages), where)


def accepted(document: ChatDocument, where: str = "") -> ChatDocument:
    """The same document; SamovarError if it is no tree, or holds values that the store cannot."""
    try:
        check(document)
        checked(document.settings)
    except SamovarError as error:
        raise fault(where, error) from error
    _check_time(document.created_at, where)
    _check_time(document.updated_at, where)
    for compaction in document.compactions:
        _check_time(compaction.created_at, where)
    for message in document.messages:
        place = f"{where}, message {message.id}".removeprefix(", ")
        if not 1 <= message.id <= _MAX_ID:
            raise fault(place, "an id must be a whole number from 1 up")
        if message.tokens and not (min(message.tokens) >= 0 and max(message.tokens) <= _MAX_TOKEN):
            raise fault(place, "tokens must be whole numbers from 0 to 4294967295")
        _check_time(message.created_at, place)
    return document


def names_of(kind: type[msgspec.Struct]) -> frozenset[str]:
    """The names of a value's fields."""
    return frozenset(field.name for field in msgspec.structs.fields(kind))


def json_value(data: Data | str | msgspec.Raw, where: str, kind: object = Any) -> Any:  # noqa: ANN401 - any JSON
    """What this JSON says, as a value of type `kind`; SamovarError if it is none."""
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError as error:
        raise fault(where, "values are nested too deep") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise fault(where, said) from error


def _convert(fields: dict[str, Any], kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(fields, kind)
    except (msgspec.ValidationError, OverflowError) as error:
        said = str(error)
        if said.endswith("`$.role`"):
            said = 'role must be "system", "user" or "assistant"'
        elif said.endswith("`$.state`"):
            said = 'state must be "complete", "stopped", "cut" or "failed"'
        raise fault(where, said.replace("`$.", "`").replace(" - at ", " for ")) from error


def _with_digest(attachment: dict[str, Any], where: str) -> dict[str, Any]:
    text = attachment.get("text")
    if not isinstance(text, str):
        raise fault(where, "an attachment must have a text")
    return {"name": "", **attachment, "digest": digest_of(text)}


def _unknown(given: object, kept: object) -> list[str]:
    """Names in `given` that are not in `kept`, also further inside."""
    if not isinstance(given, dict) or not isinstance(kept, dict):
        return []
    names = [name for name in given if name not in kept]
    return names + [name for key in given if key in kept for name in _unknown(given[key], kept[key])]


def shallow(extra: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same values; SamovarError where they are nested deeper than `MAX_DEPTH`."""
    waiting = [(value, 1) for value in extra.values()]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise fault(where, f"values are nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict | list):
            inner = value.values() if isinstance(value, dict) else value
            waiting += [(item, depth + 1) for item in inner if isinstance(item, dict | list)]
    return dict(extra)


def _check_time(time_s: float | None, where: str) -> None:
    if time_s is not None and not _TIMES_S[0] <= time_s <= _TIMES_S[1]:
        raise fault(where, f"{time_s} is no time in seconds since 1970")


def _kind(value: object) -> str:
    for kind, name in ((dict, "named values"), (list, "a list"), (str, "a text"), (type(None), "nothing")):
        if isinstance(value, kind):
            return name
    return "a number or a switch"
