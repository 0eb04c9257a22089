"""Full-text search over all chats.

`messages_fts` is a contentless FTS5 table: it holds for every message that has ended the words of
`searchable(content)`, and nothing else of it.
"""

from samovar.sessions.database import Database
from samovar.sessions.words import searchable


def index_message(db: Database, message_id: int, content: str) -> None:
    """Within a transaction: make a message that has ended findable."""
    if content:
        db.insert("INSERT INTO messages_fts (rowid, text) VALUES (?, ?)", message_id, searchable(content))


def unindex_message(db: Database, message_id: int, content: str) -> None:
    """Within a transaction: take a message out of the index; `content` is what was indexed."""
    if content:
        db.change(
            "INSERT INTO messages_fts (messages_fts, rowid, text) VALUES ('delete', ?, ?)",
            *(message_id, searchable(content)),
        )
