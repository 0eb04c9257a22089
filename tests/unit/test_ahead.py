"""Accounting of work ahead: each token processed ahead ends as used or as wasted, once."""

from hypothesis import given
from hypothesis import strategies as st

from samovar.kv.ahead import MAX_SESSIONS, Ahead


def figures(ahead: Ahead) -> tuple[int, int, int, int]:
    """All, used, wasted, open."""
    return ahead.tokens, ahead.used_tokens, ahead.wasted_tokens, ahead.open_tokens


def test_what_the_request_reuses_was_used() -> None:
    ahead = Ahead()
    ahead.processed("s", range(12), 10)
    ahead.processed("s", range(15), 12)
    assert figures(ahead) == (5, 0, 0, 5)
    assert ahead.asked("s", range(20), 15) == 5
    assert figures(ahead) == (5, 5, 0, 0)
    assert ahead.asked("s", range(30), 20) == 0, "counted once"


def test_what_an_edit_cuts_off_is_wasted() -> None:
    ahead = Ahead()
    ahead.processed("s", [*range(10), 1, 2, 3, 4], 10)
    ahead.processed("s", [*range(10), 1, 2, 7], 12)
    assert figures(ahead) == (5, 0, 2, 3)
    assert ahead.asked("s", [*range(10), 1, 2, 8, 9], 12) == 2
    assert figures(ahead) == (5, 2, 3, 0)


def test_what_is_processed_again_was_wasted_the_first_time() -> None:
    ahead = Ahead()
    ahead.processed("s", range(20), 10)
    ahead.processed("s", range(22), 16)
    assert figures(ahead) == (16, 0, 4, 12)


def test_a_request_that_cannot_reuse_it_wastes_it() -> None:
    ahead = Ahead()
    ahead.processed("s", range(20), 10)
    assert ahead.asked("s", range(30), 14) == 4
    assert figures(ahead) == (10, 4, 6, 0)


def test_leaving_wastes_what_the_cache_does_not_have() -> None:
    ahead = Ahead()
    ahead.processed("s", range(20), 10)
    ahead.left("s", range(10), 8)
    assert figures(ahead) == (10, 0, 0, 10), "another sequence of the session"
    ahead.left("s", range(20), 16)
    assert figures(ahead) == (10, 0, 4, 6)
    ahead.left("s", range(16), 0)
    assert figures(ahead) == (10, 0, 10, 0)


def test_sessions_are_apart_and_forgotten_ones_wasted() -> None:
    ahead = Ahead()
    ahead.processed("a", range(4), 0)
    ahead.processed("b", range(6), 0)
    ahead.forget("a")
    ahead.forget("a")
    assert figures(ahead) == (10, 0, 4, 6)
    for number in range(MAX_SESSIONS):
        ahead.processed(f"other {number}", range(1), 0)
    assert figures(ahead) == (10 + MAX_SESSIONS, 0, 10, MAX_SESSIONS), "the one not used longest goes"


def test_it_tells_where_work_ahead_begins() -> None:
    ahead = Ahead()
    assert ahead.first_of("s", range(9)) == 9
    ahead.processed("s", range(9), 5)
    assert ahead.first_of("s", range(9)) == 5
    assert ahead.first_of("s", [0, 1, 7, 8]) == 4, "a sequence that has nothing to do with it"


texts = st.lists(st.integers(0, 1), min_size=1, max_size=8)
operations = st.lists(
    st.tuples(
        st.sampled_from(["processed", "asked", "left", "forget"]),
        st.sampled_from("ab"),
        texts,
        st.integers(0, 8),
    )
)


@given(operations)
def test_every_token_is_open_used_or_wasted(made: list[tuple[str, str, list[int], int]]) -> None:
    ahead = Ahead()
    for name, session, tokens, pos in made:
        match name:
            case "processed":
                ahead.processed(session, tokens, min(pos, len(tokens) - 1))
            case "asked":
                assert ahead.asked(session, tokens, min(pos, len(tokens))) <= min(pos, len(tokens))
            case "left":
                ahead.left(session, tokens, min(pos, len(tokens)))
            case _:
                ahead.forget(session)
        assert ahead.tokens == ahead.used_tokens + ahead.wasted_tokens + ahead.open_tokens
        assert min(figures(ahead)) >= 0
