"""Which messages are sent when a chat outgrows the context."""

from hypothesis import given
from hypothesis import strategies as st

from samovar.chats.window import window_start
from samovar.core.chat import ChatMessage, Role

USER, ASSISTANT = Role.USER, Role.ASSISTANT


def chat(*sizes: int, system: int = 0) -> list[ChatMessage]:
    """Messages in turn, of about so many tokens each."""
    messages = [ChatMessage(Role.SYSTEM, "x" * 3 * system)] if system else []
    return messages + [
        ChatMessage(ASSISTANT if place % 2 else USER, "x" * 3 * size) for place, size in enumerate(sizes)
    ]


def test_a_chat_that_fits_is_sent_whole() -> None:
    assert window_start(chat(100, 100, 100), 1000, 250) == 0
    assert window_start([], 1000, 250) == 0


def test_the_oldest_turns_are_left_out_in_a_large_step() -> None:
    assert window_start(chat(*[100] * 7), 1000, 250) == 4
    assert window_start(chat(*[100] * 7, system=100), 1000, 250) == 6


def test_the_window_stays_between_two_steps() -> None:
    sizes = [20] * 100
    starts = [window_start(chat(*sizes[:count]), 1000, 250) for count in range(1, 100, 2)]
    assert starts == sorted(starts)
    assert len(set(starts)) < len(starts) / 5


def test_a_last_message_that_fits_nowhere_is_sent_alone() -> None:
    assert window_start(chat(100, 100, 5000), 1000, 250) == 2


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(0, 300), st.integers(1, 2000))
def test_what_is_sent_begins_with_the_user_and_holds_the_last_message(
    sizes: list[int], system: int, reply_tokens: int
) -> None:
    sizes = sizes if len(sizes) % 2 else sizes[:-1] or [1]
    messages = chat(*sizes, system=system)
    own = messages[1:] if system else messages
    start = window_start(messages, 1000, reply_tokens)
    assert 0 <= start < len(own)
    assert own[start].role is USER
    used = sum(len(message.content) // 3 + 8 for message in own[start:])
    room = 1000 - min(reply_tokens, 500) - (len(messages[0].content) // 3 + 8 if system else 0)
    assert used <= room or start == len(own) - 1


@given(st.lists(st.integers(0, 400), min_size=3, max_size=60))
def test_a_later_turn_never_brings_back_what_was_left_out(sizes: list[int]) -> None:
    sizes = sizes if len(sizes) % 2 else sizes[:-1]
    before = window_start(chat(*sizes[:-2]), 1000, 250)
    assert window_start(chat(*sizes), 1000, 250) >= before
