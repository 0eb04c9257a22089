"""oterm's `store.db`: tables `chat` and `message`, as all its versions have had them.

Source: ggozad/oterm, `src/oterm/store/store.py` and `store/upgrades/` (messages had no id before 0.5.1 and no
images before 0.7.0; authors were `me` and `ollama` before 0.12.0). Chats have no times and no branches.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.settings import SessionSettings
from samovar.sessions.settings import checked as checked_settings
from samovar.sessions.transfer.branches import MAX_MESSAGES, Draft, grow
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.foreign import (
    FILES_LEFT_OUT,
    joined,
    kept,
    placeholder,
    role_of,
    text_of,
    try_decode,
)
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.transfer.sqlite_file import Row, SqliteFile, text

NAME: Final = "oterm"

_AUTHORS: Final = {"me": "user", "ollama": "assistant"}
_SETTINGS: Final = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "num_predict": "max_tokens",
}
"""Parameters of oterm (and of Ollama, before 0.15.0) with our names."""
_TAKEN_OF_CHAT: Final = frozenset({"id", "name", "system", "parameters"})
_TAKEN: Final = frozenset({"id", "chat_id", "author", "text", "images"})


def matches(file: SqliteFile) -> bool:
    """Whether the tables are oterm's."""
    return file.has("chat", "id", "name", "model") and file.has("message", "chat_id", "author", "text")


def count(file: SqliteFile) -> int:
    """How many chats there are."""
    return next((int(row[0]) for row in file.query("SELECT count(*) FROM chat")), 0)


def read(file: SqliteFile, notes: Notes) -> Iterator[ChatDocument]:
    """The chats, in the order in which they were begun."""
    places = file.places("message", "chat_id")
    for row in file.rows("chat", "ORDER BY id"):
        yield _read(file, row, places.pop(row["id"], []), notes)
    for _ in places:
        notes.add("messages of chats that are gone are left out")


def _read(file: SqliteFile, chat: Row, rowids: list[int], notes: Notes) -> ChatDocument:
    if len(rowids) > MAX_MESSAGES:
        raise SamovarError(f"it has more than {MAX_MESSAGES:,} messages, the most a chat can have")
    model = text(chat.get("model"))
    drafts: list[Draft] = []
    for ordinal, rowid in enumerate(rowids, 1):
        drafts.append(_draft(ordinal, file.row_at("message", rowid), model, notes))
    grown = grow(drafts, None, notes)
    parameters = try_decode(chat.get("parameters"))
    extra = kept(chat, notes, without=_TAKEN_OF_CHAT)
    if parameters or chat.get("parameters") not in (None, "", "{}"):
        extra.update(kept({"parameters": parameters or chat.get("parameters")}, notes))
    if grown.system_extra:
        extra["system_message"] = grown.system_extra
    return ChatDocument(
        title=" ".join(text_of(text(chat.get("name"))).split()),
        system_prompt=joined(text_of(text(chat.get("system"))), grown.system_prompt),
        settings=_settings(parameters if isinstance(parameters, dict) else {}, notes),
        head=grown.head,
        messages=grown.messages,
        source=f"oterm {text(chat.get('id'))}".strip(),
        extra=extra,
    )


def _draft(ordinal: int, row: Row, model: str, notes: Notes) -> Draft:
    author = text(row["author"])
    role, role_extra = role_of(_AUTHORS.get(author, author), str(ordinal), notes)
    images = try_decode(row.get("images"))
    shown: list[str] = []
    for image in images if isinstance(images, list) else ():
        notes.add(FILES_LEFT_OUT)
        # Before 0.7.0 there were none; since then they are the images themselves, encoded.
        shown.append(placeholder("image", image if isinstance(image, str) and len(image) < 200 else ""))
    return Draft(
        key=str(ordinal),
        parent=str(ordinal - 1) if ordinal > 1 else None,
        role=role,
        content=joined(text_of(text(row["text"])), *shown),
        model=model if role is Role.ASSISTANT else "",
        extra={
            **kept(row, notes, without=_TAKEN),
            **(kept({"images": images}, notes) if images else {}),
            **role_extra,
        },
    )


def _settings(parameters: dict[str, Any], notes: Notes) -> SessionSettings:
    """The parameters that we have too, without those that are not allowed here."""
    settings = SessionSettings()
    for theirs, ours in _SETTINGS.items():
        if theirs not in parameters:
            continue
        try:
            settings = settings.with_text(ours, str(parameters[theirs]))
        except SamovarError:
            notes.add("settings that Samovar does not allow are kept beside the chat")
    stops = parameters.get("stop")
    if isinstance(stops, list) and stops and all(isinstance(stop, str) for stop in stops):
        try:
            return checked_settings(msgspec.structs.replace(settings, stop=tuple(stops)))
        except SamovarError:
            notes.add("settings that Samovar does not allow are kept beside the chat")
    return settings
