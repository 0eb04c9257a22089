"""Where files go, and what is said when they cannot go there."""

import errno
import os
import stat
from pathlib import Path

import pytest

from samovar.core.errors import SamovarError
from samovar.paths import MAX_SOCKET_PATH_BYTES, SOCKET_NAME_BYTES, Paths, disk_error


def home_paths(home: Path, **env: str) -> Paths:
    return Paths.from_env({"SAMOVAR_HOME": str(home), **env})


def test_home_moves_everything_under_one_folder(tmp_path: Path) -> None:
    home = Path("/h")
    paths = home_paths(home)
    files = (paths.config_file, paths.database, paths.log_file, paths.cache_dir, paths.run_dir)
    assert all(file.is_relative_to(home) for file in files)
    assert len({file.parent for file in files}) >= 4


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Paths.from_env({"SAMOVAR_HOME": "here"}).data_dir == tmp_path / "here" / "data"


def test_an_empty_home_counts_as_none() -> None:
    assert Paths.from_env({"SAMOVAR_HOME": ""}) == Paths.from_env({})


def test_without_home_the_runtime_folder_holds_the_sockets(tmp_path: Path) -> None:
    runtime = Path("/run")
    assert Paths.from_env({"XDG_RUNTIME_DIR": str(runtime)}).run_dir == runtime / "samovar"
    missing = Paths.from_env({"XDG_RUNTIME_DIR": str(tmp_path / "no")}).run_dir
    assert missing.name.startswith(f"samovar-{os.getuid()}-")


@pytest.mark.parametrize("temp", ["", "/var/tmp", "/" + "t" * 90])
def test_sockets_fit_even_when_the_home_has_a_long_path(temp: str) -> None:
    run_dir = home_paths(Path("/" + "long/" * 30), TMPDIR=temp).run_dir
    assert len(os.fsencode(run_dir)) + 1 + SOCKET_NAME_BYTES <= MAX_SOCKET_PATH_BYTES
    assert str(os.getuid()) in run_dir.name


def test_two_long_homes_do_not_share_a_run_folder() -> None:
    one, two = (home_paths(Path("/" + "long/" * 30 + name)).run_dir for name in ("a", "b"))
    assert one != two


def test_ensure_makes_all_folders_and_closes_the_run_folder(tmp_path: Path) -> None:
    paths = home_paths(tmp_path / "home", TMPDIR=str(tmp_path))
    paths.ensure()
    paths.run_dir.chmod(0o755)
    paths.ensure()
    assert paths.data_dir.is_dir()
    assert paths.config_dir.is_dir()
    assert stat.S_IMODE(paths.run_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(paths.data_dir.stat().st_mode) == 0o700


def test_a_file_in_the_way_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SamovarError, match="a file is in its place") as caught:
        home_paths(tmp_path / "file").ensure()
    assert "SAMOVAR_HOME" in str(caught.value)


def test_a_place_that_takes_no_folders_gives_one_sentence() -> None:
    with pytest.raises(SamovarError, match=r"Cannot write /proc/samovar"):
        home_paths(Path("/proc/samovar")).ensure()


def test_a_run_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    paths = Paths(*(tmp_path / name for name in ("config", "data", "cache", "state", "run")))
    (tmp_path / "elsewhere").mkdir()
    paths.run_dir.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SamovarError, match="another user or is a link"):
        paths.ensure()


def test_a_run_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(*(tmp_path / name for name in ("config", "data", "cache", "state", "run")))
    paths.ensure()
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(SamovarError, match="another user"):
        paths.ensure()


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied")],
)
def test_disk_errors_say_what_to_do(code: int, words: str) -> None:
    message = str(disk_error(OSError(code, os.strerror(code)), Path("/x")))
    assert words in message
    assert "SAMOVAR_HOME" in message
