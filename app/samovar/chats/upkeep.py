"""Looks after the file of chats while a front end runs: what its opening had to say, a daily copy, a check.

Runs in the event loop; the work in a thread on connections of its own, after the first screen. Never imports
Textual.
"""

import asyncio
import time
from pathlib import Path

from samovar.chats.shared import Shared
from samovar.core.errors import SamovarError
from samovar.sessions import backup
from samovar.sessions.integrity import check_integrity
from samovar.sessions.store import Store


class Upkeep:
    """`store` is only asked for what its opening has found."""

    def __init__(self, shared: Shared, store: Store) -> None:
        self._shared = shared
        self._store = store
        self._is_ending = False

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be stored."""
        return bool(self._store.read_only)

    async def run(self) -> None:
        """Tell what the user has to know, then copy, check and clear away; once in a program's life."""
        if trouble := self._store.trouble:
            self._shared.complain(trouble)
        if self.is_read_only:
            return
        try:
            damage = await asyncio.to_thread(self._work, self._store.file, self._store.needs_check)
        except SamovarError as error:
            self._shared.complain(str(error))
            return
        if damage:
            told = f"the file of chats is damaged ({damage}): close all windows and start again to repair it"
            self._shared.complain(told)
            return
        try:
            await asyncio.to_thread(self._clear)
        except SamovarError as error:
            self._shared.complain(f"what was deleted long ago cannot be cleared away: {error}")

    def stop(self) -> None:
        """The program ends: what is under way is left for the next time."""
        self._is_ending = True

    def _work(self, file: Path, needs_check: bool) -> str | None:
        damage = check_integrity(file, lambda: self._is_ending) if needs_check else None
        if damage is None:
            backup.daily(file, time.time(), lambda: self._is_ending)
        return damage

    def _clear(self) -> None:
        """Remove what a dead import has left and what was deleted long ago; messages are stored meanwhile."""
        if self._is_ending:
            return
        store = Store.open(self._store.file)
        try:
            store.exchange.drop_dead_imports(lambda: self._is_ending)
            store.purge(lambda: self._is_ending)
        finally:
            store.close()
