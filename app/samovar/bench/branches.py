"""A long chat whose message is edited in the middle, and the ways back and on: what does each cost?"""

import statistics
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from samovar.bench.driver import Answer, Chat, ClientFactory, Driver
from samovar.bench.texts import words
from samovar.core.chat import GREEDY, ChatMessage, Role
from samovar.core.request import Request

REPLY_TOKENS: Final = 16
SYSTEM_WORDS: Final = 100
QUESTION_WORDS: Final = 3
_CHAT: Final = "the chat"


class Way(msgspec.Struct, frozen=True):
    """Requests of one kind: median first token, and the tokens of the one that processed the most."""

    n: int
    first_token_ms: float
    first_token_max_ms: float
    processed: int
    prompt: int
    reused: int


class Result(msgspec.Struct, frozen=True):
    """What each way costs in a chat that is in RAM and partly in the context.

    `cold`: the whole chat under another system prompt, so that nothing can be reused. `edit`: another
    message in the middle. `back`: a few words behind the first branch. `regenerate`: another reply to its
    last message. `fork`: a few words behind it in a session of its own. `proceed`: its last reply goes on.
    """

    model: str
    cold: Way
    edit: Way
    back: Way
    regenerate: Way
    fork: Way
    proceed: Way


async def run(
    client_factory: ClientFactory, turns: int = 5, own_words: int = 330, repeats: int = 3
) -> Result:
    """A chat of `turns` questions of `own_words`; then every way in turn, `repeats` times."""
    async with client_factory() as client:
        driver = Driver(client)
        model = await driver.ready()
        chat = Chat(_CHAT, [_system(seed=0)])
        for turn in range(turns):
            answer = await driver.ask(chat.ask(words(own_words, seed=turn + 1), REPLY_TOKENS))
            chat.hear(answer.finished)
        messages = chat.messages
        middle = 1 + 2 * (turns // 2)
        ways: dict[str, list[Answer]] = {}
        for number in range(repeats):
            edited = _user(own_words, seed=100 + number)
            asked = {
                "edit": (_CHAT, [*messages[:middle], edited]),
                "back": (_CHAT, [*messages, _user(QUESTION_WORDS, seed=200 + number)]),
                "regenerate": (_CHAT, messages[:-1]),
                "fork": (f"fork {number}", [*messages, _user(QUESTION_WORDS, seed=300 + number)]),
                "proceed": (_CHAT, messages),
                "cold": (f"cold {number}", [_system(seed=400 + number), *messages[1:-1]]),
            }
            for name, (session, prompt) in asked.items():
                request = _request(session, prompt, store=name != "cold")
                ways.setdefault(name, []).append(await driver.ask(request))
    return Result(model.name, **{name: _way(answers) for name, answers in ways.items()})


def _system(seed: int) -> ChatMessage:
    return ChatMessage(Role.SYSTEM, words(SYSTEM_WORDS, seed))


def _user(num_words: int, seed: int) -> ChatMessage:
    return ChatMessage(Role.USER, words(num_words, seed))


def _request(session: str, messages: Sequence[ChatMessage], *, store: bool) -> Request:
    return Request(
        id=uuid.uuid4().hex,
        session=session,
        messages=tuple(messages),
        title=session,
        sampling=GREEDY,
        max_tokens=REPLY_TOKENS,
        store=store,
    )


def _way(answers: Sequence[Answer]) -> Way:
    worst = max((answer.finished.stats for answer in answers), key=lambda stats: stats.processed_tokens)
    return Way(
        n=len(answers),
        first_token_ms=statistics.median(answer.first_token_ms for answer in answers),
        first_token_max_ms=max(answer.first_token_ms for answer in answers),
        processed=worst.processed_tokens,
        prompt=worst.prompt_tokens,
        reused=worst.reused.total,
    )


def text(result: Result) -> str:
    """The result for people."""
    lines = [
        f"{result.model}: a chat of {result.cold.prompt:,} tokens, edited in the middle, and back",
        "",
        "             n   first token (max)     prompt   processed",
    ]
    ways = {
        "cold": result.cold,
        "edit": result.edit,
        "back": result.back,
        "regenerate": result.regenerate,
        "fork": result.fork,
        "proceed": result.proceed,
    }
    for name, way in ways.items():
        lines.append(
            f"{name:<11} {way.n:>2}  {way.first_token_ms:>6,.0f} ({way.first_token_max_ms:,.0f}) ms"
            f"  {way.prompt:>9,}   {way.processed:>9,}"
        )
    return "\n".join(lines)
