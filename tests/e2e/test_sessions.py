"""Chats in and out as a user's shell has them: real processes, no model, a window open beside them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from samovar.sessions.samples import sample_files
from tests.e2e.terminal import Terminal


def samovar(*arguments: str) -> str:
    """Standard output of `samovar sessions …` in this test's home."""
    done = subprocess.run(
        [sys.executable, "-m", "samovar", "sessions", *arguments],
        capture_output=True,
        env={**os.environ, "SAMOVAR_MODEL": "/nowhere.gguf"},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode()


def trees(ids: list[str]) -> dict[str, dict[str, Any]]:
    """All there is of these chats, by title."""
    chats = json.loads(samovar("export", *ids, "--format", "json"))["chats"]
    return {chat["title"]: chat for chat in chats}


def test_samples_survive_the_way_out_and_in(home: Path, tmp_path: Path) -> None:
    """Import, list, export, import again: the same trees, as JSON and as TOML."""
    samovar("import", "--samples")
    ids = [chat["id"] for chat in json.loads(samovar("list", "--json"))["chats"]]
    before = trees(ids)
    assert len(before) == len(sample_files())
    for form, place in (("json", tmp_path / "all.json"), ("toml", tmp_path / "each")):
        samovar("export", *ids, "--format", form, "-o", str(place))
        report = json.loads(samovar("import", str(place), "--json"))
        copies = [session_id for file in report["files"] for session_id in file["session_ids"]]
        assert len(copies) == len(ids)
        assert not set(copies) & set(ids)
        assert trees(copies) == before


def test_delete_asks_at_a_terminal(home: Path) -> None:
    samovar("import", str(sample_files()[0]))
    (chat,) = json.loads(samovar("list", "--json"))["chats"]
    terminal = Terminal("sessions", "delete", chat["id"][:8], home=home)
    try:
        terminal.wait_for("[y/N]")
        terminal.send("y\r")
        terminal.wait_for("is deleted")
        assert terminal.wait_for_exit() == 0
    finally:
        terminal.close()
    assert json.loads(samovar("list", "--json"))["chats"] == []
    samovar("restore", chat["id"])
    assert json.loads(samovar("list", "--json"))["chats"] == [chat]
