"""Which engine hosts of a test's home are running."""

import time
from pathlib import Path

import psutil


def host_pids(home: Path) -> list[int]:
    """Process ids of the engine hosts whose environment names this home."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "samovar.engine.host" in (process.info["cmdline"] or ()):
            try:
                if process.environ().get("SAMOVAR_HOME") == str(home):
                    found.append(process.pid)
            except psutil.Error:
                continue
    return sorted(found)


def wait_until_gone(pid: int, patience_s: float = 10.0) -> None:
    """Return once the process has ended."""
    deadline = time.monotonic() + patience_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} does not end"
