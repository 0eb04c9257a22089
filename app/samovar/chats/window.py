"""Which messages of a chat are sent when it outgrows the context and the user wants it to go on. Pure.

    sent:      system ─ m1 ─ r1 ─ m2 ─ r2 ─ m3           all of it fits
    outgrown:  system ─────────────── m3 ─ r3 ─ m4       the oldest turns are left out, many at once
    later:     system ─────────────── m3 ─ r3 ─ m4 ─ r4 ─ m5

Where the window begins depends on the messages alone and moves in large steps, so the turns between two steps
find their beginning in the cache. Sizes are estimates, on the safe side.
"""

from collections.abc import Sequence
from typing import Final

from samovar.core.chat import ChatMessage, Role

BYTES_PER_TOKEN: Final = 3.0  # few texts have fewer
FRAME_TOKENS: Final = 8  # around a message
_FILLED: Final = 0.5  # of the room, after a step


def window_start(
    messages: Sequence[ChatMessage],
    context_tokens: int,
    reply_tokens: int,
    bytes_per_token: float = BYTES_PER_TOKEN,
) -> int:
    """How many messages behind the system prompt are left out; one of the user's comes first then.

    `reply_tokens` are kept free, half the context at most. The last message is always sent.
    """
    first = 1 if messages and messages[0].role is Role.SYSTEM else 0
    sizes = [size_of(message, bytes_per_token) for message in messages]
    room = context_tokens - min(reply_tokens, context_tokens // 2) - sum(sizes[:first])
    start, used = first, 0
    for place in range(first, len(messages)):
        used += sizes[place]
        if used <= room or messages[place].role is not Role.USER:
            continue
        while start < place and (used > _FILLED * room or messages[start].role is not Role.USER):
            used -= sizes[start]
            start += 1
    return start - first


def size_of(message: ChatMessage, bytes_per_token: float = BYTES_PER_TOKEN) -> int:
    """The tokens of a message with what stands around it: as generated where that is known, else a guess."""
    if message.tokens:
        return len(message.tokens) + FRAME_TOKENS
    return text_size(message.content, bytes_per_token)


def text_size(text: str, bytes_per_token: float = BYTES_PER_TOKEN) -> int:
    """The tokens of a text as a message of its own, a guess."""
    return int(num_bytes(text) / bytes_per_token) + FRAME_TOKENS


def num_bytes(text: str) -> int:
    """The bytes of a text, without encoding it where that is not needed."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
