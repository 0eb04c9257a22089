"""How a prompt gets its reusable prefix into the context: a plan of values, carried out elsewhere.

             keep (already in cells)      restore (blocks from a tier)     process
prompt   |───────────────────────────|──────────────────────────────|─────────────────|
         0                          keep                          resume          len(prompt)
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from samovar.kv.block import Block
from samovar.kv.family import Family
from samovar.kv.index import Match, common_prefix

MIN_MOVED: Final = 32


class Source(enum.Enum):
    """Where the sequence's first cells come from."""

    FRESH = "fresh"  # an empty slot
    TAKE = "take"  # an idle sequence, trimmed, becomes this request's own
    SHARE = "share"  # cells of a busy sequence get a second owner


@dataclass(frozen=True, slots=True)
class Resident:
    """A sequence in the context as planning sees it. `oldest_pos` is llama.cpp's `seq_pos_min`."""

    slot: int
    session: str
    tokens: Sequence[int]
    busy: bool
    oldest_pos: int = 0


@dataclass(frozen=True, slots=True)
class RestoreStep:
    """Restore the cells `[p0, p1)` from `block`; `p0` is its start, `p1` may lie inside it."""

    block: Block
    p0: int
    p1: int


@dataclass(frozen=True, slots=True)
class Plan:
    """`keep` tokens of sequence `slot` are taken or shared; `resume` tokens are in place afterwards."""

    source: Source
    slot: int | None
    keep: int
    steps: tuple[RestoreStep, ...]
    resume: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Of a sequence's tokens `[0, end)`, `[p0, p1)` are dropped and the rest moves down.

    tokens   |── kept ──|── dropped ──|── moved ──|─ trimmed ─|
             0          p0            p1          end
    """

    p0: int
    p1: int
    end: int

    @property
    def num_left(self) -> int:
        """Tokens that are in place afterwards."""
        return self.end - (self.p1 - self.p0)


def find_cut(prompt: Sequence[int], tokens: Sequence[int]) -> Cut | None:
    """How a sequence becomes a longer beginning of `prompt` by dropping a part of it; None if it cannot.

    At least `MIN_MOVED` tokens have to be had by that, and one of the prompt is left to process.
    """
    p0 = common_prefix(prompt, tokens)
    wanted = list(prompt[p0 : len(prompt) - 1])
    head = wanted[:MIN_MOVED]
    if len(head) < MIN_MOVED:
        return None
    best: Cut | None = None
    for p1 in range(p0 + 1, len(tokens) - MIN_MOVED + 1):
        if tokens[p1] != head[0] or list(tokens[p1 : p1 + MIN_MOVED]) != head:
            continue
        end = p1 + common_prefix(wanted, tokens[p1:])
        if best is None or end - p1 > best.end - best.p1:
            best = Cut(p0, p1, end)
    return best


def make_plan(
    prompt: Sequence[int],
    session: str,
    residents: Sequence[Resident],
    match: Match,
    family: Family,
    *,
    whole: bool = False,
) -> Plan:
    """The cheapest way to the longest reusable prefix of `prompt`.

    At least one token is left to process, since logits come from processing one, unless `whole` (a focus
    change brings a sequence back without asking for logits).
    """
    limit = len(prompt) if whole else len(prompt) - 1
    best: tuple[int, bool, bool, Resident] | None = None
    for resident in residents:
        keep = _usable(prompt[:limit], resident, family)
        if keep <= 0 or (resident.busy and not family.can_share):
            continue
        # Between equal prefixes take over an idle sequence, the session's own first: cells keep one owner.
        rank = (keep, not resident.busy, resident.session == session, resident)
        if best is None or rank[:3] > best[:3]:
            best = rank
    keep = best[0] if best else 0
    stored = min(match.num_tokens, limit)
    if not family.can_trim:
        # States exist at sequence ends only: either go on from a resident end or restore a whole chain.
        if best is not None and keep >= stored:
            return Plan(Source.TAKE, best[3].slot, keep, (), keep)
        return Plan(Source.FRESH, None, 0, _steps(match, 0, stored, family), stored)
    steps = _steps(match, keep, stored, family) if stored > keep else ()
    resume = max(keep, stored)
    if steps:
        # Restored from its start, a block leaves the cells in ascending order: anything else moves logits.
        keep = steps[0].block.start
        steps = _steps(match, keep, stored, family)
    if best is None:
        return Plan(Source.FRESH, None, 0, steps, resume)
    if best[3].busy:
        source = Source.SHARE if keep else Source.FRESH
        return Plan(source, best[3].slot if keep else None, keep, steps, resume)
    return Plan(Source.TAKE, best[3].slot, keep, steps, resume)


def _usable(prompt: Sequence[int], resident: Resident, family: Family) -> int:
    """Leading tokens of `prompt` that the resident's cells can serve."""
    keep = common_prefix(prompt, resident.tokens)
    if keep == len(resident.tokens) and not resident.busy:
        return keep
    if not family.can_trim or not family.can_resume(keep, resident.oldest_pos):
        return 0
    return keep


def _steps(match: Match, keep: int, stored: int, family: Family) -> tuple[RestoreStep, ...]:
    blocks = [block for block in match.blocks if block.end > keep and block.start < stored]
    if family.whole_state:
        blocks = blocks[-1:]
    return tuple(RestoreStep(block, max(block.start, keep), min(block.end, stored)) for block in blocks)
