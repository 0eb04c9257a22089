"""Messages and sampling settings: what a front end sends and a model answers."""

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

SUMMARY_HEAD: Final = "Summary of the conversation so far:"
"""Stands in a system message before the summary of the messages that are not sent any more."""


class Role(enum.Enum):
    """Who wrote a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a prompt.

    `tokens` are the ids the model generated for `content` (a prefix of it, at least), valid under the
    tokenizer whose id is `tokenizer`. With them the prompt of the next turn repeats the last one token
    for token; without them the text is tokenized again.
    """

    role: Role
    content: str
    tokens: tuple[int, ...] = ()
    tokenizer: str = ""


def open_reply(messages: Sequence[ChatMessage]) -> ChatMessage | None:
    """The reply that a prompt ends in, for the model to go on with; None where it asks for a new one."""
    return messages[-1] if messages and messages[-1].role is Role.ASSISTANT else None


def answered(messages: tuple[ChatMessage, ...], text: str) -> tuple[ChatMessage, ...]:
    """The messages with `text` as the answer, which goes on with an open reply. No token ids are known."""
    begun = open_reply(messages)
    if begun is None:
        return (*messages, ChatMessage(Role.ASSISTANT, text))
    return (*messages[:-1], ChatMessage(Role.ASSISTANT, begun.content + text))


class Sampling(msgspec.Struct, frozen=True):
    """How the next token is chosen. A temperature of 0 is greedy; a seed of None is a random one."""

    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int | None = None


GREEDY = Sampling(temperature=0.0)
