"""The search over all chats for an event loop: each query in a thread, an older one gives way."""

import asyncio
from pathlib import Path

from samovar.core.errors import SamovarError
from samovar.sessions.search import SearchResults
from samovar.sessions.searcher import Searcher


class Finder:
    """Opens the store's file a second time with the first query. Used from one event loop."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._searcher: Searcher | None = None
        self._opening: asyncio.Task[Searcher] | None = None

    async def find(self, text: str) -> SearchResults | None:
        """What a query finds; None if a newer one came meanwhile. What went wrong is among the problems."""
        try:
            if self._searcher is None:
                if self._opening is None:
                    self._opening = asyncio.create_task(asyncio.to_thread(Searcher, self._file))
                self._searcher = await self._opening
            return await asyncio.to_thread(self._searcher.search, text)
        except SamovarError as error:
            self._opening = None
            return SearchResults(problems=(str(error),))

    async def close(self) -> None:
        """End what is being searched and close the file."""
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._searcher is not None:
            await asyncio.to_thread(self._searcher.close)
