"""What a front end does with the cache: limits, pins, evictions, verifying, the costs of the last requests.

Sends commands and turns the answers into `changes`. Runs in the event loop; owns the last picture of the
cache and the limits that wait for the host's word. Never imports Textual.
"""

import enum
from collections.abc import Callable
from typing import Final

import msgspec

from samovar.chats import cache_words, changes
from samovar.client.interface import Client
from samovar.core.commands import (
    ClearTier,
    Evict,
    ListRequests,
    Pin,
    Prefetch,
    PruneDisk,
    SetDiskLimit,
    SetRamLimit,
    SetTokenLimit,
    VerifyDisk,
)
from samovar.core.events import (
    CacheChanged,
    CommandRefused,
    DiskPruned,
    DiskVerified,
    Event,
    RequestsListed,
    TierCleared,
    VerifyProgressed,
)
from samovar.core.snapshot import CacheSnapshot, PromptRow, Tier


class Limit(enum.Enum):
    """A limit that can be changed while the host runs; the value is the name of its `/` command."""

    RAM = "ram"
    TOKENS = "tokens"
    DISK = "disk"


NOT_CACHED: Final = "nothing of this chat is in the cache yet"
_COMMANDS: Final[dict[Limit, type[SetRamLimit | SetTokenLimit | SetDiskLimit]]] = {
    Limit.RAM: SetRamLimit,
    Limit.TOKENS: SetTokenLimit,
    Limit.DISK: SetDiskLimit,
}
_NAMES: Final = {Limit.RAM: "RAM limit", Limit.TOKENS: "token limit", Limit.DISK: "disk limit"}


class CacheDesk:
    """The cache as a front end works with it. `notify` is called in the event loop."""

    def __init__(self, client: Client, notify: Callable[[changes.Change], None]) -> None:
        self._client = client
        self._notify = notify
        self._wanted: dict[Limit, str] = {}  # asked for, until the host has taken or refused it
        self._pins: dict[str, bool] = {}  # likewise
        self._evictions: dict[str, _Eviction] = {}
        self.snapshot = CacheSnapshot()

    def row(self, session: str) -> PromptRow | None:
        """What is cached of a session, None if nothing is known."""
        return next((row for row in self.snapshot.prompts if row.session == session), None)

    # What the user wants

    def set_limit(self, limit: Limit, text: str) -> None:
        """Change a limit; a notice says when the host has taken it, `LimitRefused` that it has not."""
        self._wanted.pop(limit, None)
        self._wanted[limit] = text
        self._client.send(_COMMANDS[limit](text))

    def prefetch(self, session: str) -> bool:
        """Bring a session's blocks from disk to RAM; False if it is known that none lie there."""
        row = self.row(session)
        if row is not None and (row.tier in (Tier.CONTEXT, Tier.HOST) or not row.disk_tokens):
            return False
        if self.snapshot.disk.off:
            return False
        self._client.send(Prefetch(session))
        return True

    def pin(self, session: str, *, pinned: bool) -> None:
        """Keep a session's blocks whatever else comes, or stop doing so; a notice says when it is so."""
        if self.row(session) is None:
            self._notify(changes.Noticed(NOT_CACHED, is_error=True))
            return
        self._pins[session] = pinned
        self._client.send(Pin(session, pinned))

    def evict(self, session: str, *, everywhere: bool = False) -> None:
        """Take what only this session has out of context and RAM; `everywhere`: off the disk too."""
        row = self.row(session)
        if row is None:
            self._notify(changes.Noticed(NOT_CACHED, is_error=True))
            return
        self._evictions[session] = _Eviction(everywhere, _held(row, everywhere=everywhere))
        self._client.send(Evict(session, everywhere))

    def clear(self, tier: Tier) -> None:
        """Empty RAM or the disk, but for what is pinned or in use."""
        self._client.send(ClearTier(tier))

    def verify(self) -> None:
        """Have all files on disk hashed again."""
        self._client.send(VerifyDisk())

    def prune(self) -> None:
        """Delete the blocks of models that are gone or have changed."""
        self._client.send(PruneDisk())

    def ask_for_requests(self) -> None:
        """Ask for the costs of the last requests; `RequestsTold` answers."""
        self._client.send(ListRequests())

    # What the host says

    def handle(self, event: Event) -> None:
        """Take in one event of the host's."""
        match event:
            case CacheChanged(snapshot):
                self.snapshot = snapshot
                self._confirm()
                self._notify(changes.CacheDrawn(snapshot))
            case CommandRefused(message, tag):
                self._refused(message, tag)
            case RequestsListed(requests):
                self._notify(changes.RequestsTold(requests))
            case VerifyProgressed(done, total):
                self._notify(changes.VerifyMoved(done, total))
            case DiskVerified():
                self._notify(changes.VerifyMoved(0, 0))
                is_error = bool(event.bad or event.problem)
                self._notify(changes.Noticed(cache_words.verified(event), is_error))
            case DiskPruned():
                self._notify(changes.Noticed(cache_words.pruned(event)))
            case TierCleared():
                self._notify(changes.Noticed(cache_words.cleared(event)))
            case _:
                pass

    def _refused(self, message: str, tag: str) -> None:
        """Say it; a limit goes back to where it was typed. Without a tag it is the oldest limit asked for."""
        asked = (limit for limit in self._wanted if tag in ("", _COMMANDS[limit].__struct_config__.tag))
        limit = next(asked, None)
        if limit is not None:
            self._notify(changes.LimitRefused(limit.value, self._wanted.pop(limit), message))
            return
        self._pins.clear()
        self._evictions.clear()
        self._notify(changes.Noticed(message, is_error=True))

    def _confirm(self) -> None:
        """Say what the picture shows to be done of what was asked for."""
        for limit, text in list(self._wanted.items()):
            if _is_set(self.snapshot, limit, text):
                del self._wanted[limit]
                beyond = cache_words.beyond_the_disk(self.snapshot.disk) if limit is Limit.DISK else ""
                self._notify(changes.Noticed(f"{_NAMES[limit]}: {text}{beyond}"))
        for session, pinned in list(self._pins.items()):
            row = self.row(session)
            if row is None or row.pinned is pinned:
                del self._pins[session]
                if row is not None:
                    done = "is pinned: it stays" if pinned else "is not pinned any more"
                    self._notify(changes.Noticed(f"{cache_words.quoted(row.title)} {done}"))
        for session, eviction in list(self._evictions.items()):
            row = self.row(session)
            held = 0 if row is None else _held(row, everywhere=eviction.everywhere)
            if held < eviction.held:
                del self._evictions[session]
                place = "the cache" if eviction.everywhere else "context and RAM"
                self._notify(changes.Noticed(cache_words.evicted(row, place)))


class _Eviction(msgspec.Struct, frozen=True):
    """An eviction that was asked for, and the tokens that were held before."""

    everywhere: bool
    held: int


def _held(row: PromptRow, *, everywhere: bool) -> int:
    return row.context_tokens + row.host_tokens + (row.disk_tokens if everywhere else 0)


def _is_set(snapshot: CacheSnapshot, limit: Limit, text: str) -> bool:
    """Whether a limit is what `text` asks for, as far as the picture tells."""
    match limit:
        case Limit.RAM:
            return snapshot.host.setting == text
        case Limit.DISK:
            return snapshot.disk.setting == text
        case Limit.TOKENS if text.isdecimal():
            return snapshot.host.limit_tokens == int(text)
        case Limit.TOKENS:
            return text in ("auto", "off") or (text == "unlimited" and snapshot.host.limit_tokens is None)
