"""Chats to files and from files, as every front end does it. Runs in the thread that owns the store.

A file is written beside its place and moved there when it is whole and on disk; what a file brings in is in
the store as a whole or not at all. An export changes nothing in the store, whatever happens to the disk.
"""

import contextlib
import enum
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from samovar.core.errors import SamovarError
from samovar.sessions.store import Store
from samovar.sessions.transfer import markdown, samovar_json, samovar_toml
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.file_names import file_stem, unused
from samovar.sessions.transfer.importing import open_file
from samovar.sessions.transfer.new_file import explained, write_device, written


class Format(enum.Enum):
    """What can be written. The value is the file's ending."""

    MARKDOWN = "md"
    JSON = "json"
    TOML = "toml"


class ExportedFile(msgspec.Struct, frozen=True):
    """A file that was written. `num_left_out` messages of other branches are not in it."""

    path: str
    titles: tuple[str, ...]
    num_messages: int
    num_left_out: int
    num_bytes: int


class ImportedFile(msgspec.Struct, frozen=True):
    """What came of one file: new chats, or an `error` and none. `notes` say what is not as it was there."""

    path: str
    format_name: str = ""
    session_ids: tuple[str, ...] = ()
    num_messages: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""


class ImportReport(msgspec.Struct, frozen=True):
    """Files in the order given. `ignored` are files of a folder that are none of chats, with the reason."""

    files: tuple[ImportedFile, ...]
    ignored: tuple[ImportedFile, ...] = ()

    @property
    def num_failed(self) -> int:
        return sum(bool(file.error) for file in self.files)


class ImportProgress(msgspec.Struct, frozen=True):
    """File `number` (from 1 on) of `num_files` is being read; chats of it are written, not yet there."""

    path: str
    number: int
    num_files: int
    done_bytes: int
    total_bytes: int
    num_chats: int


# Out


def format_of(path: Path) -> Format | None:
    """The format that a file's ending names."""
    return {"md": Format.MARKDOWN, "markdown": Format.MARKDOWN, "json": Format.JSON, "toml": Format.TOML}.get(
        path.suffix.lower().removeprefix(".")
    )


def export_chat(document: ChatDocument, form: Format) -> bytes:
    """One chat as the content of a file."""
    match form:
        case Format.JSON:
            return samovar_json.write([document])
        case Format.TOML:
            return samovar_toml.write(document)
        case Format.MARKDOWN:
            return markdown.write(document).encode()


def export_pieces(
    store: Store,
    session_ids: Iterable[str],
    form: Format,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[bytes]:
    """Chats as the content of one file; more than one only as JSON. Few are in memory at a time."""
    return _pieces(_documents(store, session_ids, [], progress), form)


def export_to(
    store: Store,
    session_ids: Sequence[str],
    target: Path | None = None,
    form: Format | None = None,
    *,
    overwrite: bool = False,
    is_folder: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[ExportedFile, ...]:
    """Write chats to `target`: one to a file, several to a folder or, as JSON, to one file.

    Without a target it is the current folder. Files in a folder are named by the chats' titles, with a number
    where there is such a file already. `is_folder` makes the target a folder even for one chat. Without
    a format, the target's ending tells it, else it is Markdown. `progress` hears how many chats are done.
    SamovarError if something cannot be written, or is there and `overwrite` is not set; files that are whole
    stay.
    """
    assert session_ids
    target = Path() if target is None else target
    form = form or format_of(target) or Format.MARKDOWN
    with explained(target):
        if not (is_folder or target.is_dir()) and (len(session_ids) == 1 or form is Format.JSON):
            return (_export_file(store, session_ids, target, form, progress, overwrite=overwrite),)
        if not target.is_dir():
            target.mkdir()
        used = set[str]() if overwrite else {name.casefold() for name in os.listdir(target)}
    files: list[ExportedFile] = []
    for number, session_id in enumerate(session_ids, start=1):
        stem = file_stem(store.session(session_id).title)
        while True:
            name = unused(stem, form.value, used)
            used.add(name.casefold())
            with explained(target / name):
                try:
                    file = _export_file(
                        store, [session_id], target / name, form, lambda _: None, overwrite=overwrite
                    )
                except FileExistsError:
                    continue  # somebody has made it just now
            break
        files.append(file)
        progress(number)
    return tuple(files)


class _Taken(msgspec.Struct, frozen=True):
    """What is told of a chat that was written."""

    title: str
    num_messages: int
    num_left_out: int


def _export_file(
    store: Store,
    session_ids: Sequence[str],
    path: Path,
    form: Format,
    progress: Callable[[int], None],
    *,
    overwrite: bool,
) -> ExportedFile:
    """Raises OSError, FileExistsError among them."""
    taken: list[_Taken] = []
    pieces = _pieces(_documents(store, session_ids, taken, progress), form)
    if path.exists() and not path.is_file():
        num_bytes = write_device(path, pieces)
    else:
        num_bytes = written(path, pieces, overwrite=overwrite)
    is_path_alone = form is Format.MARKDOWN
    left_out = sum(chat.num_left_out for chat in taken) if is_path_alone else 0
    return ExportedFile(
        path=str(path),
        titles=tuple(chat.title for chat in taken),
        num_messages=sum(chat.num_messages for chat in taken) - left_out,
        num_left_out=left_out,
        num_bytes=num_bytes,
    )


def _documents(
    store: Store, session_ids: Iterable[str], taken: list[_Taken], progress: Callable[[int], None]
) -> Iterator[ChatDocument]:
    for number, session_id in enumerate(session_ids, start=1):
        document = store.exchange.document(session_id)
        num_messages = len(document.messages)
        taken.append(_Taken(document.title, num_messages, num_messages - _path_length(document)))
        yield document
        progress(number)


def _pieces(documents: Iterator[ChatDocument], form: Format) -> Iterator[bytes]:
    if form is Format.JSON:
        return samovar_json.pieces(documents)
    document = next(documents)
    content = export_chat(document, form)
    assert next(documents, None) is None, "only JSON holds several chats"
    return iter((content,))


def _path_length(document: ChatDocument) -> int:
    parents = {message.id: message.parent for message in document.messages}
    length, here = 0, document.head
    while here is not None:
        length, here = length + 1, parents[here]
    return length


# In


def import_files(
    store: Store, paths: Iterable[Path], progress: Callable[[ImportProgress], None] = lambda _: None
) -> ImportReport:
    """Take in files, and those files of folders that hold chats; each as a whole or not at all.

    A file that fails does not keep the others out. What `progress` raises ends all of it: the file that is
    being read is not taken in, those before it are. Chats that come in are new ones, also if they are here
    already.
    """
    wanted = [(file, is_given) for path in paths for file, is_given in _files_of(path)]
    files: list[ImportedFile] = []
    ignored: list[ImportedFile] = []
    for number, (path, is_given) in enumerate(wanted, start=1):
        found, is_known = _import_file(store, path, number, len(wanted), progress)
        (files if is_known or is_given else ignored).append(found)
    return ImportReport(tuple(files), tuple(ignored))


def _files_of(path: Path) -> list[tuple[Path, bool]]:
    """The path itself, or the files of the folder that it is; with whether it was named by the user."""
    try:
        if path.is_dir():
            return [(file, False) for file in sorted(path.iterdir()) if _is_plain(file)]
    except OSError:
        pass  # opening it will say why
    return [(path, True)]


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _import_file(
    store: Store, path: Path, number: int, num_files: int, progress: Callable[[ImportProgress], None]
) -> tuple[ImportedFile, bool]:
    """What came of it, and whether it is a file of chats."""
    counted = [0]

    def counting(chats: Iterator[ChatDocument]) -> Generator[ChatDocument, None, None]:
        for chat in chats:
            counted[0] += len(chat.messages)
            yield chat

    is_known = False
    try:
        with open_file(path) as reading:
            is_known = True

            def tell(num_chats: int) -> None:
                progress(
                    ImportProgress(
                        str(path), number, num_files, reading.done_bytes, reading.total_bytes, num_chats
                    )
                )

            tell(0)
            # Closed first: a chat that is half read holds on to its part of the file.
            with contextlib.closing(counting(reading.chats())) as chats:
                ids = store.exchange.take_in(chats, tell)
            notes = reading.notes.lines()
            return ImportedFile(str(path), reading.format_name, tuple(ids), counted[0], notes), True
    except SamovarError as error:
        return ImportedFile(str(path), error=str(error)), is_known
