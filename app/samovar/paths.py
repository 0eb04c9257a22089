"""Where Samovar keeps its files. Values and a few file system calls; used by every process.

With `SAMOVAR_HOME` everything lies under that one folder, else where the platform wants it.
"""

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import platformdirs

from samovar.core.errors import SamovarError

MAX_SOCKET_PATH_BYTES: Final = 100  # sun_path holds 104 bytes on some systems, 108 on Linux
SOCKET_NAME_BYTES: Final = 32  # room for the name of a socket in `run_dir`


class Paths(msgspec.Struct, frozen=True):
    """The folders; `ensure` makes them. Sockets go to `run_dir`, which nobody else may enter."""

    config_dir: Path
    data_dir: Path
    cache_dir: Path
    state_dir: Path
    run_dir: Path

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Paths":
        """The folders for this environment (`SAMOVAR_HOME`, `XDG_RUNTIME_DIR`, `TMPDIR`); touches no file."""
        home = env.get("SAMOVAR_HOME", "")
        if home:
            base = Path(os.path.abspath(os.path.expanduser(home)))
            config, data, cache, state = (base / name for name in ("config", "data", "cache", "state"))
            run = base / "run"
        else:
            folders = platformdirs.PlatformDirs("samovar", appauthor=False)
            config, data = folders.user_config_path, folders.user_data_path
            cache, state = folders.user_cache_path, folders.user_state_path
            runtime = env.get("XDG_RUNTIME_DIR", "")
            run = Path(runtime) / "samovar" if os.path.isdir(runtime) else _run_dir_in_temp(data, env)
        if not _fits_socket(run):
            run = _run_dir_in_temp(data, env)
        return cls(config_dir=config, data_dir=data, cache_dir=cache, state_dir=state, run_dir=run)

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.toml"

    @property
    def personas_dir(self) -> Path:
        """One TOML file for each of the user's personas."""
        return self.config_dir / "personas"

    @property
    def tasks_dir(self) -> Path:
        """One TOML file for each of the user's side tasks."""
        return self.config_dir / "tasks"

    @property
    def database(self) -> Path:
        """The chats."""
        return self.data_dir / "chats.db"

    @property
    def log_file(self) -> Path:
        return self.state_dir / "samovar.log"

    def ensure(self) -> None:
        """Make all folders; raises SamovarError where one cannot be made or written, or is not ours."""
        for folder in (self.config_dir, self.data_dir, self.cache_dir, self.state_dir, self.run_dir):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(error, folder) from error
            if not os.access(folder, os.W_OK | os.X_OK):
                raise disk_error(OSError(errno.EACCES, "no right to write"), folder)
        _make_private(self.run_dir)


def disk_error(error: OSError, path: Path) -> SamovarError:
    """One sentence for the user about an error at `path`, and what to do."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SamovarError(
            f"The disk is full: cannot write {path}. "
            "Make room, or set SAMOVAR_HOME to a folder on another disk."
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return SamovarError(
            f"{path} cannot be a folder, because a file is in its place. "
            "Move the file away, or set SAMOVAR_HOME to another folder."
        )
    return SamovarError(
        f"Cannot write {path} ({reason}). Make it writable, or set SAMOVAR_HOME to a folder that is."
    )


def _fits_socket(folder: Path) -> bool:
    return len(os.fsencode(folder)) + 1 + SOCKET_NAME_BYTES <= MAX_SOCKET_PATH_BYTES


def _run_dir_in_temp(data_dir: Path, env: Mapping[str, str]) -> Path:
    """A short folder of this user's for this data folder, under the temporary folder."""
    digest = hashlib.blake2b(os.fsencode(data_dir), digest_size=6).hexdigest()
    name = f"samovar-{os.getuid()}-{digest}"
    temp = Path(env.get("TMPDIR") or tempfile.gettempdir())
    return temp / name if temp.is_absolute() and _fits_socket(temp / name) else Path("/tmp") / name


def _make_private(folder: Path) -> None:
    """Close the folder to others. A link or somebody else's folder is refused: they could swap it."""
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise SamovarError(
                f"{folder} belongs to another user or is a link, so the socket would not be safe there. "
                "Remove it, or set SAMOVAR_HOME to a folder of your own."
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise disk_error(error, folder) from error
