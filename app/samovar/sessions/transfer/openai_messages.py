"""Messages as OpenAI's chat completions have them: `{"messages": […]}`, or the bare list. Pure.

Source: OpenAI's API description (openai/openai-openapi, `ChatCompletionRequestMessage` and
`FineTuneChatRequestInput`), and the fields that servers of the same protocol add (`reasoning_content`).
"""

from collections.abc import Sequence
from typing import Any, Final

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.transfer.branches import Draft, grow
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.foreign import (
    FILES_LEFT_OUT,
    TOOL_CALLS,
    Fields,
    Raw,
    decode,
    joined,
    kept,
    placeholder,
    role_of,
    seconds,
    text_of,
    tool_call_text,
    with_reasoning,
)
from samovar.sessions.transfer.notes import Notes

NAME: Final = "OpenAI messages"

_TITLES: Final = ("title", "name")
_TIMES: Final = ("created_at", "created", "create_time", "timestamp")
_REASONING: Final = ("reasoning_content", "reasoning")
_TEXT_PARTS: Final = {"text", "input_text", "output_text", "refusal"}
_FILE_PARTS: Final = {
    "image_url": ("image", ("url",)),
    "input_image": ("image", ("image_url", "file_id")),
    "input_audio": ("audio", ("format",)),
    "input_video": ("video", ("format",)),
    "video_url": ("video", ("url",)),
    "file": ("file", ("filename", "file_id")),
    "input_file": ("file", ("filename", "file_id")),
}
"""What such a part is called, and where its name stands: in the part or in the object of its own name."""


def matches(fields: Fields) -> bool:
    """Whether the object is a conversation."""
    return "messages" in fields


def is_message(fields: Fields) -> bool:
    """Whether the object is one message of a bare list."""
    return "role" in fields


def read(fields: Fields, notes: Notes) -> ChatDocument:
    """The conversation; SamovarError says what is wrong with it."""
    rest = {name: decode(raw, object) for name, raw in fields.items() if name != "messages"}
    messages = decode(fields["messages"], list[Raw])
    title_name = next((name for name in _TITLES if isinstance(rest.get(name), str)), "")
    time_name = next((name for name in _TIMES if name in rest), "")
    document = _read(messages, text_of(rest.get("model")), notes)
    key = rest.get("id")
    extra = kept(
        rest,
        notes,
        without=frozenset({title_name, time_name, "id"} if text_of(key) else {title_name, time_name}),
    )
    return ChatDocument(
        title=" ".join(text_of(rest.get(title_name)).split()),
        system_prompt=document.system_prompt,
        created_at=seconds(rest.get(time_name), notes),
        head=document.head,
        messages=document.messages,
        source=f"{document.source} {text_of(key)}".strip(),
        extra={**extra, **document.extra},
    )


def read_messages(messages: Sequence[Raw | memoryview], notes: Notes) -> ChatDocument:
    """The chat that a bare list of messages is."""
    return _read(messages, "", notes)


def _read(messages: Sequence[Raw | memoryview], model: str, notes: Notes) -> ChatDocument:
    drafts: list[Draft] = []
    for ordinal, raw in enumerate(messages, 1):
        value = decode(raw, object)
        if not isinstance(value, dict):
            raise SamovarError(f"message {ordinal} is no object")
        drafts.append(_draft(ordinal, value, model, notes))
    grown = grow(drafts, None, notes)
    return ChatDocument(
        system_prompt=grown.system_prompt,
        head=grown.head,
        messages=grown.messages,
        source="openai-messages",
        extra={"system_message": grown.system_extra} if grown.system_extra else {},
    )


def _draft(ordinal: int, message: dict[str, Any], model: str, notes: Notes) -> Draft:
    role, role_extra = role_of(message.get("role"), str(ordinal), notes)
    content = message.get("content")
    taken = {"role"}
    if not (isinstance(content, list) and any(not _is_text(part) for part in content)):
        taken.add("content")
    time_name = next((name for name in _TIMES if name in message), "")
    reasoning_name = next((name for name in _REASONING if isinstance(message.get(name), str)), "")
    if isinstance(message.get("model"), str):
        model = text_of(message.get("model"))
        taken.add("model")
    return Draft(
        key=str(ordinal),
        parent=str(ordinal - 1) if ordinal > 1 else None,
        role=role,
        content=with_reasoning(
            text_of(message.get(reasoning_name)),
            joined(_text(content, notes), _refusal(message), *_tool_calls(message, notes)),
        ),
        created_at=seconds(message.get(time_name), notes),
        model=model if role is Role.ASSISTANT else "",
        extra={
            **kept(message, notes, without=frozenset({*taken, time_name, reasoning_name})),
            **role_extra,
        },
    )


def _text(content: object, notes: Notes) -> str:
    if content is None or isinstance(content, str):
        return text_of(content)
    if not isinstance(content, list):
        raise SamovarError("the content of a message is neither a text nor a list of parts")
    return "\n".join(text for part in content if (text := _part(part, notes)))


def _is_text(part: object) -> bool:
    return isinstance(part, str) or (
        isinstance(part, dict) and text_of(part.get("type")) in _TEXT_PARTS and len(part) == 2
    )


def _part(part: object, notes: Notes) -> str:
    if isinstance(part, str):
        return text_of(part)
    if not isinstance(part, dict):
        raise SamovarError("a part of a message is no object")
    kind = text_of(part.get("type"))
    if kind in _TEXT_PARTS:
        return text_of(part.get("text")) or text_of(part.get("refusal"))
    notes.add(FILES_LEFT_OUT)
    what, names = _FILE_PARTS.get(kind, (kind or "part", ()))
    inner = part.get(kind)
    places = (part, inner) if isinstance(inner, dict) else (part,)
    found = (text_of(place.get(name)) for place in places for name in names)
    return placeholder(what, next((name for name in found if name), text_of(inner)))


def _refusal(message: dict[str, Any]) -> str:
    return text_of(message.get("refusal"))


def _tool_calls(message: dict[str, Any], notes: Notes) -> list[str]:
    calls = message.get("tool_calls")
    functions = [
        function
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, dict) and isinstance(function := call.get("function"), dict)
    ]
    if isinstance(message.get("function_call"), dict):
        functions.append(message["function_call"])
    if functions:
        notes.add(TOOL_CALLS)
    return [tool_call_text(function.get("name"), function.get("arguments")) for function in functions]
