"""The engine's side of the disk tier: what is to be read and written, and when. Engine thread.

The swap thread does the work; its results come back through `take_results`. Blocks are read into memory that
the HOST tier has counted before, and written from the memory that it holds: nothing is beside the budget.
"""

import itertools
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from samovar.core import commands, events
from samovar.core.snapshot import Tier, TierUse
from samovar.engine import swapper as swap
from samovar.engine.mover import Mover
from samovar.kv.block import Block
from samovar.kv.disk_index import PastRow, Row
from samovar.kv.host_tier import Blob, HostTier
from samovar.kv.index import PrefixIndex
from samovar.kv.ledger import Ledger
from samovar.kv.tokens import unpack

IN_FLIGHT_BYTES: Final = 32 * 1024 * 1024
FETCH_PATIENCE_S: Final = 10.0
TIGHT_SHARE: Final = 0.7
REFUSED_S: Final = 5.0
"""So long after a block had no room on disk, what leaves RAM does not wait to be written."""

Tell = Callable[[str | None, events.Event], None]
MakeSwapper = Callable[[Callable[[swap.Result], None]], swap.Swapper]


@dataclass(slots=True, eq=False)
class Fetch:
    """Blocks of `tokens` on their way from disk to RAM; `held` keeps what is there already.

    `then` is called once, when nothing more comes. `num_read` tokens were read. Once it was released nobody
    waits for it (`is_wanted`), and it holds nothing. What is on its way for a chat that was deleted meanwhile
    (`is_forgotten`) does not enter RAM. Others leave RAM for it only if it `may_evict`.
    """

    ticket: int
    session: str
    tokens: tuple[int, ...]
    held: list[Block]
    then: Callable[["Fetch"], None] | None = None
    rows: tuple[Row, ...] = ()
    blobs: tuple[Blob, ...] = ()
    is_open: bool = True
    is_wanted: bool = True
    is_forgotten: bool = False
    may_evict: bool = True
    num_read: int = 0
    ms: float = 0.0
    t_start: float = field(default_factory=time.monotonic)

    @property
    def is_late(self) -> bool:
        """Whether nobody should wait for it any longer."""
        return time.monotonic() - self.t_start > FETCH_PATIENCE_S


class Disk:
    """Moves blocks between the HOST and the DISK tier. `wake` is called from the swap thread."""

    def __init__(
        self,
        make_swapper: MakeSwapper,
        *,
        index: PrefixIndex,
        host: HostTier,
        mover: Mover,
        ledger: Ledger,
        tell: Tell,
        wake: Callable[[], None],
    ) -> None:
        self._index = index
        self._host = host
        self._mover = mover
        self._ledger = ledger
        self._tell = tell
        self._results: queue.SimpleQueue[swap.Result] = queue.SimpleQueue()
        self._wake = wake
        self._swapper = make_swapper(self._put)
        self._tickets = itertools.count(1)
        self._fetches: dict[int, Fetch] = {}
        self._behind: list[tuple[Fetch, tuple[Row, ...]]] = []
        self._pending: dict[bytes, Block] = {}
        self._in_flight: dict[bytes, Block] = {}
        self._deferred: list[swap.Result] = []
        self.news: list[swap.Opened | swap.Counted] = []
        self._t_refused: float | None = None
        self.is_count_stale = True
        mover.set_disk(self)
        self._swapper.start()

    def _put(self, result: swap.Result) -> None:
        """Called by the swap thread."""
        self._results.put(result)
        self._wake()

    # ---- state

    @property
    def state(self) -> swap.DiskState:
        return self._swapper.state

    @property
    def can_write(self) -> bool:
        """Whether it is worth waiting for what is being written."""
        refused = self._t_refused is not None and time.monotonic() - self._t_refused < REFUSED_S
        return not (self.is_off or self.state.problem or refused)

    @property
    def is_off(self) -> bool:
        """Whether nothing is written or read: by choice, or because RAM, through which all goes, is off."""
        return self.state.off or self._host.limits.off

    def use(self) -> TierUse:
        """For the picture of the cache."""
        state = self.state
        waiting = [*self._pending.values(), *self._in_flight.values()]
        problem = state.problem
        if self._host.limits.off and not state.off:
            problem = "Without RAM nothing gets to the disk: set a RAM limit."
        return TierUse(
            bytes=state.bytes,
            limit_bytes=state.limit_bytes,
            tokens=state.tokens,
            blocks=state.blocks,
            off=self.is_off,
            setting=state.setting,
            queued_bytes=sum(block.num_bytes for block in waiting),
            quarantined=state.quarantined,
            problem=problem,
            room_bytes=state.room_bytes,
        )

    # ---- from disk

    def fetch(
        self,
        session: str,
        tokens: Sequence[int],
        then: Callable[[Fetch], None] | None = None,
        *,
        may_evict: bool = True,
    ) -> Fetch | None:
        """Bring what RAM lacks of `tokens` from disk; None if there is nothing to wait for."""
        if self.is_off or (self.state.problem and not self.state.is_open) or not tokens:
            return None
        match = self._index.match(tokens)
        if match.num_tokens >= len(tokens):
            return None
        size = self._index.block_tokens
        held = [b for b in match.blocks if b.num_tokens == size and b.end <= match.num_tokens]
        for block in held:
            block.users += 1
        fetch = Fetch(next(self._tickets), session, tuple(tokens), held, then, may_evict=may_evict)
        self._fetches[fetch.ticket] = fetch
        parent = held[-1].key if held else None
        self._swapper.post(swap.Find(fetch.ticket, fetch.tokens, len(held) * size, parent))
        return fetch

    def release(self, fetch: Fetch) -> None:
        """What was fetched may leave RAM again. Also for a fetch that is still open."""
        fetch.is_wanted = False
        for block in fetch.held:
            block.users -= 1
        fetch.held.clear()

    def _on_found(self, found: swap.Found) -> None:
        fetch = self._fetches[found.ticket]
        fetch.ms += found.ms
        self._read(fetch, found.rows)

    def _read(self, fetch: Fetch, found: tuple[Row, ...]) -> None:
        """Ask for what was found and RAM lacks; what another fetch reads already is waited for."""
        if not fetch.is_wanted:
            self._close(fetch)
            return
        coming = {row.key for other in self._fetches.values() for row in other.rows}
        if any(row.key in coming for row in found):
            self._behind.append((fetch, found))
            return
        here = self._index.match(fetch.tokens).num_tokens
        rows, blobs = [], []
        for row in found:
            known = self._index.get(row.key)
            if known is not None:
                known.on_disk = True
                known.users += 1
                fetch.held.append(known)
                continue
            if row.end <= here and row.num_tokens < self._index.block_tokens:
                break  # RAM has as much of it
            blob = self._mover.reserve(row.size, row.num_tokens, evict=fetch.may_evict)
            if blob is None:
                break
            rows.append(row)
            blobs.append(blob)
        fetch.rows, fetch.blobs = tuple(rows), tuple(blobs)
        if rows:
            self._swapper.post(swap.Read(fetch.ticket, fetch.rows, fetch.blobs))
        else:
            self._close(fetch)

    def _on_read(self, done: swap.ReadDone) -> None:
        fetch = self._fetches[done.ticket]
        fetch.ms += done.ms
        self._ledger.disk_reads += done.num_read
        self._ledger.disk_read_ms += done.ms
        for number, (row, blob) in enumerate(zip(fetch.rows, fetch.blobs, strict=True)):
            block = self._enter(fetch, row, blob) if number < done.num_read else None
            if block is None:
                self._host.release(blob)
                continue
            if fetch.is_wanted:
                block.users += 1
                fetch.held.append(block)
        self._close(fetch)

    def _enter(self, fetch: Fetch, row: Row, blob: Blob) -> Block | None:
        """A block that was read enters the index; None if it is there already or its parent is not."""
        tokens = unpack(row.tokens)
        known = self._index.get(row.key)
        if known is not None:
            known.on_disk = True
            return None
        parent = None
        if row.start:
            parent = self._index.get(row.parent)
            if parent is None:
                return None
        if fetch.is_forgotten or self._host.limits.off or self._host.excess() != (0, 0):
            return None
        block = self._mover.adopt(parent, tokens, blob, [fetch.session])
        assert block.key == row.key
        block.on_disk = block.from_disk = True
        fetch.num_read += block.num_tokens
        return block

    def _close(self, fetch: Fetch) -> None:
        del self._fetches[fetch.ticket]
        fetch.is_open = False
        if fetch.then is not None:
            fetch.then(fetch)
        behind, self._behind = self._behind, []
        for waiting, found in behind:
            self._read(waiting, found)

    # ---- to disk

    def persist(self, blocks: Iterable[Block]) -> None:
        """Write these blocks when there is time, parents first."""
        if self.is_off:
            return
        for block in blocks:
            if not block.on_disk and block.key not in self._in_flight:
                self._pending.setdefault(block.key, block)
        self._pump()

    def persist_if_tight(self, blocks: Iterable[Block]) -> None:
        """Write early where RAM is nearly full, so that what has to leave can leave at once."""
        limits = self._host.limits
        if limits.max_bytes is not None and self._host.num_bytes > TIGHT_SHARE * limits.max_bytes:
            self.persist(blocks)

    def save_turn(self, past: PastRow, blocks: Sequence[Block]) -> None:
        """A turn has ended: its blocks, and what was asked, go to disk."""
        if self.is_off:
            return
        self.persist(blocks)
        keys = tuple(block.key for block in blocks)
        self._swapper.post(swap.Remember(past, keys, self._ledger.take_new()))
        self.is_count_stale = True

    def wait_for_write(self, patience_s: float) -> bool:
        """Wait until something that is being written has been; False if nothing was in time.

        Whatever else comes is kept for `take_results`: who waits here is in the middle of something.
        """
        deadline = time.monotonic() + patience_s
        while self._in_flight:
            try:
                result = self._results.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return False
            if isinstance(result, swap.Written):
                self._on_written(result)
                return True
            self._deferred.append(result)
        return False

    def flush(self, patience_s: float) -> None:
        """Write everything that RAM alone holds, for so long at most."""
        deadline = time.monotonic() + patience_s
        self.persist(sorted(self._index, key=lambda block: block.start))
        while self._in_flight and time.monotonic() < deadline:
            self.wait_for_write(deadline - time.monotonic())

    def _pump(self) -> None:
        """Hand blocks to the swap thread; what it has stays in RAM until it is written."""
        flying = sum(block.num_bytes for block in self._in_flight.values())
        while self._pending and flying < IN_FLIGHT_BYTES:
            key = next(iter(self._pending))
            block = self._pending.pop(key)
            blob = self._host.get(key)
            if blob is None or self._index.get(key) is not block or block.on_disk:
                continue
            block.users += 1
            self._in_flight[key] = block
            flying += block.num_bytes
            parent = block.parent.key if block.parent else None
            owners = tuple(sorted(block.sessions))
            self._swapper.post(swap.Write(key, parent, block.start, block.tokens, blob, owners))

    def _on_written(self, done: swap.Written) -> None:
        block = self._in_flight.pop(done.key)
        block.users -= 1
        block.on_disk = done.stored
        self._t_refused = None if done.stored else time.monotonic()
        if done.stored:
            self._ledger.disk_writes += 1
            self._ledger.disk_write_ms += done.ms
        self._mover.settle(block)
        self._pump()

    # ---- control

    def set_limit(self, text: str) -> None:
        self._swapper.post(swap.SetLimit(text))

    def pin(self, session: str, pinned: bool) -> None:
        self._swapper.post(swap.PinOnDisk(session, pinned))

    def forget(self, session: str) -> None:
        """Delete what only this session has, and let nothing of it come in any more."""
        for fetch in self._fetches.values():
            if fetch.session == session:
                fetch.is_forgotten = True
        self._swapper.post(swap.ForgetOnDisk(session))
        for block in self._index:
            if block.sessions <= {session}:
                block.on_disk = False
        self.is_count_stale = True

    def upkeep(self, what: str, client: str) -> None:
        """`what` is clear, verify or prune; `client` is told how it went."""
        if what == "clear":
            self._pending.clear()
        self._swapper.post(swap.Upkeep(what, client))

    def count(self, prompts: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        """Ask how much of each session's prompt the disk has."""
        self.is_count_stale = False
        self._swapper.post(swap.Count(tuple(prompts)))

    def close(self, patience_s: float) -> None:
        """Write what is left, and end the swap thread."""
        deadline = time.monotonic() + patience_s
        self.flush(patience_s)
        self._swapper.stop(max(0.1, deadline - time.monotonic()))

    # ---- results

    def take_results(self) -> None:
        """Handle what the swap thread has done; `news` is what concerns others."""
        while True:
            try:
                result = self._deferred.pop(0) if self._deferred else self._results.get_nowait()
            except queue.Empty:
                return
            self._handle(result)

    def _handle(self, result: swap.Result) -> None:
        self._ledger.quarantined = self.state.quarantined
        self._ledger.disk_evictions = self.state.evictions
        match result:
            case swap.Found():
                self._on_found(result)
            case swap.ReadDone():
                self._on_read(result)
            case swap.Written():
                self._on_written(result)
            case swap.Opened():
                # It may be another folder than before: whatever is there already is not written again.
                for block in self._index:
                    block.on_disk = False
                self.news.append(result)
                self.persist(sorted(self._index, key=lambda block: block.start))
            case swap.Gone(keys):
                # Whatever RAM still holds of it is written again when its turn comes.
                for key in keys:
                    if (gone := self._index.get(key)) is not None:
                        gone.on_disk = False
                self.is_count_stale = True
            case swap.Counted():
                self.news.append(result)
            case swap.Cleared(client, num_blocks, num_bytes, kept):
                # What RAM still has is not written again for its own sake: the next turn of its chat finds
                # it missing, and sees to it.
                self.is_count_stale = True
                self._tell(client, events.TierCleared(Tier.DISK, num_blocks, num_bytes, kept))
            case swap.NotDone(client, what, problem):
                command = commands.ClearTier if what == "clear" else commands.PruneDisk
                self._tell(client, events.CommandRefused(problem, str(command.__struct_config__.tag)))
            case swap.Pruned(client, models, num_blocks, num_bytes):
                self._tell(client, events.DiskPruned(models, num_blocks, num_bytes))
            case swap.Verifying(client, done, total):
                self._tell(client, events.VerifyProgressed(done, total))
            case swap.Verified(client, found, problem):
                self.is_count_stale = True
                self._tell(
                    client, events.DiskVerified(found.files, found.bytes, found.bad, found.orphans, problem)
                )
