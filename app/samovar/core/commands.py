"""What a front end tells the engine host: imperatives, tagged for the wire."""

import msgspec

from samovar.core.request import Request
from samovar.core.snapshot import Tier


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First command on a connection. A host of another protocol refuses it."""

    protocol: int
    client: str


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    request: Request


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    request_id: str


class Focus(msgspec.Struct, frozen=True, tag="focus"):
    """The user now looks at this session (None: at none); its blocks come into the context."""

    session: str | None


class Rename(msgspec.Struct, frozen=True, tag="rename"):
    """A session's title changed; the table of prompts shows it."""

    session: str
    title: str


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """Drop what only this session has cached (a deleted chat)."""

    session: str


class SetRamLimit(msgspec.Struct, frozen=True, tag="set_ram_limit"):
    limit: str


class SetTokenLimit(msgspec.Struct, frozen=True, tag="set_token_limit"):
    limit: str


class SetDiskLimit(msgspec.Struct, frozen=True, tag="set_disk_limit"):
    limit: str


class Prefetch(msgspec.Struct, frozen=True, tag="prefetch"):
    """The user may open this session next: its blocks come from disk to RAM, not into the context."""

    session: str


class Pin(msgspec.Struct, frozen=True, tag="pin"):
    """Keep a session's blocks in RAM and on disk whatever else comes, or stop doing so."""

    session: str
    pinned: bool


class Evict(msgspec.Struct, frozen=True, tag="evict"):
    """Take what only this session has out of context and RAM; `everywhere`: off the disk too."""

    session: str
    everywhere: bool = False


class ClearTier(msgspec.Struct, frozen=True, tag="clear_tier"):
    """Empty RAM or the disk; what is in use or pinned stays. `TierCleared` answers."""

    tier: Tier


class VerifyDisk(msgspec.Struct, frozen=True, tag="verify_disk"):
    """Hash all files of the disk tier again. `VerifyProgressed` on the way, `DiskVerified` at the end."""


class PruneDisk(msgspec.Struct, frozen=True, tag="prune_disk"):
    """Delete the blocks of models that are gone or have changed. `DiskPruned` answers."""


class ListRequests(msgspec.Struct, frozen=True, tag="list_requests"):
    """Ask for the costs of the last requests. `RequestsListed` answers."""


class CountTokens(msgspec.Struct, frozen=True, tag="count_tokens"):
    """How many tokens do these texts take as parts of a message? `TokensCounted` answers, once.

    Counted beside what runs, a little at a time: who counts while the user types waits for one answer
    before asking again.
    """

    request_id: str
    texts: tuple[str, ...]


class SetKeepAlive(msgspec.Struct, frozen=True, tag="set_keep_alive"):
    """How long without a request until the model is freed, or the host ends if nobody is there.

    Below 0 for ever.
    """

    seconds: float


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """Ask for a `CacheChanged` at once."""


class StopHost(msgspec.Struct, frozen=True, tag="stop_host"):
    """End the host in good order, whoever else is connected."""


Command = (
    Hello
    | Submit
    | Cancel
    | Focus
    | Rename
    | Forget
    | SetRamLimit
    | SetTokenLimit
    | SetDiskLimit
    | Prefetch
    | Pin
    | Evict
    | ClearTier
    | VerifyDisk
    | PruneDisk
    | ListRequests
    | CountTokens
    | SetKeepAlive
    | Describe
    | StopHost
)
