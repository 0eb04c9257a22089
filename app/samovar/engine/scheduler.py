"""Who is served in the next step, and with how many tokens: policy, as values.

A step is one token for each of many sequences that write, and one chunk of one prompt. What the user looks at
or waits for is in every step that can hold it. Others join as long as the credit covers what they cost it
(`share`); where nobody is looked at, they all go. Among the others the most urgent class goes first, whoever
has not been served for long rises, and within a class they take turns.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MIN_CHUNK: Final = 8
MAX_CHUNK_BESIDE: Final = 16
SHORT_TAIL: Final = 16
"""Last tokens of a prompt that are better processed in one step than in two."""
ALONE_FACTOR: Final = 3.0
AGING_S: Final = 10.0
LEAST_MS: Final = 1e-3


class Rank(enum.IntEnum):
    """Classes of service, most urgent first."""

    FOCUSED = 0  # what the user looks at, or waits for
    CHAT = 1
    SIDE_TASK = 2


@dataclass(frozen=True, slots=True)
class Job:
    """A running request as scheduling sees it.

    `pos` is its number of tokens in the context, `unserved_s` the time since it was last in a step.
    """

    id: str
    rank: Rank
    arrival: int
    decoding: bool
    todo: int
    pos: int
    unserved_s: float = 0.0

    @property
    def age(self) -> int:
        """Its class, the lower the sooner: one better for every `AGING_S` without service."""
        return self.rank - int(self.unserved_s / AGING_S)


@dataclass(frozen=True, slots=True)
class StepCosts:
    """What this machine needs now, in milliseconds.

    `decode_step_ms` for one sequence that writes, `extra_decode_ms` for each further one in the same step,
    `prefill_token_ms` for a token of a prompt, `beside_token_ms` for one in a small chunk beside a decode.
    """

    prefill_token_ms: float = 5.0
    decode_step_ms: float = 15.0
    extra_decode_ms: float = 10.0
    beside_token_ms: float = 7.0

    def step_ms(self, num_decode: int, chunk: int) -> float:
        """What a step is expected to take."""
        if not num_decode:
            return chunk * self.prefill_token_ms
        token_ms = self.beside_token_ms if chunk <= MAX_CHUNK_BESIDE else self.prefill_token_ms
        return self.decode_step_ms + (num_decode - 1) * self.extra_decode_ms + chunk * token_ms


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Requests that decode one token, and at most one that processes `chunk` tokens of its prompt.

    `expected_ms` is what the step should take, `focused_ms` what the focused ones in it would take alone:
    None where no focused request runs, 0 where others go without them.
    """

    decode: tuple[str, ...]
    prefill: str | None = None
    chunk: int = 0
    expected_ms: float = 0.0
    focused_ms: float | None = None
    has_others: bool = True


def plan_step(
    jobs: Sequence[Job],
    costs: StepCosts,
    *,
    credit_ms: float,
    credit_cap_ms: float,
    max_chunk: int,
    budget_ms: float,
    block_tokens: int,
    may_cross: bool = False,
) -> StepPlan:
    """The next step for `jobs`, of which there is at least one.

    While a focused one runs, others join in their order as far as `credit_ms` covers them; what costs more
    than `credit_cap_ms`, which is never saved up, goes once that much is there. The order is not broken for
    a cheaper one: it would spend what a dearer one saves for. Whoever has had nothing for `AGING_S` goes on
    credit, since a stream of short replies never saves up anything; the next one has to wait until that is
    paid back.

    A chunk ends at a block's end at the latest, since blocks are captured there, and at multiples of
    `max_chunk`, so that a resumed prompt is processed in the same pieces as a cold one. A `SHORT_TAIL` goes
    beyond these with `may_cross`, which says that blocks can be captured later too: it is what a prompt adds
    to what was there, and no piece of a cold one. A chunk is cut so that the step stays within `budget_ms`
    while others decode, is small beside a focused one that decodes, and within three times the budget while
    nobody waits for a token.
    """
    assert jobs
    focused = [job for job in jobs if job.rank is Rank.FOCUSED]
    others = _in_turn([job for job in jobs if job.rank is not Rank.FOCUSED])
    decode = [job.id for job in focused if job.decoding]
    reading = sorted((job for job in focused if not job.decoding), key=lambda job: job.arrival)
    num_focused = len(decode)
    prefill = reading[0] if reading else None

    def cut(job: Job, budget: float, token_ms: float, most: int) -> int:
        chunk = max(MIN_CHUNK, min(most, int(budget / max(token_ms, LEAST_MS))))
        if may_cross and job.todo <= min(chunk, max_chunk, SHORT_TAIL):
            return job.todo
        # A power of two divides the distance to the next block's end.
        chunk = 1 << (chunk.bit_length() - 1)
        return min(job.todo, chunk, max_chunk - job.pos % max_chunk, block_tokens - job.pos % block_tokens)

    def chunk_of(job: Job, num_decode: int) -> int:
        if not num_decode:
            return cut(job, budget_ms * ALONE_FACTOR, costs.prefill_token_ms, max_chunk)
        rest = budget_ms - costs.step_ms(num_decode, 0)
        most = max_chunk if job.rank is Rank.FOCUSED or not num_focused else min(max_chunk, MAX_CHUNK_BESIDE)
        return cut(job, rest, costs.beside_token_ms if most < max_chunk else costs.prefill_token_ms, most)

    if not focused:
        for job in others:
            if not job.decoding:
                prefill = job
            elif not decode or costs.step_ms(len(decode) + 1, 0) <= budget_ms:
                decode.append(job.id)
        chunk = chunk_of(prefill, len(decode)) if prefill else 0
        expected = costs.step_ms(len(decode), chunk)
        return StepPlan(tuple(decode), prefill.id if prefill else None, chunk, expected)

    chunk = chunk_of(prefill, num_focused) if prefill else 0
    focused_ms = expected = costs.step_ms(num_focused, chunk)
    joined = False
    for job in others:
        if job.decoding:
            now, more, new_chunk = prefill, len(decode) + 1, chunk
        else:
            # Room for one chunk only: where a focused prompt is being read, it waits for once.
            now, more, new_chunk = job, len(decode), chunk_of(job, num_focused)
        alone = focused_ms if now is prefill or prefill is None else costs.step_ms(num_focused, 0)
        total = costs.step_ms(more, new_chunk)
        is_covered = total - alone <= max(0.0, credit_ms) or credit_ms >= credit_cap_ms
        if not is_covered and (job.unserved_s < AGING_S or credit_ms < 0):
            break
        if job.decoding:
            decode.append(job.id)
        prefill, chunk, focused_ms, expected, joined = now, new_chunk, alone, total, True
        if total - alone > credit_ms:
            break
    return StepPlan(tuple(decode), prefill.id if prefill else None, chunk, expected, focused_ms, joined)


def _in_turn(others: Sequence[Job]) -> list[Job]:
    """Those who write and the one whose prompt is read next, in the order in which they may join.

    Prompts are read one after the other, so that the first one is not as late as the last.
    """
    reading = min((job for job in others if not job.decoding), key=lambda j: (j.age, j.arrival), default=None)
    candidates = [job for job in others if job.decoding or job is reading]
    return sorted(candidates, key=lambda job: (job.age, -job.unserved_s, job.arrival))
