"""The installer's words: progress that can be believed, advice that fits the failure."""

import re
from pathlib import Path

import pytest

from tools.install import ROOT, Progress, advice, clock, split_lock
from tools.lock import read_lock


def test_progress_follows_the_compiler() -> None:
    progress = Progress("llama.cpp")
    assert "building" not in progress.text()
    progress.note("  Building wheel for llama-cpp-python (pyproject.toml): started")
    assert "  0%" in progress.text()
    progress.note("  [150/200] Building CXX object x.o")
    assert " 75%" in progress.text()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("fatal error: No space left on device", "disk is full"),
        ("CMAKE_CXX_COMPILER not set", "apt-get install gcc g++"),
        ("ERROR: No matching distribution found for x", "check the network"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", "not the one in the lock"),
        ("something else", "lines above"),
    ],
)
def test_advice_fits_the_failure(log: str, words: str) -> None:
    assert words in advice(log)


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (61, "1:01 min"), (600, "10:00 min")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_slow_package_is_installed_alone() -> None:
    slow, others = split_lock(ROOT / "requirements.lock")
    assert re.findall(r"^\S+==", slow, flags=re.MULTILINE) == ["llama-cpp-python=="]
    assert len(re.findall(r"^\S+==", others, flags=re.MULTILINE)) > 20


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_hold_hashes_and_no_addresses(name: str) -> None:
    path: Path = ROOT / name
    text = path.read_text()
    assert "://" not in text
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(read_lock(path)) > 0
    assert all("--hash=sha256:" in entry for entry in entries)
