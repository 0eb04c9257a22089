"""Several chats with a common system prompt, asked in turn: what does it cost to come back to each?"""

import statistics
from collections.abc import Sequence
from typing import Final

import msgspec

from samovar.bench.driver import Answer, Chat, ClientFactory, Driver
from samovar.bench.texts import words
from samovar.core.chat import ChatMessage, Role

REPLY_TOKENS: Final = 16
QUESTION_WORDS: Final = 3


class Round(msgspec.Struct, frozen=True):
    """Requests of one kind. `processed` and `prompt` are mean tokens; `hit` is the reused share of all."""

    n: int
    first_token_ms: float
    first_token_max_ms: float
    processed: float
    prompt: float
    hit: float


class Result(msgspec.Struct, frozen=True):
    """`first` are the openings of the chats, `turn` all later questions."""

    model: str
    first: Round
    turn: Round


async def run(
    client_factory: ClientFactory,
    sessions: int = 5,
    turns: int = 2,
    shared_words: int = 600,
    own_words: int = 500,
    context: int = 4096,
) -> Result:
    """Ask `sessions` chats in turn, `turns` times each after their openings.

    All share a system prompt of `shared_words`, each opens with `own_words` of its own. `context` is the
    size in tokens that the factory's host was given; prompts that cannot fit fail before anything is asked.
    """
    async with client_factory() as client:
        driver = Driver(client)
        model = await driver.ready()
        assert model.context_tokens >= context or context == 0
        system = ChatMessage(Role.SYSTEM, words(shared_words, seed=0))
        chats = [Chat(f"chat {number}", [system]) for number in range(1, sessions + 1)]
        first = [
            await _turn(driver, chat, words(own_words, seed=number)) for number, chat in enumerate(chats, 1)
        ]
        later = [
            await _turn(driver, chat, words(QUESTION_WORDS, seed=1000 * turn + number))
            for turn in range(1, turns + 1)
            for number, chat in enumerate(chats, 1)
        ]
    return Result(model.name, summary(first), summary(later))


async def _turn(driver: Driver, chat: Chat, text: str) -> Answer:
    answer = await driver.ask(chat.ask(text, REPLY_TOKENS))
    chat.hear(answer.finished)
    return answer


def summary(answers: Sequence[Answer]) -> Round:
    """The figures of some requests."""
    if not answers:
        return Round(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    stats = [answer.finished.stats for answer in answers]
    prompt = sum(s.prompt_tokens for s in stats)
    return Round(
        n=len(answers),
        first_token_ms=statistics.median(answer.first_token_ms for answer in answers),
        first_token_max_ms=max(answer.first_token_ms for answer in answers),
        processed=statistics.mean(s.processed_tokens for s in stats),
        prompt=prompt / len(answers),
        hit=sum(s.reused.total for s in stats) / prompt,
    )


def text(result: Result) -> str:
    """The result for people."""
    lines = [f"{result.model}: chats with a common system prompt, asked in turn", ""]
    lines.append("           n   first token (max)     prompt   processed   reused")
    for name, part in (("openings", result.first), ("turns", result.turn)):
        lines.append(
            f"{name:<9} {part.n:>2}  {part.first_token_ms:>6,.0f} ({part.first_token_max_ms:,.0f}) ms"
            f"  {part.prompt:>9,.0f}   {part.processed:>9,.1f}   {100 * part.hit:>5.1f} %"
        )
    return "\n".join(lines)
