"""Files of chats under `kill -9` and flipped bytes: what could be read is there, and nothing is half done."""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from samovar.sessions import backup, integrity
from samovar.sessions.database import open_database
from samovar.sessions.schema import SCHEMA_VERSION
from tests.unit.chats_support import (
    NOON,
    ROW,
    Row,
    files_of,
    is_sound,
    make_file,
    overwrite,
    plain,
    rows,
    start_python,
)

pytestmark = pytest.mark.timeout(3000)

SOAK: Final = bool(os.environ.get("SAMOVAR_SOAK"))
NUM_FLIPS: Final = 2000 if SOAK else 150
NUM_KILLS: Final = 200 if SOAK else 12
PAGE: Final = 4096
BROKEN: Final = b"\xff" * PAGE

# Ends itself as `kill -9` would at the nth time that it touches a file.
KILLED_AT: Final = """
    left = int(sys.argv[2])
    def count(event, _arguments):
        global left
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect", "fcntl.flock"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats.db"


@contextlib.contextmanager
def fresh(original: Path, file: Path) -> Iterator[None]:
    """A copy of a whole folder for one round."""
    shutil.copytree(original.parent, file.parent)
    yield
    shutil.rmtree(file.parent)


def readable(path: Path, ids: list[int]) -> set[Row]:
    """The rows that SQLite gives one by one, without any index."""
    found: set[Row] = set()
    with plain(path) as connection:
        for number in ids:
            with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
                found.update(connection.execute(f"{ROW} NOT INDEXED WHERE id = ?", (number,)))
    return found


@pytest.mark.parametrize("is_backed_up", [False, True])
def test_flipped_bytes_lose_no_row_that_can_be_read(tmp_path: Path, file: Path, is_backed_up: bool) -> None:
    dice = random.Random(20261122)
    original = tmp_path / "original" / "chats.db"
    make_file(original)
    if is_backed_up:
        backup.daily(original, NOON)
    before = rows(original)
    contents = {row[0]: row for row in before}
    num_pages = original.stat().st_size // PAGE
    pages = [*range(num_pages), *(dice.randrange(num_pages) for _ in range(NUM_FLIPS))][:NUM_FLIPS]
    num_repaired = 0
    for page in pages:
        with fresh(original, file):
            for _ in range(dice.choice([1, 1, 8, 200])):
                # The beginning of a page holds what the rest depends on.
                pos = dice.randrange(dice.choice([16, 120, PAGE]))
                overwrite(file, page * PAGE + pos, bytes([dice.randrange(256)]))
            expected = readable(_copy(file), list(contents)) & set(before)
            with contextlib.closing(open_database(file)) as database:
                assert not database.read_only
                found = set(database.rows(ROW))
                report = database.repaired
            # All but the parent: that may be what was lost.
            assert {(*row[:2], *row[3:]) for row in found} >= {(*row[:2], *row[3:]) for row in expected}
            ids = {row[0] for row in found}
            whole = {row for row in expected if row[2] is None or row[2] in ids}
            assert len(whole - found) <= sum(row not in before for row in found)
            if report is not None:
                num_repaired += 1
                assert is_sound(file)
                assert report.set_aside is not None
                assert report.set_aside.exists()
                if is_backed_up:
                    assert {row[0] for row in found} >= set(contents)
    assert num_repaired > NUM_FLIPS // 5


def _copy(path: Path) -> Path:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    return copy


def kill_at_random(code: str, file: Path, dice: random.Random, most_s: float) -> None:
    """Run this, and kill it at some moment."""
    process = start_python('print("start", flush=True)\n' + code, file)
    assert process.stdout is not None
    process.stdout.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(dice.uniform(0.0, most_s))  # until its end, or a moment before it
    process.kill()
    process.communicate()


def until_unharmed(code: str, original: Path, file: Path) -> Iterator[int]:
    """Run this again and again, killed at the first touch of a file, at the second and so on."""
    for number in range(1, 1000):
        with fresh(original, file):
            process = start_python(KILLED_AT + code, file, number)
            process.communicate()
            yield number
            if process.returncode == 0:
                return
            assert process.returncode == -signal.SIGKILL
    pytest.fail("it never came to an end")


OPEN: Final = "    open_database(Path(sys.argv[1])).close()"
REPAIR: Final = "    open_database(Path(sys.argv[1]))"
DAILY: Final = f"    backup.daily(Path(sys.argv[1]), {NOON})"


def check_migrated(file: Path, before: list[Row]) -> None:
    """Either old or new, with a copy of what was old; never a half."""
    ((version,),) = rows(file, "PRAGMA user_version")
    assert rows(file) == before
    assert version in (1, SCHEMA_VERSION)
    copies = list((file.parent / "backups").glob("*.db"))
    assert len(copies) >= (version == SCHEMA_VERSION)
    assert all(rows(copy) == before for copy in copies)
    with contextlib.closing(open_database(file)) as database:
        assert database.rows(f"{ROW} ORDER BY id") == before
        assert database.repaired is None
    assert is_sound(file)
    assert files_of(file.parent / "backups", "*.part*") == []


def test_a_migration_killed_at_every_step_keeps_the_chats(tmp_path: Path, file: Path) -> None:
    original = tmp_path / "original" / "chats.db"
    make_file(original, 10, version=1)
    before = rows(original)
    num_steps = 0
    for _ in until_unharmed(OPEN, original, file):
        check_migrated(file, before)
        num_steps += 1
    assert num_steps > 5


def test_a_migration_killed_at_any_moment_keeps_the_chats(tmp_path: Path, file: Path) -> None:
    dice = random.Random(1)
    original = tmp_path / "original" / "chats.db"
    make_file(original, 400, version=1)
    before = rows(original)
    for _ in range(NUM_KILLS):
        with fresh(original, file):
            kill_at_random(OPEN.strip(), file, dice, 0.4)
            check_migrated(file, before)


def check_repaired(file: Path, before: list[Row]) -> None:
    """The next start finds everything, and the damaged file is kept."""
    with contextlib.closing(open_database(file)) as database:
        assert database.rows(f"{ROW} ORDER BY id") == before
    assert is_sound(file)
    kept = [name for name in files_of(file.parent, "chats.db.damaged-*") if name[-1].isdigit()]
    assert len(kept) == 1
    assert BROKEN in (file.parent / kept[0]).read_bytes()
    assert files_of(file.parent, "*.repair*") == []
    assert not integrity.is_marked(file)


def damaged_with_log(path: Path) -> list[Row]:
    """A file with a broken page and a log that holds newer messages; returns what both hold together."""
    make_file(path, 30)
    with plain(path) as connection:
        connection.execute("UPDATE messages SET content = content || ' newer' WHERE id % 7 = 0")
        before = connection.execute(f"{ROW} ORDER BY id").fetchall()
        log = Path(f"{path}-wal").read_bytes()
    with plain(path) as connection:  # the last one to leave has put the log into the file: take that back
        connection.execute("UPDATE messages SET content = replace(content, ' newer', '')")
    ((page,),) = rows(path, "SELECT rootpage FROM sqlite_master WHERE name = 'sessions_revision'")
    overwrite(path, (page - 1) * PAGE, BROKEN)
    Path(f"{path}-wal").write_bytes(log)
    return before


def test_a_repair_killed_at_every_step_loses_nothing(tmp_path: Path, file: Path) -> None:
    original = tmp_path / "original" / "chats.db"
    before = damaged_with_log(original)
    num_steps = 0
    for _ in until_unharmed(REPAIR, original, file):
        check_repaired(file, before)
        num_steps += 1
    assert num_steps > 10


def test_a_repair_killed_at_any_moment_loses_nothing(tmp_path: Path, file: Path) -> None:
    dice = random.Random(2)
    original = tmp_path / "original" / "chats.db"
    before = damaged_with_log(original)
    for _ in range(NUM_KILLS):
        with fresh(original, file):
            kill_at_random(REPAIR.strip(), file, dice, 0.3)
            check_repaired(file, before)


def test_a_daily_backup_killed_at_every_step_is_whole_or_not_there(tmp_path: Path, file: Path) -> None:
    original = tmp_path / "original" / "chats.db"
    make_file(original, 20)
    before = rows(original)
    for _ in until_unharmed(DAILY, original, file):
        check_backed_up(file, before)


def test_a_daily_backup_killed_at_any_moment_is_whole_or_not_there(tmp_path: Path, file: Path) -> None:
    dice = random.Random(3)
    original = tmp_path / "original" / "chats.db"
    make_file(original, 400)
    before = rows(original)
    for _ in range(NUM_KILLS):
        with fresh(original, file):
            kill_at_random(DAILY.strip(), file, dice, 0.2)
            check_backed_up(file, before)


def check_backed_up(file: Path, before: list[Row]) -> None:
    assert rows(file) == before
    for copy in backup.newest_first(file):
        assert rows(copy) == before
        assert is_sound(copy)
        copy.unlink()
    made = backup.daily(file, NOON)
    assert made is not None
    assert files_of(made.parent, "chats*") == [made.name]
