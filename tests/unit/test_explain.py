"""Why a prompt was not reused further, located and named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.core.chat import SUMMARY_HEAD, ChatMessage, Role
from samovar.core.request import MismatchReason
from samovar.kv.explain import Difference, Previous, explain
from samovar.kv.index import common_prefix

SYSTEM = ChatMessage(Role.SYSTEM, "be brief")
HELLO = ChatMessage(Role.USER, "hello")
REPLY = ChatMessage(Role.ASSISTANT, "hi")
MORE = ChatMessage(Role.USER, "more")
THEN = (SYSTEM, HELLO, REPLY)
OLD = tuple(range(100))


def why(
    prompt: tuple[int, ...],
    messages: tuple[ChatMessage, ...] = (*THEN, MORE),
    *,
    reused: int | None = None,
    cache_off: bool = False,
    other_model: bool = False,
    grain: int = 1,
    previous: Previous | None = Previous(THEN, OLD),  # noqa: B008 - a value
) -> Difference | None:
    common = common_prefix(prompt, previous.tokens) if previous else 0
    found = min(common, len(prompt) - 1) if reused is None else reused
    return explain(
        prompt, messages, found, previous, common, cache_off=cache_off, other_model=other_model, grain=grain
    )


def reason(found: Difference | None) -> MismatchReason:
    assert found is not None
    return found.reason


def test_a_longer_chat_has_a_new_message() -> None:
    found = why((*OLD, 7, 8, 9))
    assert found == Difference(100, MismatchReason.NEW_MESSAGE, OLD[90:], (), (7, 8, 9))


def test_an_unknown_chat_was_never_seen() -> None:
    assert reason(why((1, 2, 3), previous=None)) is MismatchReason.NEW_CHAT


def test_a_chat_of_another_model_says_so_once() -> None:
    assert reason(why((1, 2, 3), previous=None, other_model=True)) is MismatchReason.MODEL_CHANGED
    assert reason(why((*OLD, 7, 8), other_model=True)) is MismatchReason.NEW_MESSAGE


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((ChatMessage(Role.SYSTEM, "be long"), HELLO, REPLY, MORE), MismatchReason.SYSTEM_PROMPT_CHANGED),
        ((HELLO, REPLY, MORE), MismatchReason.SYSTEM_PROMPT_CHANGED),
        ((SYSTEM, ChatMessage(Role.USER, "bye")), MismatchReason.MESSAGE_EDITED),
        ((SYSTEM, HELLO, ChatMessage(Role.ASSISTANT, "hm"), MORE), MismatchReason.MESSAGE_EDITED),
        ((*THEN, MORE), MismatchReason.TEMPLATE_REWROTE_HISTORY),
    ],
)
def test_a_prompt_that_differs_in_what_was_there_is_explained_by_the_messages(
    messages: tuple[ChatMessage, ...], expected: MismatchReason
) -> None:
    found = why((*OLD[:60], 7, 8), messages)
    assert found == Difference(60, expected, OLD[50:60], OLD[60:70], (7, 8))


ASKED = (SYSTEM, HELLO, REPLY, MORE, ChatMessage(Role.ASSISTANT, "well"))
SUMMARIZED = ChatMessage(Role.SYSTEM, f"be brief\n\n{SUMMARY_HEAD}\nThey met.")
LAST = ChatMessage(Role.USER, "last")


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((SYSTEM, *ASKED[3:], LAST), MismatchReason.TURNS_LEFT_OUT),
        ((SUMMARIZED, *ASKED[3:], LAST), MismatchReason.TURNS_SUMMARIZED),
        ((SUMMARIZED, LAST), MismatchReason.TURNS_SUMMARIZED),
        ((SYSTEM, LAST), MismatchReason.MESSAGE_EDITED),
        ((SYSTEM, HELLO, ChatMessage(Role.ASSISTANT, "hm"), *ASKED[3:]), MismatchReason.MESSAGE_EDITED),
        ((ChatMessage(Role.SYSTEM, "be long"), *ASKED[3:], LAST), MismatchReason.SYSTEM_PROMPT_CHANGED),
    ],
)
def test_a_chat_that_goes_on_without_its_oldest_turns_says_what_became_of_them(
    messages: tuple[ChatMessage, ...], expected: MismatchReason
) -> None:
    found = why((*OLD[:60], 7, 8), messages, previous=Previous(ASKED, OLD))
    assert reason(found) is expected


def test_a_summary_anew_is_a_summary() -> None:
    anew = ChatMessage(Role.SYSTEM, f"be brief\n\n{SUMMARY_HEAD}\nThey met twice.")
    found = why((*OLD[:60], 7, 8), (anew, LAST), previous=Previous((SUMMARIZED, *ASKED[3:]), OLD))
    assert reason(found) is MismatchReason.TURNS_SUMMARIZED


def test_less_than_what_is_common_was_evicted_or_never_kept() -> None:
    assert reason(why((*OLD, 7), reused=32)) is MismatchReason.EVICTED
    assert reason(why((*OLD, 7), reused=32, cache_off=True)) is MismatchReason.CACHE_OFF


def test_a_model_that_resumes_at_block_ends_has_lost_nothing_in_between() -> None:
    edited = (SYSTEM, ChatMessage(Role.USER, "bye"))
    assert reason(why((*OLD[:60], 7, 8), edited, reused=48, grain=16)) is MismatchReason.MESSAGE_EDITED
    assert reason(why((*OLD[:60], 7, 8), edited, reused=32, grain=16)) is MismatchReason.EVICTED
    assert reason(why((*OLD, 7, 8), reused=96, grain=16)) is MismatchReason.EVICTED


def test_nothing_is_to_explain_when_all_but_the_last_token_was_reused() -> None:
    assert why(OLD[:60], THEN[:2]) is None


def test_what_another_chat_left_is_not_compared_with_the_own_past() -> None:
    found = why((*OLD[:20], *range(500, 600)), reused=80)
    assert found is not None
    assert found.pos == 80
    assert found.cached == ()


tokens = st.lists(st.integers(0, 1), min_size=1, max_size=30).map(tuple)


@given(tokens, tokens, st.integers(0, 30), st.booleans())
def test_the_texts_are_those_around_the_position(
    prompt: tuple[int, ...], old: tuple[int, ...], reused: int, off: bool
) -> None:
    reused = min(reused, len(prompt) - 1)
    found = why(prompt, reused=reused, cache_off=off, previous=Previous(THEN, old))
    if found is None:
        assert reused == len(prompt) - 1
        return
    assert found.pos == reused
    assert found.before == prompt[max(0, reused - 10) : reused]
    assert found.asked == prompt[reused : reused + 10]
    assert found.cached in ((), old[reused : reused + 10])
    if found.reason in (MismatchReason.EVICTED, MismatchReason.CACHE_OFF):
        assert reused < common_prefix(prompt, old)


def test_tokens_that_spell_nothing_of_a_reply_are_no_change_of_it() -> None:
    stopped = Previous(THEN, OLD, num_loose=3)
    found = why((*OLD[:97], 7, 8, 9), previous=stopped)
    assert found == Difference(97, MismatchReason.NEW_MESSAGE, OLD[87:97], OLD[97:], (7, 8, 9))
    assert reason(why((*OLD[:96], 7, 8, 9), previous=stopped)) is MismatchReason.TEMPLATE_REWROTE_HISTORY
