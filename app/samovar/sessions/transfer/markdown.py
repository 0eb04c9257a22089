"""The shown path of a chat as Markdown, for people; what we wrote can be read again. Pure.

    <!-- samovar: chat {"version": 1, "title": "Trip to Kyoto"} -->
    # Trip to Kyoto

    <!-- samovar: message {"role": "user", "created_at": 1795328613.0} -->
    ## User, 2026-11-22 06:23 UTC

    What is worth seeing in March?

    <!-- samovar: end {} -->

A part goes from its mark to the next one: a heading, an empty line, the text exactly as it is, an empty line.
Where a text holds such a mark itself, a backslash keeps it apart. Marks are comments, so nobody sees them.
"""

import codecs
import datetime as dt
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final, TypeAlias

from markdown_it import MarkdownIt

from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.sessions.transfer import reading
from samovar.sessions.transfer.document import ChatDocument, MessageDocument
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.transfer.reading import Data, fault, json_value, table_of
from samovar.sessions.values import Attachment, MessageState

VERSION: Final = 1
BRANCH_NOTE: Final = (
    "{messages} of other branches {are} not in this file; an export as JSON or TOML holds all."
)

_MARK: Final = re.compile(r"^<!-- samovar: ([a-z]+) (\{[^<>\r\n]*\}) -->\n", re.MULTILINE)
_HEADING: Final = re.compile(r"#{1,3} [^\n]*\n\n")
_LINE_END: Final = re.compile(r"(\r\n|\r|\n)")
_MAX_HEADING: Final = 200
_MESSAGE_NAMES: Final = frozenset(("role", "created_at", "model", "state", "error"))
_CHAT_NAMES: Final = frozenset(("title", "created_at", "updated_at", "tags"))
_Message: TypeAlias = tuple[dict[str, Any], str, list[dict[str, Any]]]  # its mark, content, attachments
_STATES: Final = {
    MessageState.STOPPED: "stopped",
    MessageState.CUT: "cut off",
    MessageState.FAILED: "failed",
}


def matches(data: Data) -> bool:
    """Whether this is Markdown that we wrote; its beginning is read."""
    return bytes(data[:64]).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<!-- samovar: chat ")


def write(document: ChatDocument) -> str:
    """The path from the first message to the head; says how many messages of other branches there are."""
    return "".join(_parts(document))


def read(data: Data, notes: Notes) -> ChatDocument:
    """The chat of a file that `write` made; SamovarError says what is wrong, and where."""
    text = reading.text_of(data, "Markdown")
    if not matches(data):
        raise SamovarError(
            "this Markdown was not written by Samovar, so where a message begins is unknown; what can be"
            " imported are Samovar's own Markdown, JSON and TOML, and the exports of other programs as JSON"
            " or as a database"
        )
    text = text.lstrip()
    if text.partition("\n")[0].endswith("\r"):  # an editor has changed all ends of lines
        text = text.replace("\r\n", "\n")
    marks = list(_MARK.finditer(text if text.endswith("\n") else text + "\n"))
    if not marks or marks[-1][1] != "end":
        raise SamovarError("the file ends too early: its last line is missing; export or copy it again")
    chat: dict[str, Any] = {}
    system_prompt = ""
    messages: list[_Message] = []
    texts: list[str] = []
    line, counted = 1, 0
    for mark, following in itertools.pairwise(marks):
        line, counted = line + text.count("\n", counted, mark.start()), mark.start()
        where = f"line {line}"
        meta = table_of(json_value(mark[2], where), where)
        body = text[mark.end() : following.start()]
        if mark[1] == "chat":
            chat = meta
        elif mark[1] == "system":
            system_prompt = _unquoted(_content(body, where))
        elif mark[1] == "message":
            closer = meta.pop("closed", "")
            content = _content(body, where).removesuffix(f"\n{closer}" if closer else "")
            messages.append((meta, content, []))
        elif mark[1] == "attachment" and messages:
            texts.append(_attached(body, meta, texts, where))
            messages[-1][2].append(meta | {"text": texts[-1]})
        else:
            raise fault(where, f"a part of the kind {mark[1]} cannot stand here")
    if text[marks[-1].end() :].strip():
        notes.add("what stands below the last line of the export is left out")
    return _document(chat, system_prompt, messages, notes)


# Writing


def _parts(document: ChatDocument) -> Iterator[str]:
    path = _path(document)
    left_out = len(document.messages) - len(path)
    meta = {
        "version": VERSION,
        "title": document.title,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
        "tags": list(document.tags),
        "left_out": left_out or None,
    }
    yield f"{_mark('chat', meta)}# {_plain(document.title) or 'Untitled chat'}\n\n"
    if document.tags:
        yield f"Tags: {', '.join(map(_plain, document.tags))}\n\n"
    if left_out:
        messages, are = ("1 message", "is") if left_out == 1 else (f"{left_out:,} messages", "are")
        yield f"*{BRANCH_NOTE.format(messages=messages, are=are)}*\n\n"
    if document.system_prompt:
        quoted = _LINE_END.sub(r"\1> ", _escaped(document.system_prompt))
        yield f"{_mark('system', {})}## System prompt\n\n> {quoted}\n\n"
    texts: dict[str, int] = {}
    numbers = itertools.count(1)
    for message in path:
        yield from _message_part(message)
        for attachment in message.attachments:
            yield _attachment_part(attachment, next(numbers), texts)
    yield "<!-- samovar: end {} -->\n"


def _path(document: ChatDocument) -> list[MessageDocument]:
    """From the first message to the head."""
    by_id = {message.id: message for message in document.messages}
    path: list[MessageDocument] = []
    number = document.head
    while number is not None:
        path.append(by_id[number])
        number = by_id[number].parent
    return path[::-1]


def _message_part(message: MessageDocument) -> Iterator[str]:
    closer = _closer(message.content)
    meta = {
        "role": message.role.value,
        "created_at": message.created_at,
        "model": message.model,
        "state": "" if message.state is MessageState.COMPLETE else message.state.value,
        "error": message.error,
        "closed": closer,
    }
    heading = [message.role.value.capitalize(), _time(message.created_at), _plain(message.model)]
    if message.state in _STATES:
        heading.append(f"{_STATES[message.state]}: {_plain(message.error)}".removesuffix(": "))
    yield f"{_mark('message', meta)}## {', '.join(filter(None, heading))}\n\n"
    yield _escaped(message.content) + (f"\n{closer}" if closer else "") + "\n\n"


def _attachment_part(attachment: Attachment, number: int, texts: dict[str, int]) -> str:
    """The attachment of this number with its text; a text that stands above already is only named."""
    above = texts.get(attachment.text, 0) if attachment.repeated else 0
    texts.setdefault(attachment.text, number)
    meta = {
        "name": attachment.name,
        "path": attachment.path,
        "num_tokens": attachment.num_tokens,
        "repeated": attachment.repeated or None,
        "same_as": above or None,
    }
    head = f"{_mark('attachment', meta)}### Attachment: {_plain(attachment.name) or 'pasted text'}\n\n"
    if above:
        return f"{head}The same text as above.\n\n"
    text = _escaped(attachment.text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    suffix = PurePath(attachment.name).suffix
    language = suffix[1:] if re.fullmatch(r"\.[A-Za-z0-9_+]{1,12}", suffix) else ""
    return f"{head}{fence}{language}\n{text}\n{fence}\n\n"


def _mark(kind: str, meta: dict[str, Any]) -> str:
    """A part's mark. Its JSON holds no `<` or `>`, so it cannot end the comment."""
    given = {name: value for name, value in meta.items() if value is not None and value not in ("", [])}
    text = json.dumps(given).replace("<", "\\u003c").replace(">", "\\u003e")
    return f"<!-- samovar: {kind} {text} -->\n"


def _plain(text: str) -> str:
    """A text of one line that Markdown takes for nothing but text."""
    line = " ".join(clean(text).split())
    line = line if len(line) <= _MAX_HEADING else line[: _MAX_HEADING - 1] + "…"
    return re.sub(r"([\\`*_\[\]<>&#|~$!])", r"\\\1", line)


def _time(time_s: float | None) -> str:
    if time_s is None:
        return ""
    return dt.datetime.fromtimestamp(time_s, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _escaped(text: str) -> str:
    return re.sub(r"<!-- (\\*)samovar:", r"<!-- \\\1samovar:", text)


_FENCE_LINE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)
_HTML_LINE: Final = re.compile(r"^ {0,3}<(?:[!?]|script|pre|style|textarea)", re.MULTILINE | re.IGNORECASE)
_HTML_ENDS: Final = ("-->", "?>", "]]>", ">", "</pre>", "</script>", "</style>", "</textarea>")


def _closer(content: str) -> str:
    """The line that ends what a content leaves open, so that what follows is not drawn as a part of it.

    A reply that was cut off often ends within code. Empty where nothing is open, or nothing helps.
    """
    content = _LINE_END.sub("\n", content)
    if len(_FENCE_LINE.findall(content)) % 2 == 0 and not _HTML_LINE.search(content):
        return ""
    parser = MarkdownIt("commonmark").disable(["inline", "text_join"])
    fences = [token.markup for token in parser.parse(content) if token.type == "fence"][-1:]
    for closer in ("", *fences, *_HTML_ENDS):
        tokens = parser.parse(f"{content}\n{closer}\n\n# end\n" if closer else f"{content}\n\n# end\n")
        if [token.type for token in tokens[-3:]] == ["heading_open", "inline", "heading_close"]:
            return closer
    return ""


# Reading


def _content(body: str, where: str) -> str:
    heading = _HEADING.match(body)
    if heading is None or not body.endswith("\n\n") or len(body) < heading.end() + 2:
        raise fault(where, "a heading, an empty line, the text and an empty line must follow")
    return re.sub(r"<!-- \\(\\*)samovar:", r"<!-- \1samovar:", body[heading.end() : -2])


def _unquoted(text: str) -> str:
    return re.sub(r"(\r\n|\r|\n)> ?", r"\1", text.removeprefix("> "))


def _attached(body: str, meta: dict[str, Any], texts: list[str], where: str) -> str:
    """The text of an attachment: between its fences, or that of an earlier one."""
    above = meta.pop("same_as", 0)
    if isinstance(above, int) and 1 <= above <= len(texts):
        return texts[above - 1]
    content = _content(body, where)
    opening = re.match("(`{3,})[^\n`]*\n", content)
    if opening is None or not content.endswith(f"\n{opening[1]}"):
        raise fault(where, "the text of an attachment must stand between two fences")
    return content[opening.end() : -len(opening[1]) - 1]


def _document(
    chat: dict[str, Any], system_prompt: str, messages: list[_Message], notes: Notes
) -> ChatDocument:
    left_out = chat.pop("left_out", 0)
    if left_out:
        notes.add(
            f"messages of other branches were left out when the file was written: {clean(str(left_out))[:20]}"
        )
    version = chat.pop("version", VERSION)
    if version != VERSION:
        raise SamovarError(
            f"the file has version {clean(str(version))[:20]}, and this Samovar reads version {VERSION};"
            " import it with a newer Samovar"
        )
    documents = []
    for number, (fields, content, attachments) in enumerate(messages, start=1):
        extra = reading.without(fields, _MESSAGE_NAMES)
        fields |= {"id": number, "parent": number - 1 or None, "content": content, "attachments": attachments}
        documents.append(reading.message_of(fields, extra, f"message {number}", notes))
    extra = reading.without(chat, _CHAT_NAMES)
    chat |= {"system_prompt": system_prompt, "head": len(documents) or None}
    return reading.chat_of(chat, tuple(documents), extra, "", notes)
