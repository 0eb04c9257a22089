"""Install what a lock file names into .venv, and show how the long llama.cpp build gets on.

Standard library only.
llama-cpp-python comes as source; it is installed first and alone, so that its minutes are visible. pip keeps
the built wheel in its cache: the next environment takes seconds. Everything pip says goes to a log file.

    python tools/install.py requirements.lock [--project]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
SLOW = "llama-cpp-python"
BUILD_CORE_SECONDS = 640  # measured: 8 to 11 minutes of one core's time
KEPT_LINES = 200
SHOWN_LINES = 30
TTY_PERIOD_S = 0.5
PLAIN_PERIOD_S = 20.0


class Progress:
    """One line about a running pip: redrawn in place on a terminal, else printed now and then.

    `note` reads pip's output (in its own thread), `text` says what it means.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.building = False
        self.done_share = 0.0
        self.started = time.monotonic()
        self.build_started = self.started

    def note(self, line: str) -> None:
        if line.lstrip().startswith("Building wheel for llama"):
            self.building = True
            self.build_started = time.monotonic()
        step = re.search(r"\[(\d+)/(\d+)\]", line)
        if step and int(step[2]) > 1:
            self.done_share = int(step[1]) / int(step[2])

    def text(self) -> str:
        elapsed = int(time.monotonic() - self.started)
        if not self.building:
            return f"{self.label} … {clock(elapsed)}"
        expected = BUILD_CORE_SECONDS / (os.cpu_count() or 1)
        build_s = time.monotonic() - self.build_started
        if self.done_share > 0.05:
            expected = build_s / self.done_share
        left = max(expected - build_s, 0)
        about = f"about {clock(left)} left" if left > 5 else "nearly done"
        return f"building llama.cpp, once per machine: {self.done_share:4.0%}, {clock(elapsed)} gone, {about}"


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def pip_install(label: str, arguments: list[str], log: IO[str]) -> None:
    """Run pip install with its output in the log; on failure print the log's tail and exit with 1."""
    command = [
        str(VENV_PYTHON),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        *arguments,
    ]
    log.write(f"$ {' '.join(command)}\n")
    log.flush()
    # Unbuffered and verbose, so that the compiler's steps arrive while they happen.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PIP_PROGRESS_BAR": "off"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )
    progress = Progress(label)
    tail: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
            tail.append(line)
            del tail[:-KEPT_LINES]
            progress.note(line)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        show(progress, reader)
    except KeyboardInterrupt:
        process.terminate()
        reader.join()
        sys.exit("\nStopped. Nothing is broken: run the same command again to go on.")
    if process.wait() == 0:
        print(f"{label}: done in {clock(time.monotonic() - progress.started)}", flush=True)
    else:
        print("".join(tail[-SHOWN_LINES:]), file=sys.stderr, end="")
        print(f"\nInstalling failed ({label}). {advice(''.join(tail))} The whole log: {LOG}", file=sys.stderr)
        sys.exit(1)


def show(progress: Progress, reader: threading.Thread) -> None:
    """Print the progress until pip's output ends."""
    is_tty = sys.stdout.isatty()
    period = TTY_PERIOD_S if is_tty else PLAIN_PERIOD_S
    if not is_tty:
        print(f"{progress.label} …", flush=True)
    was_building = False
    while reader.is_alive():
        reader.join(0.2 if not (is_tty or was_building) else period)
        if is_tty:
            print(f"\r\x1b[K{progress.text()}", end="", flush=True)
        elif progress.building and reader.is_alive():
            print(progress.text(), flush=True)
            was_building = True
    print("\r\x1b[K" if is_tty else "", end="", flush=True)


def advice(tail: str) -> str:
    """What to do about the failure that these last lines of pip's output tell of."""
    if re.search(r"No space left", tail):
        return "The disk is full: make room (the build needs about 1 GB) and run it again."
    if re.search(r"do not match the hashes", tail, re.IGNORECASE):
        return "A downloaded file is not the one in the lock file: run it again; if it stays so, report it."
    if re.search(r"(CMAKE_C(XX)?_COMPILER|CMake configuration failed)", tail):
        return "Install a C and C++ compiler (Debian: apt-get install gcc g++) and run it again."
    if re.search(r"(connection|resolve|Max retries|timed out|No matching distribution)", tail, re.IGNORECASE):
        return "The package index did not answer as expected: check the network and run it again."
    return "The lines above say why; fix that and run it again."


def ensure_venv() -> None:
    """Create .venv if there is none that works; exits with what is missing if that cannot be."""
    if VENV_PYTHON.exists() and run_quietly(VENV_PYTHON, "-m", "pip", "--version").returncode == 0:
        return
    print("making .venv", flush=True)
    done = run_quietly(sys.executable, "-m", "venv", "--clear", VENV)
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
        sys.exit("Python cannot make a virtual environment (Debian: apt-get install python3-venv).")


def run_quietly(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def split_lock(path: Path) -> tuple[str, str]:
    """The lock's entry for the slow package (empty if it has none), and all other entries."""
    entries = re.split(r"^(?=[a-z])", path.read_text(), flags=re.MULTILINE)[1:]
    slow = "".join(entry for entry in entries if entry.startswith(SLOW))
    return slow, "".join(entry for entry in entries if not entry.startswith(SLOW))


def install_locked(label: str, entries: str, log: IO[str], *options: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(entries)
        file.flush()
        pip_install(label, [*options, "--require-hashes", "--no-deps", "--requirement", file.name], log)


def main() -> None:
    parser = argparse.ArgumentParser(description="Install a lock file's packages into .venv.")
    parser.add_argument("lock", type=Path)
    parser.add_argument(
        "--project", action="store_true", help="also install this project, to be edited in place"
    )
    arguments = parser.parse_args()

    if sys.version_info < (3, 11):  # noqa: UP036 - whichever interpreter `make` finds runs this file
        sys.exit(
            f"Samovar needs CPython 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.11 …"
        )
    ensure_venv()
    slow, others = split_lock(arguments.lock)
    with LOG.open("w", encoding="utf-8") as log:
        if slow:
            install_locked("llama.cpp", slow, log, "--verbose")
        install_locked(f"packages of {arguments.lock.name}", others, log)
        if arguments.project:
            options = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
            pip_install("samovar itself", options, log)


if __name__ == "__main__":
    main()
