"""What has happened, as the engine host tells its front ends: past tense, tagged for the wire."""

import enum

import msgspec

from samovar.core.arithmetic import KvShape
from samovar.core.request import FinishReason, RequestStats
from samovar.core.snapshot import CacheSnapshot, LastRequest, Tier


class ModelInfo(msgspec.Struct, frozen=True):
    """The loaded model. `notes` are sentences that the user should see (no chat template, AMX avoided, …).

    `tokenizer` is the id under which generated token ids are valid. `kv_bytes_per_token` are keys and values
    of one token, `state_bytes` what a sequence takes besides (recurrent and hybrid models); `shape` tells
    the same for other KV types. `thinking` are the texts that open and close reasoning, as the chat template
    defines them. `template_tokens` stand in a prompt besides what its one message says: without a system
    prompt (of which a template may have its own), and with one.
    """

    name: str
    path: str
    family: str  # dense | sliding window | hybrid | recurrent
    context_tokens: int
    trained_context_tokens: int
    kv_type_k: str
    kv_type_v: str
    tokenizer: str
    fingerprint: str
    block_tokens: int
    has_template: bool
    notes: tuple[str, ...] = ()
    kv_bytes_per_token: float = 0.0
    state_bytes: int = 0
    shape: KvShape | None = None
    thinking: tuple[str, str] | None = None
    template_tokens: tuple[int, int] = (0, 0)


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """Answer to `Hello`. `model` is None while it still loads."""

    protocol: int
    pid: int
    model: ModelInfo | None


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The host speaks another protocol; the message says what to do."""

    message: str


class LoadingProgressed(msgspec.Struct, frozen=True, tag="loading_progressed"):
    """`stage` is a short phrase in lower case; `fraction` goes from 0 to 1 within a stage."""

    stage: str
    fraction: float


class HostReady(msgspec.Struct, frozen=True, tag="host_ready"):
    model: ModelInfo


class HostFailed(msgspec.Struct, frozen=True, tag="host_failed"):
    """The host cannot serve (a broken model, too little memory); it ends after saying so."""

    message: str


class WaitReason(enum.Enum):
    """What a request waits for."""

    ROOM = "room in the context"
    FOCUS = "the chat that you read"  # it goes first, and another one beside it would slow it down
    PREFIX = "the same beginning"  # another request processes it right now
    DISK = "the disk"


class RequestQueued(msgspec.Struct, frozen=True, tag="request_queued"):
    """A request waits: it is number `position` (from 1 on) of `num_waiting`. Told again when that changes.

    `estimate_ms` is a guess from what goes before it, None where there is nothing to guess from.
    """

    request_id: str
    session: str
    position: int
    num_waiting: int
    estimate_ms: float | None
    reason: WaitReason


class RequestStarted(msgspec.Struct, frozen=True, tag="request_started"):
    """The prompt is known and its reusable part is in place; `stats` has prompt, reused, restore time.

    `thinks`: the prompt ends inside a thinking part, so the reply (of which there may be a beginning already)
    begins with reasoning and has its closing tag alone.
    """

    request_id: str
    session: str
    stats: RequestStats
    thinks: bool = False


class PrefillProgressed(msgspec.Struct, frozen=True, tag="prefill_progressed"):
    """`done` of `total` prompt tokens that were not reused have been processed."""

    request_id: str
    session: str
    done: int
    total: int
    remaining_ms: float | None


class TokensGenerated(msgspec.Struct, frozen=True, tag="tokens_generated"):
    request_id: str
    session: str
    text: str
    num_tokens: int


class RequestFinished(msgspec.Struct, frozen=True, tag="request_finished"):
    """The one terminal event of a request. `reply` is the whole text, `tokens` the ids that spell it.

    Of a reply that was gone on with, both are what is new; `begun` are the ids of the text before that, as
    they stood in the prompt: `begun` and `tokens` together spell the reply. Where both are empty (a request
    that never started, a host that died) the ids that are known of the old text still hold.
    """

    request_id: str
    session: str
    reason: FinishReason
    reply: str
    tokens: tuple[int, ...]
    tokenizer: str
    stats: RequestStats
    error: str = ""
    begun: tuple[int, ...] = ()


class SwapFinished(msgspec.Struct, frozen=True, tag="swap_finished"):
    """A session's cells entered (`into_context`) or left the context.

    `disk_tokens` of the tokens came from disk; `ms` then holds the time that reading them took.
    """

    session: str
    into_context: bool
    num_tokens: int
    num_bytes: int
    ms: float
    disk_tokens: int = 0


class TierCleared(msgspec.Struct, frozen=True, tag="tier_cleared"):
    """`num_blocks` left the tier; `kept_blocks` are pinned or in use."""

    tier: Tier
    num_blocks: int
    num_bytes: int
    kept_blocks: int = 0


class VerifyProgressed(msgspec.Struct, frozen=True, tag="verify_progressed"):
    """`done` of `total` files have been hashed again."""

    done: int
    total: int


class DiskVerified(msgspec.Struct, frozen=True, tag="disk_verified"):
    """All files were hashed again.

    `bad` ones were set aside; `orphans` are files without an entry and entries without a file, now gone.
    """

    files: int
    bytes: int
    bad: int
    orphans: int
    problem: str = ""


class DiskPruned(msgspec.Struct, frozen=True, tag="disk_pruned"):
    """`models` are the names of the models whose blocks were deleted."""

    models: tuple[str, ...]
    num_blocks: int
    num_bytes: int


class RequestsListed(msgspec.Struct, frozen=True, tag="requests_listed"):
    """The last requests, the newest first."""

    requests: tuple[LastRequest, ...]


class TokensCounted(msgspec.Struct, frozen=True, tag="tokens_counted"):
    """Tokens of each text of a `CountTokens`, told to the front end that asked.

    None where they cannot be known now: the model sleeps, the texts have more than 1 MiB together, or no
    engine is there.
    """

    request_id: str
    counts: tuple[int, ...] | None


class CacheChanged(msgspec.Struct, frozen=True, tag="cache_changed"):
    snapshot: CacheSnapshot


class CommandRefused(msgspec.Struct, frozen=True, tag="command_refused"):
    """A command had a bad value, or cannot be carried out now; nothing was changed.

    `command` is the wire tag of what was refused (`pin`, `set_ram_limit`), empty where that is not said.
    """

    message: str
    command: str = ""


class HostStopping(msgspec.Struct, frozen=True, tag="host_stopping"):
    """The host ends in good order: what runs is cancelled. The next `Submit` starts another host."""


class HostStarting(msgspec.Struct, frozen=True, tag="host_starting"):
    """Made by the client: it starts (or waits for) an engine host."""


class HostLost(msgspec.Struct, frozen=True, tag="host_lost"):
    """Made by the client: the connection ended unexpectedly; another host is being started."""

    message: str


Event = (
    Welcome
    | Refused
    | LoadingProgressed
    | HostReady
    | HostFailed
    | RequestQueued
    | RequestStarted
    | PrefillProgressed
    | TokensGenerated
    | RequestFinished
    | SwapFinished
    | TierCleared
    | VerifyProgressed
    | DiskVerified
    | DiskPruned
    | RequestsListed
    | TokensCounted
    | CacheChanged
    | CommandRefused
    | HostStopping
    | HostStarting
    | HostLost
)
