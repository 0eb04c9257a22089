"""Who is served in a step and with how many tokens."""

from hypothesis import given
from hypothesis import strategies as st

from samovar.engine.scheduler import (
    AGING_S,
    ALONE_FACTOR,
    MAX_CHUNK_BESIDE,
    MIN_CHUNK,
    SHORT_TAIL,
    Job,
    Rank,
    StepCosts,
    StepPlan,
    plan_step,
)

CHUNK = 64
BLOCK = 128
CAP_MS = 300.0
powers = st.integers(3, 8).map(lambda power: 1 << power)


@st.composite
def job_lists(draw: st.DrawFn) -> list[Job]:
    count = draw(st.integers(1, 6))
    return [
        Job(
            f"r{i}",
            draw(st.sampled_from(Rank)),
            i,
            decoding := draw(st.booleans()),
            1 if decoding else draw(st.integers(1, 500)),
            draw(st.integers(0, 1000)),
            draw(st.floats(0, 100)),
        )
        for i in draw(st.permutations(range(count)))
    ]


milliseconds = st.floats(0.01, 500)
costs = st.builds(StepCosts, st.floats(0.01, 50), milliseconds, milliseconds, st.floats(0.01, 50))


def plan(
    jobs: list[Job],
    costs: StepCosts | None = None,
    *,
    credit_ms: float = 0.0,
    budget_ms: float = 300.0,
    block: int = BLOCK,
    max_chunk: int = CHUNK,
    may_cross: bool = False,
) -> StepPlan:
    return plan_step(
        jobs,
        costs or StepCosts(),
        credit_ms=credit_ms,
        credit_cap_ms=CAP_MS,
        max_chunk=max_chunk,
        budget_ms=budget_ms,
        block_tokens=block,
        may_cross=may_cross,
    )


def job(
    name: str,
    rank: Rank,
    *,
    decoding: bool = False,
    todo: int = 500,
    arrival: int = 0,
    unserved_s: float = 0.0,
) -> Job:
    return Job(name, rank, arrival, decoding, 1 if decoding else todo, 0, unserved_s)


def writes(name: str, rank: Rank, unserved_s: float = 0.0) -> Job:
    return job(name, rank, decoding=True, unserved_s=unserved_s)


@given(job_lists(), costs, powers, st.floats(10, 1000), powers, st.floats(-1000, CAP_MS), st.booleans())
def test_every_step_serves_somebody_and_never_more_than_it_may(
    jobs: list[Job],
    costs: StepCosts,
    max_chunk: int,
    budget_ms: float,
    block: int,
    credit_ms: float,
    may_cross: bool,
) -> None:
    step = plan(
        jobs,
        costs,
        max_chunk=max_chunk,
        budget_ms=budget_ms,
        block=block,
        credit_ms=credit_ms,
        may_cross=may_cross,
    )
    by_id = {job.id: job for job in jobs}
    chosen = [by_id[name] for name in (*step.decode, *([step.prefill] if step.prefill else []))]
    assert chosen
    assert all(by_id[name].decoding for name in step.decode)
    assert len(set(step.decode)) == len(step.decode)
    assert (step.chunk > 0) == (step.prefill is not None)
    if step.prefill is not None:
        first = by_id[step.prefill]
        assert not first.decoding
        assert step.chunk <= min(first.todo, max_chunk)
        begin, end = first.pos, first.pos + step.chunk
        if not (may_cross and step.chunk == first.todo <= SHORT_TAIL):
            assert begin // block == (end - 1) // block, "a chunk ends at a block's end at the latest"
            assert begin // max_chunk == (end - 1) // max_chunk, "and at a multiple of the chunk"
    focused = [job for job in jobs if job.rank is Rank.FOCUSED]
    assert (step.focused_ms is None) == (not focused)
    assert {job.id for job in focused if job.decoding} <= set(step.decode), "the focused always go"
    if focused and any(job.rank is not Rank.FOCUSED for job in chosen):
        assert step.focused_ms is not None
        extra = step.expected_ms - step.focused_ms
        is_starving = any(job.unserved_s >= AGING_S for job in chosen if job.rank is not Rank.FOCUSED)
        is_covered = extra <= max(0.0, credit_ms) + 1e-6 or credit_ms >= CAP_MS
        assert is_covered or is_starving, "others pay for what they take"
    if not focused and not step.decode and step.chunk > MIN_CHUNK:
        assert step.expected_ms <= budget_ms * ALONE_FACTOR * 1.0001


def test_the_focused_chat_comes_first_then_chats_then_side_tasks() -> None:
    jobs = [
        job("side", Rank.SIDE_TASK, arrival=1),
        job("late", Rank.CHAT, arrival=3),
        job("early", Rank.CHAT, arrival=2),
        job("focused", Rank.FOCUSED, arrival=4),
    ]
    for expected in ("focused", "early", "late", "side"):
        assert plan(jobs).prefill == expected
        jobs = [other for other in jobs if other.id != expected]


def test_a_chunk_ends_at_a_blocks_end_at_the_latest() -> None:
    def chunk(pos: int, block: int) -> int:
        return plan([Job("a", Rank.CHAT, 0, False, 500, pos)], StepCosts(), block=block).chunk

    assert chunk(0, 128) == 64
    assert chunk(0, 32) == 32
    assert chunk(120, 128) == 8
    assert chunk(20, 32) == 12
    assert chunk(100, 1024) == 28, "so that pieces are those of a cold prompt"


def test_the_last_tokens_of_a_prompt_go_in_one_step_beyond_a_blocks_end() -> None:
    def chunk(pos: int, todo: int, *, may_cross: bool = True, token_ms: float = 5.0) -> int:
        jobs = [Job("a", Rank.CHAT, 0, False, todo, pos)]
        return plan(jobs, StepCosts(token_ms), may_cross=may_cross).chunk

    assert chunk(124, SHORT_TAIL) == SHORT_TAIL
    assert chunk(60, 7) == 7, "nor at a multiple of the chunk"
    assert chunk(0, 13) == 13
    assert chunk(124, SHORT_TAIL + 1) == 4, "more than a few tokens are cut as ever"
    assert chunk(124, SHORT_TAIL, may_cross=False) == 4, "where a block has to be captured at its end"
    assert chunk(124, SHORT_TAIL, token_ms=300) == 4, "where the machine is slow"


def test_alone_a_prefill_takes_whole_chunks_where_the_machine_can() -> None:
    def chunk(token_ms: float) -> int:
        return plan([job("a", Rank.CHAT)], StepCosts(token_ms, 99)).chunk

    assert chunk(ALONE_FACTOR * 300 / CHUNK) == CHUNK
    assert chunk(100) == 8, "ten tokens a second: a step still ends within the budget"
    assert chunk(10_000) == MIN_CHUNK


def test_without_a_focused_chat_all_write_together_as_long_as_a_step_is_short_enough() -> None:
    jobs = [writes(f"r{i}", Rank.CHAT, unserved_s=i) for i in range(6)]
    assert sorted(plan(jobs).decode) == [f"r{i}" for i in range(6)]
    slow = StepCosts(decode_step_ms=100, extra_decode_ms=90)
    assert plan(jobs, slow).decode == ("r5", "r4", "r3"), "in turns: who was not served for longest"
    assert plan([job("a", Rank.CHAT), *jobs[:1]]).chunk == 32, "a prompt is read beside"


def test_whoever_has_had_nothing_for_long_goes_without_credit() -> None:
    focused = writes("focused", Rank.FOCUSED)
    task = job("task", Rank.SIDE_TASK, unserved_s=AGING_S)
    assert plan([focused, task], credit_ms=0.0).prefill == "task"
    assert plan([focused, task], credit_ms=-50.0).prefill is None, "what was lent is paid back first"
    others = [task, writes("other", Rank.CHAT, unserved_s=1.0)]
    assert plan([focused, *others], credit_ms=0.0).decode == ("focused",), "one of them, not all"
    assert plan([focused, job("task", Rank.SIDE_TASK, unserved_s=AGING_S - 1)]).prefill is None


def test_others_wait_for_credit_while_the_focused_chat_writes() -> None:
    jobs = [writes("focused", Rank.FOCUSED), writes("chat", Rank.CHAT), writes("side", Rank.SIDE_TASK)]
    costs = StepCosts(decode_step_ms=15, extra_decode_ms=10)
    assert plan(jobs, costs).decode == ("focused",)
    assert plan(jobs, costs, credit_ms=9).decode == ("focused",)
    assert plan(jobs, costs, credit_ms=10).decode == ("focused", "chat")
    both = plan(jobs, costs, credit_ms=20)
    assert both.decode == ("focused", "chat", "side")
    assert (both.expected_ms, both.focused_ms) == (35, 15)


def test_where_a_further_sequence_costs_nothing_all_are_in_every_step() -> None:
    jobs = [writes("focused", Rank.FOCUSED), *(writes(f"r{i}", Rank.SIDE_TASK) for i in range(5))]
    assert len(plan(jobs, StepCosts(extra_decode_ms=0.0)).decode) == 6
    assert plan(jobs, StepCosts(extra_decode_ms=0.0), credit_ms=-5).decode[0] == "focused"


def test_a_chunk_beside_the_focused_chat_is_small_and_waits_for_its_credit() -> None:
    jobs = [writes("focused", Rank.FOCUSED), job("chat", Rank.CHAT)]
    costs = StepCosts(decode_step_ms=15, beside_token_ms=7)
    assert plan(jobs, costs, credit_ms=50).prefill is None
    step = plan(jobs, costs, credit_ms=MAX_CHUNK_BESIDE * 7)
    assert (step.prefill, step.chunk) == ("chat", MAX_CHUNK_BESIDE)
    slow = StepCosts(decode_step_ms=150, beside_token_ms=100)
    assert plan(jobs, slow, credit_ms=CAP_MS - 1).prefill is None
    step = plan(jobs, slow, credit_ms=CAP_MS)
    assert (step.prefill, step.chunk) == ("chat", MIN_CHUNK), "a slow machine runs up a debt, but goes on"


def test_a_cheaper_one_does_not_spend_what_another_saves_for() -> None:
    jobs = [
        writes("focused", Rank.FOCUSED),
        job("reads", Rank.CHAT, unserved_s=2),
        writes("writes", Rank.CHAT, unserved_s=1),
    ]
    assert plan(jobs, credit_ms=50).decode == ("focused",)
    assert plan(jobs, credit_ms=200).prefill == "reads"


def test_a_focused_prompt_waits_for_a_chunk_of_others_once_that_is_paid_for() -> None:
    jobs = [job("focused", Rank.FOCUSED), job("chat", Rank.CHAT)]
    assert plan(jobs).prefill == "focused"
    step = plan(jobs, StepCosts(prefill_token_ms=4), credit_ms=CHUNK * 4)
    assert (step.prefill, step.focused_ms) == ("chat", 0.0)


def test_who_was_not_served_for_long_rises_above_more_urgent_ones() -> None:
    chat = job("chat", Rank.CHAT, arrival=1)
    assert plan([chat, job("side", Rank.SIDE_TASK, unserved_s=AGING_S - 1)]).prefill == "chat"
    assert plan([chat, job("side", Rank.SIDE_TASK, unserved_s=2 * AGING_S)]).prefill == "side"
    focused = job("focused", Rank.FOCUSED)
    assert plan([focused, job("side", Rank.SIDE_TASK, unserved_s=AGING_S - 1)]).prefill == "focused"
