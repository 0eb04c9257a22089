"""The search over all chats for an event loop: each query in a thread, an older one gives way."""

import asyncio
from pathlib import Path

from samovar.chats.archive import Archive
from samovar.core.errors import SamovarError
from samovar.sessions.search import SearchResults
from samovar.sessions.searcher import Searcher


class Finder:
    """Opens the store's file a second time with the first query. Used from one event loop."""

    def __init__(self, file: Path, archive: Archive) -> None:
        """`archive` searches where the file cannot be opened a second time (one that is held in memory)."""
        self._file = file
        self._archive = archive
        self._searcher: Searcher | None = None
        self._opening: asyncio.Task[Searcher] | None = None

    async def find(self, text: str) -> SearchResults | None:
        """What a query finds; None if a newer one came meanwhile. What went wrong is among the problems."""
        try:
            searcher = await self._open()
            if searcher is None:
                return await self._archive.run(lambda store: store.search(text))
            return await asyncio.to_thread(searcher.search, text)
        except SamovarError as error:
            return SearchResults(problems=(str(error),))

    async def _open(self) -> Searcher | None:
        if self._opening is None:
            self._opening = asyncio.create_task(asyncio.to_thread(Searcher, self._file))
        try:
            self._searcher = await self._opening
        except SamovarError:
            return None
        return self._searcher

    async def close(self) -> None:
        """End what is being searched and close the file."""
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._searcher is not None:
            await asyncio.to_thread(self._searcher.close)
