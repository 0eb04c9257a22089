"""A damaged file of chats is set aside and a new one with what can be read takes its place.

    chats.db                   damaged, untouched until the new one is complete
    chats.db.repairing         the new one while it is built; of no use after a kill
    chats.db.repaired-<time>   complete and on disk: from here on the repair is only finished, never redone
    chats.db.damaged-<time>    the damaged file (with -wal, -shm, -journal), and .json: what was saved

The caller holds the data folder and the file alone. The damaged file is read without SQLite, and renamed.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from samovar.sessions import backup, integrity
from samovar.sessions.connection import COMPANIONS, connect, in_memory
from samovar.sessions.image import read_image
from samovar.sessions.locks import sync_folder
from samovar.sessions.salvage import Salvaged, salvage

_REPAIRED: Final = ".repaired-"


class RepairReport(msgspec.Struct, frozen=True):
    """What a repair has saved. `set_aside` is the damaged file, None if the repair was in memory only;
    `backup` is what filled the gaps. `num_lost_messages` are those that something else still speaks of.
    """

    set_aside: Path | None
    num_sessions: int
    num_messages: int
    num_from_backup: int
    num_lost_messages: int
    num_lost_sessions: int
    num_lost_files: int
    backup: Path | None = None

    @property
    def sentence(self) -> str:
        """For the user."""
        saved = f"{_count(self.num_sessions, 'chat')} with {_count(self.num_messages, 'message')}"
        if self.num_messages == self.num_sessions == 0:
            text = "The file of chats was damaged, and nothing could be read from it or from a backup."
        else:
            text = f"The file of chats was damaged; {saved} could be saved"
            if self.num_from_backup and self.backup is not None:
                text += f" ({self.num_from_backup} of all these from the backup {self.backup.name})"
            text += "."
        lost = [
            _count(number, what)
            for number, what in (
                (self.num_lost_messages, "message"),
                (self.num_lost_sessions, "title"),
                (self.num_lost_files, "attached file"),
            )
            if number
        ]
        if lost:
            text += f" Lost: {', '.join(lost)}."
        if self.set_aside is not None:
            text += f" The damaged file is kept: {self.set_aside}"
        return text


def repair(path: Path, now: float) -> RepairReport:
    """Put a sound file in the place of a damaged one; `now` is in seconds since the epoch.

    Raises OSError or sqlite3.Error if the new file cannot be written; all is as it was then.
    """
    building = path.with_name(f"{path.name}.repairing")
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    while path.with_name(f"{path.name}.damaged-{stamp}").exists():
        now += 1.0
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    try:
        for end in ("", *COMPANIONS):
            building.with_name(building.name + end).unlink(missing_ok=True)
        os.close(os.open(building, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with contextlib.closing(connect(building)) as target:
            target.execute("PRAGMA synchronous = OFF")  # it is synced as a whole
            target.execute("PRAGMA journal_mode = OFF")
            salvaged, source = _salvage(target, path)
            damage = integrity.damage_in(target)
            assert not damage, damage
            target.execute("PRAGMA journal_mode = WAL")
        report = _report(salvaged, source, path.with_name(f"{path.name}.damaged-{stamp}"))
        _write(_report_file(report), msgspec.json.encode(report, enc_hook=_name_of))
        _sync(building)
    except BaseException:
        for end in ("", *COMPANIONS):
            with contextlib.suppress(OSError):
                building.with_name(building.name + end).unlink(missing_ok=True)
        raise
    building.rename(path.with_name(f"{path.name}{_REPAIRED}{stamp}"))
    sync_folder(path.parent)
    finished = finish(path)
    assert finished == report
    return report


def finish(path: Path) -> RepairReport | None:
    """Put a file in its place that a repair had built when it was killed; None if there is none."""
    repaired = sorted(path.parent.glob(f"{path.name}{_REPAIRED}*"))
    if not repaired:
        return None
    done = repaired[-1]
    set_aside = path.with_name(done.name.replace(_REPAIRED, ".damaged-"))
    # The log goes first: it must never meet the new file. A second run finds some of them moved.
    for end in (*COMPANIONS, ""):
        damaged = path.with_name(path.name + end)
        if damaged.exists():
            damaged.rename(_free_name(set_aside.with_name(set_aside.name + end)))
    sync_folder(path.parent)
    integrity.unmark(path)
    done.rename(path)
    sync_folder(path.parent)
    report_file = set_aside.with_name(f"{set_aside.name}.json")
    try:
        report = msgspec.json.decode(report_file.read_bytes(), type=RepairReport, dec_hook=_from_name)
    except (OSError, msgspec.MsgspecError):
        return RepairReport(set_aside, 0, 0, 0, 0, 0, 0)
    source = report.backup and backup.folder_of(path) / report.backup
    return msgspec.structs.replace(report, set_aside=set_aside, backup=source)


def is_unfinished(path: Path) -> bool:
    """Whether `finish` has something to do."""
    return any(path.parent.glob(f"{path.name}{_REPAIRED}*"))


def repair_in_memory(path: Path) -> tuple[sqlite3.Connection, RepairReport]:
    """What can be read of a damaged file that cannot be replaced."""
    target = in_memory()
    salvaged, source = _salvage(target, path)
    return target, _report(salvaged, source, None)


def _salvage(target: sqlite3.Connection, path: Path) -> tuple[Salvaged, Path | None]:
    """Fill the target; also names the backup that was taken for it."""
    try:
        image = read_image(path)
    except FileNotFoundError:
        image = bytearray()
    with _newest_good_backup(path) as (file, connection):
        return salvage(target, image, connection), file


@contextlib.contextmanager
def _newest_good_backup(path: Path) -> Iterator[tuple[Path | None, sqlite3.Connection | None]]:
    for file in backup.newest_first(path):
        connection = None
        try:
            connection = connect(file, mode="ro")
            if integrity.damage_in(connection):
                connection.close()
                continue
        except sqlite3.Error:
            if connection is not None:
                connection.close()
            continue
        with contextlib.closing(connection):
            yield file, connection
        return
    yield None, None


def _report(salvaged: Salvaged, source: Path | None, set_aside: Path | None) -> RepairReport:
    values = msgspec.structs.asdict(salvaged)
    return RepairReport(set_aside=set_aside, backup=source, **values)


def _report_file(report: RepairReport) -> Path:
    assert report.set_aside is not None
    return report.set_aside.with_name(f"{report.set_aside.name}.json")


def _name_of(path: Any) -> str:  # noqa: ANN401 - msgspec's hook
    assert isinstance(path, Path)
    return path.name


def _from_name(kind: type[Any], name: Any) -> Any:  # noqa: ANN401 - msgspec's hook
    assert kind is Path
    return Path(name)


def _free_name(path: Path) -> Path:
    """This name, or the next one of which there is no file."""
    name, number = path, 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}-{number}")
    return name


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
