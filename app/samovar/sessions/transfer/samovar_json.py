"""Chats as JSON: all there is of them, any number in one file. Pure.

    {"format": "samovar", "version": 1, "chats": [{"title": …, "messages": [{"id": 1, "role": …}, …]}, …]}

Names are those of `ChatDocument`. A large file may come as an `mmap`: only one chat at a time is decoded.
"""

import codecs
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Raw

from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.sessions.transfer import reading
from samovar.sessions.transfer.document import ChatDocument, MessageDocument
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.transfer.reading import Data, fault, json_value

FORMAT: Final = "samovar"
VERSION: Final = 1

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
    chats: list[Raw] = []
    problem = ""
    try:
        if bytes(view[:3]) == codecs.BOM_UTF8:
            view = view[3:]
        chats += _chats(view, notes)
        chats.reverse()
        num_chats = len(chats)
        while chats:
            number = num_chats - len(chats) + 1
            yield _chat(chats.pop(), f"chat {number}" if num_chats > 1 else "", notes)
    except SamovarError as error:
        problem = str(error)
    finally:
        chats.clear()
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


def _chats(view: memoryview, notes: Notes) -> list[Raw]:
    """The chats of the envelope, not decoded yet."""
    try:
        envelope = msgspec.json.decode(view, type=dict[str, Raw])
    except msgspec.ValidationError:
        envelope = {}  # a list or a number
    except msgspec.DecodeError as error:
        raise _malformed(view, error) from error
    except RecursionError as error:
        raise fault("", "values are nested too deep") from error
    except UnicodeDecodeError as error:
        raise fault("", "not UTF-8") from error
    named = json_value(envelope.pop("format", Raw(b"null")), "format")
    if named != FORMAT:
        raise SamovarError('this JSON is no export of Samovar: it lacks "format": "samovar" at its top level')
    version = json_value(envelope.pop("version", Raw(b"1")), "version")
    if version != VERSION or isinstance(version, bool):
        raise SamovarError(
            f"the file has version {clean(str(version))[:20]}, and this Samovar reads version {VERSION};"
            " import it with a newer Samovar"
        )
    chats: list[Raw] = json_value(envelope.pop("chats", Raw(b"[]")), "chats", list[Raw])
    for name in envelope:
        notes.add(f"values of the file that are not known are left out: {clean(name)}")
    return chats


def _malformed(view: memoryview, error: msgspec.DecodeError) -> SamovarError:
    said = str(error)
    place = re.search(r" \(byte (\d+)\)$", said)
    if place is None:
        return SamovarError(f"the file ends too early or is no JSON ({said}); export or copy it again")
    line, column = reading.position(view, int(place[1]))
    return fault(f"line {line}, byte {column}", said[: place.start()])


def _chat(raw: Raw, where: str, notes: Notes) -> ChatDocument:
    parts: dict[str, Raw] = json_value(raw, where, dict[str, Raw])
    listed: list[Raw] = json_value(
        parts.pop("messages", Raw(b"[]")), f"{where}, messages".removeprefix(", "), list[Raw]
    )
    messages = tuple(
        _message(item, f"{where}, message {number}".removeprefix(", "), notes)
        for number, item in enumerate(listed, start=1)
    )
    fields = {
        name: json_value(part, f"{where}, {clean(name)}".removeprefix(", ")) for name, part in parts.items()
    }
    return reading.chat_of(fields, messages, _extra(fields, _CHAT_NAMES, where), where, notes)


def _message(raw: Raw, where: str, notes: Notes) -> MessageDocument:
    fields = reading.table_of(json_value(raw, where), where)
    return reading.message_of(fields, _extra(fields, _MESSAGE_NAMES, where), where, notes)


def _extra(fields: dict[str, Any], known: frozenset[str], where: str) -> dict[str, Any]:
    """What is not known, beside what the file keeps as such."""
    given = reading.table_of(fields.pop("extra", {}), where)
    unknown = reading.without(fields, known)
    both = sorted(given.keys() & unknown.keys())
    if both:
        raise fault(where, f'"{both[0]}" stands both here and in "extra"')
    return unknown | given
