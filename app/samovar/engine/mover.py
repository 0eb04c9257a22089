"""Carries out what is planned: captures blocks out of the context, restores them into it, drops cells.

Owned by the engine thread. Every operation goes through the one scratch sequence, which is empty again
afterwards, also after a failure: a half-read block leaves cells behind otherwise.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from samovar.engine.backend import Backend
from samovar.engine.cells import CellMirror
from samovar.engine.slots import ContextSequence, Slots
from samovar.kv.block import Block
from samovar.kv.eviction import choose_victims
from samovar.kv.host_tier import Blob, HostTier, Limits, held_bytes
from samovar.kv.index import PrefixIndex
from samovar.kv.ledger import Ledger
from samovar.kv.planner import Cut, Plan, Resident, RestoreStep, Source, make_plan

WRITE_PATIENCE_S: Final = 0.25
SHRINK_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a plan put in place: tokens kept in cells, tokens restored, bytes and time of the restore.

    `from_disk` of the restored tokens had come from disk for this.
    """

    sequence: ContextSequence
    kept: int
    restored: int
    from_disk: int
    num_bytes: int
    ms: float


class Below(Protocol):
    """The tier below RAM as eviction sees it: a place that takes blocks, slowly."""

    @property
    def can_write(self) -> bool: ...

    def persist(self, blocks: Iterable[Block]) -> None: ...

    def wait_for_write(self, patience_s: float) -> bool: ...


class Mover:
    """The one place that moves KV state between the context and RAM."""

    def __init__(
        self, backend: Backend, slots: Slots, index: PrefixIndex, host: HostTier, ledger: Ledger
    ) -> None:
        self._backend = backend
        self._slots = slots
        self._index = index
        self._host = host
        self._ledger = ledger
        self._family = backend.traits.family
        self._disk: Below | None = None
        self._doomed: set[bytes] = set()
        self.cells = CellMirror(backend.traits.num_cells)
        self.capture_s = 0.0

    # ---- into the context

    def arrive(self, plan: Plan, prompt: Sequence[int], session: str) -> Arrival:
        """Put a plan's prefix of `prompt` into a sequence of `session`. A failed restore shortens it."""
        start = time.perf_counter()
        sequence = self._start(plan, session)
        num_bytes, from_disk = self._restore_all(plan.steps, sequence, prompt)
        restored = max(0, len(sequence.tokens) - plan.keep)
        kept = min(plan.keep, len(sequence.tokens))
        ms = 1000 * (time.perf_counter() - start)
        if restored:
            self._ledger.swaps_in += 1
            self._ledger.swap_in_ms += ms
        return Arrival(sequence, kept, restored, min(from_disk, restored), num_bytes, ms)

    def reload(self, sequences: Sequence[ContextSequence]) -> None:
        """Drop sequences and restore them from the cache, so that their cells lie low and close together.

        Does nothing unless the cache holds all of their tokens. What they shared they share again.
        """
        for sequence in sequences:
            self.capture_new(sequence, tail=True)
        wanted = [list(sequence.tokens) for sequence in sequences]
        if any(self._index.match(tokens).num_tokens < len(tokens) for tokens in wanted):
            return
        for sequence in sequences:
            self.trim(sequence, 0)
        residents: list[Resident] = []
        for sequence, tokens in zip(sequences, wanted, strict=True):
            match = self._index.match(tokens)
            plan = make_plan(tokens, sequence.session, residents, match, self._family, whole=True)
            if plan.source is Source.SHARE and plan.slot is not None:
                self._share(self._slots.get(plan.slot), sequence, plan.keep)
            self._restore_all(plan.steps, sequence, tokens)
            residents.append(Resident(sequence.seq, sequence.session, sequence.tokens, busy=True))

    def _start(self, plan: Plan, session: str) -> ContextSequence:
        if plan.source is Source.TAKE:
            assert plan.slot is not None
            sequence = self._slots.get(plan.slot)
            sequence.session = session
            self.trim(sequence, plan.keep)
            self._slots.touch(sequence)
            return sequence
        sequence = self._slots.take(session)
        if plan.source is Source.SHARE:
            assert plan.slot is not None
            self._share(self._slots.get(plan.slot), sequence, plan.keep)
        return sequence

    def _share(self, source: ContextSequence, sequence: ContextSequence, num_tokens: int) -> None:
        """Give an empty sequence the first cells of another."""
        self._backend.copy(source.seq, sequence.seq, 0, num_tokens)
        self.cells.share(source.seq, sequence.seq, 0, num_tokens)
        sequence.tokens = source.tokens[:num_tokens]

    def _restore_all(
        self, steps: Sequence[RestoreStep], sequence: ContextSequence, prompt: Sequence[int]
    ) -> tuple[int, int]:
        """Restore in ascending order up to the first failure: (bytes read, tokens that came from disk)."""
        for step in steps:
            step.block.users += 1
        num_bytes, from_disk, done, broken = 0, 0, 0, None
        for step in steps:
            if not self._has_cells_for(step.block):
                break  # not the block's fault
            before = len(sequence.tokens)
            if not self._restore(step, sequence, prompt):
                broken = step.block
                break
            num_bytes += step.block.num_bytes
            if step.block.from_disk:
                from_disk += len(sequence.tokens) - before
                step.block.from_disk = False
            done += 1
        for step in steps:
            step.block.users -= 1
        if done < len(steps) and not self._can_go_on(sequence):
            self.trim(sequence, 0)
        if broken is not None:
            self._distrust(broken)
        self._index.touch(step.block for step in steps[-1:] if step.block.key in self._index)
        self.refresh_stored(sequence)
        return num_bytes, from_disk

    def _has_cells_for(self, block: Block) -> bool:
        """Whether scratch can hold the whole block, as it must even where a part of it is wanted."""
        return self._family.whole_state or self.cells.num_cells - self.cells.num_used >= block.num_tokens

    def _can_go_on(self, sequence: ContextSequence) -> bool:
        """Whether the sequence may be continued from its end: a sliding window must lie behind that."""
        if not self._family.window or not sequence.tokens:
            return True
        return self._family.can_resume(len(sequence.tokens), self._backend.oldest_pos(sequence.seq))

    def _restore(self, step: RestoreStep, sequence: ContextSequence, prompt: Sequence[int]) -> bool:
        blob = self._host.get(step.block.key)
        if blob is None:
            return False
        scratch, block, cells = self._slots.scratch, step.block, self.cells
        with blob.address() as address:
            whole = self._backend.load(scratch, address, blob.size) == blob.size
        if whole:
            self._backend.copy(scratch, sequence.seq, step.p0, step.p1)
            if self._family.whole_state:
                cells.place([(sequence.seq, step.p1)])
            else:
                cells.place([(scratch, block.num_tokens)])
                cells.share(scratch, sequence.seq, step.p0 - block.start, step.p1 - block.start)
                cells.trim(scratch, 0)
            sequence.tokens.extend(prompt[len(sequence.tokens) : step.p1])
        self._backend.remove(scratch, -1, -1)
        return whole

    def _distrust(self, block: Block) -> None:
        """Forget a block that cannot be restored, and what hangs below it."""
        below, todo = [], [block]
        while todo:
            node = todo.pop()
            below.append(node)
            todo.extend(node.children.values())
        self.evict(self._leaves_first(below))

    # ---- out of the context

    def capture_new(self, sequence: ContextSequence, *, tail: bool = False, evict: bool = True) -> None:
        """Store the whole blocks of `sequence` that are not in the cache yet, and its tail if asked.

        Without `evict`, only as far as there is room without others having to leave.
        Families with state at the end only, and sliding windows, must be asked right at a block's end:
        what has been missed there cannot be made up for.
        """
        start = time.perf_counter()
        size = self._index.block_tokens
        end = sequence.num_exact
        tail = tail and end == len(sequence.tokens)
        while (p0 := len(sequence.stored) * size) + size <= end:
            if p0 + size < len(sequence.tokens) and not self._still_exact(sequence, p0):
                break
            block = self._capture(sequence, p0, p0 + size, evict=evict)
            if block is None:
                break
            block.users += 1
            sequence.stored.append(block)
        if tail and len(sequence.stored) * size < end < (len(sequence.stored) + 1) * size:
            self._capture(sequence, len(sequence.stored) * size, end, evict=evict)
        self.capture_s += time.perf_counter() - start

    def _still_exact(self, sequence: ContextSequence, p0: int) -> bool:
        """Whether a block from `p0` on can be captured although the sequence has gone on beyond its end."""
        if not self._family.can_trim:
            return False
        return not self._family.window or self._backend.oldest_pos(sequence.seq) <= p0

    def _capture(self, sequence: ContextSequence, p0: int, p1: int, *, evict: bool) -> Block | None:
        """Copy the cells `[p0, p1)` into a block behind `sequence.stored`; None if it cannot be kept."""
        parent = sequence.stored[-1] if sequence.stored else None
        tokens = sequence.tokens[p0:p1]
        known = self._index.get(self._index.key_of(parent, tokens))
        if known is not None:
            self._index.label(known, [sequence.session])
            self._index.touch([known])
            return known
        if self._host.limits.off or self._index.covered(parent, tokens):
            return None
        backend, scratch = self._backend, self._slots.scratch
        backend.copy(sequence.seq, scratch, p0, p1)
        try:
            size = backend.state_size(scratch)
            blob = self.reserve(size, len(tokens), evict=evict) if size else None
            if blob is None:
                self._ledger.not_stored += evict
                return None
            with blob.address() as address:
                written = backend.save(scratch, address, size)
            if written != size:
                self._host.release(blob)
                self._ledger.not_stored += 1
                return None
        finally:
            backend.remove(scratch, -1, -1)
        return self.adopt(parent, tokens, blob, [sequence.session])

    def reserve(self, size: int, num_tokens: int, *, evict: bool = True) -> Blob | None:
        """Memory for the blob of a block, for which others leave with `evict`; None if there is no room."""
        more_bytes = held_bytes(size, num_tokens)
        has_room = not self._host.limits.off and self._host.excess(more_bytes, num_tokens) == (0, 0)
        if not has_room and not (evict and self._make_room(more_bytes, num_tokens)):
            return None
        return self._host.try_reserve(size, num_tokens)

    def adopt(
        self, parent: Block | None, tokens: Sequence[int], blob: Blob, sessions: Iterable[str]
    ) -> Block:
        """Enter the block of `tokens` behind `parent`, whose state `blob` holds."""
        needless = self._index.superseded(parent, tokens)
        block = self._index.add(parent, tokens, blob.held)
        self._host.put(block.key, blob)
        self._index.label(block, sessions)
        for old in needless:
            self._index.label(block, old.sessions)
            self._forget(old)
        return block

    def trim(self, sequence: ContextSequence, num_tokens: int) -> None:
        """Keep the first `num_tokens` positions; all or nothing where the family cannot trim."""
        if sequence.exact is not None and num_tokens <= sequence.exact:
            sequence.exact = None
        if num_tokens >= len(sequence.tokens):
            return
        if not self._backend.remove(sequence.seq, num_tokens, -1):
            num_tokens = 0
            self._backend.remove(sequence.seq, -1, -1)
        del sequence.tokens[num_tokens:]
        self._hold(sequence, sequence.stored[: num_tokens // self._index.block_tokens])
        self.cells.trim(sequence.seq, num_tokens)

    def shift(self, sequence: ContextSequence, cut: Cut) -> None:
        """Drop a part of an idle sequence and move what follows it down: no longer what is computed anew."""
        assert sequence.idle
        self.trim(sequence, cut.end)
        self._backend.shift(sequence.seq, cut.p0, cut.p1)
        self.cells.cut(sequence.seq, cut.p0, cut.p1)
        del sequence.tokens[cut.p0 : cut.p1]
        sequence.exact = cut.p0 if sequence.exact is None else min(cut.p0, sequence.exact)
        self.refresh_stored(sequence)

    def undo(self, sequence: ContextSequence) -> None:
        """After an aborted decode: drop all cells beyond `sequence.tokens`, which it does not know of.

        Where the family cannot trim, everything goes.
        """
        if not self._backend.remove(sequence.seq, len(sequence.tokens), -1):
            self._backend.remove(sequence.seq, -1, -1)
            sequence.tokens.clear()
            sequence.exact = None
            self._hold(sequence, [])
            self.cells.trim(sequence.seq, 0)

    def leave(self, sequence: ContextSequence) -> int:
        """Drop a sequence's cells and free its slot; returns the tokens it held."""
        start = time.perf_counter()
        num_tokens = len(sequence.tokens)
        num_stored = len(sequence.stored) * self._index.block_tokens
        self._ledger.ahead.left(sequence.session, sequence.tokens, num_stored)
        self._hold(sequence, [])
        self._backend.remove(sequence.seq, -1, -1)
        self.cells.trim(sequence.seq, 0)
        self._slots.free(sequence)
        self._ledger.swaps_out += 1
        self._ledger.swap_out_ms += 1000 * (time.perf_counter() - start)
        return num_tokens

    def refresh_stored(self, sequence: ContextSequence) -> None:
        """Look up again which whole blocks of a sequence are in the cache."""
        size = self._index.block_tokens
        chain = self._index.chain(sequence.tokens[: sequence.num_exact])
        self._hold(sequence, [block for block in chain if block.num_tokens == size])

    @staticmethod
    def _hold(sequence: ContextSequence, blocks: list[Block]) -> None:
        """Replace `stored`. What stands in the context is in use: its blocks are not evicted."""
        for block in blocks:
            block.users += 1
        for block in sequence.stored:
            block.users -= 1
        sequence.stored = blocks

    # ---- budgets

    def set_limits(self, limits: Limits, patience_s: float | None = None) -> None:
        """New budgets for the HOST tier.

        Shrinking evicts at once, also what is in the context as well; growing captures what is there. So
        long at most is waited for what has to be written first (None: `SHRINK_PATIENCE_S`).
        """
        for sequence in self._slots.used():
            self._hold(sequence, [])
        self._host.limits = limits
        if limits.off:
            self.evict(self._leaves_first(self._index))
        else:
            self._make_room(0, 0, SHRINK_PATIENCE_S if patience_s is None else patience_s)
        for sequence in self._slots.used():
            self.refresh_stored(sequence)
            if sequence.idle and not limits.off:
                self.capture_new(sequence, tail=True)

    def clear(self) -> None:
        """Evict all that is not pinned or being written, also what stands in the context as well."""
        for sequence in self._slots.used():
            self._hold(sequence, [])
        self.evict(self._leaves_first(self._index))
        for sequence in self._slots.used():
            self.refresh_stored(sequence)

    def forget_session(self, session: str) -> None:
        """Evict what only this session has stored, old branches included."""
        mine = self._index.unlabel(session)
        alone = self._leaves_first(block for block in mine if not block.sessions)
        self.evict(alone)
        self._doomed.update(block.key for block in alone if block.key in self._index)

    def evict(self, blocks: Iterable[Block]) -> None:
        """Evict blocks, children before parents; those that are in use or still have children stay."""
        for block in blocks:
            if not (block.users or block.pins or block.children):
                self._forget(block)
                self._ledger.evictions += 1

    def set_disk(self, below: Below) -> None:
        """From now on what leaves RAM is written first."""
        self._disk = below

    def settle(self, block: Block) -> None:
        """A block has been written: what could not be done because of that is done now."""
        node: Block | None = block
        while node is not None and self._index.get(node.key) is node:
            if node.users or node.pins or node.children:
                return
            is_doomed = node.key in self._doomed and not node.sessions
            if not is_doomed and not self._index.is_needless(node):
                return
            self._forget(node)
            node = node.parent  # it was written first, and waited for its children

    def keep_within_limits(self) -> None:
        """What could not leave when the limits were lowered, since it was in use, leaves now.

        Between two steps only: blocks that somebody has just looked up may go.
        """
        over = self._host.excess()
        if over == (0, 0) and not (self._host.limits.off and len(self._host)):
            return
        for sequence in self._slots.used():
            self._hold(sequence, [])
        if self._host.limits.off:
            self.evict(self._leaves_first(self._index))
        else:
            self.evict(choose_victims(self._index, *over, or_less=True) or ())
        for sequence in self._slots.used():
            self.refresh_stored(sequence)

    def _make_room(self, more_bytes: int, more_tokens: int, patience_s: float | None = None) -> bool:
        """Evict until so much more fits; what RAM alone holds is written first, if that is quick."""
        if not self._host.could_ever_hold(more_bytes, more_tokens):
            return False
        deadline = time.monotonic() + (WRITE_PATIENCE_S if patience_s is None else patience_s)
        while (over := self._host.excess(more_bytes, more_tokens)) != (0, 0):
            victims = choose_victims(self._index, *over)
            left = deadline - time.monotonic()
            disk = self._disk if self._disk is not None and self._disk.can_write and left > 0 else None
            unwritten = [block for block in victims or () if not block.on_disk] if disk else []
            if victims is not None and not unwritten:
                self.evict(victims)
                return self._host.excess(more_bytes, more_tokens) == (0, 0)
            if disk is None:
                return False
            disk.persist(reversed(unwritten))
            if not disk.wait_for_write(left):
                deadline = 0.0  # nothing to wait for, or too slow: what has to go goes unwritten
                if victims is None:
                    return False
        return True

    def _forget(self, block: Block) -> None:
        self._host.drop(block.key)
        self._index.remove(block)
        self._doomed.discard(block.key)

    @staticmethod
    def _leaves_first(blocks: Iterable[Block]) -> list[Block]:
        return sorted(blocks, key=lambda block: -block.start)
