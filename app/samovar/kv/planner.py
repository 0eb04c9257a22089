"""How a prompt gets its reusable prefix into the context: a plan of values, carried out elsewhere.

             keep (already in cells)      restore (blocks from a tier)     process
prompt   |───────────────────────────|──────────────────────────────|─────────────────|
         0                          keep                          resume          len(prompt)
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from samovar.kv.block import Block
from samovar.kv.family import Family
from samovar.kv.index import Match, common_prefix


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
