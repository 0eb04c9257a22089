"""Why a prompt was not reused further: the first mismatch, located in tokens and named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from samovar.core.chat import ChatMessage, Role
from samovar.core.request import MismatchReason

CONTEXT_TOKENS: Final = 10


@dataclass(frozen=True, slots=True)
class Previous:
    """What a session asked last: its messages (with the reply), and the tokens that stood in the context."""

    messages: tuple[ChatMessage, ...]
    tokens: tuple[int, ...]


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
) -> Difference:
    """Name why only `reused` tokens of `prompt` were reused.

    `common` is the length of the prefix that `prompt` has in common with `previous.tokens`. `other_model`
    says that replies in `messages` were generated under another vocabulary.
    """
    if other_model:
        return _difference(prompt, (), reused, MismatchReason.MODEL_CHANGED)
    if previous is None:
        return _difference(prompt, (), reused, MismatchReason.NEW_CHAT)
    if reused < min(common, len(prompt) - 1) and cache_off:
        return _difference(prompt, previous.tokens, reused, MismatchReason.CACHE_OFF)
    if reused < min(common, len(prompt) - 1):
        return _difference(prompt, previous.tokens, reused, MismatchReason.EVICTED)
    if common >= len(previous.tokens):
        return _difference(prompt, previous.tokens, reused, MismatchReason.NEW_MESSAGE)
    return _difference(prompt, previous.tokens, reused, _why_changed(messages, previous.messages))


def _why_changed(now: tuple[ChatMessage, ...], then: tuple[ChatMessage, ...]) -> MismatchReason:
    for new, old in zip(now, then, strict=False):
        if (new.role, new.content) == (old.role, old.content):
            continue
        if Role.SYSTEM in (new.role, old.role):
            return MismatchReason.SYSTEM_PROMPT_CHANGED
        return MismatchReason.MESSAGE_EDITED
    if len(now) < len(then):
        return MismatchReason.MESSAGE_EDITED
    return MismatchReason.TEMPLATE_REWROTE_HISTORY


def _difference(prompt: Sequence[int], cached: Sequence[int], pos: int, reason: MismatchReason) -> Difference:
    return Difference(
        pos,
        reason,
        tuple(prompt[max(0, pos - CONTEXT_TOKENS) : pos]),
        tuple(cached[pos : pos + CONTEXT_TOKENS]),
        tuple(prompt[pos : pos + CONTEXT_TOKENS]),
    )
