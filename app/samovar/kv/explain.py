"""Why a prompt was not reused further: the first mismatch, located in tokens and named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from samovar.core.chat import SUMMARY_HEAD, ChatMessage, Role
from samovar.core.request import MismatchReason

CONTEXT_TOKENS: Final = 10
_THOUGHT_TOKENS: Final = 8_192  # in which a thinking part is looked for its end


@dataclass(frozen=True, slots=True)
class Previous:
    """What a session asked last: its messages (with the reply), and the tokens that stood in the context.

    The last `num_loose` tokens spell nothing of the messages: a stop string, a part of a character.
    """

    messages: tuple[ChatMessage, ...]
    tokens: tuple[int, ...]
    num_loose: int = 0


def decode_past(data: bytes) -> Previous | None:
    """What an earlier host has written of a session; None if it is damaged."""
    try:
        return msgspec.msgpack.decode(data, type=Previous)
    except (ValueError, RecursionError):  # no MessagePack, no UTF-8, or nested without end
        return None


@dataclass(frozen=True, slots=True)
class Difference:
    """The first position that was not reused, with up to ten tokens before it and on either side of it."""

    pos: int
    reason: MismatchReason
    before: tuple[int, ...]
    cached: tuple[int, ...]
    asked: tuple[int, ...]


def explain(
    prompt: Sequence[int],
    messages: tuple[ChatMessage, ...],
    reused: int,
    previous: Previous | None,
    common: int,
    *,
    cache_off: bool,
    other_model: bool = False,
    grain: int = 1,
    is_reasoning: Callable[[Sequence[int]], bool] = lambda _tokens: False,
) -> Difference | None:
    """Name why only `reused` tokens of `prompt` were reused; None if that is all of them but the last.

    `common` is the length of the prefix that `prompt` has in common with `previous.tokens`. `other_model`
    says that replies in `messages` were generated under another vocabulary. `grain` is the distance of
    positions at which the model can resume inside of what it has seen: 1, or the tokens of a block.
    `is_reasoning` tells of tokens whether they begin with a model's thinking, or in the middle of it.
    """
    if reused >= len(prompt) - 1:
        return None
    if previous is None:
        reason = MismatchReason.MODEL_CHANGED if other_model else MismatchReason.NEW_CHAT
        return _difference(prompt, (), reused, reason)
    # What another chat has left reaches further than the own past: nothing there to compare with.
    cached = previous.tokens if reused <= common else ()
    reachable = min(common, len(prompt) - 1)
    if common < len(previous.tokens):
        reachable -= reachable % grain
    if reused < reachable:
        reason = MismatchReason.CACHE_OFF if cache_off else MismatchReason.EVICTED
    elif common >= len(previous.tokens) - previous.num_loose:
        reason = MismatchReason.NEW_MESSAGE
    else:
        reason = _why_changed(messages, previous.messages)
        if reason is MismatchReason.TEMPLATE_REWROTE_HISTORY and is_reasoning(
            previous.tokens[common : common + _THOUGHT_TOKENS]
        ):
            reason = MismatchReason.REASONING_DROPPED
    return _difference(prompt, cached, reused, reason)


def _why_changed(now: tuple[ChatMessage, ...], then: tuple[ChatMessage, ...]) -> MismatchReason:
    system_now, own_now = _parted(now)
    system_then, own_then = _parted(then)
    if system_now == system_then:
        if _is_later_part(own_now, own_then):
            return MismatchReason.TURNS_LEFT_OUT
    elif SUMMARY_HEAD in system_now and _base(system_now) == _base(system_then):
        return MismatchReason.TURNS_SUMMARIZED
    for new, old in zip(now, then, strict=False):
        if (new.role, new.content) == (old.role, old.content):
            continue
        if Role.SYSTEM in (new.role, old.role):
            return MismatchReason.SYSTEM_PROMPT_CHANGED
        return MismatchReason.MESSAGE_EDITED
    if len(now) < len(then):
        return MismatchReason.MESSAGE_EDITED
    return MismatchReason.TEMPLATE_REWROTE_HISTORY


def _parted(messages: tuple[ChatMessage, ...]) -> tuple[str, list[tuple[Role, str]]]:
    """The system prompt, and the messages behind it."""
    has_system = bool(messages) and messages[0].role is Role.SYSTEM
    own = messages[1:] if has_system else messages
    return messages[0].content if has_system else "", [(message.role, message.content) for message in own]


def _is_later_part(now: list[tuple[Role, str]], then: list[tuple[Role, str]]) -> bool:
    """Whether the messages begin with those that ended what was asked then, without its first ones."""
    if not now or now[0][0] is not Role.USER or (then and now[0] == then[0]):
        return False
    return any(now[: len(then) - start] == then[start:] for start in range(1, len(then)))


def _base(system: str) -> str:
    """A system message without the summary in it."""
    return system.partition(SUMMARY_HEAD)[0].rstrip()


def _difference(prompt: Sequence[int], cached: Sequence[int], pos: int, reason: MismatchReason) -> Difference:
    return Difference(
        pos,
        reason,
        tuple(prompt[max(0, pos - CONTEXT_TOKENS) : pos]),
        tuple(cached[pos : pos + CONTEXT_TOKENS]),
        tuple(prompt[pos : pos + CONTEXT_TOKENS]),
    )
