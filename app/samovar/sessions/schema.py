"""The database's tables and how a new or older file becomes a current one. SQL only.

    sessions ──head_id──▶ messages ──parent_id──▶ messages … ▶ NULL (the first message)

A chat is a tree of messages; the head is the leaf that is shown. `owner_*` name the process that writes a
reply which is still streaming.
"""

from typing import Final

SCHEMA_VERSION: Final = 1

# `MIGRATIONS[n]` leads from version n to n + 1; a new file runs through all of them.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """
        CREATE TABLE sessions (
            id TEXT PRIMARY KEY NOT NULL,
            title TEXT NOT NULL,
            system_prompt TEXT NOT NULL,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            deleted_at REAL,
            head_id INTEGER REFERENCES messages (id)
        ) STRICT
        """,
        """
        CREATE TABLE messages (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            parent_id INTEGER REFERENCES messages (id),
            role TEXT NOT NULL,
            content TEXT NOT NULL,
            created_at REAL NOT NULL,
            state TEXT NOT NULL,
            tokens BLOB NOT NULL DEFAULT x'',
            tokenizer TEXT NOT NULL DEFAULT '',
            stats TEXT,
            error TEXT NOT NULL DEFAULT '',
            owner_pid INTEGER,
            owner_started REAL
        ) STRICT
        """,
        "CREATE INDEX messages_of_session ON messages (session_id)",
        "CREATE INDEX messages_of_parent ON messages (parent_id)",
        "CREATE INDEX messages_streaming ON messages (owner_pid) WHERE state = 'streaming'",
    ),
)
assert len(MIGRATIONS) == SCHEMA_VERSION

SELECT_SESSION: Final = """
    SELECT id, title, system_prompt, created_at, updated_at, head_id,
           (SELECT count(*) FROM messages WHERE session_id = sessions.id) AS num_messages
    FROM sessions WHERE deleted_at IS NULL
"""

MESSAGE_COLUMNS: Final = """
    m.id, m.session_id, m.parent_id, m.role, m.content, m.created_at, m.state,
    m.tokens, m.tokenizer, m.stats, m.error
"""

# From the first message to the given one. A parent is older than its child, so the walk ends even in a
# damaged file.
SELECT_PATH: Final = f"""
    WITH RECURSIVE up (id, depth) AS (
        SELECT CAST(? AS INTEGER), 0
        UNION ALL
        SELECT m.parent_id, depth + 1 FROM up JOIN messages AS m ON m.id = up.id WHERE m.parent_id < m.id
    )
    SELECT {MESSAGE_COLUMNS} FROM up JOIN messages AS m ON m.id = up.id ORDER BY depth DESC
"""
