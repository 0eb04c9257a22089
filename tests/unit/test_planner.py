"""Plans for random contexts and caches: never too much, in order, and only what the family allows."""

from hypothesis import given
from hypothesis import strategies as st

from samovar.kv.block import root_key
from samovar.kv.family import Family
from samovar.kv.index import Match, PrefixIndex, common_prefix
from samovar.kv.planner import Plan, Resident, Source, make_plan

SIZE = 4
DENSE = Family()
WINDOW = Family(can_share=False, window=6)
HYBRID = Family(can_trim=False, can_share=False)
RECURRENT = Family(can_trim=False, can_share=False, whole_state=True)
families = st.sampled_from([DENSE, WINDOW, HYBRID, RECURRENT])
Tokens = tuple[int, ...]
short = st.lists(st.integers(1, 2), min_size=1, max_size=5).map(tuple)
prompts = st.lists(st.integers(1, 2), min_size=1, max_size=20).map(tuple)


def make_index(stored: list[Tokens], family: Family) -> PrefixIndex:
    index = PrefixIndex(root_key(""), SIZE, partial=family.can_trim)
    for tokens in stored:
        parent = None
        for p0 in range(0, len(tokens), SIZE):
            block = tokens[p0 : p0 + SIZE]
            known = index.get(index.key_of(parent, block))
            parent = known or index.add(parent, block, 1)
            if parent.num_tokens < SIZE:
                break
    return index


@st.composite
def situations(draw: st.DrawFn) -> tuple[Tokens, list[Resident], Match, Family, bool]:
    family, whole = draw(families), draw(st.booleans())
    prompt = draw(prompts)
    related = st.builds(lambda cut, more: prompt[:cut] + more, st.integers(0, 20), short | st.just(()))
    residents = []
    for slot, tokens in enumerate(draw(st.lists(related, max_size=4))):
        oldest = (
            draw(st.integers(max(0, len(tokens) - 2 * SIZE), max(0, len(tokens) - 5))) if family.window else 0
        )
        session = draw(st.sampled_from(["mine", "other"]))
        residents.append(Resident(slot, session, tokens, draw(st.booleans()), oldest))
    index = make_index([t for t in draw(st.lists(related, max_size=4)) if t], family)
    limit = len(prompt) if whole else len(prompt) - 1
    return prompt, residents, index.match(prompt, limit), family, whole


@given(situations())
def test_a_plan_reuses_what_is_there_and_no_more(
    situation: tuple[Tokens, list[Resident], Match, Family, bool],
) -> None:
    prompt, residents, match, family, whole = situation
    plan = make_plan(prompt, "mine", residents, match, family, whole=whole)
    limit = len(prompt) if whole else len(prompt) - 1
    assert 0 <= plan.keep <= plan.resume <= limit
    assert plan.resume >= min(match.num_tokens, limit), "at least what is stored"
    check_source(plan, prompt, residents, family)
    check_steps(plan, prompt, family)


def check_source(plan: Plan, prompt: Tokens, residents: list[Resident], family: Family) -> None:
    if plan.source is Source.FRESH:
        assert (plan.slot, plan.keep) == (None, 0)
        return
    resident = next(r for r in residents if r.slot == plan.slot)
    assert plan.keep <= common_prefix(prompt, resident.tokens)
    assert (plan.source is Source.SHARE) == resident.busy, "what is in use is never taken"
    assert plan.source is not Source.SHARE or (family.can_share and plan.keep > 0)
    if plan.keep < len(resident.tokens):
        assert family.can_trim
    if plan.resume < len(resident.tokens):
        assert family.can_resume(plan.resume, resident.oldest_pos), "never without the window's cells"


def check_steps(plan: Plan, prompt: Tokens, family: Family) -> None:
    pos = plan.keep
    if family.whole_state and plan.steps:
        assert len(plan.steps) == 1
        pos = plan.steps[0].p0
    for step in plan.steps:
        assert step.p0 == pos == step.block.start
        assert step.p0 < step.p1 <= step.block.end
        assert family.can_trim or step.p1 == step.block.end, "a state exists at the end only"
        assert step.block.tokens[: step.p1 - step.p0] == prompt[step.p0 : step.p1]
        pos = step.p1
    assert pos == plan.resume


@given(situations())
def test_a_plan_reaches_as_far_as_any_resident_of_plain_attention(
    situation: tuple[Tokens, list[Resident], Match, Family, bool],
) -> None:
    prompt, residents, match, family, whole = situation
    plan = make_plan(prompt, "mine", residents, match, family, whole=whole)
    limit = len(prompt) if whole else len(prompt) - 1
    if family == DENSE:
        best = max((common_prefix(prompt[:limit], r.tokens) for r in residents), default=0)
        assert plan.resume == max(best, match.num_tokens)


def test_the_own_idle_sequence_is_taken_before_another_is_shared() -> None:
    prompt = (1, 1, 2, 1)
    residents = [
        Resident(0, "other", (1, 1, 2), busy=True),
        Resident(1, "other", (1, 1, 2), busy=False),
        Resident(2, "mine", (1, 1, 2), busy=False),
    ]
    assert make_plan(prompt, "mine", residents, Match(), DENSE) == Plan(Source.TAKE, 2, 3, (), 3)
    assert make_plan(prompt, "new", residents[:2], Match(), DENSE) == Plan(Source.TAKE, 1, 3, (), 3)
    assert make_plan(prompt, "new", residents[:1], Match(), DENSE) == Plan(Source.SHARE, 0, 3, (), 3)
    assert make_plan(prompt, "new", residents[:1], Match(), WINDOW).source is Source.FRESH


def test_the_window_must_lie_behind_the_position_that_is_resumed() -> None:
    assert WINDOW.can_resume(10, 4)
    assert not WINDOW.can_resume(10, 5)
    assert WINDOW.can_resume(3, 0)
    assert DENSE.can_resume(10, 9)
