"""llama.cpp's web interface: conversations as its pages export them. Pure.

Sources, all in ggml-org/llama.cpp:
- JSONL since 2026, a `session` line and one `message` line each
  (`tools/ui/src/lib/services/conversation-transfer.service.ts`);
- JSON before that, `{conv, messages}` or a list of these
  (`tools/server/webui/src/lib/types/database.d.ts`, `ExportedConversations`);
- the first page's `{id, lastModified, messages}`
  (`tools/server/webui/src/utils/storage.ts`, `LSConversation`).
Messages name their parent; the one of type `root` is empty.
"""

from collections.abc import Sequence
from typing import Any, Final

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.attachments import digest_of
from samovar.sessions.transfer.branches import Draft, grow
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.foreign import (
    FILES_LEFT_OUT,
    TOOL_CALLS,
    Fields,
    Raw,
    checked_text,
    decode,
    joined,
    kept,
    key_of,
    placeholder,
    role_of,
    seconds,
    text_of,
    tool_call_text,
    try_decode,
    with_reasoning,
)
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.values import Attachment

NAME: Final = "llama.cpp web interface"

_TAKEN_OF_CHAT: Final = frozenset("id name lastModified currNode type harness".split())
_TAKEN: Final = frozenset(
    "role content timestamp parent children convId type thinking reasoningContent extra".split()
)
_FILES: Final = {
    "IMAGE": "image",
    "imageFile": "image",
    "AUDIO": "audio",
    "audioFile": "audio",
    "VIDEO": "video",
}


def matches(fields: Fields) -> bool:
    """Whether the object is a conversation with its messages."""
    return ("conv" in fields and "messages" in fields) or _is_first_format(fields)


def is_session(fields: Fields) -> bool:
    """Whether the object is the line that begins a conversation in JSONL."""
    return "type" in fields and decode(fields["type"], object) == "session"


def _is_first_format(fields: Fields) -> bool:
    return "messages" in fields and "lastModified" in fields and "id" in fields and "conv" not in fields


def read(fields: Fields, notes: Notes) -> ChatDocument:
    """The conversation; SamovarError says what is wrong with it."""
    messages = decode(fields["messages"], list[Raw])
    if not _is_first_format(fields):
        return _read(decode(fields["conv"], object), messages, notes)
    conversation = {name: decode(raw, object) for name, raw in fields.items() if name != "messages"}
    return _read(conversation, messages, notes)


def read_session(session: Fields, lines: Sequence[Fields], notes: Notes) -> ChatDocument:
    """The conversation of a `session` line and the lines after it."""
    messages: list[Raw] = []
    for line in lines:
        kind = decode(line["type"], object) if "type" in line else None
        if kind == "message" and "message" in line:
            messages.append(line["message"])
        else:
            notes.add("lines that are neither session nor message are left out")
    return _read({name: decode(raw, object) for name, raw in session.items()}, messages, notes)


def _read(conversation: object, messages: Sequence[Raw], notes: Notes) -> ChatDocument:
    if not isinstance(conversation, dict):
        raise SamovarError("what should describe the conversation is no object")
    drafts: list[Draft] = []
    is_chain = False
    for raw in messages:
        message = decode(raw, object)
        if not isinstance(message, dict):
            raise SamovarError("a message is no object")
        is_chain = is_chain if drafts else "parent" not in message
        if is_chain:  # the first page's ids are times
            before = drafts[-1].key if drafts else None
            key = message.get("id", len(drafts) + 1)
            message = {"timestamp": message.get("id"), **message, "id": key, "parent": before}
        drafts.append(_draft(message, notes))
    current = conversation.get("currNode")
    grown = grow(drafts, str(current) if isinstance(current, (str, int)) else None, notes)
    extra = kept(conversation, notes, without=_TAKEN_OF_CHAT)
    if grown.system_extra:
        extra["system_message"] = grown.system_extra
    times = [message.created_at for message in grown.messages if message.created_at is not None]
    return ChatDocument(
        title=" ".join(text_of(conversation.get("name")).split()),
        system_prompt=grown.system_prompt,
        created_at=min(times, default=None),
        updated_at=seconds(conversation.get("lastModified"), notes),
        head=grown.head,
        messages=grown.messages,
        source=f"llama.cpp {text_of(conversation.get('id'))}".strip(),
        extra=extra,
    )


def _draft(message: dict[str, Any], notes: Notes) -> Draft:
    key = key_of(message.get("id"))
    parent = message.get("parent")
    before = None if parent in (None, "", -1) else key_of(parent, "parent")
    if message.get("type") == "root":
        return Draft(key=key, parent=before, hidden=True)
    role, role_extra = role_of(message.get("role"), key, notes)
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise SamovarError("the content of a message is no text")
    kind = text_of(message.get("type"))
    attachments, names, files = _files(message, key, notes)
    is_reply = role is Role.ASSISTANT
    return Draft(
        key=key,
        parent=before,
        role=role,
        content=with_reasoning(
            text_of(message.get("reasoningContent")) or text_of(message.get("thinking")),
            joined(text_of(content), *names, *_tool_calls(message, notes)),
        ),
        created_at=seconds(message.get("timestamp"), notes),
        model=text_of(message.get("model")) if is_reply else "",
        attachments=attachments,
        extra={
            **kept(message, notes, without=_TAKEN | {"model"} if is_reply else _TAKEN),
            **(kept({"extra": files}, notes) if files else {}),
            **({"type": kind} if kind not in ("", "text", "system") else {}),
            **role_extra,
        },
    )


def _files(
    message: dict[str, Any], key: str, notes: Notes
) -> tuple[tuple[Attachment, ...], list[str], list[Any]]:
    """What was attached: texts as attachments of ours, the others by name, and what else is said of them."""
    attached = message.get("extra")
    attachments: list[Attachment] = []
    names: list[str] = []
    rest: list[Any] = []
    for file in attached if isinstance(attached, list) else [] if attached is None else [attached]:
        if not isinstance(file, dict):
            rest.append(file)
            continue
        kind, name, text = (text_of(file.get(field)) for field in ("type", "name", "content"))
        if text and kind not in _FILES:
            text = checked_text(text, key)
            attachments.append(Attachment(" ".join(name.split()) or "pasted text", text, digest_of(text)))
        else:
            notes.add(FILES_LEFT_OUT)
            names.append(placeholder(_FILES.get(kind, kind or "file"), name))
        rest.append({field: value for field, value in file.items() if field != "content" or not text})
    return tuple(attachments), names, rest


def _tool_calls(message: dict[str, Any], notes: Notes) -> list[str]:
    calls = message.get("toolCalls") or message.get("tool_calls")
    if isinstance(calls, str):
        calls = try_decode(calls)
    shown: list[str] = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            notes.add(TOOL_CALLS)
            shown.append(tool_call_text(function.get("name"), function.get("arguments")))
    return shown
