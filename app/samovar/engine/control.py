"""What a user may do to the cache: limits, pins, eviction, prefetch, upkeep; and what it does by itself.

Engine thread. Says no with a sentence where a command makes no sense; changes nothing then.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import psutil

from samovar.core import commands, events
from samovar.core.errors import SamovarError
from samovar.core.snapshot import Tier
from samovar.core.units import format_size
from samovar.engine import limits
from samovar.engine.disk import Disk, Fetch
from samovar.engine.mover import Mover
from samovar.engine.records import Records, SessionRecord
from samovar.engine.residency import Residency
from samovar.engine.slots import Slots
from samovar.engine.swapper import Counted, DiskState, Opened
from samovar.kv.disk_index import PastRow
from samovar.kv.explain import decode_past
from samovar.kv.host_tier import HostTier, Limits
from samovar.kv.index import PrefixIndex

COUNT_S: Final = 2.0
TELL_S: Final = 0.5
PRESSURE_S: Final = 1.0
PRESSURE_STEP: Final = 0.25
PRESSURE_PATIENCE_S: Final = 0.05
MEMORY_FLOOR_SHARE: Final = 0.05
MEMORY_FLOOR_BYTES: Final = 1 << 30
MIN_PRESSED_BYTES: Final = 16 * 1024 * 1024
EVICT_PATIENCE_S: Final = 2.0

Control = (
    commands.SetRamLimit
    | commands.SetTokenLimit
    | commands.SetDiskLimit
    | commands.Prefetch
    | commands.Pin
    | commands.Evict
    | commands.ClearTier
    | commands.VerifyDisk
    | commands.PruneDisk
)

Tell = Callable[[str | None, events.Event], None]


class CacheControl:
    """Carries out commands on the cache as a whole. `is_busy` tells whether a session has an open request."""

    def __init__(
        self,
        *,
        mover: Mover,
        slots: Slots,
        index: PrefixIndex,
        host: HostTier,
        records: Records,
        residency: Residency,
        tell: Tell,
        is_busy: Callable[[str], bool],
        available_bytes: Callable[[], int],
        vocab_size: int,
    ) -> None:
        self._vocab_size = vocab_size
        self._mover = mover
        self._slots = slots
        self._index = index
        self._host = host
        self._records = records
        self._residency = residency
        self._tell = tell
        self._is_busy = is_busy
        self._available_bytes = available_bytes
        self.disk: Disk | None = None
        self.is_asleep: Callable[[], bool] = lambda: False
        self.ram_setting = ""
        self.token_setting = ""
        self._asked = Limits()
        self._t_pressure = self._t_count = -math.inf
        self._changed = False
        self._forgotten: set[str] = set()  # before it was known what the disk has
        self._is_past_known = False
        self._told_state: DiskState | None = None
        self._t_told = 0.0

    # ---- limits

    @property
    def lowered_from(self) -> int | None:
        """The RAM limit that was asked for, while memory is short and the one in force is lower."""
        now, asked = self._host.limits.max_bytes, self._asked.max_bytes
        return (asked or 0) if now is not None and now != asked else None

    def set_limits(self, ram: str, tokens: str) -> None:
        """Both limits of RAM as the user writes them; raises SamovarError and changes nothing."""
        max_bytes, ram_off = limits.ram_limit(ram, self._available_bytes() + self._host.num_bytes)
        max_tokens, tokens_off = limits.token_limit(tokens)
        self._check_pins(max_bytes, max_tokens, off=ram_off or tokens_off)
        self._asked = Limits(max_bytes, max_tokens, ram_off or tokens_off)
        self.ram_setting, self.token_setting = ram, tokens
        self._apply(self._asked)

    def _check_pins(self, max_bytes: int | None, max_tokens: int | None, *, off: bool) -> None:
        """What is pinned stays, so a limit below it is refused."""
        num_bytes, num_tokens = self._pinned_use()
        if num_bytes and (
            off
            or (max_bytes is not None and max_bytes < num_bytes)
            or (max_tokens is not None and max_tokens < num_tokens)
        ):
            raise SamovarError(
                f"Pinned chats hold {format_size(num_bytes)} ({num_tokens:,} tokens) in RAM: "
                "unpin one first, or set a higher limit."
            )

    def _pinned_use(self) -> tuple[int, int]:
        pinned = [block for block in self._index if block.pins]
        return sum(block.num_bytes for block in pinned), sum(block.num_tokens for block in pinned)

    def _apply(self, wanted: Limits, patience_s: float | None = None) -> None:
        self._mover.set_limits(wanted, patience_s)
        self._records.look_again()

    # ---- commands

    def handle(self, client: str, command: Control) -> None:
        """Carry out one command; `CommandRefused` goes to its client where it cannot be."""
        try:
            self._do(client, command)
        except SamovarError as error:
            self._tell(client, events.CommandRefused(str(error), str(command.__struct_config__.tag)))

    def _do(self, client: str, command: Control) -> None:
        match command:
            case commands.SetRamLimit(limit):
                self.set_limits(limit, self.token_setting)
            case commands.SetTokenLimit(limit):
                self.set_limits(self.ram_setting, limit)
            case commands.SetDiskLimit(limit):
                limits.disk_limit(limit, 0, 0)
                self._need_disk().set_limit(limit)
            case commands.Prefetch(session):
                record = self._records.get(session)
                if self.disk is not None and record is not None and record.previous is not None:
                    self.disk.fetch(session, record.previous.tokens, self._prefetched)
            case commands.Pin(session, pinned):
                self._known(session)
                self._index.pin(session, pinned)
                if self.disk is not None:
                    self.disk.pin(session, pinned)
            case commands.Evict(session, everywhere):
                self._evict(session, everywhere=everywhere)
            case commands.ClearTier(Tier.DISK):
                self._working_disk().upkeep("clear", client)
            case commands.ClearTier(Tier.HOST):
                num_blocks, num_bytes = len(self._host), self._host.num_bytes
                self._wait_until_written()
                self._mover.clear()
                self._records.look_again()
                freed = num_bytes - self._host.num_bytes
                self._tell(
                    client,
                    events.TierCleared(Tier.HOST, num_blocks - len(self._host), freed, len(self._host)),
                )
            case commands.ClearTier():
                raise SamovarError("The context empties by itself: choose RAM or disk.")
            case commands.VerifyDisk():
                self._working_disk().upkeep("verify", client)
            case commands.PruneDisk():
                self._working_disk().upkeep("prune", client)

    def _known(self, session: str) -> SessionRecord:
        record = self._records.get(session)
        if record is None or record.previous is None:
            raise SamovarError("Nothing of this chat is in the cache yet: send a message in it first.")
        return record

    def _need_disk(self) -> Disk:
        if self.disk is None:
            raise SamovarError("This engine has no disk cache.")
        return self.disk

    def _working_disk(self) -> Disk:
        disk = self._need_disk()
        if disk.state.off:
            raise SamovarError('The disk cache is off: set a disk limit such as "8GiB" first.')
        if disk.state.problem and not disk.state.blocks:
            raise SamovarError(disk.state.problem)
        return disk

    def _evict(self, session: str, *, everywhere: bool) -> None:
        record = self._known(session)
        if self._is_busy(session):
            raise SamovarError("A reply is being written in this chat: stop it first.")
        if self._index.is_pinned(session):
            raise SamovarError("This chat is pinned: unpin it first.")
        if self.disk is not None:
            if everywhere:
                self.disk.forget(session)
            else:
                self.disk.persist(record.match.blocks)
                self._wait_until_written()
        for sequence in self._slots.idle():
            if sequence.session == session:
                self._residency.leave(sequence)
        self._mover.forget_session(session)
        self._records.look_again()

    def _wait_until_written(self) -> None:
        if self.disk is not None:
            deadline = time.monotonic() + EVICT_PATIENCE_S
            while (left := deadline - time.monotonic()) > 0 and self.disk.wait_for_write(left):
                pass

    def forget(self, session: str) -> None:
        """A chat was deleted: nothing of it stays anywhere."""
        self._index.pin(session, False)
        if self.disk is not None:
            self.disk.forget(session)
        if not self._is_past_known:
            self._forgotten.add(session)
        self._records.forget(session)
        self._mover.forget_session(session)

    # ---- sessions come and go

    def bring_in(self, session: str) -> None:
        """The user now looks at this session: from disk if it must be, then into the context."""
        record = self._records.get(session)
        if record is None or record.previous is None:
            return
        fetch = None
        if self.disk is not None:
            fetch = self.disk.fetch(session, record.previous.tokens, self._arrived)
        if fetch is None:
            self._residency.bring_in(session, record.previous.tokens)

    def _arrived(self, fetch: Fetch) -> None:
        """What the disk had is in RAM; it goes on into the context if the user still looks at it."""
        record = self._records.get(fetch.session)
        looked_at = fetch.session in self._residency.focused() and not self.is_asleep()
        wanted = looked_at and not self._is_busy(fetch.session)
        if wanted and record is not None and record.previous is not None:
            self._residency.bring_in(fetch.session, record.previous.tokens, fetch.ms)
            self._residency.drop_idle()
        self._prefetched(fetch)

    def _prefetched(self, fetch: Fetch) -> None:
        self._changed = True
        if self.disk is not None:
            self.disk.release(fetch)
        record = self._records.get(fetch.session)
        if record is not None and record.previous is not None:
            self._records.remember(fetch.session, record.previous)

    def save_turn(self, session: str) -> None:
        """A request of this session has ended: what it left in RAM goes to disk too."""
        record = self._records.get(session)
        if self.disk is None or record is None or record.previous is None:
            return
        blocks = [block for block in record.match.blocks if block.end <= record.match.num_tokens]
        self.disk.save_turn(
            PastRow(
                session,
                record.title,
                msgspec.msgpack.encode(record.previous),
                record.hits,
                record.last_used,
                self._index.is_pinned(session),
            ),
            blocks,
        )

    # ---- by itself

    def tick(self) -> bool:
        """Called at least once a second; whether the picture of the cache has changed."""
        changed, self._changed = self._watch_memory() or self._changed, False
        if self.disk is None:
            return changed
        for news in self.disk.news:
            changed = True
            match news:
                case Opened(pasts):
                    self._take_over(past for past in pasts if past.session not in self._forgotten)
                    self._is_past_known = True
                    self._forgotten.clear()
                case Counted(tokens):
                    for session, count in tokens.items():
                        record = self._records.get(session)
                        if record is not None:
                            record.disk_tokens = count
        self.disk.news.clear()
        now = time.monotonic()
        if self.disk.state != self._told_state and now - self._t_told > TELL_S:
            self._told_state, self._t_told = self.disk.state, now
            changed = True
        if self.disk.is_count_stale and now - self._t_count > COUNT_S and not self.disk.is_off:
            self._t_count = now
            self.disk.count(
                (session, record.previous.tokens)
                for session, record in self._records
                if record.previous is not None
            )
        return changed

    def _take_over(self, pasts: Iterable[PastRow]) -> None:
        """What an earlier host left on disk: its sessions are known again."""
        for past in pasts:
            previous = decode_past(past.past)
            if previous is None or not all(0 <= token < self._vocab_size for token in previous.tokens):
                continue  # a damaged row: llama.cpp ends the process at a token that it does not have
            record = SessionRecord(past.title, previous, hits=past.hits, last_used=past.used)
            if past.pinned:
                self._index.pin(past.session, True)
            self._records.restore(past.session, record)
        if self.disk is not None:
            self.disk.is_count_stale, self._t_count = True, -math.inf
        for session in self._residency.focused():
            if not self._is_busy(session) and not self.is_asleep():
                self.bring_in(session)

    def _watch_memory(self) -> bool:
        """Shrink RAM's budget a step while the system runs short of memory; grow it back when it does not."""
        now = time.monotonic()
        if now - self._t_pressure < PRESSURE_S or self._host.limits.off:
            return False
        self._t_pressure = now
        available, floor = self._available_bytes(), memory_floor()
        asked, used = self._asked.max_bytes, self._host.num_bytes
        limit = self._host.limits.max_bytes
        if available < floor and used > MIN_PRESSED_BYTES:
            lower = max(MIN_PRESSED_BYTES, int(used * (1 - PRESSURE_STEP)), self._pinned_use()[0])
            if limit is not None and lower >= limit:
                return False
        elif available > 2 * floor and limit != asked:
            assert limit is not None
            lower = limit + int((available - 2 * floor) * PRESSURE_STEP)
            if asked is not None and lower >= asked:
                self._apply(self._asked)
                return True
            if asked is None and available > 4 * floor:
                self._apply(self._asked)
                return True
        else:
            return False
        self._apply(Limits(lower, self._asked.max_tokens, self._asked.off), PRESSURE_PATIENCE_S)
        return True


def memory_floor() -> int:
    """Bytes that should stay available so that the system does not begin to swap."""
    return min(MEMORY_FLOOR_BYTES, int(psutil.virtual_memory().total * MEMORY_FLOOR_SHARE))
