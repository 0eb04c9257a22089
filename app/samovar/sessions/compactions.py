"""Summaries that stand for the beginning of a chat: read, added, undone, done again. A part of `Store`.

Nothing is ever removed but with the message that a summary ends with: undoing marks.
"""

from collections.abc import Callable

from samovar.core.errors import SamovarError
from samovar.sessions import schema
from samovar.sessions.database import Database
from samovar.sessions.encoding import storable
from samovar.sessions.values import Compaction


class Compactions:
    """Every method raises SamovarError when the database cannot do it."""

    def __init__(self, database: Database, clock: Callable[[], float], touch: Callable[[str], None]) -> None:
        """`touch` says, within a transaction, that a chat has changed."""
        self._db = database
        self._clock = clock
        self._touch = touch

    def of(self, session_id: str) -> tuple[Compaction, ...]:
        """All summaries of a chat, on whatever branch and also those that are undone, the oldest first."""
        return self._where("session_id = ?", storable(session_id))

    def add(
        self,
        upto_id: int,
        summary: str,
        *,
        num_messages: int,
        tokens_before: int,
        tokens_after: int,
        model: str = "",
    ) -> Compaction:
        """Store a summary; SamovarError if its chat, or the message it ends with, has been deleted.

        Where another window has made one of the same messages, that one counts and comes back: two would
        have to be undone one after the other.
        """
        with self._db.transaction():
            rows = self._db.rows(
                "SELECT m.session_id FROM messages AS m JOIN sessions AS s ON s.id = m.session_id"
                " WHERE m.id = ? AND s.deleted_at IS NULL",
                upto_id,
            )
            if not rows or self._db.rows(schema.SELECT_DELETED_UP, upto_id):
                raise SamovarError("what was summarized has been deleted meanwhile")
            ((session_id,),) = rows
            if standing := self._where("upto_id = ? AND NOT is_undone", upto_id):
                return standing[-1]
            now, summary, model = self._clock(), storable(summary), storable(model)
            figures = (num_messages, tokens_before, tokens_after)
            compaction_id = self._db.insert(
                "INSERT INTO compactions (session_id, upto_id, summary, created_at, num_messages,"
                " tokens_before, tokens_after, model) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                *(session_id, upto_id, summary, now, *figures, model),
            )
            self._touch(session_id)
        return Compaction(compaction_id, session_id, upto_id, summary, now, *figures, model=model)

    def set_undone(self, compaction_id: int, *, is_undone: bool) -> None:
        """Undo a summary, or do it again; SamovarError if it is gone."""
        with self._db.transaction():
            rows = self._db.rows("SELECT session_id FROM compactions WHERE id = ?", compaction_id)
            if not rows:
                raise SamovarError("this summary is gone: what it stood for has been deleted")
            self._db.change(
                "UPDATE compactions SET is_undone = ? WHERE id = ?", int(is_undone), compaction_id
            )
            self._touch(rows[0][0])

    def _where(self, condition: str, value: str | int) -> tuple[Compaction, ...]:
        rows = self._db.rows(
            f"SELECT {schema.COMPACTION_COLUMNS} FROM compactions WHERE {condition} ORDER BY id", value
        )
        return tuple(
            Compaction(one, session, upto, summary, created, num, before, after, bool(undone), model)
            for one, session, upto, summary, created, num, before, after, undone, model in rows
        )
