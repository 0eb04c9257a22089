"""Which process writes a reply, and whether it still lives. A pid alone is not enough: pids come again."""

import functools
import os
from typing import Final

import msgspec
import psutil

_SAME_START_S: Final = 2.0  # the system's clock may be corrected meanwhile


class Owner(msgspec.Struct, frozen=True):
    """A process. `started` is seconds since the epoch."""

    pid: int
    started: float

    def is_alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) <= _SAME_START_S
            return same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True  # there is such a process, and it may not be looked at


def this_process() -> Owner:
    return _owner(os.getpid())


@functools.lru_cache(maxsize=1)
def _owner(pid: int) -> Owner:
    return Owner(pid=pid, started=psutil.Process(pid).create_time())
