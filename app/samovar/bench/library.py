"""A made-up store of chats as large as asked for, the same in every run, written with plain SQL.

Words follow Zipf's law: the most frequent one stands in nearly every message, most of the vocabulary in a
handful, and one word in a hundred nowhere else.
"""

import itertools
import random
from pathlib import Path
from typing import Final

from samovar.sessions.database import Database, open_database
from samovar.sessions.words import searchable

NOW: Final = 1_800_000_000.0  # of the newest message, seconds since the epoch
WORDS_PER_MESSAGE: Final = 60
_SPAN_S: Final = 3 * 365 * 86_400.0
_BATCH: Final = 20_000
_FREQUENT: Final = """
the of and to a in is that it for you with on as are this be or not can from if have by at an we will but
do your what use which when there all one how then each other more out so up has time like into only new
some these make see my data than code also two way could value no work would first file example need any
set function should number just type because same after most where between line used model list message
string test error cache return system case server process result memory name user between query index
""".split()
_SYLLABLES: Final = """
ab ac al am an ar as at ba be bi bo ca ce chi co con da de di do du el em en er es et fa fe fi for ga ge gra
ha he hi hu il im in int is ka ke ko la le li lo lu ma me mi mo mul na ne ni no nu ob of ol on op or os pa pe
per pi po pre pro qua ra re ri ro ru sa se si so sta str su ta te ter ti to tra tu un ul um up us va ve vi vo
wa we wi ya za
""".split()
_VOCABULARY: Final = 60_000
_TAGS: Final = ("work", "code", "travel", "reading list", "home", "rare")
_MODELS: Final = ("SmolLM2 135M", "Gemma 3 270M", "Qwen3 4B")


def vocabulary() -> list[str]:
    """All words that stand in more than one place, the most frequent first."""
    rng = random.Random(1)
    words = dict.fromkeys(_FREQUENT)
    while len(words) < _VOCABULARY:
        words["".join(rng.choices(_SYLLABLES, k=rng.choice((2, 2, 3, 3, 3, 4))))] = None
    return list(words)


def make(path: Path, num_chats: int, num_messages: int) -> None:
    """Write a new store; chats are in the order of their time, but one in twenty was imported later."""
    rng = random.Random(2)
    words = vocabulary()
    cum_weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(words))))
    database = open_database(path)
    try:
        database.change("PRAGMA synchronous = OFF")
        message_id = 0
        chat = 0
        while chat < num_chats:
            with database.transaction():
                until = min(num_messages, message_id + _BATCH)
                while chat < num_chats and message_id < until:
                    count = (num_messages * (chat + 1)) // num_chats - message_id
                    chat_time = NOW - _SPAN_S * (1 - (chat + 1) / num_chats)
                    if rng.random() < 0.05:
                        chat_time -= rng.random() * _SPAN_S
                    _add_chat(database, rng, chat, message_id, count, chat_time, words, cum_weights)
                    message_id += count
                    chat += 1
        database.change("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        database.close()


def _add_chat(
    database: Database,
    rng: random.Random,
    chat: int,
    before: int,
    count: int,
    chat_time: float,
    words: list[str],
    cum_weights: list[float],
) -> None:
    key = f"chat{chat:06}"
    title = " ".join(rng.choices(words, cum_weights=cum_weights, k=rng.randint(2, 6))).capitalize()
    model = rng.choice(_MODELS)
    database.change(
        "INSERT INTO sessions (id, title, system_prompt, created_at, updated_at, head_id, is_favourite,"
        " is_archived, revision) VALUES (?, ?, '', ?, ?, NULL, ?, ?, ?)",
        key, title, chat_time - 60 * count, chat_time, chat % 97 == 0, chat % 11 == 0, chat + 1,
    )  # fmt: skip
    for number in range(count):
        message_id = before + number + 1
        length = max(2, int(rng.expovariate(1 / WORDS_PER_MESSAGE)))
        chosen = rng.choices(words, cum_weights=cum_weights, k=length)
        if rng.random() < 0.5:
            chosen.insert(rng.randrange(length), f"{rng.randrange(1 << 40):x}")
        content = " ".join(chosen)
        database.change(
            "INSERT INTO messages (id, session_id, parent_id, role, content, created_at, state, model)"
            " VALUES (?, ?, ?, ?, ?, ?, 'complete', ?)",
            message_id, key, message_id - 1 if number else None, "assistant" if number % 2 else "user",
            content, chat_time - 60 * (count - number), model if number % 2 else "",
        )  # fmt: skip
        database.change(
            "INSERT INTO messages_fts (rowid, text) VALUES (?, ?)", message_id, searchable(content)
        )
    database.change("UPDATE sessions SET head_id = ? WHERE id = ?", before + count, key)
    for number, tag in enumerate(_TAGS):
        if chat % (7 ** (number + 1)) == 3:
            database.change("INSERT INTO tags VALUES (?, ?)", key, tag)
