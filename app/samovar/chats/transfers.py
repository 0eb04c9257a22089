"""Chats in and out of a running front end: in a thread and on a connection of their own, so nothing waits.

What was imported appears in the list as anything does that another window has stored. Never imports Textual.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.shared import Shared
from samovar.core.errors import SamovarError
from samovar.sessions.samples import sample_files
from samovar.sessions.store import Store
from samovar.sessions.transfer.files import (
    Format,
    ImportedFile,
    ImportProgress,
    ImportReport,
    export_to,
    import_files,
)

_TELL_EVERY_S: Final = 0.3


class Transfers:
    """Imports and exports of this front end; one import at a time."""

    def __init__(self, shared: Shared, file: Path) -> None:
        """`file` is the store."""
        self._shared = shared
        self._file = file
        self._is_importing = False
        self._stopped = False

    async def take_in(self, paths: Sequence[Path]) -> str:
        """Import files; returns what came of it. SamovarError names those that could not be read."""
        if self._is_importing:
            raise SamovarError("an import is under way: wait until it has ended")
        self._is_importing = True
        loop = asyncio.get_running_loop()
        told_at = 0.0

        def tell(progress: ImportProgress) -> None:
            nonlocal told_at
            if self._stopped:
                raise SamovarError("the import was ended, and nothing of the file came in")
            if time.monotonic() - told_at >= _TELL_EVERY_S:
                told_at = time.monotonic()
                loop.call_soon_threadsafe(self._shared.notify, changes.Noticed(_progress(progress)))

        def work() -> ImportReport:
            store = Store.open(self._file)
            try:
                return import_files(store, paths, tell)
            finally:
                store.close()

        try:
            report = await asyncio.to_thread(work)
        finally:
            self._is_importing = False
        if report.num_failed:
            errors = "; ".join(file.error.rstrip(".") for file in report.files if file.error)
            good = [file for file in report.files if not file.error]
            raise SamovarError(f"{_summary(good)}. {errors}." if good else f"{errors}.")
        if not report.files:
            raise SamovarError("there is no file of chats there")
        return _summary(report.files)

    async def take_samples(self) -> str:
        """Import the chats that come with Samovar."""
        return await self.take_in(sample_files())

    async def export(self, chats: Sequence[Chat], target: Path | None, form: Format | None) -> str:
        """Write chats to a file or a folder (see `export_to`); returns where they are."""
        sessions = [chat.id for chat in chats if chat.in_store]
        if not sessions:
            raise SamovarError("there is no message in this chat yet")

        def write(store: Store) -> str:
            files = export_to(store, sessions, target, form)
            if len(files) == 1:
                return f"written: {files[0].path}"
            return f"{len(files):,} files written to {Path(files[0].path).parent}"

        def work(store: Store) -> str:
            try:
                return write(store)
            finally:
                store.close()

        try:
            beside = await asyncio.to_thread(Store.open, self._file)
        except SamovarError:  # damage was found meanwhile, say: what can be read here can be exported
            return await self._shared.archive.run(write)
        return await asyncio.to_thread(work, beside)

    def stop(self) -> None:
        """End an import that is under way; nothing of its file stays."""
        self._stopped = True


def _progress(progress: ImportProgress) -> str:
    name = Path(progress.path).name
    share = f" {100 * progress.done_bytes // progress.total_bytes} %" if progress.done_bytes else ""
    return f"importing {name}{share} · {progress.num_chats:,} chats"


def _summary(files: Sequence[ImportedFile]) -> str:
    num_chats = sum(len(file.session_ids) for file in files)
    notes = list(dict.fromkeys(note for file in files for note in file.notes))
    told = f"{num_chats:,} {'chat' if num_chats == 1 else 'chats'} imported"
    return f"{told}; {'; '.join(notes)}" if notes else told
