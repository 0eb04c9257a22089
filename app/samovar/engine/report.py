"""Builds the immutable picture of the cache that front ends draw. Engine thread; changes nothing."""

from collections.abc import Iterable
from dataclasses import dataclass

from samovar.core.request import RequestKind
from samovar.core.snapshot import (
    ActivePhase,
    ActiveRequest,
    CacheSnapshot,
    ContextUse,
    PromptRow,
    Tier,
    TierUse,
)
from samovar.engine.control import CacheControl
from samovar.engine.mover import Mover
from samovar.engine.records import MAX_RECORDS, SessionRecord
from samovar.engine.sleep import Sleep
from samovar.engine.slots import Slots
from samovar.kv.host_tier import HostTier
from samovar.kv.index import Match, PrefixIndex
from samovar.kv.ledger import Ledger


@dataclass(frozen=True, slots=True)
class _Held:
    """What RAM has of one session: tokens of its last prompt, bytes that are its alone, bytes it shares."""

    tokens: int
    own_bytes: int
    shared_bytes: int


class Reporter:
    """Reads the engine's parts and sums them up."""

    def __init__(
        self,
        model: str,
        slots: Slots,
        index: PrefixIndex,
        host: HostTier,
        mover: Mover,
        ledger: Ledger,
        sleep: Sleep,
    ) -> None:
        self._model = model
        self._slots = slots
        self._index = index
        self._host = host
        self._mover = mover
        self._ledger = ledger
        self._sleep = sleep
        self._held: dict[str, tuple[int, Match, _Held]] = {}

    def snapshot(
        self,
        records: Iterable[tuple[str, SessionRecord]],
        running: frozenset[str],
        active: tuple[ActiveRequest, ...],
        others_share: float | None,
        control: CacheControl,
    ) -> CacheSnapshot:
        """The cache now. `running` are the sessions with a running request."""
        counted = [request for request in active if request.kind is not RequestKind.PREPARE]
        num_waiting = sum(request.phase is ActivePhase.QUEUED for request in counted)
        cells, host, ledger = self._mover.cells, self._host, self._ledger
        ever = control.disk.state.totals if control.disk else None
        names = {sequence.seq: sequence.session for sequence in self._slots.used()}
        return CacheSnapshot(
            model=self._model,
            context=ContextUse(cells.num_used, cells.num_cells, cells.highest, cells.runs(names)),
            host=TierUse(
                bytes=host.num_bytes,
                limit_bytes=host.limits.max_bytes,
                tokens=host.num_tokens,
                limit_tokens=host.limits.max_tokens,
                blocks=len(host),
                off=host.limits.off,
                setting=control.ram_setting,
                lowered_from=control.lowered_from,
            ),
            disk=control.disk.use() if control.disk else TierUse(off=True),
            totals_ever=ever + ledger.new_totals() if ever is not None else None,
            disk_models=control.disk.state.models if control.disk else (),
            prompts=tuple(
                self._row(session, record, session in running)
                for session, record in records
                if record.previous is not None
            ),
            totals=ledger.totals(),
            asleep=self._sleep.asleep,
            wake_ms=self._sleep.wake_ms,
            last=ledger.last,
            num_running=len(counted) - num_waiting,
            num_waiting=num_waiting,
            active=active,
            others_share=others_share,
            bytes_per_token=host.num_bytes / host.num_tokens if host.num_tokens else 0.0,
            prefill_tokens_per_second=ledger.prefill.per_second,
            decode_tokens_per_second=ledger.decode.per_second,
        )

    def _row(self, session: str, record: SessionRecord, running: bool) -> PromptRow:
        previous = record.previous
        assert previous is not None
        num_tokens = len(previous.tokens)
        resident = self._slots.of_session(session)
        in_context = min(len(resident.tokens), num_tokens) if resident else 0
        held = self._held_of(session, record.match)
        tier = Tier.CONTEXT if num_tokens and in_context >= num_tokens else None
        if tier is None and num_tokens and held.tokens >= num_tokens:
            tier = Tier.HOST
        if tier is None and num_tokens and record.disk_tokens >= num_tokens:
            tier = Tier.DISK
        return PromptRow(
            session=session,
            title=record.title,
            tokens=num_tokens,
            context_tokens=in_context,
            host_tokens=held.tokens,
            disk_tokens=record.disk_tokens,
            own_bytes=held.own_bytes,
            shared_bytes=held.shared_bytes,
            tier=tier,
            hits=record.hits,
            last_used=record.last_used,
            running=running,
            pinned=self._index.is_pinned(session),
        )

    def _held_of(self, session: str, match: Match) -> _Held:
        """Summed up again only when the index or the match has changed: a picture is made twice a second."""
        version = self._index.version
        known = self._held.get(session)
        if known is not None and known[0] == version and known[1] is match:
            return known[2]
        blocks = [self._index.get(block.key) for block in match.blocks]
        stored = [block for block in blocks if block is not None]
        mine = [block for block in stored if session in block.sessions]
        own = sum(block.num_bytes for block in mine if len(block.sessions) == 1)
        held = _Held(
            sum(min(block.end, match.num_tokens) - block.start for block in stored),
            own,
            sum(block.num_bytes for block in mine) - own,
        )
        if len(self._held) > 2 * MAX_RECORDS:
            self._held.clear()
        self._held[session] = (version, match, held)
        return held
