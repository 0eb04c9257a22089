"""What others may cost the focused chat, and what steps cost: learnt from steps."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from samovar.engine.costs import CELL_PART, CostModel, Mean
from samovar.engine.scheduler import Job, Rank, StepCosts, plan_step
from samovar.engine.share import CAP_MS, SHARE, Share


def test_credit_grows_with_the_focused_chats_time_up_to_a_cap_and_pays_for_others() -> None:
    share = Share()
    share.book(100, 0)
    assert share.credit_ms == pytest.approx(100 * SHARE)
    share.book(100, 50)
    assert share.credit_ms == pytest.approx(200 * SHARE - 50)
    for _ in range(1000):
        share.book(100, 0)
    assert share.credit_ms == CAP_MS


def test_each_stretch_of_the_focused_chat_begins_without_credit_but_with_its_debts() -> None:
    share = Share()
    share.book(1000, 0)
    share.pause()
    assert share.credit_ms == 0
    share.book(0, 500)
    share.pause()
    assert share.credit_ms == -500
    assert share.others is None


def test_the_share_of_the_others_is_measured() -> None:
    share = Share()
    for _ in range(500):
        share.book(10, 2)
    assert share.others == pytest.approx(2 / 12)


@given(
    st.integers(1, 200),
    st.lists(st.booleans(), min_size=1, max_size=7),
    st.floats(1, 100),
    st.floats(0, 2),
    st.floats(0, 1),
    st.booleans(),
)
@example(123, [False, False, False], 69.0, 0.0, 1.0, True)
def test_the_focused_chats_mean_time_stays_within_its_bound(
    num_tokens: int, others: list[bool], decode_ms: float, extra: float, token: float, ages: bool
) -> None:
    """Whatever the machine costs: `others` write (True) or read beside it, at these parts of a step.

    Where they are let go on credit once they have waited for long, one step may not be paid back yet.
    """
    costs = StepCosts(decode_ms * token, decode_ms, decode_ms * extra, decode_ms * token)
    share, now = Share(), 0.0
    served = [0.0] * len(others)
    for _ in range(num_tokens):
        jobs = [Job("focused", Rank.FOCUSED, 0, True, 1, 0)]
        jobs += [
            Job(
                str(i), Rank.CHAT, i, is_writing, 1 if is_writing else 500, 0, ages * (now - served[i]) / 1000
            )
            for i, is_writing in enumerate(others)
        ]
        plan = plan_step(
            jobs,
            costs,
            credit_ms=share.credit_ms,
            credit_cap_ms=CAP_MS,
            max_chunk=64,
            budget_ms=300,
            block_tokens=128,
        )
        assert plan.focused_ms is not None
        now += plan.expected_ms
        for name in (*plan.decode[1:], *([plan.prefill] if plan.prefill else [])):
            served[int(name)] = now
        share.book(plan.focused_ms, plan.expected_ms - plan.focused_ms)
    alone = num_tokens * decode_ms
    dearest = max(16 * costs.beside_token_ms, costs.extra_decode_ms)
    slack = dearest if ages else max(0.0, dearest - CAP_MS)
    assert now <= (1 + SHARE) * alone + slack + 1e-6


def test_costs_are_those_of_the_machine_after_a_few_steps() -> None:
    model = CostModel()
    for _ in range(50):
        model.learn(1, 0, 500, 20.0)
        model.learn(4, 0, 500, 50.0)
        model.learn(0, 64, 500, 128.0)
        model.learn(1, 16, 500, 68.0)
    costs = model.at(500)
    learnt = [
        costs.prefill_token_ms,
        costs.decode_step_ms,
        costs.extra_decode_ms,
        costs.beside_token_ms,
    ]
    assert learnt == pytest.approx([2.0, 20.0, 10.0, 3.0])


def test_a_cells_cost_is_a_usual_part_of_a_step_until_steps_at_several_depths_tell() -> None:
    model = CostModel()
    for _ in range(50):
        model.learn(1, 0, 500, 20.0)
    assert model.cell_ms == pytest.approx(20 * CELL_PART)
    noise = random.Random(1)
    for i in range(1500):
        cells = 200 + 2 * (i % 700)
        model.learn(1, 0, cells, 20 + 0.001 * cells + noise.uniform(-1, 1))
    assert 0.0005 < model.cell_ms < 0.002
    assert model.at(2000).decode_step_ms == pytest.approx(22, rel=0.1)


def test_a_machine_that_is_busy_with_something_else_for_a_moment_changes_little() -> None:
    mean = Mean(1.0)
    for _ in range(20):
        mean.add(10.0)
    mean.add(10_000.0)
    assert mean.value < 12
    for _ in range(200):
        mean.add(30.0)
    assert mean.value == pytest.approx(30, rel=0.1), "a lasting change is learnt"


def test_a_cost_of_nothing_can_rise_again() -> None:
    mean = Mean(1.0)
    for _ in range(20):
        mean.add(0.0)
    for _ in range(300):
        mean.add(5.0)
    assert mean.value == pytest.approx(5, rel=0.1)
