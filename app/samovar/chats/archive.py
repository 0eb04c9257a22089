"""The session store, used from the event loop: one worker thread runs every call, in the order given.

The UI thread owns this object, the worker thread uses the Store. Never imports Textual.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from samovar.core.errors import SamovarError
from samovar.sessions.store import Store

T = TypeVar("T")


class Archive:
    """A Store behind one thread. `report` hears of work that failed while nobody waited for it."""

    def __init__(self, store: Store, report: Callable[[str], None]) -> None:
        self._store = store
        self._report = report
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="samovar-store")
        self._tasks = set[asyncio.Task[Any]]()

    def run(self, work: Callable[[Store], T]) -> asyncio.Future[T]:
        """Do `work` after all given before; its place is that of this call, not that of the `await`.

        The future raises what `work` raises (SamovarError for faults of the disk).
        """
        return asyncio.get_running_loop().run_in_executor(self._thread, work, self._store)

    def try_run(self, what: str, work: Callable[[Store], T]) -> Coroutine[Any, Any, T | None]:
        """As `run`, but where it fails, report that `what` failed, and return None."""
        return self._reported(what, self.run(work))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that `close` waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reported(self, what: str, result: asyncio.Future[T]) -> T | None:
        try:
            return await result
        except SamovarError as error:
            self._report(f"{what}: {error}")
            return None

    async def close(self) -> None:
        """Wait for all tasks and work. The store itself stays open: who opened it closes it."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
