"""Which part of a chat is summarized next, and what the model is told to do. Pure.

    system ─ m1 ─ r1 ─ m2 ─ r2 ─ m3 ─ r3 ─ m4
             |──── summarized ───|── kept ───|

Whole turns are summarized, and the last ones are kept word for word. The request for the summary ends in the
part that is summarized, so it is a beginning of what the cache has of the chat.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import msgspec

from samovar.core.chat import Role
from samovar.core.reasoning import answer_of
from samovar.sessions.store import StoredMessage

KEPT: Final = 0.3  # of the context: the last turns, word for word
_KEPT_LAST: Final = 0.5  # of the context: the last turn alone, which is missed most
_MIN_GAIN_TOKENS: Final = 64
_MAX_SUMMARY_TOKENS: Final = 256
_MIN_SUMMARY_TOKENS: Final = 32
_INSTRUCTION_TOKENS: Final = 96
_WORDS_PER_TOKEN: Final = 0.6
_SENTENCE_ENDS: Final = (". ", ".\n", "\n", "? ", "! ", "。", "？", "！")


class Part(msgspec.Struct, frozen=True):
    """What is summarized: the messages up to and with number `upto` of the path, in at most `max_tokens`."""

    upto: int
    max_tokens: int


def next_part(
    path: Sequence[StoredMessage],
    first: int,
    sizes: Sequence[int],
    base_tokens: int,
    context_tokens: int,
    thinking_tokens: int = 0,
) -> Part | None:
    """What to summarize of a path whose first `first` messages are summarized already; None for nothing.

    `sizes` are the tokens of each message of the path, `base_tokens` those before them all, and
    `thinking_tokens` what the model may think before it writes the summary.
    """
    max_tokens = min(_MAX_SUMMARY_TOKENS, context_tokens // 8)
    room = context_tokens - base_tokens - _INSTRUCTION_TOKENS - max_tokens - thinking_tokens
    ends = [
        place
        for place in range(first, len(path))
        if path[place].role is Role.ASSISTANT
        and (place + 1 == len(path) or path[place + 1].role is Role.USER)
    ]
    if not ends or max_tokens < _MIN_SUMMARY_TOKENS:
        return None
    before = [0, *accumulate(sizes)]  # tokens of all messages before each one
    upto = [before[end + 1] for end in ends]
    chosen = min(bisect_left(upto, before[-1] - KEPT * context_tokens), len(ends) - 1)
    if chosen == len(ends) - 1 and chosen > 0:
        chosen -= upto[-1] - upto[-2] <= _KEPT_LAST * context_tokens
    elif chosen == 0 and len(ends) == 1 and len(path) - 1 == ends[0]:
        return None  # a single turn, and nothing behind it
    while chosen >= 0 and upto[chosen] - before[first] > room:
        chosen -= 1
    if chosen < 0 or upto[chosen] - before[first] < max_tokens + _MIN_GAIN_TOKENS:
        return None
    return Part(ends[chosen], max_tokens)


def instruction(max_tokens: int, *, is_first: bool) -> str:
    """What is asked of the model behind the part that it summarizes."""
    earlier = "" if is_first else " Include what the earlier summary says."
    return (
        f"Summarize our conversation so far in at most {int(max_tokens * _WORDS_PER_TOKEN)} words, as notes "
        f"to go on from: facts, names, numbers, decisions, open questions.{earlier} Write the summary only."
    )


def usable(text: str, *, is_cut: bool, thinks: bool) -> str:
    """The summary in what a model has written, without its thinking; empty where there is none.

    `thinks`: its prompt has opened the thinking. One that was cut off ends with its last whole sentence, if
    that leaves half of it.
    """
    text = answer_of(text, thinks=thinks).strip()
    if is_cut:
        end = max(text.rfind(mark) + len(mark.rstrip()) if mark in text else 0 for mark in _SENTENCE_ENDS)
        text = text[:end].strip() if end >= len(text) // 2 else ""
    return text
