"""What users have typed and not sent, kept per chat and per window.

Each front end writes drafts of its own, so two windows on one chat never overwrite each other. What a window
that is gone has left is taken over by the next one that starts.
"""

import uuid
from collections.abc import Callable

from samovar.sessions.database import Database
from samovar.sessions.encoding import storable
from samovar.sessions.owner import Owner, this_process


class Drafts:
    """The drafts in one store; a part of `Store`."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def save(self, session_id: str, text: str) -> None:
        """Keep this as the draft of this window; an empty one is forgotten."""
        owner = this_process()
        key = (storable(session_id), owner.pid, owner.started)
        with self._db.transaction():
            if text:
                self._db.change(
                    "INSERT OR REPLACE INTO drafts (session_id, owner_pid, owner_started, text, updated_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    *(*key, storable(text), self._clock()),
                )
            else:
                where = "session_id = ? AND owner_pid = ? AND owner_started = ?"
                self._db.change(f"DELETE FROM drafts WHERE {where}", *key)

    def adopt(self) -> dict[str, str]:
        """The drafts of windows that are gone, by chat; they are this window's from now on.

        Several drafts of one chat come as one text, the oldest first, each once. One of a chat that has
        been deleted meanwhile comes under the id of a new chat.
        """
        found: dict[str, list[str]] = {}
        with self._db.transaction():
            rows = self._db.rows(
                "SELECT session_id, owner_pid, owner_started, text FROM drafts ORDER BY updated_at"
            )
            deleted = self._db.rows(
                "SELECT id FROM sessions"
                " WHERE deleted_at IS NOT NULL AND id IN (SELECT session_id FROM drafts)"
            )
            new_ids = {session_id: uuid.uuid4().hex for (session_id,) in deleted}
            is_alive: dict[tuple[int, float], bool] = {}
            for session_id, pid, started, text in rows:
                if (pid, started) not in is_alive:
                    is_alive[pid, started] = Owner(pid=pid, started=started).is_alive()
                if not is_alive[pid, started]:
                    texts = found.setdefault(new_ids.get(session_id, session_id), [])
                    if text not in texts:
                        texts.append(text)
                    where = "session_id = ? AND owner_pid = ? AND owner_started = ?"
                    self._db.change(f"DELETE FROM drafts WHERE {where}", session_id, pid, started)
            owner = this_process()
            for session_id, texts in found.items():
                self._db.change(
                    "INSERT OR REPLACE INTO drafts (session_id, owner_pid, owner_started, text, updated_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    *(session_id, owner.pid, owner.started, "\n\n".join(texts), self._clock()),
                )
        return {session_id: "\n\n".join(texts) for session_id, texts in found.items()}
