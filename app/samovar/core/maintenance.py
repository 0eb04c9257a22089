"""What a process that looks after the disk tier is told, and what it answers: JSON, a line each."""

from typing import Literal

import msgspec

from samovar.core.snapshot import DiskModel

Action = Literal["list", "verify", "prune", "clear"]


class Job(msgspec.Struct, frozen=True):
    """What the process reads; `disk_limit` is the limit as the user wrote it."""

    cache_dir: str
    disk_limit: str
    action: Action


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`done` of `total` files; comes any number of times before the result."""

    done: int
    total: int


class DiskPrompt(msgspec.Struct, frozen=True):
    """A prompt that lies on disk, with the name of its model; `last_used` is in seconds since the epoch."""

    session: str
    title: str
    tokens: int
    disk_tokens: int
    pinned: bool
    last_used: float
    model: str


class DiskList(msgspec.Struct, frozen=True):
    """What lies on disk. In every result, `problem` says why the tier does not work as it should."""

    models: tuple[DiskModel, ...] = ()
    prompts: tuple[DiskPrompt, ...] = ()
    bytes: int = 0
    limit_bytes: int | None = None
    blocks: int = 0
    problem: str = ""


class Verified(msgspec.Struct, frozen=True):
    files: int = 0
    bytes: int = 0
    bad: int = 0
    orphans: int = 0
    problem: str = ""


class Pruned(msgspec.Struct, frozen=True):
    """`models` are the names of those whose blocks were deleted."""

    models: tuple[str, ...] = ()
    num_blocks: int = 0
    num_bytes: int = 0
    problem: str = ""


class Cleared(msgspec.Struct, frozen=True):
    """`kept_blocks` are pinned or in use."""

    num_blocks: int = 0
    num_bytes: int = 0
    kept_blocks: int = 0
    problem: str = ""
