"""Who is served in the next step, and with how many tokens: policy, as values.

A step is one token for every decoding sequence and one chunk of one prefill. The focused chat comes before
other chats, those before side tasks, and within a class the first come first.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MIN_CHUNK: Final = 8
FOCUS_SHARE: Final = 0.4
ALONE_FACTOR: Final = 3.0


class Rank(enum.IntEnum):
    """Classes of service, most urgent first."""

    FOCUSED = 0
    CHAT = 1
    SIDE_TASK = 2


@dataclass(frozen=True, slots=True)
class Job:
    """A running request as scheduling sees it. `pos` is its number of tokens in the context."""

    id: str
    rank: Rank
    arrival: int
    decoding: bool
    todo: int
    pos: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Requests that decode one token, and at most one that processes `chunk` tokens of its prompt."""

    decode: tuple[str, ...]
    prefill: str | None = None
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class StepCosts:
    """What this machine was measured to need, in milliseconds."""

    prefill_token_ms: float = 5.0
    decode_step_ms: float = 15.0


def plan_step(
    jobs: Sequence[Job], costs: StepCosts, *, max_chunk: int, budget_ms: float, block_tokens: int
) -> StepPlan:
    """The next step for `jobs`.

    A chunk ends at a block's end at the latest, since blocks are captured there, and at multiples of
    `max_chunk`, so that a resumed prompt is processed in the same pieces as a cold one. It is cut so that
    the step stays within `budget_ms` while others decode, within a part of that if the focused chat is one
    of them, and within three times as much while nobody waits for a token.
    """
    ordered = sorted(jobs, key=lambda job: (job.rank, job.arrival))
    decode = tuple(job.id for job in ordered if job.decoding)
    waiting = [job for job in ordered if not job.decoding]
    if not waiting:
        return StepPlan(decode)
    job = waiting[0]
    budget = budget_ms * ALONE_FACTOR
    if decode:
        focused_decodes = any(other.decoding and other.rank is Rank.FOCUSED for other in ordered)
        budget = budget_ms * (FOCUS_SHARE if focused_decodes and job.rank is not Rank.FOCUSED else 1.0)
        budget -= costs.decode_step_ms
    chunk = max(MIN_CHUNK, min(max_chunk, int(budget / costs.prefill_token_ms)))
    # A power of two divides the distance to the next block's end.
    chunk = 1 << (chunk.bit_length() - 1)
    ends = (job.todo, chunk, max_chunk - job.pos % max_chunk, block_tokens - job.pos % block_tokens)
    return StepPlan(decode, job.id, min(ends))
