"""The file of chats: backups, checks, repair, and reading where nothing can be written."""

import contextlib
import errno
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from samovar.core.errors import SamovarError
from samovar.sessions import backup, integrity, read_only, repair
from samovar.sessions.connection import DamagedFile, Trouble, in_memory, trouble_of
from samovar.sessions.database import Database, open_database, open_for_reading
from samovar.sessions.image import read_image
from samovar.sessions.pages import LeafRow, leaf_rows
from samovar.sessions.salvage import RECOVERED
from samovar.sessions.schema import SCHEMA_VERSION
from tests.unit.chats_support import (
    NOON,
    ROW,
    add_chats,
    files_of,
    is_sound,
    make_file,
    mounted,
    overwrite,
    plain,
    rows,
    start_python,
    without_write_access,
)

PAGE: Final = 4096
DAY_S: Final = 86400.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats.db"


def opened(path: Path) -> "contextlib.closing[Database]":
    return contextlib.closing(open_database(path, lambda: NOON))


def messages(database: Database) -> list[tuple[object, ...]]:
    return database.rows(f"{ROW} ORDER BY id")


def is_message(leaf: LeafRow) -> bool:
    return len(leaf.values) > 13 and leaf.values[0] is None


def add_chat(database: Database, name: str = "new") -> None:
    database.insert(
        "INSERT INTO sessions (id, title, system_prompt, created_at, updated_at) VALUES (?, '', '', 0, 0)",
        name,
    )


def start_openers(path: Path, count: int) -> list[str]:
    """What several processes that open a file at once say of it."""
    code = """
        sys.stdin.readline()
        database = open_database(Path(sys.argv[1]))
        (count,) = database.rows("SELECT count(*) FROM messages")[0]
        print(count, database.repaired is not None, bool(database.read_only))
    """
    openers = [start_python(code, path) for _ in range(count)]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    return [opener.communicate()[0].strip() for opener in openers]


# ---- opening


def test_a_sound_file_opens_as_it_is(file: Path) -> None:
    make_file(file)
    before = rows(file)
    with opened(file) as database:
        assert (database.read_only, database.repaired, database.needs_check) == ("", None, False)
        assert messages(database) == before
        add_chat(database)
    assert files_of(file.parent) == ["chats.db", "chats.lock"], "no backup, nothing set aside"


def test_a_new_file_is_private_and_needs_no_backup(file: Path) -> None:
    with opened(file) as database:
        add_chat(database)
    assert file.stat().st_mode & 0o777 == 0o600
    assert files_of(file.parent) == ["chats.db", "chats.lock"]


def test_the_users_own_rights_stay_as_they_are(file: Path) -> None:
    make_file(file, 1)
    file.chmod(0o444)
    with opened(file):
        pass
    assert file.stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, ""), Trouble.NO_ROOM),
        (OSError(errno.EDQUOT, ""), Trouble.NO_ROOM),
        (OSError(errno.EROFS, ""), Trouble.READ_ONLY),
        (OSError(errno.EACCES, ""), Trouble.READ_ONLY),
        (OSError(errno.EIO, ""), Trouble.DISK),
        (DamagedFile("x"), Trouble.DAMAGE),
    ],
)
def test_errors_are_sorted_by_what_can_be_done(error: OSError | sqlite3.Error, expected: Trouble) -> None:
    assert trouble_of(error) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SQLITE_NOTADB", Trouble.DAMAGE),
        ("SQLITE_CORRUPT_VTAB", Trouble.DAMAGE),
        ("SQLITE_FULL", Trouble.NO_ROOM),
        ("SQLITE_IOERR_SHMSIZE", Trouble.NO_ROOM),
        ("SQLITE_READONLY_DIRECTORY", Trouble.READ_ONLY),
        ("SQLITE_CANTOPEN", Trouble.READ_ONLY),
        ("SQLITE_BUSY_SNAPSHOT", Trouble.LOCKED),
        ("SQLITE_IOERR_READ", Trouble.DISK),
        ("SQLITE_MISUSE", Trouble.OTHER),
    ],
)
def test_sqlites_errors_are_sorted_by_what_can_be_done(name: str, expected: Trouble) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorname = name
    assert trouble_of(error) is expected


# ---- migration


def test_a_migration_keeps_a_complete_private_copy(file: Path) -> None:
    make_file(file, 20, version=1)
    before = rows(file)
    with opened(file) as database:
        assert messages(database) == before
        assert database.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]
    (copy,) = (file.parent / "backups").iterdir()
    assert copy.name == time.strftime("chats-v1-%Y%m%d-%H%M%S.db", time.localtime(NOON))
    assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert rows(copy, "PRAGMA user_version") == [(1,)]
    assert rows(copy) == before
    assert is_sound(file)


def test_an_old_file_without_chats_needs_no_copy(file: Path) -> None:
    make_file(file, 0, version=1)
    with opened(file) as database:
        assert not database.read_only
    assert not (file.parent / "backups").exists()


def test_a_second_migration_in_the_same_second_overwrites_no_copy(file: Path) -> None:
    for num_chats in (2, 3):
        make_file(file, num_chats, version=1)
        with opened(file):
            pass
        file.unlink()
    copies = sorted((file.parent / "backups").iterdir())
    assert [len(rows(copy, "SELECT id FROM sessions")) for copy in copies] == [2, 3]


def test_without_a_copy_nothing_is_migrated_and_all_can_be_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_file(file, 5, version=1)
    before = rows(file)

    def no_room(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(backup, "before_migration", no_room)
        with opened(file) as database:
            assert "The disk is full" in database.read_only
            assert messages(database) == before
            with pytest.raises(SamovarError, match="The disk is full"):
                add_chat(database)
            assert rows(file, "PRAGMA user_version") == [(1,)]
            patch.undo()
            add_chat(database)
            assert database.read_only == "", "there is room again"
            assert messages(database) == before
    assert len(files_of(file.parent / "backups")) == 1
    assert ("new",) in rows(file, "SELECT id FROM sessions")


def test_processes_that_open_an_old_file_at_once_migrate_it_once(file: Path) -> None:
    make_file(file, 30, version=1)
    count = len(rows(file))
    assert start_openers(file, 4) == [f"{count} False False"] * 4
    assert len(files_of(file.parent / "backups", "*.db")) == 1


# ---- daily backup


def test_there_is_one_backup_a_day(file: Path) -> None:
    make_file(file)
    made = backup.daily(file, NOON)
    assert made is not None
    assert made.name == time.strftime("chats-%Y%m%d.db", time.localtime(NOON))
    assert rows(made) == rows(file)
    assert made.stat().st_mode & 0o777 == 0o600
    assert backup.daily(file, NOON) is None
    assert backup.daily(file, NOON + DAY_S) is not None
    assert files_of(made.parent, "*.part*") == []


def test_a_store_without_chats_is_not_backed_up(file: Path) -> None:
    assert backup.daily(file, NOON) is None, "there is no file"
    with opened(file):
        assert backup.daily(file, NOON) is None
    assert not (file.parent / "backups").exists()


def test_seven_daily_ones_are_kept_and_those_of_migrations(file: Path) -> None:
    make_file(file, 2, version=1)
    with opened(file):
        made = [backup.daily(file, NOON + day * DAY_S) for day in range(10)]
    names = [one.name for one in made if one is not None]
    assert len(names) == 10
    kept = files_of(file.parent / "backups", "*.db")
    assert [name for name in kept if "-v1-" not in name] == names[3:]
    assert len(kept) == backup.NUM_DAILY + 1


def test_writers_go_on_while_a_backup_is_made(file: Path) -> None:
    make_file(file, 50, words=400)
    written: list[bool] = []
    with opened(file) as database:

        def write() -> bool:
            if len(written) < 20:
                add_chat(database, f"meanwhile {len(written)}")
                written.append(True)
            return False

        made = backup.daily(file, NOON, write)
        assert made is not None
        assert written
    assert len(rows(made, "SELECT id FROM sessions")) == 50, "the state of one moment"
    assert is_sound(made)


def test_a_backup_ends_early_when_the_program_does(file: Path) -> None:
    make_file(file)
    assert backup.daily(file, NOON, lambda: True) is None
    assert files_of(file.parent / "backups", "chats*") == []
    assert backup.daily(file, NOON) is not None


def test_what_a_killed_process_left_is_removed(file: Path) -> None:
    make_file(file)
    folder = file.parent / "backups"
    folder.mkdir()
    for name in ("chats-20200101.db.part", "chats-20200101.db.part-journal"):
        (folder / name).write_text("x")
    made = backup.daily(file, NOON)
    assert made is not None
    assert files_of(folder, "chats*") == [made.name]


def test_processes_that_back_up_at_once_make_one(file: Path) -> None:
    make_file(file)
    code = """
        sys.stdin.readline()
        print(backup.daily(Path(sys.argv[1]), float(sys.argv[2])) is not None)
    """
    processes = [start_python(code, file, NOON) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate()[0].strip() for process in processes)
    assert said == ["False", "False", "False", "True"]
    assert len(files_of(file.parent / "backups", "*.db")) == 1


def test_a_damaged_store_pushes_no_good_backup_out(file: Path) -> None:
    make_file(file)
    for day in range(7):
        backup.daily(file, NOON + day * DAY_S)
    good = files_of(file.parent / "backups")
    overwrite(file, 5 * PAGE, b"\xff" * PAGE)
    with pytest.raises(SamovarError, match="damaged"):
        backup.daily(file, NOON + 7 * DAY_S)
    assert files_of(file.parent / "backups") == good
    assert integrity.is_marked(file)


# ---- the check


def test_a_sound_file_passes_the_check(file: Path) -> None:
    make_file(file)
    assert integrity.check_integrity(file) is None
    assert not integrity.is_marked(file)


def test_damage_that_the_check_finds_is_repaired_at_the_next_start(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_file(file)
    before = rows(file)
    monkeypatch.setattr(integrity, "CHECKED_AT_OPEN_BYTES", 1000)
    overwrite(file, _page_of_index(file) * PAGE, b"\xff" * PAGE)
    with opened(file) as database:
        assert database.needs_check
        assert database.repaired is None
        assert integrity.check_integrity(file)
    with opened(file) as database:
        assert database.repaired is not None
        assert messages(database) == before
    assert not integrity.is_marked(file)
    with opened(file) as database:
        assert database.repaired is None, "once"


def test_a_file_whose_schema_is_no_text_is_repaired(file: Path) -> None:
    make_file(file)
    before = rows(file)
    pos = file.read_bytes().index(b"CREATE TABLE sessions")
    overwrite(file, pos, b"\xde" * 30)
    assert integrity.check_integrity(file)
    integrity.unmark(file)
    with opened(file) as database:
        assert database.repaired is not None
        assert messages(database) == before


def test_the_check_ends_early_when_the_program_does(file: Path) -> None:
    make_file(file)
    overwrite(file, _page_of_index(file) * PAGE, b"\xff" * PAGE)
    assert integrity.check_integrity(file, lambda: True) is None
    assert not integrity.is_marked(file)


def test_damage_that_is_met_in_use_is_repaired_at_the_next_start(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_file(file)
    monkeypatch.setattr(integrity, "CHECKED_AT_OPEN_BYTES", 1000)
    overwrite(file, _page_of_index(file) * PAGE, b"\xff" * PAGE)
    by_index = "SELECT count(*) FROM sessions INDEXED BY sessions_revision WHERE revision >= 0"
    with opened(file) as database, pytest.raises(SamovarError, match="start it again"):
        database.rows(by_index)
    with opened(file) as database:
        assert database.repaired is not None
        assert database.rows(by_index) == [(50,)]


def _page_of_index(path: Path) -> int:
    """The number, from 0 on, of the first page of an index: no row is lost with it."""
    return int(rows(path, "SELECT rootpage FROM sqlite_master WHERE name = 'sessions_revision'")[0][0]) - 1


def test_a_byte_that_was_flipped_within_a_text_hides_nothing_else(file: Path) -> None:
    make_file(file, 3)
    with plain(file) as connection:
        connection.execute("UPDATE messages SET content = CAST(x'61ff62' AS TEXT) WHERE id = 1")
    with opened(file) as database:
        assert database.rows("SELECT content FROM messages WHERE id < 2") == [("a\ufffdb",)]
        assert len(messages(database)) == 2 + 3 + 4
        assert database.repaired is None


# ---- repair


def test_a_file_without_its_header_loses_nothing(file: Path) -> None:
    make_file(file)
    before, tags = rows(file), rows(file, "SELECT * FROM tags")
    overwrite(file, 0, bytes(100))
    with opened(file) as database:
        assert messages(database) == before
        assert database.rows("SELECT * FROM tags") == tags
        report = database.repaired
        add_chat(database)
    assert report is not None
    assert (report.num_sessions, report.num_messages, report.num_lost_messages) == (50, len(before), 0)
    assert report.set_aside is not None
    assert report.set_aside.read_bytes()[:100] == bytes(100)
    assert str(report.set_aside) in report.sentence
    assert is_sound(file)


def test_a_file_without_its_first_page_keeps_chats_and_messages(file: Path) -> None:
    make_file(file)
    before = rows(file)
    titles = rows(file, "SELECT id, title, settings, head_id FROM sessions ORDER BY id")
    overwrite(file, 0, bytes(PAGE))
    with opened(file) as database:
        assert messages(database) == before
        assert database.rows("SELECT id, title, settings, head_id FROM sessions ORDER BY id") == titles
        assert database.repaired is not None
        assert database.repaired.num_lost_files == 13, "which are told, and found in a backup"
        assert "13 attached files" in database.repaired.sentence
    assert is_sound(file)


@pytest.mark.parametrize(
    "content", [b"this is no database. " * 500, bytes(8192), b"x"], ids=["text", "0", "x"]
)
def test_a_file_that_is_no_database_is_set_aside(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    with opened(file) as database:
        assert messages(database) == []
        report = database.repaired
        add_chat(database)
    assert report is not None
    assert report.set_aside is not None
    assert report.set_aside.read_bytes() == content
    assert "nothing could be read" in report.sentence


def test_a_file_that_is_no_database_is_replaced_by_the_backup(file: Path) -> None:
    make_file(file)
    before = rows(file)
    made = backup.daily(file, NOON)
    file.write_bytes(b"no database" * 1000)
    with opened(file) as database:
        assert messages(database) == before
        report = database.repaired
    assert report is not None
    assert report.backup == made
    assert report.num_from_backup == len(before) + 50


@pytest.mark.parametrize("is_backed_up", [False, True])
def test_an_empty_file_is_filled_from_the_backup(file: Path, is_backed_up: bool) -> None:
    make_file(file)
    before = rows(file)
    if is_backed_up:
        backup.daily(file, NOON)
    file.write_bytes(b"")
    with opened(file) as database:
        assert messages(database) == (before if is_backed_up else [])
        assert (database.repaired is not None) == is_backed_up


def test_a_file_that_was_taken_away_is_begun_anew(file: Path) -> None:
    make_file(file)
    backup.daily(file, NOON)
    file.unlink()
    with opened(file) as database:
        assert messages(database) == []
        assert database.repaired is None


def test_an_empty_file_with_a_log_is_read_from_the_log(file: Path) -> None:
    """SQLite would delete the log."""
    file.parent.mkdir()
    with contextlib.closing(connect_held(file)) as connection:
        add_chats(connection, 0, 5)
        before = connection.execute(f"{ROW} ORDER BY id").fetchall()
        copy = file.with_name("copy") / "chats.db"
        copy.parent.mkdir()
        shutil.copy(f"{file}-wal", f"{copy}-wal")
    copy.touch()
    with opened(copy) as database:
        assert messages(database) == before


def connect_held(path: Path) -> sqlite3.Connection:
    """A connection to a new file all of whose content is in its log."""
    connection = sqlite3.connect(path, isolation_level=None)
    make_file(path, 0)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA user_version").fetchone()
    connection.execute("VACUUM")  # every page goes to the log
    return connection


@pytest.mark.parametrize("eighths", range(1, 8))
def test_a_cut_file_keeps_what_is_left_of_it(file: Path, eighths: int) -> None:
    make_file(file)
    before = rows(file)
    os.truncate(file, file.stat().st_size * eighths // 8 + 100)
    held = {leaf.rowid for leaf in leaf_rows(read_image(file)) if leaf.is_whole and is_message(leaf)}
    with opened(file) as database:
        found = messages(database)
        assert database.repaired is not None
        contents = {row[0]: row[4] for row in before}
        assert {row[0] for row in found} >= held
        wrong = [row[:4] for row in found if not contents[row[0]].startswith(str(row[4]))]
        assert wrong == []
    assert is_sound(file)


def test_a_cut_file_with_a_backup_is_whole_again(file: Path) -> None:
    make_file(file)
    backup.daily(file, NOON)
    with plain(file) as connection:
        connection.execute("UPDATE messages SET content = 'newer' WHERE id = 2")
    before, files = rows(file), rows(file, "SELECT * FROM files")
    os.truncate(file, file.stat().st_size // 2)
    with opened(file) as database:
        assert messages(database) == before, "what was read is newer than the backup"
        assert database.rows("SELECT * FROM files") == files
        assert database.repaired is not None
        assert database.repaired.num_lost_messages == 0
        assert database.repaired.num_from_backup > 0
    assert is_sound(file)


def test_a_long_message_that_lost_its_end_keeps_its_beginning(file: Path) -> None:
    make_file(file, 3)
    text = "".join(f"line {number}\n" for number in range(5000))
    with plain(file) as connection:
        connection.execute("UPDATE messages SET content = ? WHERE id = 2", (text,))
    content = file.read_bytes()
    pos = content.index(b"line 3000\n") // PAGE * PAGE  # an overflow page leads to the next one
    overwrite(file, pos, b"\xff\xff\xff\xff")
    with opened(file) as database:
        assert database.repaired is not None
        ((kept, state),) = database.rows("SELECT content, state FROM messages WHERE id = 2")
        assert "line 2999\n" in kept
        assert text.startswith(kept)
        assert state == "stopped"
        assert len(messages(database)) == 9
    assert is_sound(file)


def test_an_old_file_is_repaired_into_the_current_format(file: Path) -> None:
    make_file(file, version=1)
    before = rows(file)
    overwrite(file, 0, bytes(100))
    with opened(file) as database:
        assert messages(database) == before
        assert database.rows("SELECT DISTINCT attachments FROM messages") == [("[]",)]
    assert is_sound(file)


def test_a_backup_of_an_old_format_fills_the_gaps(file: Path) -> None:
    make_file(file, version=1)
    before = rows(file)
    with opened(file):
        pass
    file.write_bytes(b"x" * 10_000)
    with opened(file) as database:
        assert messages(database) == before


def test_a_damaged_backup_is_passed_over(file: Path) -> None:
    make_file(file)
    before = rows(file)
    good = backup.daily(file, NOON)
    bad = backup.daily(file, NOON + DAY_S)
    assert bad is not None
    overwrite(bad, 0, b"\xff" * PAGE)
    file.write_bytes(b"x" * 10_000)
    with opened(file) as database:
        assert messages(database) == before
        assert database.repaired is not None
        assert database.repaired.backup == good


def test_dangling_references_are_mended(file: Path) -> None:
    make_file(file, 20)
    with plain(file) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        lost = connection.execute("SELECT id FROM messages WHERE session_id = 'chat-0007'").fetchall()
        middle, last = lost[3][0], lost[-1][0]
        connection.execute("DELETE FROM messages WHERE id IN (?, ?)", (middle, last))
        connection.execute("DELETE FROM sessions WHERE id = 'chat-0005'")
        connection.execute("DELETE FROM files WHERE text LIKE 'file of chat-0004%'")
        connection.execute("UPDATE files SET text = 'other' WHERE text LIKE 'file of chat-0008%'")
        connection.execute("UPDATE sessions SET import_id = 7 WHERE id = 'chat-0009'")
        connection.execute("UPDATE messages SET role = 'dancer', stats = '{' WHERE session_id = 'chat-0003'")
    integrity.mark(file, "as if")
    with opened(file) as database:
        assert database.rows("SELECT id, parent_id FROM messages WHERE id = ?", middle + 1) == [
            (middle + 1, None)
        ]
        assert database.rows("SELECT head_id FROM sessions WHERE id = 'chat-0007'") == [(last - 1,)]
        ((title, head),) = database.rows("SELECT title, head_id FROM sessions WHERE id = 'chat-0005'")
        assert title == RECOVERED
        assert database.rows("SELECT max(id) FROM messages WHERE session_id = 'chat-0005'") == [(head,)]
        assert database.rows("SELECT count(*) FROM files") == [(3,)]
        assert database.rows("SELECT id, owner_pid FROM imports") == [(7, 0)]
        assert database.rows("SELECT DISTINCT role FROM messages WHERE session_id = 'chat-0003'") == [
            ("user",)
        ]
        report = database.repaired
    assert report is not None
    assert (report.num_lost_messages, report.num_lost_sessions, report.num_lost_files) == (2, 1, 2)
    assert "2 messages" in report.sentence
    assert is_sound(file)


def test_a_head_below_a_deleted_message_is_not_chosen(file: Path) -> None:
    make_file(file, 20)
    with plain(file) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        ids = [n for (n,) in connection.execute("SELECT id FROM messages WHERE session_id = 'chat-0007'")]
        connection.execute("UPDATE messages SET deleted_at = 1 WHERE id = ?", (ids[4],))
        connection.execute("UPDATE sessions SET head_id = 999999 WHERE id = 'chat-0007'")
    integrity.mark(file, "as if")
    with opened(file) as database:
        assert database.rows("SELECT head_id FROM sessions WHERE id = 'chat-0007'") == [(ids[3],)]


def test_ids_that_were_given_are_not_given_again(file: Path) -> None:
    make_file(file, 20)
    with plain(file) as connection:
        (last,) = connection.execute("SELECT max(id) FROM messages").fetchone()
        connection.execute("UPDATE sessions SET head_id = NULL")
        connection.execute("DELETE FROM messages WHERE session_id = 'chat-0019'")
    integrity.mark(file, "as if")
    with opened(file) as database:
        new = database.insert(
            "INSERT INTO messages (session_id, role, content, created_at, state)"
            " VALUES ('chat-0001', 'user', 'x', 0, 'complete')"
        )
        assert new == last + 1


def test_lost_messages_are_counted(file: Path) -> None:
    make_file(file)
    page = next(leaf.page for leaf in leaf_rows(read_image(file)) if is_message(leaf) and leaf.rowid == 100)
    lost = {leaf.rowid for leaf in leaf_rows(read_image(file)) if leaf.page == page}
    before = {row[0] for row in rows(file)}
    overwrite(file, (page - 1) * PAGE, b"\xff" * PAGE)
    with opened(file) as database:
        assert database.repaired is not None
        assert database.repaired.num_lost_messages == len(lost) > 1
        assert {row[0] for row in messages(database)} == before - lost


def test_a_row_that_no_release_can_have_written_is_repaired_at_the_next_start(file: Path) -> None:
    make_file(file, 3)
    with plain(file) as connection:
        connection.execute("UPDATE messages SET state = 'dancing' WHERE id = 2")
    with opened(file) as database:
        assert "cannot be read" in str(database.damaged("message 2 is marked 'dancing'"))
    with opened(file) as database:
        assert database.repaired is not None
        assert database.rows("SELECT state FROM messages WHERE id = 2") == [("stopped",)]


def test_a_file_that_another_window_has_open_is_not_repaired(file: Path) -> None:
    make_file(file)
    with opened(file):
        integrity.mark(file, "as if")
        with pytest.raises(SamovarError, match="Close all others"):
            open_database(file)
    with opened(file) as database:
        assert database.repaired is not None


def test_a_file_that_a_program_without_our_lock_has_open_is_not_repaired(file: Path) -> None:
    make_file(file)
    integrity.mark(file, "as if")
    code = """
        import sqlite3
        connection = sqlite3.connect(sys.argv[1])
        connection.execute("SELECT count(*) FROM messages").fetchone()
        print("open", flush=True)
        sys.stdin.readline()
    """
    other = start_python(code, file)
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(SamovarError, match="Close all others"):
        open_database(file)
    other.communicate("\n")
    with opened(file) as database:
        assert database.repaired is not None


def test_processes_that_open_a_damaged_file_at_once_repair_it_once(file: Path) -> None:
    make_file(file)
    count = len(rows(file))
    overwrite(file, 0, bytes(100))
    said = start_openers(file, 4)
    assert sorted(said) == [f"{count} False False"] * 3 + [f"{count} True False"]
    assert len(files_of(file.parent, "chats.db.damaged-*")) == 2, "the file and what was saved"


def test_what_a_finished_repair_left_to_do_is_done_at_the_next_start(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_file(file)
    before = rows(file)
    overwrite(file, 0, bytes(100))
    with monkeypatch.context() as patch:
        patch.setattr(repair, "finish", lambda _path: os._exit)  # as if killed
        with pytest.raises(AssertionError):
            repair.repair(file, NOON)
    assert repair.is_unfinished(file)
    with opened(file) as database:
        assert messages(database) == before
        assert database.repaired is not None
        assert database.repaired.num_messages == len(before)
        assert database.repaired.set_aside is not None
        assert database.repaired.set_aside.exists()
    assert not repair.is_unfinished(file)


# ---- reading where nothing can be written


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION])
def test_a_folder_without_write_access_is_read(file: Path, version: int) -> None:
    make_file(file, version=version)
    before = rows(file)
    with without_write_access(file.parent) as folder, opened(folder / file.name) as database:
        assert "nothing can be stored" in database.read_only
        assert messages(database) == before
        for write in (
            lambda: add_chat(database),
            lambda: database.change("DELETE FROM messages"),
            lambda: database.rows("DELETE FROM messages RETURNING id"),
        ):
            with pytest.raises(SamovarError, match="nothing can be stored"):
                write()
        with pytest.raises(SamovarError, match="nothing can be stored"), database.transaction():
            pass
        assert messages(database) == before


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION])
def test_a_second_connection_reads_what_the_first_one_does(file: Path, version: int) -> None:
    make_file(file, version=version)
    before = rows(file)
    with (
        without_write_access(file.parent) as folder,
        contextlib.closing(open_for_reading(folder / file.name)) as database,
    ):
        assert messages(database) == before
        assert database.rows(
            "SELECT count(*) FROM messages_fts WHERE messages_fts MATCH 'title OR message'"
        ) == [(len(before),)]
    with opened(file), contextlib.closing(open_for_reading(file)) as database:
        assert messages(database) == before
    with contextlib.closing(open_for_reading(file.with_name("none.db"))) as database:
        assert messages(database) == []


def test_a_log_on_media_without_write_access_is_not_left_out(file: Path) -> None:
    make_file(file, 3)
    with plain(file) as connection:
        add_chats(connection, 3, 4)
        before = connection.execute(f"{ROW} ORDER BY id").fetchall()
        copy = file.with_name("copy") / "chats.db"
        copy.parent.mkdir()
        for end in ("", "-wal"):
            shutil.copy(f"{file}{end}", f"{copy}{end}")
    with without_write_access(copy.parent) as folder, opened(folder / "chats.db") as database:
        assert messages(database) == before


def test_a_damaged_file_on_media_without_write_access_is_read(file: Path) -> None:
    make_file(file)
    before = rows(file)
    overwrite(file, 0, bytes(100))
    with without_write_access(file.parent) as folder, opened(folder / file.name) as database:
        assert "damaged" in database.read_only
        assert messages(database) == before
        assert database.repaired is not None
        assert database.repaired.set_aside is None


def test_an_empty_file_on_media_without_write_access_is_filled_from_the_backup(file: Path) -> None:
    make_file(file)
    before = rows(file)
    backup.daily(file, NOON)
    file.write_bytes(b"")
    with without_write_access(file.parent) as folder, opened(folder / file.name) as database:
        assert messages(database) == before


@pytest.mark.parametrize("is_there", [True, False])
def test_where_no_file_can_be_made_there_is_an_empty_store(tmp_path: Path, is_there: bool) -> None:
    base = tmp_path / "base"
    (base / "data").mkdir(parents=True)
    with without_write_access(base) as folder:
        path = folder / ("data" if is_there else "other") / "chats.db"
        with opened(path) as database:
            assert "nothing can be stored" in database.read_only
            assert messages(database) == []
            with pytest.raises(SamovarError, match="nothing can be stored"):
                add_chat(database)


def test_places_that_take_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SamovarError, match="a file is in its place"):
        open_database(tmp_path / "file" / "chats.db")
    (tmp_path / "chats.db").mkdir()
    with pytest.raises(SamovarError, match="Cannot write"):
        open_database(tmp_path / "chats.db")


def test_chats_of_a_newer_release_are_read_and_left_alone(file: Path) -> None:
    make_file(file, 5)
    with plain(file) as connection:
        connection.execute("ALTER TABLE sessions ADD COLUMN mood TEXT")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before, content = rows(file), file.read_bytes()
    with opened(file) as database:
        assert "newer Samovar" in database.read_only
        assert messages(database) == before
        with pytest.raises(SamovarError, match="newer Samovar"):
            add_chat(database)
    assert file.read_bytes() == content
    assert not (file.parent / "backups").exists()


def test_chats_of_a_release_that_stores_them_in_another_way_are_refused(file: Path) -> None:
    make_file(file, 5)
    with plain(file) as connection:
        connection.execute("ALTER TABLE messages RENAME COLUMN content TO body")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    content = file.read_bytes()
    with pytest.raises(SamovarError, match="newer Samovar"):
        open_database(file)
    assert file.read_bytes() == content


# ---- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=2m", "none") as folder:
        yield folder


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(4 << 20))
    return filler


@pytest.mark.parametrize("is_open_elsewhere", [False, True])
def test_a_full_disk_is_read_and_written_when_there_is_room(
    small_disk: Path, is_open_elsewhere: bool
) -> None:
    file = small_disk / "data" / "chats.db"
    make_file(file)
    before = rows(file)
    with contextlib.ExitStack() as stack:
        if is_open_elsewhere:
            stack.enter_context(opened(file))
        filler = fill(small_disk)
        database = stack.enter_context(opened(file))
        assert messages(database) == before
        with pytest.raises(SamovarError, match="The disk is full"):
            add_chat(database, "x" * 3_000_000)
        assert messages(database) == before
        filler.unlink()
        add_chat(database, "there is room")
        assert not database.read_only
        assert messages(database) == before
    assert ("there is room",) in rows(file, "SELECT id FROM sessions")


def test_on_a_full_disk_nothing_is_migrated(small_disk: Path) -> None:
    file = small_disk / "data" / "chats.db"
    make_file(file, version=1)
    before = rows(file)
    filler = fill(small_disk)
    with opened(file) as database:
        assert "The disk is full" in database.read_only
        assert messages(database) == before
        with pytest.raises(SamovarError, match="The disk is full"):
            add_chat(database)
        assert files_of(file.parent / "backups", "chats*") == []
        filler.unlink()
        add_chat(database)
        assert messages(database) == before
    assert len(files_of(file.parent / "backups", "chats-v1-*.db")) == 1
    assert rows(file, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_on_a_full_disk_a_damaged_file_is_read(small_disk: Path) -> None:
    file = small_disk / "data" / "chats.db"
    make_file(file)
    before = rows(file)
    overwrite(file, 0, bytes(100))
    content = file.read_bytes()
    filler = fill(small_disk)
    with opened(file) as database:
        assert messages(database) == before
        assert database.read_only
    assert file.read_bytes() == content
    filler.unlink()
    with opened(file) as database:
        assert messages(database) == before
        assert not database.read_only


def test_a_full_disk_takes_no_half_backup(small_disk: Path) -> None:
    file = small_disk / "data" / "chats.db"
    make_file(file)
    fill(small_disk)
    with pytest.raises(SamovarError, match="could not be backed up"):
        backup.daily(file, NOON)
    assert files_of(file.parent / "backups", "chats*") == []


def test_a_new_store_on_a_full_disk_begins_when_there_is_room(small_disk: Path) -> None:
    filler = fill(small_disk)
    file = small_disk / "chats.db"
    with opened(file) as database:
        assert messages(database) == []
        with pytest.raises(SamovarError, match="The disk is full"):
            add_chat(database)
        filler.unlink()
        add_chat(database)
    assert rows(file, "SELECT id FROM sessions") == [("new",)]


# ---- reading without SQLite


def test_an_image_holds_what_sqlite_sees(file: Path) -> None:
    make_file(file, 10)
    with plain(file) as connection:
        for first in (10, 14, 18):
            add_chats(connection, first, 4)
        connection.execute("DELETE FROM tags")
        before = connection.execute(f"{ROW} ORDER BY id").fetchall()
        assert Path(f"{file}-wal").stat().st_size > 0
        with contextlib.closing(in_memory(read_image(file))) as image:
            assert image.execute(f"{ROW} ORDER BY id").fetchall() == before
            assert image.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_transaction_that_did_not_end_is_not_in_the_image(file: Path) -> None:
    make_file(file, 10)
    with plain(file) as connection:
        connection.execute("PRAGMA cache_size = 5")  # so that pages go to the log before the end
        connection.execute("BEGIN")
        add_chats(connection, 10, 100)
        assert Path(f"{file}-wal").stat().st_size > 100_000
        with contextlib.closing(in_memory(read_image(file))) as image:
            assert image.execute("SELECT count(*) FROM sessions").fetchall() == [(10,)]


def test_leaf_pages_hold_all_rows(file: Path) -> None:
    make_file(file)
    leaves = list(leaf_rows(read_image(file)))
    assert all(leaf.is_whole for leaf in leaves)
    found = {
        (leaf.rowid, leaf.values[1], leaf.values[4], leaf.values[5]) for leaf in leaves if is_message(leaf)
    }
    assert found == {(row[0], row[1], row[4], row[5]) for row in rows(file)}


def test_a_thread_may_back_up_while_another_one_opens(file: Path) -> None:
    make_file(file)
    made: list[Path | None] = []
    thread = threading.Thread(target=lambda: made.append(backup.daily(file, NOON)))
    thread.start()
    with opened(file) as database:
        assert not database.read_only
    thread.join()
    assert made != [None]


def test_sentences_say_what_to_do(file: Path) -> None:
    for trouble in (Trouble.NO_ROOM, Trouble.READ_ONLY, Trouble.DAMAGE, Trouble.DISK):
        text = read_only.sentence(trouble, file, "reason")
        assert str(file) in text
        assert "nothing can be stored" in text
        assert text.count(". ") >= 1
