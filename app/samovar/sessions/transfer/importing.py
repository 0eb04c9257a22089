"""A file of chats, whatever program wrote it: recognized by what is in it, read chat by chat.

What comes of it are values; storing them, all or none, is the caller's part. Any thread, one at a time.
"""

import contextlib
import errno
import itertools
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Protocol, Self

from samovar.core.errors import SamovarError
from samovar.sessions.transfer import (
    json_chats,
    llm_logs,
    markdown,
    oterm,
    samovar_json,
    samovar_toml,
    sqlite_file,
    zip_file,
)
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.foreign import shown
from samovar.sessions.transfer.json_file import JsonFile
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.transfer.reading import accepted, shallow
from samovar.sessions.transfer.sqlite_file import SqliteFile
from samovar.sessions.transfer.zip_file import ZipFile

_KNOWN: Final = (
    "Samovar's own JSON, TOML and Markdown, ChatGPT's conversations.json or the zip around it, "
    "logs.db of llm, exports of llama.cpp's web interface, store.db of oterm, "
    "and OpenAI-style messages as JSON or JSONL"
)
_HEAD_BYTES: Final = 16
_PACKED: Final = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


class _Source(Protocol):
    """An open file of a known format. `num_bytes` and `done_bytes` show how far it is read."""

    format_name: str
    num_bytes: int

    @property
    def done_bytes(self) -> int: ...

    def chats(self) -> Iterator[ChatDocument]: ...


class _SqliteFormat(Protocol):
    """A module that reads the tables of one program."""

    NAME: str

    def matches(self, file: SqliteFile) -> bool: ...

    def count(self, file: SqliteFile) -> int: ...

    def read(self, file: SqliteFile, notes: Notes) -> Iterator[ChatDocument]: ...


_SQLITE_FORMATS: Final[tuple[_SqliteFormat, ...]] = (llm_logs, oterm)


class Reading:
    """A file of a known format. Use it in a `with`, or close it; `notes` fill while `chats` runs."""

    def __init__(self, path: Path, source: _Source, notes: Notes, cleanup: contextlib.ExitStack) -> None:
        """`open_file` is the way in."""
        self.path = path
        self.notes = notes
        self._source = source
        self._cleanup = cleanup

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def format_name(self) -> str:
        """Whose file it is, such as `ChatGPT`."""
        return self._source.format_name

    @property
    def total_bytes(self) -> int:
        """How much there is to read (of an archive: unpacked)."""
        return self._source.num_bytes

    @property
    def done_bytes(self) -> int:
        """How much of it is read, at most `total_bytes`."""
        return min(self._source.done_bytes, self.total_bytes)

    def chats(self) -> Iterator[ChatDocument]:
        """The chats, one at a time, once. SamovarError says at which of them the reading ended and why."""
        num_chats = 0
        with _explained(self.path, "; correct the file or export it anew"):
            for document in self._source.chats():
                num_chats += 1
                where = f"chat {num_chats}"
                shallow(document.extra, where)
                for message in document.messages:
                    shallow(message.extra, where)
                yield accepted(document, where)
            if not num_chats:
                raise SamovarError("there are no chats in it")

    def close(self) -> None:
        """Close what was opened, and remove temporary copies."""
        self._cleanup.close()


def open_file(path: Path, *, store: Path | None = None) -> Reading:
    """The file, ready to be read; SamovarError if it cannot be read or nobody knows its format.

    `store` is the database that this process has open. It is refused without being opened: closing it again
    would drop the locks that SQLite holds on it.
    """
    with contextlib.ExitStack() as cleanup, _explained(path):
        if store is not None and path.exists() and store.exists() and path.samefile(store):
            raise SamovarError("that is where Samovar keeps its chats; they are here already")
        file = _opened(path, cleanup)
        notes = Notes()
        head = os.pread(file.fileno(), _HEAD_BYTES, 0)
        source: _Source
        if head == sqlite_file.HEADER:
            source = _SqliteSource(path, file, notes, cleanup)
        elif head.startswith(zip_file.MAGIC):
            source = _ZipSource(file, notes, cleanup)
        else:
            source = _text_source(file, head, notes, cleanup)
        return Reading(path, source, notes, cleanup.pop_all())


def _opened(path: Path, cleanup: contextlib.ExitStack) -> IO[bytes]:
    try:
        # Not to wait where nobody writes: a pipe is refused as soon as it is open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise SamovarError("that is no path") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise SamovarError("it is a folder or a device, not a file")
    file = cleanup.enter_context(open(descriptor, "rb", buffering=0))  # noqa: SIM115 - `cleanup` closes it
    if not status.st_size:
        raise SamovarError("it is empty")
    return file


def _text_source(file: IO[bytes], head: bytes, notes: Notes, cleanup: contextlib.ExitStack) -> _Source:
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise SamovarError(f"it is packed with {name}; unpack it first")
    if head.startswith(_UTF_16):
        raise SamovarError("its text is UTF-16; save it as UTF-8 first")
    return _TextSource(file, notes, cleanup)


class _TextSource:
    """A file of text, from whichever folder or archive."""

    def __init__(self, file: IO[bytes], notes: Notes, cleanup: contextlib.ExitStack) -> None:
        self._file = JsonFile(file.fileno(), notes)
        cleanup.callback(self._file.close)
        self.format_name, self._chats = self._own_chats(notes) or self._foreign_chats(notes)
        self.num_bytes = self._file.num_bytes

    @property
    def done_bytes(self) -> int:
        return self._file.done_bytes

    def chats(self) -> Iterator[ChatDocument]:
        return self._chats

    def _own_chats(self, notes: Notes) -> tuple[str, Iterator[ChatDocument]] | None:
        data = self._file.data
        if samovar_json.matches(data):
            return "Samovar JSON", samovar_json.read(data, notes)
        if samovar_toml.matches(data):
            return "Samovar TOML", (samovar_toml.read(data, notes) for _ in range(1))
        if markdown.matches(data):
            return "Samovar Markdown", (markdown.read(data, notes) for _ in range(1))
        return None

    def _foreign_chats(self, notes: Notes) -> tuple[str, Iterator[ChatDocument]]:
        if self._file.first_byte() not in (b"{", b"["):
            raise _unknown("its text is none that Samovar knows")
        found = json_chats.recognized(self._file, notes)
        if found is None:
            raise _unknown("its JSON is none that Samovar knows")
        return found.format_name, found.chats


class _SqliteSource:
    """A SQLite file. How many chats there are stands for how large it is."""

    def __init__(self, path: Path, file: IO[bytes], notes: Notes, cleanup: contextlib.ExitStack) -> None:
        self._file = sqlite_file.open_sqlite(path)
        cleanup.callback(self._file.close)
        self._notes = notes
        self.num_bytes = os.fstat(file.fileno()).st_size
        self._num_done = 0
        for found in _SQLITE_FORMATS:
            if found.matches(self._file):
                self._format = found
                break
        else:
            raise _unknown("its tables are of a program that Samovar does not know")
        self.format_name = self._format.NAME
        self._num_chats = self._format.count(self._file)

    @property
    def done_bytes(self) -> int:
        return self.num_bytes * self._num_done // max(1, self._num_chats, self._num_done)

    def chats(self) -> Iterator[ChatDocument]:
        chats = self._format.read(self._file, self._notes)
        for ordinal in itertools.count(1):
            try:
                document = next(chats, None)
            except SamovarError as error:
                raise SamovarError(f"in chat {ordinal}, {error}") from error
            if document is None:
                return
            self._num_done = ordinal
            yield document


class _ZipSource:
    """An archive, unpacked file by file."""

    def __init__(self, file: IO[bytes], notes: Notes, cleanup: contextlib.ExitStack) -> None:
        self._archive = ZipFile(file, cleanup)
        if not self._archive.members:
            raise _unknown("the archive has neither conversations.json nor .jsonl in it")
        self._notes = notes
        self._cleanup = cleanup.enter_context(contextlib.ExitStack())  # of the file that is read now
        self.num_bytes = self._archive.num_bytes
        self._num_before = 0
        self._current = self._member(0)
        self.format_name = f"{self._current.format_name}, zip"

    @property
    def done_bytes(self) -> int:
        return self._num_before + self._current.done_bytes

    def chats(self) -> Iterator[ChatDocument]:
        for index, member in enumerate(self._archive.members):
            if index:
                self._current = self._member(index)
            with _within(member.filename):
                yield from self._current.chats()
            self._num_before += self._current.num_bytes

    def _member(self, index: int) -> _TextSource:
        self._cleanup.close()
        member = self._archive.members[index]
        with _within(member.filename):
            unpacked = self._cleanup.enter_context(self._archive.unpacked(member))
            return _TextSource(unpacked, self._notes, self._cleanup)


@contextlib.contextmanager
def _within(name: str) -> Iterator[None]:
    try:
        yield
    except SamovarError as error:
        raise SamovarError(f"in {shown(name)}: {error}") from error


def _unknown(reason: str) -> SamovarError:
    return SamovarError(f"{reason}; known are {_KNOWN}")


@contextlib.contextmanager
def _explained(path: Path, advice: str = "") -> Iterator[None]:
    """Make every error a sentence about this file."""
    try:
        yield
    except SamovarError as error:
        raise SamovarError(f"Cannot import {path}: {error}. Nothing of it was imported{advice}.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            folder = tempfile.gettempdir()
            raise SamovarError(
                f"Cannot import {path}: no room to unpack or copy it in {folder}. Make room, or set TMPDIR."
            ) from error
        reason = (error.strerror or str(error)).lower()
        raise SamovarError(f"Cannot read {path}: {reason}. Check the path and try again.") from error
    except (RecursionError, MemoryError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else "it needs too much memory"
        raise SamovarError(f"Cannot import {path}: {what}. Nothing of it was imported{advice}.") from error
