"""Front ends without a screen, over one store."""

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from samovar.config import Config
from tests.tui.desk import Desk


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "chats.db", Config())
    yield desk
    await desk.close()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Desk]:
    """A second front end on the same file."""
    desk = Desk(tmp_path / "chats.db", Config())
    yield desk
    await desk.close()


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The screen shows local times: these are UTC's."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    os.environ.pop("TZ", None)
    time.tzset()
