"""ChatGPT's export: `conversations.json`, a list of conversations whose messages are a tree. Pure.

Who writes the format does not document it. Sources: the types in pionxzh/chatgpt-exporter (`src/api.ts`)
and mitkury/chatgpt-export-parser (`docs/chatgpt-data-export-format.md`). A conversation has a `mapping` from
ids to nodes (`message`, `parent`, `children`) and a `current_node`. Roots and hidden messages have no text.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.transfer.branches import Draft, grow
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.foreign import (
    FILES_LEFT_OUT,
    Fields,
    decode,
    fenced,
    joined,
    kept,
    key_of,
    placeholder,
    role_of,
    seconds,
    shown,
    text_of,
)
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.values import MessageState

NAME: Final = "ChatGPT"

_INSTRUCTIONS: Final = "user_editable_context"
_MEMORIES: Final = "model_editable_context"
_TAKEN: Final = frozenset(
    "title create_time update_time mapping current_node conversation_id is_archived is_starred".split()
)
_TAKEN_OF_MESSAGE: Final = frozenset("author content create_time".split())
_STATES: Final = {
    "interrupted": MessageState.STOPPED,
    "max_tokens": MessageState.CUT,
    "in_progress": MessageState.STOPPED,
}
_FILES: Final = {
    "image_asset_pointer": "image",
    "audio_asset_pointer": "audio",
    "video_container_asset_pointer": "video",
    "real_time_user_audio_video_asset_pointer": "audio and video",
}
_TEXTS: Final = ("text", "result", "summary", "content")
"""Where kinds of content that have no parts keep their text."""


class _Node(msgspec.Struct, frozen=True):
    """A node of `mapping`, as far as its types can be trusted."""

    key: str
    parent: str | None
    children: tuple[str, ...]
    message: dict[str, Any] | None


def matches(fields: Fields) -> bool:
    """Whether the object is a conversation."""
    return "mapping" in fields


def read(fields: Fields, notes: Notes) -> ChatDocument:
    """The conversation; SamovarError says what is wrong with it."""
    rest = {name: decode(raw, object) for name, raw in fields.items() if name != "mapping"}
    aside: dict[str, list[dict[str, Any]]] = {}
    drafts = [_draft(node, notes, aside) for node in _in_order(decode(fields["mapping"], Fields), notes)]
    current = rest.get("current_node")
    grown = grow(drafts, current if isinstance(current, str) else None, notes)
    extra = {**kept(rest, notes, without=_TAKEN), **kept(aside, notes)}
    if grown.system_extra:
        extra["system_message"] = grown.system_extra
    key = rest.get("conversation_id") or rest.get("id")
    return ChatDocument(
        title=" ".join(text_of(rest.get("title")).split()),
        system_prompt=joined(_prompt_of(aside.get(_INSTRUCTIONS, []), notes), grown.system_prompt),
        created_at=seconds(rest.get("create_time"), notes),
        updated_at=seconds(rest.get("update_time"), notes),
        is_archived=rest.get("is_archived") is True,
        is_favourite=rest.get("is_starred") is True,
        head=grown.head,
        messages=grown.messages,
        source=f"chatgpt {text_of(key)}".strip(),
        extra=extra,
    )


def _in_order(mapping: Fields, notes: Notes) -> Iterator[_Node]:
    """The nodes, siblings as their parent lists them. Who names no parent follows the one that lists it."""
    nodes = {key: _node(key, decode(raw, object)) for key, raw in mapping.items()}
    lister: dict[str, str] = {}
    for key, node in nodes.items():
        for child in node.children:
            if child in nodes and nodes[child].parent in (key, None):
                lister.setdefault(child, key)
    for key in (*lister, *(key for key in nodes if key not in lister)):
        node = nodes[key]
        if node.parent is None and key in lister:
            notes.add("messages that name no predecessor follow the one that lists them")
            node = msgspec.structs.replace(node, parent=lister[key])
        yield node


def _node(key: str, value: object) -> _Node:
    if not isinstance(value, dict):
        raise SamovarError(f"message {shown(key)} is no object")
    parent, children, message = value.get("parent"), value.get("children"), value.get("message")
    if message is not None and not isinstance(message, dict):
        raise SamovarError(f"message {shown(key)} is no object")
    return _Node(
        key=key,
        parent=None if parent is None else key_of(parent, "parent"),
        children=tuple(child for child in children if isinstance(child, str))
        if isinstance(children, list)
        else (),
        message=message,
    )


def _draft(node: _Node, notes: Notes, aside: dict[str, list[dict[str, Any]]]) -> Draft:
    """The node as a message. Instructions and memories, which are none, are put `aside`."""
    message = node.message
    if message is None:
        return Draft(key=node.key, parent=node.parent, hidden=True)
    author = _object(message.get("author"))
    metadata = _object(message.get("metadata"))
    content = _content(message.get("content"), node.key)
    kind = text_of(content.get("content_type"))
    if kind == _INSTRUCTIONS or metadata.get("is_user_system_message") is True:
        found = {**content, **_object(metadata.get("user_context_message_data"))}
        aside.setdefault(_INSTRUCTIONS, []).append(found)
        return Draft(key=node.key, parent=node.parent, hidden=True)
    if kind == _MEMORIES:
        if text_of(content.get("model_set_context")):
            notes.add("what ChatGPT remembers of you is kept beside the chat")
            aside.setdefault(_MEMORIES, []).append(content)
        return Draft(key=node.key, parent=node.parent, hidden=True)
    role, role_extra = role_of(author.get("role"), node.key, notes)
    text = _text(kind, content, metadata, notes)
    is_hidden = message.get("weight") == 0 or metadata.get("is_visually_hidden_from_conversation") is True
    is_thought = kind in ("thoughts", "reasoning_recap")
    if not text and not is_thought and (is_hidden or role is Role.SYSTEM):
        return Draft(key=node.key, parent=node.parent, hidden=True)
    if is_hidden and role is not Role.SYSTEM:
        notes.add("messages that ChatGPT does not show are kept")
    status = text_of(_object(metadata.get("finish_details")).get("type")) or text_of(message.get("status"))
    return Draft(
        key=node.key,
        parent=node.parent,
        role=role,
        content="" if kind == "reasoning_recap" else text,
        created_at=seconds(message.get("create_time"), notes),
        state=_STATES.get(status, MessageState.COMPLETE),
        model=text_of(metadata.get("model_slug")) if role is Role.ASSISTANT else "",
        extra={
            **kept(message, notes, without=_TAKEN_OF_MESSAGE),
            **_author_extra(author, notes),
            **_content_extra(kind, content, "" if is_thought else text, notes),
            **role_extra,
        },
        thought=is_thought and role is Role.ASSISTANT,
    )


def _text(kind: str, content: dict[str, Any], metadata: dict[str, Any], notes: Notes) -> str:
    match kind:
        case "code" | "execution_output":
            language = text_of(content.get("language"))
            text = text_of(content.get("text"))
            return (
                fenced(text, language if language.isalnum() and language != "unknown" else "") if text else ""
            )
        case "thoughts":
            thoughts = content.get("thoughts")
            return "\n\n".join(
                joined(text_of(thought.get("summary")), text_of(thought.get("content")))
                for thought in (thoughts if isinstance(thoughts, list) else ())
                if isinstance(thought, dict)
            )
        case "tether_quote":
            source = " ".join(text_of(content.get(name)) for name in ("title", "url")).strip()
            return joined(placeholder("quote", source), text_of(content.get("text")))
    parts = content.get("parts")
    if isinstance(parts, list):
        names = _file_names(metadata)
        return "\n".join(text for part in parts if (text := _part(part, names, notes)))
    for name in _TEXTS:
        if text := text_of(content.get(name)):
            return text
    if not kind or kind in ("text", "multimodal_text"):
        return ""
    notes.add("content of kinds that Samovar does not know is left out of the text and kept beside it")
    return placeholder(kind)


def _part(part: object, names: dict[str, str], notes: Notes) -> str:
    if isinstance(part, str):
        return text_of(part)
    if not isinstance(part, dict):
        return ""
    kind = text_of(part.get("content_type"))
    if kind == "audio_transcription" or (kind not in _FILES and text_of(part.get("text"))):
        return text_of(part.get("text"))
    notes.add(FILES_LEFT_OUT)
    pointer = text_of(part.get("asset_pointer")).rpartition("/")[2]
    return placeholder(_FILES.get(kind, kind or "file"), names.get(pointer, pointer))


def _file_names(metadata: dict[str, Any]) -> dict[str, str]:
    """The names of uploaded files by their ids."""
    attachments = metadata.get("attachments")
    return {
        text_of(file.get("id")): text_of(file.get("name"))
        for file in (attachments if isinstance(attachments, list) else ())
        if isinstance(file, dict) and text_of(file.get("name"))
    }


def _content_extra(kind: str, content: dict[str, Any], text: str, notes: Notes) -> dict[str, Any]:
    """What the content says beyond its text."""
    parts = content.get("parts")
    if kind == "text" and isinstance(parts, list) and all(isinstance(part, str) for part in parts):
        rest = {name: value for name, value in content.items() if name not in ("content_type", "parts")}
    else:
        rest = {
            name: value
            for name, value in content.items()
            if not (kind in ("code", "execution_output") and name == "text") and value != text
        }
    return {"content": found} if (found := kept(rest, notes)) else {}


def _author_extra(author: dict[str, Any], notes: Notes) -> dict[str, Any]:
    found = {name: value for name, value in kept(author, notes).items() if name != "role" and value != {}}
    return {"author": found} if found else {}


def _prompt_of(instructions: list[dict[str, Any]], notes: Notes) -> str:
    """The custom instructions, in the user's own words where the file has them without what frames them."""
    if not instructions:
        return ""
    notes.add("custom instructions became the system prompt")
    latest = instructions[-1]
    about_user = text_of(latest.get("about_user_message")) or text_of(latest.get("user_profile"))
    about_model = text_of(latest.get("about_model_message")) or text_of(latest.get("user_instructions"))
    return joined(about_user.strip(), about_model.strip())


def _content(value: object, key: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"content_type": "text", "parts": [value]}
    if value is not None and not isinstance(value, dict):
        raise SamovarError(f"the content of message {shown(key)} is no object")
    return value or {}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
