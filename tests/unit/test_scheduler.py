"""Who is served in a step and with how many tokens."""

from hypothesis import given
from hypothesis import strategies as st

from samovar.engine.scheduler import ALONE_FACTOR, FOCUS_SHARE, MIN_CHUNK, Job, Rank, StepCosts, plan_step

CHUNK = 64
BLOCK = 128
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
        )
        for i in draw(st.permutations(range(count)))
    ]


costs = st.builds(StepCosts, st.floats(0.01, 50), st.floats(0.01, 500))


@given(job_lists(), costs, powers, st.floats(10, 1000), powers)
def test_a_step_serves_all_who_decode_and_one_prefill(
    jobs: list[Job], costs: StepCosts, max_chunk: int, budget_ms: float, block: int
) -> None:
    plan = plan_step(jobs, costs, max_chunk=max_chunk, budget_ms=budget_ms, block_tokens=block)
    assert sorted(plan.decode) == sorted(job.id for job in jobs if job.decoding)
    waiting = [job for job in jobs if not job.decoding]
    if not waiting:
        assert (plan.prefill, plan.chunk) == (None, 0)
        return
    first = min(waiting, key=lambda job: (job.rank, job.arrival))
    assert plan.prefill == first.id
    assert 0 < plan.chunk <= min(first.todo, max_chunk)
    begin, end = first.pos, first.pos + plan.chunk
    assert begin // block == (end - 1) // block, "a chunk ends at a block's end at the latest"
    assert begin // max_chunk == (end - 1) // max_chunk, "and at a multiple of the chunk"
    if plan.chunk > MIN_CHUNK:
        expected_ms = plan.chunk * costs.prefill_token_ms + (costs.decode_step_ms if plan.decode else 0)
        assert expected_ms <= budget_ms * (1 if plan.decode else ALONE_FACTOR) * 1.0001


def job(name: str, rank: Rank, *, decoding: bool = False, todo: int = 500, arrival: int = 0) -> Job:
    return Job(name, rank, arrival, decoding, 1 if decoding else todo, 0)


def chunk_beside(decoding: Rank, prefilling: Rank, budget_ms: float) -> int:
    jobs = [job("a", decoding, decoding=True), job("b", prefilling)]
    return plan_step(jobs, StepCosts(5, 20), max_chunk=CHUNK, budget_ms=budget_ms, block_tokens=BLOCK).chunk


def test_the_focused_chat_comes_first_then_chats_then_side_tasks() -> None:
    jobs = [
        job("side", Rank.SIDE_TASK, arrival=1),
        job("late", Rank.CHAT, arrival=3),
        job("early", Rank.CHAT, arrival=2),
        job("focused", Rank.FOCUSED, arrival=4),
    ]
    for expected in ("focused", "early", "late", "side"):
        plan = plan_step(jobs, StepCosts(), max_chunk=CHUNK, budget_ms=300, block_tokens=BLOCK)
        assert plan.prefill == expected
        jobs = [other for other in jobs if other.id != expected]


def test_a_chunk_ends_at_a_blocks_end_at_the_latest() -> None:
    def chunk(pos: int, block: int) -> int:
        jobs = [Job("a", Rank.CHAT, 0, False, 500, pos)]
        return plan_step(jobs, StepCosts(), max_chunk=CHUNK, budget_ms=300, block_tokens=block).chunk

    assert chunk(0, 128) == 64
    assert chunk(0, 32) == 32
    assert chunk(120, 128) == 8
    assert chunk(20, 32) == 12
    assert chunk(100, 1024) == 28, "so that pieces are those of a cold prompt"


def test_alone_a_prefill_takes_whole_chunks_where_the_machine_can() -> None:
    def chunk(token_ms: float) -> int:
        jobs = [job("a", Rank.CHAT)]
        costs = StepCosts(token_ms, 99)
        return plan_step(jobs, costs, max_chunk=CHUNK, budget_ms=300, block_tokens=BLOCK).chunk

    assert chunk(ALONE_FACTOR * 300 / CHUNK) == CHUNK
    assert chunk(100) == 8, "ten tokens a second: a step still ends within the budget"
    assert chunk(10_000) == MIN_CHUNK


def test_others_get_a_share_of_the_budget_while_the_focused_chat_decodes() -> None:
    assert chunk_beside(Rank.CHAT, Rank.CHAT, 340) == 64
    assert chunk_beside(Rank.FOCUSED, Rank.CHAT, 340) == 16
    assert FOCUS_SHARE * 340 >= 20 + 16 * 5
    assert chunk_beside(Rank.FOCUSED, Rank.FOCUSED, 340) == 64
    assert chunk_beside(Rank.CHAT, Rank.CHAT, 1) == MIN_CHUNK
