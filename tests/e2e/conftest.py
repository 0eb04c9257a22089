"""A home with small, quick, repeatable settings for whole programs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hosts import host_pids


@pytest.fixture
def home(home: Path) -> Iterator[Path]:
    """A home whose engine host is ended afterwards, whatever happened."""
    home.joinpath("config").mkdir(parents=True)
    home.joinpath("config", "config.toml").write_text(
        'context = 2048\nkeep_alive = "60s"\nside_tasks = "off"\n'
        "[sampling]\ntemperature = 0.0\nmax_tokens = 24\n"
    )
    yield home
    for pid in host_pids(home):
        os.kill(pid, signal.SIGKILL)
