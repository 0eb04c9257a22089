"""The `llm` command's `logs.db`: its three generations of tables.

Source: simonw/llm, `llm/migrations.py` and `docs/logging.md`. `log`, later `logs`, until m009: a row each
for a prompt and its response; `conversations` and `responses` from m010 on, with what hangs on them;
`threads` and `messages` from m023 on (see `llm_threads`). A file may hold several of them.
"""

from collections.abc import Iterator
from typing import Any, Final

from samovar.core.chat import Role
from samovar.sessions.transfer import llm_threads
from samovar.sessions.transfer.branches import Draft, grow
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.foreign import (
    TOOL_CALLS,
    joined,
    kept,
    seconds,
    tool_call_text,
    with_reasoning,
)
from samovar.sessions.transfer.llm_threads import (
    PAYLOADS,
    attachment_text,
    fragments_of,
    note_payloads,
    parsed,
)
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.transfer.sqlite_file import Row, SqliteFile, quoted, text

NAME: Final = "llm"

_OLD_TABLES: Final = ("log", "logs")
_TAKEN: Final = frozenset(
    "model prompt system response reasoning conversation_id datetime_utc timestamp schema_id "
    "options_json token_details".split()
)


def matches(file: SqliteFile) -> bool:
    """Whether the tables are `llm`'s."""
    return (
        (file.has("conversations", "id", "name") and file.has("responses", "id", "prompt", "response"))
        or llm_threads.matches(file)
        or any(file.has(table, "prompt", "response", "model") for table in _OLD_TABLES)
    )


def count(file: SqliteFile) -> int:
    """About how many chats there are."""
    tables = [table for table in ("conversations", "threads", *_OLD_TABLES) if table in file.tables]
    return sum(int(row[0]) for table in tables for row in file.query(f"SELECT count(*) FROM {quoted(table)}"))


def read(file: SqliteFile, notes: Notes) -> Iterator[ChatDocument]:
    """The chats, the oldest tables first."""
    for table in _OLD_TABLES:
        if file.has(table, "prompt", "response", "model"):
            yield from _old_chats(file, table, notes)
    threads = set(file.places("threads", "id")) if llm_threads.matches(file) else set()
    if file.has("responses", "id", "prompt", "response"):
        yield from _Responses(file, notes).chats(threads)
    if llm_threads.matches(file):
        yield from llm_threads.read(file, notes)


def _old_chats(file: SqliteFile, table: str, notes: Notes) -> Iterator[ChatDocument]:
    """Rows with the same `chat_id`, which is the id of the first of them."""
    note_payloads(file, table, notes)
    chats: dict[object, list[int]] = {}
    if file.has(table, "chat_id"):
        for rowid, chat in file.query(f"SELECT rowid, chat_id FROM {quoted(table)} ORDER BY rowid"):
            chats.setdefault(rowid if chat is None else chat, []).append(rowid)
    else:
        chats = {
            rowid: [rowid] for (rowid,) in file.query(f"SELECT rowid FROM {quoted(table)} ORDER BY rowid")
        }
    for key, rowids in chats.items():
        drafts: list[Draft] = []
        for rowid in rowids:
            row = file.row_at(table, rowid, without=PAYLOADS)
            _append_turn(drafts, row, notes, prompt=text(row.get("prompt")), system=text(row.get("system")))
        yield _document(drafts, notes, source=f"llm {table} {text(key)}")


class _Responses:
    """`responses` with what hangs on each."""

    def __init__(self, file: SqliteFile, notes: Notes) -> None:
        self._file = file
        self._notes = notes
        note_payloads(file, "responses", notes)
        self._attachments = file.places("prompt_attachments", "response_id", "order")
        self._fragments = file.places("prompt_fragments", "response_id", "order")
        self._system_fragments = file.places("system_fragments", "response_id", "order")
        self._calls = file.places("tool_calls", "response_id")
        self._results = file.places("tool_results", "response_id")
        self._tools = file.places("tool_responses", "response_id")

    def chats(self, threads: set[object]) -> Iterator[ChatDocument]:
        """The conversations, except those that go on as a thread of the same id, which repeats them."""
        places = self._file.places("responses", "conversation_id")
        for row in self._file.rows("conversations", "ORDER BY id"):
            rowids = places.pop(row["id"], [])
            if row["id"] in threads:
                self._notes.add("conversations that llm keeps in both its old and its new tables come once")
            else:
                yield self._chat(row, rowids)
        for rowid in places.pop(None, []):
            yield self._chat({"id": None}, [rowid])
        for key, rowids in places.items():
            yield self._chat({"id": key}, rowids)

    def _chat(self, conversation: Row, rowids: list[int]) -> ChatDocument:
        drafts: list[Draft] = []
        for rowid in rowids:
            row = self._file.row_at("responses", rowid, without=PAYLOADS)
            extra, reply_extra = self._prompt_extra(row), self._reply_extra(row)
            results = [self._file.row_at("tool_results", place) for place in self._results.get(row["id"], [])]
            if results:
                _append(
                    drafts,
                    Role.USER,
                    joined(
                        *(
                            f"[tool result: {text(each.get('name'))}]\n{text(each.get('output'))}"
                            for each in results
                        )
                    ),
                    row,
                    self._notes,
                    {"role": "tool", **kept({"tool_results": results}, self._notes)},
                )
                self._notes.add("messages of tools are kept as yours, with their role noted")
            prompts = [fragment.content for fragment in self._fragments_of(self._fragments, row)]
            systems = [fragment.content for fragment in self._fragments_of(self._system_fragments, row)]
            attached = [attachment_text(self._file, key, self._notes) for key in self._attachments_of(row)]
            _append_turn(
                drafts,
                row,
                self._notes,
                prompt=joined(
                    "\n".join(piece for piece in (*prompts, text(row["prompt"])) if piece), *attached
                ),
                system=joined(*(piece.strip() for piece in (*systems, text(row.get("system"))))),
                extra=extra,
                reply_extra=reply_extra,
                calls=[self._file.row_at("tool_calls", place) for place in self._calls.get(row["id"], [])],
            )
        return _document(
            drafts,
            self._notes,
            title=text(conversation.get("name")),
            source=f"llm {text(conversation.get('id'))}".strip(),
            extra=kept(conversation, self._notes, without=frozenset({"id", "name"})),
        )

    def _fragments_of(self, places: dict[object, list[int]], row: Row) -> list[llm_threads.Fragment]:
        table = "prompt_fragments" if places is self._fragments else "system_fragments"
        found = (self._file.row_at(table, place) for place in places.get(row["id"], []))
        return fragments_of(self._file, [each.get("fragment_id") for each in found], self._notes)

    def _attachments_of(self, row: Row) -> list[object]:
        places = self._attachments.get(row["id"], [])
        return [self._file.row_at("prompt_attachments", place).get("attachment_id") for place in places]

    def _prompt_extra(self, row: Row) -> dict[str, Any]:
        names = [
            fragment.name
            for places in (self._fragments, self._system_fragments)
            for fragment in self._fragments_of(places, row)
        ]
        extra = kept({"attachments": self._attachments_of(row), "fragments": names}, self._notes)
        return {name: value for name, value in extra.items() if value}

    def _reply_extra(self, row: Row) -> dict[str, Any]:
        if row["id"] in self._tools:
            self._notes.add("what tools were offered is left out")
        schema = llm_threads.schema_of(self._file, row.get("schema_id"))
        return kept({"schema": schema}, self._notes)


def _append_turn(
    drafts: list[Draft],
    row: Row,
    notes: Notes,
    *,
    prompt: str,
    system: str,
    extra: dict[str, Any] | None = None,
    reply_extra: dict[str, Any] | None = None,
    calls: list[Row] | None = None,
) -> None:
    """The messages of one call of a model: what is new of its system prompt, the prompt, the reply."""
    if system and system not in (draft.content for draft in drafts if draft.role is Role.SYSTEM):
        _append(drafts, Role.SYSTEM, system, row, notes, {})
    if prompt:
        _append(drafts, Role.USER, prompt, row, notes, extra or {})
    if calls:
        notes.add(TOOL_CALLS)
    reply = joined(
        text(row.get("response")),
        *(tool_call_text(text(call.get("name")), text(call.get("arguments"))) for call in calls or ()),
    )
    objects = {name: parsed(row.get(name)) for name in ("options_json", "token_details")}
    _append(
        drafts,
        Role.ASSISTANT,
        with_reasoning(text(row.get("reasoning")), reply),
        row,
        notes,
        {
            **kept(row, notes, without=_TAKEN),
            **kept({name: value for name, value in objects.items() if value}, notes),
            **(kept({"tool_calls": calls}, notes) if calls else {}),
            **(reply_extra or {}),
        },
    )


def _append(
    drafts: list[Draft], role: Role, content: str, row: Row, notes: Notes, extra: dict[str, Any]
) -> None:
    drafts.append(
        Draft(
            key=str(len(drafts) + 1),
            parent=drafts[-1].key if drafts else None,
            role=role,
            content=content,
            created_at=seconds(row.get("datetime_utc") or row.get("timestamp"), notes),
            model=text(row.get("model")) if role is Role.ASSISTANT else "",
            extra=extra,
        )
    )


def _document(
    drafts: list[Draft], notes: Notes, *, source: str, title: str = "", extra: dict[str, Any] | None = None
) -> ChatDocument:
    grown = grow(drafts, None, notes)
    times = [draft.created_at for draft in drafts if draft.created_at is not None]
    return ChatDocument(
        title=" ".join(title.split()),
        system_prompt=grown.system_prompt,
        created_at=min(times, default=None),
        updated_at=max(times, default=None),
        head=grown.head,
        messages=grown.messages,
        source=source,
        extra=extra or {},
    )
