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
        self._opening: asyncio.Task[Searcher] | None = None

    async def find(self, text: str) -> SearchResults | None:
        """What a query finds; None if a newer one came meanwhile. What went wrong is among the problems."""
        if self._opening is None:
            self._opening = asyncio.create_task(asyncio.to_thread(Searcher, self._file))
        opening = self._opening
        try:
            searcher = await opening
            return await asyncio.to_thread(searcher.search, text)
        except SamovarError as error:
            if opening.exception() is not None and self._opening is opening:
                self._opening = None  # the next query tries again
            return SearchResults(problems=(str(error),))

    async def close(self) -> None:
        """End what is being searched and close the file."""
        if self._opening is not None:
            found = await asyncio.gather(self._opening, return_exceptions=True)
            for searcher in found:
                if isinstance(searcher, Searcher):
                    await asyncio.to_thread(searcher.close)
