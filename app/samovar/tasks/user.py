"""The user's side tasks: one TOML file each, in the configuration folder. Read anew when a file changes."""

from pathlib import Path

from samovar.tasks.builtin import BUILTIN
from samovar.tasks.spec import TaskSpec, When


class TaskShelf:
    """All tasks there are: built-in ones, and the user's in `folder` (None for none)."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.problems: tuple[str, ...] = ()

    def specs(self) -> tuple[TaskSpec, ...]:
        """The tasks that are not turned off, built-in ones first."""
        return tuple(spec for spec in BUILTIN if spec.when is not When.NEVER)
