"""Files that are broken, or made to break whoever reads them: one sentence, nothing else."""

import contextlib
import errno
import json
import os
import random
import sqlite3
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from samovar.core.errors import SamovarError
from samovar.sessions.transfer import branches, foreign, reading, sqlite_file, zip_file
from samovar.sessions.transfer.importing import open_file

HI = {"role": "user", "content": "Hi"}
SESSION = '{"type": "session", "id": "c"}\n'


def error_of(path: Path) -> str:
    """The sentence that says why the file cannot be imported."""
    with pytest.raises(SamovarError) as caught, open_file(path) as file:
        list(file.chats())
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence.replace(str(path), "")
    assert "\x1b" not in sentence
    return sentence


def is_refused_or_sound(path: Path) -> bool:
    """Whether the file was read; whatever comes of it is a chat of ours, or one sentence."""
    try:
        with open_file(path) as file:
            for document in file.chats():
                reading.accepted(document)
    except SamovarError:
        return False
    return True


def gpt(**nodes: Any) -> str:  # noqa: ANN401 - a node of any type
    return json.dumps([{"title": "Te\x1ba", "mapping": nodes, "current_node": "a"}])


def said(parent: object, **more: object) -> dict[str, object]:
    content = {"content_type": "text", "parts": ["x"]}
    return {"parent": parent, "message": {"author": {"role": "user"}, "content": content, **more}}


def page(*messages: object) -> str:
    return json.dumps({"conv": {"id": "c", "name": "Tea"}, "messages": messages})


def deep(num: int) -> str:
    return '{"a":' * num + "1" + "}" * num


MALFORMED = {
    "blank": (b" \n\t ", "none that Samovar knows"),
    "text": (b"hello", "none that Samovar knows"),
    "zeros": (b"\0" * 100, "none that Samovar knows"),
    "bom only": (b"\xef\xbb\xbf", "none that Samovar knows"),
    "utf-16": ('[{"role": "user"}]'.encode("utf-16"), "UTF-16"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
    "open": (b"[", "not valid JSON"),
    "cut": (b'[{"role": "user", "content": "a', "not valid JSON"),
    "two values": (b"{} {}", "not valid JSON"),
    "NaN": (b'[{"role": "user", "content": NaN}]', "not valid JSON"),
    "raw NUL": (b'[{"role": "user", "content": "\0"}]', "not valid JSON"),
    "bad UTF-8": (b'[{"role": "user", "content": "\xff"}]', "not UTF-8"),
    "bad UTF-8 name": (b'{"messages": [], "\xff": 1}', "not UTF-8"),
    "huge number": (b'{"messages": [], "x": 1e999}', "wrong type"),
    "nested lists": (b"[" * 100_000, "nested too deeply"),
    "nested objects": (deep(100_000).encode(), "nested too deeply"),
    "empty list": (b"[]", "no chats"),
    "empty object": (b"{}", "none that Samovar knows"),
    "numbers": (b"[1, 2]", "none that Samovar knows"),
    "nulls": (b"[null]", "none that Samovar knows"),
    "list of lists": (b"[[[]]]", "none that Samovar knows"),
    "a TOML table": (b"[chat]\ntitle = 'x'", "not valid JSON"),
    "broken line": (b'{"messages": []}\n{"messages": [}', "not valid JSON"),
    "mixed": (b'[{"messages": []}, {"mapping": {}}]', "entry 2 is no chat"),
    "entry null": (b'[{"messages": []}, null]', "entry 2 is no chat"),
}
WRONG = {
    "mapping is a list": ('[{"mapping": []}]', "wrong type"),
    "mapping is null": ('[{"mapping": null}]', "wrong type"),
    "node is null": (gpt(a=None), "message “a” is no object"),
    "message is a text": (gpt(a={"message": "x"}), "message “a” is no object"),
    "no author": (gpt(a={"message": {}}), "message “a” has no role"),
    "role is a list": (gpt(a={"message": {"author": {"role": []}}}), "message “a” has no role"),
    "content is a list": (
        gpt(a={"message": {"author": {"role": "user"}, "content": [1]}}),
        "content of message",
    ),
    "parent is a list": (gpt(a={"parent": [1]}), "a parent has no id"),
    "its own parent": (gpt(a=said("a")), "chat 1 (“Te␛a”), message “a” is its own ancestor"),
    "a circle": (gpt(a=said("b"), b=said("c"), c=said("a")), "is its own ancestor"),
    "a tail of a circle": (gpt(r=said(None), a=said("b"), b=said("b")), "is its own ancestor"),
    "a circle of children": (
        gpt(a={"children": ["b"], "message": None}, b={"children": ["a"], "message": None}),
        "is its own ancestor",
    ),
    "deep metadata": (
        gpt(a=said(None, metadata=json.loads(deep(60)))),
        "nested deeper than 48 levels",
    ),
    "conv is null": ('{"conv": null, "messages": []}', "no object"),
    "messages is null": ('{"conv": {}, "messages": null}', "wrong type"),
    "message is a number": (page(1), "a message is no object"),
    "no id": (page({"parent": None, "role": "user"}), "has no id"),
    "id is a list": (page({"id": [], "parent": None, "role": "user"}), "has no id"),
    "id twice": (
        page(*[{"id": "x\n\x1b]52;", "parent": None, "role": "user", "content": "a"}] * 2),
        "two messages have the id “x ␛]52;”",
    ),
    "content is a number": (page({"id": 1, "parent": None, "role": "user", "content": 3}), "is no text"),
    "session without lines": (SESSION + "1", "no object"),
    "session line cut": (SESSION + '{"type": "message", "message": {"id"', "not valid JSON"),
    "messages is a text": ('{"messages": "x"}', "wrong type"),
    "no role": ('{"messages": [{"content": "x"}]}', "message “1” has no role"),
    "empty role": ('{"messages": [{"role": "", "content": "x"}]}', "message “1” has no role"),
    "content is an object": ('[{"role": "user", "content": {}}]', "neither a text nor a list"),
    "part is a number": ('[{"role": "user", "content": [1]}]', "is no object"),
    "second is a text": ('[{"role": "user", "content": "a"}, "b"]', "message 2 is no object"),
}


@pytest.mark.parametrize(("data", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_file_of_chats(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert reason in error_of(path)


@pytest.mark.parametrize(("text", "reason"), WRONG.values(), ids=WRONG)
def test_chats_that_are_wrong_within(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    assert reason in error_of(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    empty = tmp_path / "empty"
    empty.touch()
    for path, reason in (
        (tmp_path / "none", "no such file"),
        (tmp_path, "a folder"),
        (pipe, "a device"),
        (Path("/dev/zero"), "a device"),
        (empty, "empty"),
        (Path("a\0b"), "no path"),
        (tmp_path / ("x" * 300), "too long"),
        (empty / "below", "not a directory"),
    ):
        with pytest.raises(SamovarError, match=reason):
            open_file(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("[]")
    path.chmod(0)
    assert "permission denied" in error_of(path)


def test_texts_have_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(json.dumps([HI, {"role": "user", "content": "ü" * (foreign.MAX_TEXT_BYTES // 2)}]))
    with open_file(path) as file:
        assert len(next(file.chats()).messages) == 2
    path.write_text(json.dumps([HI, {"role": "user", "content": "ü" * (foreign.MAX_TEXT_BYTES // 2) + "a"}]))
    assert "message “2” is longer than 16 MiB" in error_of(path)


def test_chats_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "MAX_MESSAGES", 3)
    path = tmp_path / "file"
    path.write_text(json.dumps([HI] * 3))
    assert is_refused_or_sound(path)
    path.write_text(json.dumps([HI] * 4))
    assert "more than 3 messages" in error_of(path)


def test_nothing_stays_open_or_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "temporary"
    left.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(left))
    path = tmp_path / "file"
    before = len(os.listdir("/proc/self/fd"))
    for data in (b"[", json.dumps([HI]).encode(), b"PK\x03\x04", sqlite_file.HEADER, oterm_bytes()):
        path.write_bytes(data)
        is_refused_or_sound(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("conversations.json", "[]")
    assert not is_refused_or_sound(path)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(left.iterdir()) == []


# --- Archives


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_archives_that_are_none(tmp_path: Path) -> None:
    path = zipped(tmp_path / "file", ("notes.txt", b"x"), ("__MACOSX/._a.jsonl", b"x"), ("a/", b""))
    assert "neither conversations.json nor .jsonl" in error_of(path)
    whole = zipped(path, ("conversations.json", json.dumps([HI]).encode() * 50)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "the archive is damaged" in error_of(path)
    path.write_bytes(whole.replace(b"conversations.json", b"conversations.jsox", 1))
    assert "damaged" in error_of(path)
    zipped(path, ("conversations.json", b"["))
    assert "in “conversations.json”: it is not valid JSON" in error_of(path)


def test_archives_that_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_file, "MAX_UNPACKED_BYTES", 1 << 20)
    path = zipped(tmp_path / "file", ("conversations.json", b" " * (2 << 20)))
    assert "unpacks to more than 1.0 MiB" in error_of(path)
    lying = path.read_bytes().replace(struct.pack("<I", 2 << 20), struct.pack("<I", 100))
    path.write_bytes(lying)
    assert "archive" in error_of(path)


def test_archives_with_a_password(tmp_path: Path) -> None:
    path = zipped(tmp_path / "file", ("conversations.json", b"[]"))
    data = bytearray(path.read_bytes())
    for header in (b"PK\x03\x04", b"PK\x01\x02"):
        place = data.index(header) + (6 if header.endswith(b"\x04") else 8)
        data[place] |= 1
    path.write_bytes(data)
    assert "cannot be unpacked" in error_of(path)


# --- Databases

OTERM = """
CREATE TABLE chat (id INTEGER PRIMARY KEY, name TEXT, model TEXT, system TEXT, parameters TEXT);
CREATE TABLE message (id INTEGER PRIMARY KEY, chat_id INTEGER, author TEXT, text TEXT, images TEXT);
INSERT INTO chat VALUES (1, 'Tea', 'm', '', '{}');
INSERT INTO message VALUES (1, 1, 'user', 'Hi', '[]'), (2, 1, 'assistant', 'Hello', '[]');
"""
THREADS = """
CREATE TABLE messages (hash TEXT PRIMARY KEY, parent_hash TEXT, role TEXT, provider_metadata TEXT);
CREATE TABLE parts (id INTEGER PRIMARY KEY, message_hash TEXT, position INT, type TEXT, tool_name TEXT,
  text TEXT, payload TEXT);
CREATE TABLE threads (id TEXT PRIMARY KEY, name TEXT, tip_message_hash TEXT, datetime_utc TEXT);
INSERT INTO messages VALUES ('a', NULL, 'user', NULL), ('b', 'a', 'assistant', NULL);
INSERT INTO parts VALUES (1, 'a', 0, 'text', NULL, 'Hi', NULL), (2, 'b', 0, 'text', NULL, 'Hello', NULL);
INSERT INTO threads VALUES ('t', 'Tea', 'b', NULL);
"""


def database(path: Path, script: str) -> Path:
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def oterm_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return database(Path(folder) / "x", OTERM).read_bytes()


DATABASES = {
    "of nobody": ("CREATE TABLE t (x)", "do not know"),
    "without chats": (OTERM + "DELETE FROM chat;", "no chats"),
    "author is NULL": (OTERM + "UPDATE message SET author = NULL;", "in chat 1, message “1” has no role"),
    "a circle": (THREADS + "UPDATE messages SET parent_hash = 'b' WHERE hash = 'a';", "its own ancestor"),
    "role is NULL": (THREADS + "UPDATE messages SET role = NULL;", "has no role"),
    "text too long": (OTERM + f"UPDATE message SET text = zeroblob({17 << 20});", "longer than 16 MiB"),
    "value too large": (OTERM + f"UPDATE message SET text = zeroblob({65 << 20});", "too large"),
    "views for tables": (
        "CREATE TABLE x (a); CREATE VIEW chat AS SELECT 1 AS id, 'x' AS name, 'm' AS model;"
        "CREATE VIEW message AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n FROM c)"
        " SELECT n AS chat_id, 'user' AS author, 'x' AS text FROM c;",
        "do not know",
    ),
    "table without rowid": (
        OTERM
        + "DROP TABLE message; CREATE TABLE message (chat_id, author, text, k PRIMARY KEY) WITHOUT ROWID;",
        "cannot be read",
    ),
}


@pytest.mark.parametrize(("script", "reason"), DATABASES.values(), ids=DATABASES)
def test_databases_that_are_wrong(tmp_path: Path, script: str, reason: str) -> None:
    assert reason in error_of(database(tmp_path / "file", script)).replace("does not know", "do not know")


ODD = {
    "blobs for texts": "UPDATE message SET text = x'ff41', images = x'00'; UPDATE chat SET name = 5;",
    "texts that are not UTF-8": "UPDATE message SET text = CAST(x'ff41' AS TEXT);",
    "images that are no JSON": "UPDATE message SET images = '[[[[';",
    "parameters of other types": "UPDATE chat SET parameters = '[1]';",
    "parameters that are huge": """UPDATE chat SET parameters = '{"seed": 1e300, "top_k": "x"}';""",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON chat BEGIN DELETE FROM chat; END;",
    "a computed column": "ALTER TABLE chat ADD COLUMN c AS (hex(zeroblob(1000000)));",
    "names that need quotes": 'ALTER TABLE chat ADD COLUMN "a""b; DROP TABLE chat" TEXT DEFAULT 7;',
    "an id that is NULL": "CREATE TABLE c2 AS SELECT * FROM chat; DROP TABLE chat;"
    "ALTER TABLE c2 RENAME TO chat; UPDATE chat SET id = NULL;",
}


@pytest.mark.parametrize("script", ODD.values(), ids=ODD)
def test_databases_that_are_odd_are_read(tmp_path: Path, script: str) -> None:
    path = database(tmp_path / "file", OTERM + script)
    before = path.read_bytes()
    assert is_refused_or_sound(path)
    assert path.read_bytes() == before


def test_our_own_store_is_not_opened(tmp_path: Path) -> None:
    path = database(tmp_path / "chats.db", OTERM)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(SamovarError, match="where Samovar keeps its chats"):
        open_file(link, store=path)
    open_file(path, store=tmp_path / "other.db").close()


def test_a_full_temporary_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "file", ("conversations.json", b"[]"))

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert "Make room, or set TMPDIR" in error_of(path)


def test_rows_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "MAX_ROWS", 5)
    assert "more than 5 rows" in error_of(database(tmp_path / "file", OTERM))


# --- Files that were cut off or changed at random

TREE = {
    "title": "Tea",
    "create_time": 1700000000.5,
    "current_node": "c",
    "conversation_id": "68f0",
    "mapping": {
        "r": {"id": "r", "parent": None, "children": ["a"], "message": None},
        "a": {**said("r", create_time=1.5, weight=1), "children": ["b", "c"]},
        "b": {**said("a", metadata={"model_slug": "gpt-4", "attachments": [{"id": "f", "name": "x"}]})},
        "c": {
            "parent": "a",
            "message": {
                "author": {"role": "assistant"},
                "content": {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "\ud83d"}]},
            },
        },
    },
}
PAGE: dict[str, Any] = {
    "conv": {"id": "c", "name": "Tea", "lastModified": 1765279699684, "currNode": "2"},
    "messages": [
        {"id": "1", "type": "root", "role": "system", "content": "", "parent": None, "children": ["2"]},
        {
            "id": "2",
            "role": "user",
            "content": "Hi",
            "parent": "1",
            "timestamp": 1,
            "extra": [{"type": "TEXT"}],
        },
    ],
}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}],
}
FUZZED = {
    "chatgpt": json.dumps([TREE]).encode(),
    "llama.cpp": json.dumps([PAGE]).encode(),
    "llama.cpp lines": b"\n".join(
        json.dumps(line).encode()
        for line in (
            {"type": "session", **PAGE["conv"]},
            *({"type": "message", "message": each} for each in PAGE["messages"]),
        )
    ),
    "openai": json.dumps({"messages": [HI, CALL, PARTS], "model": "m", "created": 1}).encode(),
    "openai lines": b"\n".join(json.dumps(each).encode() for each in (HI, CALL, PARTS)),
}
_SWAPS = (b"null", b"[]", b"{}", b"1", b'"x"', b"1e300", b"-1", b"true", b'"\\ud800"')


@pytest.mark.parametrize("data", FUZZED.values(), ids=FUZZED)
def test_what_is_fuzzed_is_sound(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert is_refused_or_sound(path)


@pytest.mark.parametrize("data", FUZZED.values(), ids=FUZZED)
def test_every_place_to_cut_a_file_off(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    for end in range(1, len(data)):
        path.write_bytes(data[:end])
        is_refused_or_sound(path)


@pytest.mark.parametrize("data", FUZZED.values(), ids=FUZZED)
def test_bytes_that_were_changed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    chance = random.Random(4)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = chance.choice(
                (0, 10, 34, 44, 92, chance.randrange(256))
            )
        path.write_bytes(changed)
        is_refused_or_sound(path)


def within(value: object) -> Iterator[tuple[Any, Any]]:
    """Every container and key within the value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(pairs):
        yield value, key
        yield from within(item)


@pytest.mark.parametrize("name", ["chatgpt", "llama.cpp", "openai"])
def test_values_of_any_other_type(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    num_places = len(list(within(json.loads(FUZZED[name]))))
    num_read = 0
    for place in range(num_places):
        for swap in _SWAPS:
            value = json.loads(FUZZED[name])
            container, key = list(within(value))[place]
            container[key] = "SWAP"
            path.write_bytes(json.dumps(value).encode().replace(b'"SWAP"', swap))
            num_read += is_refused_or_sound(path)
    assert num_read > num_places  # most values may be anything


@pytest.mark.parametrize("script", [OTERM, THREADS], ids=["oterm", "llm"])
def test_databases_whose_bytes_were_changed(tmp_path: Path, script: str) -> None:
    path = database(tmp_path / "file", script)
    data = path.read_bytes()
    chance = random.Random(5)
    for number in range(200):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 20)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed[: chance.randrange(1, len(changed))] if number % 4 == 0 else changed)
        is_refused_or_sound(path)
