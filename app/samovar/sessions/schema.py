"""The database's tables and how a new or older file becomes a current one. SQL only.

    sessions ──head_id──▶ messages ──parent_id──▶ messages … ▶ NULL (the first message)
        ▲                     │ attachments: JSON with digests ──▶ files
        ├── tags              ├── in `messages_fts` as long as it stands (`search.py`)
        │                     └──◀── upto_id ── compactions
        └── drafts (also of chats that are not stored yet)

A chat is a tree of messages; the head is the leaf that is shown. `owner_*` name the process that writes a
reply which is still streaming, or in whose window a draft stands. A message with `deleted_at` takes
everything below it out of sight. `revision` is a number that grows with every change of any chat. A chat
with an `import_id` belongs to an import that has not ended: it is as good as deleted until then. A
compaction is a summary of the path up to a message, which is sent in its place.
"""

from typing import Final

SCHEMA_VERSION: Final = 3

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
    (
        "ALTER TABLE sessions ADD COLUMN settings TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE sessions ADD COLUMN is_favourite INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN is_archived INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN revision INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN source TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE sessions ADD COLUMN extra TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE messages ADD COLUMN model TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE messages ADD COLUMN attachments TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE messages ADD COLUMN extra TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE messages ADD COLUMN deleted_at REAL",
        "ALTER TABLE sessions ADD COLUMN import_id INTEGER REFERENCES imports (id)",
        "CREATE INDEX sessions_revision ON sessions (revision)",
        # For the filters of a search.
        "CREATE INDEX messages_of_time ON messages (created_at, role)",
        "CREATE INDEX messages_of_model ON messages (model, created_at)",
        "CREATE INDEX sessions_import ON sessions (import_id) WHERE import_id IS NOT NULL",
        "CREATE INDEX messages_tree ON messages (session_id, parent_id)",
        "DROP INDEX messages_of_session",
        "CREATE INDEX messages_deleted ON messages (session_id) WHERE deleted_at IS NOT NULL",
        # Without it, each message that is removed for good has SQLite look at all chats for a head.
        "CREATE INDEX sessions_head ON sessions (head_id)",
        "CREATE INDEX messages_with_files ON messages (attachments) WHERE attachments <> '[]'",
        """
        CREATE TABLE imports (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            owner_pid INTEGER NOT NULL,
            owner_started REAL NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE tags (
            session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            tag TEXT NOT NULL,
            PRIMARY KEY (session_id, tag)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX sessions_of_tag ON tags (tag)",
        """
        CREATE TABLE drafts (
            session_id TEXT NOT NULL,
            owner_pid INTEGER NOT NULL,
            owner_started REAL NOT NULL,
            text TEXT NOT NULL,
            updated_at REAL NOT NULL,
            PRIMARY KEY (session_id, owner_pid, owner_started)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE TABLE files (digest TEXT PRIMARY KEY NOT NULL, text TEXT NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE TABLE counters (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) STRICT",
        "INSERT INTO counters VALUES ('revision', 0)",
        """
        CREATE VIRTUAL TABLE messages_fts USING fts5 (
            text, content = '', tokenize = 'ascii', prefix = '1 2 3'
        )
        """,
        # Chats written by earlier releases; `searchable` is a function of Samovar's (`words.py`).
        """
        INSERT INTO messages_fts (rowid, text)
        SELECT id, searchable(content) FROM messages WHERE state <> 'streaming' AND content <> ''
        """,
    ),
    (
        # The time stands in the fourth place: half a row of it can never be taken for a message's.
        """
        CREATE TABLE compactions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            upto_id INTEGER NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
            created_at REAL NOT NULL,
            summary TEXT NOT NULL,
            num_messages INTEGER NOT NULL,
            tokens_before INTEGER NOT NULL,
            tokens_after INTEGER NOT NULL,
            is_undone INTEGER NOT NULL DEFAULT 0,
            model TEXT NOT NULL DEFAULT ''
        ) STRICT
        """,
        "CREATE INDEX compactions_of_session ON compactions (session_id)",
        "CREATE INDEX compactions_upto ON compactions (upto_id)",
    ),
)
assert len(MIGRATIONS) == SCHEMA_VERSION

# In the order of the fields of `Session`. Tags hold no line break.
SELECT_SESSION: Final = """
    SELECT id, title, system_prompt, created_at, updated_at, head_id,
           (SELECT count(*) FROM messages WHERE session_id = sessions.id) AS num_messages,
           settings,
           (SELECT group_concat(tag, char(10)) FROM tags WHERE session_id = sessions.id) AS tags,
           is_favourite, is_archived, deleted_at IS NOT NULL AS is_deleted, revision
    FROM sessions
"""

# In the order of the fields of `StoredMessage`. A deleted sibling is none.
_OWN_COLUMNS: Final = """
    m.id, m.session_id, m.parent_id, m.role, m.content, m.created_at, m.state,
    m.tokens, m.tokenizer, m.stats, m.error, m.model, m.attachments
"""
MESSAGE_COLUMNS: Final = f"""
    {_OWN_COLUMNS},
    (SELECT count(*) FROM messages AS s WHERE s.parent_id IS m.parent_id AND s.session_id = m.session_id
        AND s.deleted_at IS NULL AND s.id < m.id) AS place,
    (SELECT count(*) FROM messages AS s WHERE s.parent_id IS m.parent_id AND s.session_id = m.session_id
        AND s.deleted_at IS NULL) AS num_siblings
"""
# The same as if no message had siblings: counting them takes for ever where one has a hundred thousand.
COLUMNS_ALONE: Final = f"{_OWN_COLUMNS}, 0 AS place, 1 AS num_siblings"

# In the order of the fields of `Compaction`.
COMPACTION_COLUMNS: Final = """
    id, session_id, upto_id, summary, created_at, num_messages, tokens_before, tokens_after, is_undone, model
"""

# A parent is older than its child, so every walk up ends, even in a damaged file.
_UP: Final = """
    WITH RECURSIVE up (id, depth) AS (
        SELECT CAST(? AS INTEGER), 0
        UNION ALL
        SELECT m.parent_id, depth + 1 FROM up JOIN messages AS m ON m.id = up.id WHERE m.parent_id < m.id
    )
"""
# From the first message to the given one.
SELECT_PATH: Final = f"""
    {_UP} SELECT {MESSAGE_COLUMNS} FROM up JOIN messages AS m ON m.id = up.id ORDER BY depth DESC
"""
# The last so many of them.
SELECT_PATH_END: Final = f"""
    {_UP.replace("WHERE m.parent_id < m.id", "WHERE m.parent_id < m.id AND depth + 1 < ?")}
    SELECT {MESSAGE_COLUMNS} FROM up JOIN messages AS m ON m.id = up.id ORDER BY depth DESC
"""
SELECT_IDS_UP: Final = f"{_UP} SELECT id FROM up"
# A row if one of them is deleted.
SELECT_DELETED_UP: Final = (
    f"{_UP} SELECT 1 FROM up JOIN messages AS m ON m.id = up.id WHERE m.deleted_at IS NOT NULL LIMIT 1"
)
# Below every message its newest child, down to the leaf.
SELECT_NEWEST_LEAF: Final = """
    WITH RECURSIVE down (id) AS (
        SELECT CAST(? AS INTEGER)
        UNION ALL
        SELECT (SELECT max(c.id) FROM messages AS c WHERE c.parent_id = down.id AND c.deleted_at IS NULL)
        FROM down WHERE down.id IS NOT NULL
    )
    SELECT max(id) FROM down
"""
