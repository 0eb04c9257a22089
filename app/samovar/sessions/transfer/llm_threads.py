"""`llm`'s tables since its migration m023: messages named by a hash of their content, shared by threads.

Source: simonw/llm, `llm/migrations.py` (m023 to m027), `llm/logs.py` and `docs/logging.md` (its section on
the message store). A thread points at its last message, a turn (one call of a model) at the last message it
was given and the last it wrote; a message names its parent and has parts. Threads that share messages become
whole chats.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from samovar.core.chat import Role
from samovar.sessions.transfer.branches import MAX_MESSAGES, Draft, grow
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.foreign import (
    FILES_LEFT_OUT,
    TOOL_CALLS,
    joined,
    kept,
    placeholder,
    role_of,
    seconds,
    text_of,
    tool_call_text,
    try_decode,
    with_reasoning,
)
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.transfer.sqlite_file import Row, SqliteFile, quoted, text

PAYLOADS: Final = ("prompt_json", "response_json")
"""What was sent and received, word for word: as much again as all the rest."""
_TAKEN_OF_THREAD: Final = frozenset({"id", "name", "tip_message_hash", "datetime_utc"})
_TAKEN_OF_TURN: Final = frozenset(
    "thread_id parent_message_hash tip_message_hash model datetime_utc schema_id "
    "options_json token_details".split()
)


class Fragment(msgspec.Struct, frozen=True):
    """A text that prompts are built from; `name` says where it comes from."""

    name: str
    content: str


class _Message(msgspec.Struct, frozen=True):
    parent: str | None
    rowid: int


class _Origin(msgspec.Struct, frozen=True):
    """Which call of a model wrote or first saw a message."""

    model: str
    created_at: float | None
    wrote_it: bool


def matches(file: SqliteFile) -> bool:
    """Whether the file has these tables."""
    return (
        file.has("threads", "id", "tip_message_hash")
        and file.has("messages", "hash", "parent_hash", "role")
        and file.has("parts", "message_hash", "type", "text", "payload")
    )


def read(file: SqliteFile, notes: Notes) -> Iterator[ChatDocument]:
    """A chat for each thread, with the branches that its turns left behind."""
    return _Threads(file, notes).chats()


class _Threads:
    def __init__(self, file: SqliteFile, notes: Notes) -> None:
        self._file = file
        self._notes = notes
        note_payloads(file, "turns", notes)
        self._parts = file.places("parts", "message_hash", "position")
        self._messages = {
            text(key): _Message(None if parent is None else text(parent), rowid)
            for key, parent, rowid in file.query("SELECT hash, parent_hash, rowid FROM messages")
        }
        self._origins: dict[str, _Origin] = {}
        self._turns: dict[str, list[tuple[int, str]]] = {}
        if file.has("turns", "thread_id", "parent_message_hash", "tip_message_hash", "model", "datetime_utc"):
            self._find_origins()

    def chats(self) -> Iterator[ChatDocument]:
        for row in self._file.rows("threads", "ORDER BY id"):
            yield self._chat(row)

    def _find_origins(self) -> None:
        """Walk each turn backwards: what it wrote down to what it was given, then what was new of that."""
        columns = "rowid, thread_id, parent_message_hash, tip_message_hash, model, datetime_utc"
        for rowid, thread, given, tip, model, moment in self._file.query(
            f"SELECT {columns} FROM turns ORDER BY rowid"
        ):
            self._turns.setdefault(text(thread), []).append((rowid, text(tip)))
            created_at = seconds(moment, self._notes)
            for start, end, wrote_it in ((text(tip), text(given), True), (text(given), "", False)):
                origin = _Origin(text(model), created_at, wrote_it)
                key: str | None = start
                while key and key != end and key in self._messages and key not in self._origins:
                    self._origins[key] = origin
                    key = self._messages[key].parent

    def _chat(self, thread: Row) -> ChatDocument:
        key, tip = text(thread["id"]), text(thread["tip_message_hash"])
        turns = self._turns.get(key, [])
        turn_of = {turn_tip: rowid for rowid, turn_tip in turns}
        drafts = [
            self._draft(each, turn_of.get(each))
            for each in self._reached([turn_tip for _, turn_tip in turns] + [tip])
        ]
        grown = grow(drafts, tip, self._notes)
        times = [message.created_at for message in grown.messages if message.created_at is not None]
        began = seconds(thread.get("datetime_utc"), self._notes)
        extra = kept(thread, self._notes, without=_TAKEN_OF_THREAD)
        if grown.system_extra:
            extra["system_message"] = grown.system_extra
        return ChatDocument(
            title=" ".join(text(thread.get("name")).split()),
            system_prompt=grown.system_prompt,
            created_at=began if began is not None else min(times, default=None),
            updated_at=max(times, default=None),
            head=grown.head,
            messages=grown.messages,
            source=f"llm {key}".strip(),
            extra=extra,
        )

    def _reached(self, tips: list[str]) -> list[str]:
        """The messages from the beginning to these, each once, parents first."""
        found: dict[str, None] = {}
        for tip in tips:
            chain: list[str] = []
            key: str | None = tip
            while key and key in self._messages and key not in found and len(found) <= MAX_MESSAGES:
                found[key] = None
                chain.append(key)
                key = self._messages[key].parent
            for each in reversed(chain):  # moves it behind its parent
                del found[each]
                found[each] = None
        return list(found)

    def _draft(self, key: str, turn: int | None) -> Draft:
        message = self._messages[key]
        row = self._file.row_at("messages", message.rowid)
        role, role_extra = role_of(row["role"], key, self._notes)
        origin = self._origins.get(key)
        thoughts: list[str] = []
        texts: list[str] = []
        payloads: list[dict[str, Any]] = []
        for place in self._parts.get(row["hash"], []):
            part = self._file.row_at("parts", place)
            kind = text(part["type"])
            payload = _object(part["payload"])
            (thoughts if kind == "reasoning" else texts).append(self._text(kind, part, payload))
            payload = {name: value for name, value in payload.items() if name not in ("text_ref", "text")}
            if payload or kind not in ("text", "reasoning"):
                payloads.append({"type": kind, **payload})
        return Draft(
            key=key,
            parent=message.parent,
            role=role,
            content=with_reasoning(joined(*thoughts), joined(*texts)),
            created_at=origin.created_at if origin else None,
            model=origin.model if origin and origin.wrote_it and role is Role.ASSISTANT else "",
            extra={
                **kept({"parts": payloads or None}, self._notes),
                **kept({"provider_metadata": parsed(row.get("provider_metadata"))}, self._notes),
                **(self._turn_extra(turn) if turn is not None else {}),
                **role_extra,
            },
        )

    def _text(self, kind: str, part: Row, payload: dict[str, Any]) -> str:
        match kind:
            case "text" | "reasoning":
                pieces = payload.get("text_ref")
                if part["text"] is None and isinstance(pieces, list):
                    return "".join(self._piece(piece) for piece in pieces)
                return text(part["text"]) or text_of(payload.get("text"))
            case "tool_call":
                self._notes.add(TOOL_CALLS)
                return tool_call_text(payload.get("name"), payload.get("arguments"))
            case "tool_result":
                return f"[tool result: {text_of(payload.get('name'))}]\n{text_of(payload.get('output'))}"
            case "attachment":
                attachment = payload.get("attachment")
                key = attachment.get("id") if isinstance(attachment, dict) else None
                return attachment_text(self._file, key, self._notes)
        self._notes.add(
            "parts of kinds that Samovar does not know are left out of the text and kept beside it"
        )
        return placeholder(kind or "part")

    def _piece(self, piece: object) -> str:
        if not isinstance(piece, dict):
            return ""
        if "fragment" in piece:
            return "".join(
                each.content for each in fragments_of(self._file, [piece["fragment"]], self._notes)
            )
        return text_of(piece.get("literal"))

    def _turn_extra(self, turn: int) -> dict[str, Any]:
        row = self._file.row_at("turns", turn, without=PAYLOADS)
        objects = {name: parsed(row.get(name)) for name in ("options_json", "token_details")}
        schema = schema_of(self._file, row.get("schema_id"))
        return kept(
            {**row, **objects, "schema": schema}, self._notes, without=_TAKEN_OF_TURN - objects.keys()
        )


def note_payloads(file: SqliteFile, table: str, notes: Notes) -> None:
    """Note it if the table has requests and replies word for word, which nothing here reads."""
    for column in PAYLOADS:
        if file.has(table, column):
            sql = f"SELECT 1 FROM {quoted(table)} WHERE {quoted(column)} IS NOT NULL LIMIT 1"
            for _ in file.query(sql):
                notes.add(f"raw requests and replies ({column}) are left out, their texts are kept")


def fragments_of(file: SqliteFile, keys: list[object], notes: Notes) -> list[Fragment]:
    """The fragments with these ids, in this order."""
    found: list[Fragment] = []
    for key in keys:
        rows = file.rows("fragments", "WHERE id = ?", key) if isinstance(key, (int, str)) else iter(())
        row = next(rows, None)
        if row is None:
            notes.add("fragments that are gone are left out")
        else:
            found.append(Fragment(text(row.get("source")) or text(row.get("hash")), text(row.get("content"))))
    return found


def attachment_text(file: SqliteFile, key: object, notes: Notes) -> str:
    """What stands in a message for an attachment: `[image: /tmp/cat.png]`."""
    notes.add(FILES_LEFT_OUT)
    rows = file.rows("attachments", "WHERE id = ?", text(key), without=("content",))
    row = next(rows, {})
    kind = text(row.get("type")).partition("/")[0]
    name = text(row.get("path")) or text(row.get("url")) or text(key)
    return placeholder(kind if kind in ("image", "audio", "video") else "file", name)


def schema_of(file: SqliteFile, key: object) -> object:
    """The JSON schema that a reply had to follow, None if there was none."""
    if key is None or "schemas" not in file.tables:
        return None
    return parsed(next(file.rows("schemas", "WHERE id = ?", text(key)), {}).get("content"))


def parsed(value: object) -> object:
    """The JSON value of a column, the text itself if it is none, None if it is empty."""
    if value in (None, "", "{}"):
        return None
    found = try_decode(value)
    return value if found is None else found


def _object(value: object) -> dict[str, Any]:
    found = try_decode(value)
    return found if isinstance(found, dict) else {}
