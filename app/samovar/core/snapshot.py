"""An immutable picture of the cache, drawn by the panel and printed by `samovar cache status`."""

import enum
from typing import Final

import msgspec

from samovar.core.request import RequestKind, RequestStats


class Tier(enum.Enum):
    """Where a block is."""

    CONTEXT = "context"
    HOST = "host"
    DISK = "disk"


class CellRun(msgspec.Struct, frozen=True, array_like=True):
    """Neighbouring cells of the context with one owner: a session id, `SHARED`, or `FREE`."""

    owner: str
    num_cells: int


FREE = ""
SHARED = "*"


class ContextUse(msgspec.Struct, frozen=True):
    """`used_tokens` counts used cells: shared ones once. `highest_cell` bounds what attention walks over."""

    used_tokens: int = 0
    total_tokens: int = 0
    highest_cell: int = 0
    runs: tuple[CellRun, ...] = ()


class TierUse(msgspec.Struct, frozen=True):
    """What a tier holds. A limit of None is no limit; `off` says that the tier is not in use at all.

    `lowered_from` is the limit that was asked for while memory is short and `limit_bytes` lies below it.
    `queued_bytes` are still to be written. `quarantined` counts files that were set aside since the host
    started. `problem` is a sentence for the user: why the tier does not work as it should. `room_bytes` is
    what the disk has room for, whatever the limit says; None for RAM, and if it is not known.
    """

    bytes: int = 0
    limit_bytes: int | None = None
    tokens: int = 0
    limit_tokens: int | None = None
    blocks: int = 0
    off: bool = False
    setting: str = ""
    lowered_from: int | None = None
    queued_bytes: int = 0
    quarantined: int = 0
    problem: str = ""
    room_bytes: int | None = None


class DiskModel(msgspec.Struct, frozen=True):
    """Blocks on disk of one model under one set of settings.

    `stale` says that they can never be used again: the model file is gone or has changed, or llama.cpp has.
    """

    name: str
    path: str
    fingerprint: str
    blocks: int
    bytes: int
    current: bool = False
    stale: bool = False


class PromptRow(msgspec.Struct, frozen=True):
    """One session's last prompt (and reply) in the cache.

    `own_bytes` are of blocks that no other session uses. `tier` is the hottest one from which the whole
    prompt can be served (None: not wholly cached any more). Times are seconds since the epoch.
    """

    session: str
    title: str
    tokens: int
    context_tokens: int
    host_tokens: int
    disk_tokens: int
    own_bytes: int
    shared_bytes: int
    tier: Tier | None
    hits: int
    last_used: float
    running: bool = False
    pinned: bool = False


class Totals(msgspec.Struct, frozen=True):
    """Counters since the host started, or for ever. A hit is a request that reused at least one token.

    `prompt_tokens` are those that were served: reused or processed. Swaps move a session's cells into and
    out of the context; `disk_read_ms` and `disk_write_ms` are the swap thread's times. `ahead_tokens` were
    processed before anybody asked for them; some of these were used by a request, some never will be.
    """

    requests: int = 0
    hits: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    processed_tokens: int = 0
    generated_tokens: int = 0
    saved_ms: float = 0.0
    swaps_in: int = 0
    swaps_out: int = 0
    evictions: int = 0
    not_stored: int = 0
    swap_in_ms: float = 0.0
    swap_out_ms: float = 0.0
    disk_reads: int = 0
    disk_writes: int = 0
    disk_read_ms: float = 0.0
    disk_write_ms: float = 0.0
    disk_evictions: int = 0
    quarantined: int = 0
    ahead_tokens: int = 0
    ahead_used_tokens: int = 0
    ahead_wasted_tokens: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(**{name: getattr(self, name) + getattr(other, name) for name in _COUNTERS})

    def __sub__(self, other: "Totals") -> "Totals":
        return Totals(**{name: getattr(self, name) - getattr(other, name) for name in _COUNTERS})

    @property
    def hit_ratio(self) -> float:
        """Reused share of all prompt tokens, 0 when there were none."""
        return self.reused_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


_COUNTERS: Final = Totals.__struct_fields__


class LastRequest(msgspec.Struct, frozen=True):
    """What one ended request cost; `finished_at` is in seconds since the epoch."""

    session: str
    title: str
    stats: RequestStats
    finished_at: float = 0.0
    side_task: bool = False


class ActivePhase(enum.Enum):
    """How far a request that has not ended is."""

    QUEUED = "queued"
    READING = "reading"
    WRITING = "writing"


class ActiveRequest(msgspec.Struct, frozen=True):
    """A request that has not ended. `position` is its place in the queue from 1 on, 0 when it runs.

    `done` of `total` prompt tokens are in the context. `is_first`: it belongs to the chat that the user
    reads, or somebody waits for it, so that it goes before the others.
    """

    id: str
    session: str
    title: str
    kind: RequestKind
    phase: ActivePhase
    position: int = 0
    done: int = 0
    total: int = 0
    generated: int = 0
    waited_ms: float = 0.0
    is_first: bool = False


class CacheSnapshot(msgspec.Struct, frozen=True):
    """Everything the cache panel shows, at one moment.

    `totals_ever` is None where nothing may be kept on disk. While `asleep` the model and the context are
    freed; `wake_ms` is what loading took last time. `active` are the requests that have not ended, `PREPARE`
    included, which `num_running` and `num_waiting` leave out. `others_share` is the share of the engine's
    time that all others get while the focused chat is served, None while it is not.
    """

    model: str = ""
    context: ContextUse = ContextUse()
    host: TierUse = TierUse()
    disk: TierUse = TierUse(off=True)
    prompts: tuple[PromptRow, ...] = ()
    totals: Totals = Totals()
    totals_ever: Totals | None = None
    disk_models: tuple[DiskModel, ...] = ()
    asleep: bool = False
    wake_ms: float | None = None
    last: LastRequest | None = None
    num_running: int = 0
    num_waiting: int = 0
    active: tuple[ActiveRequest, ...] = ()
    others_share: float | None = None
    bytes_per_token: float = 0.0
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
