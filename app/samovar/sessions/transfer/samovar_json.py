"""Chats as JSON: all there is of them, any number in one file. Pure.

    {"format": "samovar", "version": 1, "chats": [{"title": …, "messages": [{"id": 1, "role": …}, …]}, …]}

Names are those of `ChatDocument`. A large file may come as an `mmap`: one chat is decoded at a time.
"""

import codecs
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Final

import msgspec

from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.sessions.transfer import reading
from samovar.sessions.transfer.document import ChatDocument, MessageDocument
from samovar.sessions.transfer.json_spans import Span, list_spans, member_spans, value_at
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.transfer.reading import Data, fault

FORMAT: Final = "samovar"
VERSION: Final = 1

_MAX_NAMES: Final = 100
# Decoded values take up to some twenty times their size in the file.
_MAX_CHAT_BYTES: Final = 512 * 1024**2
_MAX_VALUE_BYTES: Final = 64 * 1024**2
_LOOK_BYTES: Final = 4096
_MARK: Final = re.compile(rb'"format"\s*:\s*"samovar"')
_CHAT_NAMES: Final = reading.names_of(ChatDocument)
_MESSAGE_NAMES: Final = reading.names_of(MessageDocument)


def matches(data: Data) -> bool:
    """Whether this looks like such a file; its beginning and its end are read."""
    head = bytes(data[:_LOOK_BYTES])
    if not head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        return False
    return bool(_MARK.search(head) or _MARK.search(bytes(data[-_LOOK_BYTES:])))


def write(documents: Iterable[ChatDocument]) -> bytes:
    """The chats as one file: UTF-8, indented, token ids of a message on one line."""
    return b"".join(pieces(documents))


def pieces(documents: Iterable[ChatDocument]) -> Iterator[bytes]:
    """The same in pieces; only one chat at a time is asked for."""
    yield b'{\n  "format": "%s",\n  "version": %d,\n  "chats": [' % (FORMAT.encode(), VERSION)
    is_first = True
    for document in documents:
        yield b"\n    " if is_first else b",\n    "
        yield from _chat_parts(document)
        is_first = False
    yield b"]\n}\n" if is_first else b"\n  ]\n}\n"


def read(data: Data, notes: Notes) -> Generator[ChatDocument, None, None]:
    """The chats of a file, one after the other. SamovarError says which chat or message is at fault."""
    view = memoryview(data)
    problem = ""
    try:
        yield from _chats(view, notes)
    except SamovarError as error:
        problem = str(error)
    finally:
        del view
    # Raised here, where the error's traceback holds no part of `data`, so that an mmap can be closed.
    if problem:
        raise SamovarError(problem)


def _chat_parts(document: ChatDocument) -> Iterator[bytes]:
    fields = msgspec.to_builtins(msgspec.structs.replace(document, messages=()))
    head = _indented(fields, 2)
    if not document.messages:
        yield head
        return
    yield head.removesuffix(b"}").rstrip() + (b"," if fields else b"")
    yield b'\n      "messages": ['
    for index, message in enumerate(document.messages):
        yield b",\n        " if index else b"\n        "
        text = _indented(msgspec.structs.replace(message, tokens=()), 4)
        if message.tokens:
            tokens = ", ".join(map(str, message.tokens)).encode()
            text = text.removesuffix(b"}").rstrip() + b',\n          "tokens": [' + tokens + b"]\n        }"
        yield text
    yield b"\n      ]\n    }"


def _indented(value: object, depth: int) -> bytes:
    """The value as JSON, all lines but the first one moved in. JSON has no raw line break within a text."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return text.replace(b"\n", b"\n" + b"  " * depth)


def _chats(view: memoryview, notes: Notes) -> Iterator[ChatDocument]:
    start = len(codecs.BOM_UTF8) if bytes(view[:3]) == codecs.BOM_UTF8 else 0
    places: dict[str, Span] = {}
    for name, span in member_spans(view, (start, len(view)), ""):
        if name in places or len(places) == _MAX_NAMES:
            raise fault("", f'the name "{name}" is one too many at the top level')
        places[name] = span
        if name not in ("format", "version", "chats"):
            notes.add(f"values of the file that are not known are left out: {clean(name)[:60]}")
    if "format" not in places or value_at(view, places["format"], "format") != FORMAT:
        raise SamovarError('this JSON is no export of Samovar: it lacks "format": "samovar" at its top level')
    version = value_at(view, places["version"], "version") if "version" in places else VERSION
    if version != VERSION or isinstance(version, bool):
        raise SamovarError(
            f"the file has version {clean(str(version))[:20]}, and this Samovar reads version {VERSION};"
            " import it with a newer Samovar"
        )
    if "chats" in places:
        for number, span in enumerate(list_spans(view, places["chats"], "chats"), start=1):
            yield _chat(view, span, f"chat {number}", notes)


def _chat(view: memoryview, span: Span, where: str, notes: Notes) -> ChatDocument:
    _check_size(span, _MAX_CHAT_BYTES, where)
    fields: dict[str, Any] = {}
    messages: list[MessageDocument] = []
    for name, inner in member_spans(view, span, where):
        if name == "messages":
            for number, place in enumerate(list_spans(view, inner, f"{where}, messages"), start=1):
                messages.append(_message(view, place, f"{where}, message {number}", notes))
        else:
            _check_size(inner, _MAX_VALUE_BYTES, where)
            fields[name] = value_at(view, inner, f"{where}, {clean(name)[:60]}")
    return reading.chat_of(fields, tuple(messages), _extra(fields, _CHAT_NAMES, where), where, notes)


def _message(view: memoryview, span: Span, where: str, notes: Notes) -> MessageDocument:
    _check_size(span, _MAX_VALUE_BYTES, where)
    fields = reading.table_of(value_at(view, span, where), where)
    return reading.message_of(fields, _extra(fields, _MESSAGE_NAMES, where), where, notes)


def _check_size(span: Span, most: int, where: str) -> None:
    if span[1] - span[0] > most:
        raise SamovarError(
            f"{where} has more than {most // 1024**2} MiB, which is not read; take it out of the file"
        )


def _extra(fields: dict[str, Any], known: frozenset[str], where: str) -> dict[str, Any]:
    """What is not known, beside what the file keeps as such."""
    given = reading.table_of(fields.pop("extra", {}), where)
    unknown = reading.without(fields, known)
    both = sorted(given.keys() & unknown.keys())
    if both:
        raise fault(where, f'"{both[0]}" stands both here and in "extra"')
    return unknown | given
