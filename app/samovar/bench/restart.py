"""A long chat is asked, asked again, and asked once more after a restart: what does coming back cost?"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from samovar.bench.driver import Answer, Chat, Driver, own_host
from samovar.bench.texts import words
from samovar.core.commands import Focus
from samovar.core.errors import SamovarError
from samovar.core.events import ModelInfo
from samovar.core.request import TierTokens
from samovar.core.settings import EngineSettings

REPLY_TOKENS: Final = 16
QUESTION_WORDS: Final = 3
MEASURING_WORDS: Final = 400
POLL_S: Final = 0.05
_CHAT: Final = "the chat"


class Asked(msgspec.Struct, frozen=True):
    """Questions of one kind: median first token from opening the chat on, the most tokens processed."""

    n: int
    first_token_ms: float
    first_token_max_ms: float
    processed: int
    reused_tokens: TierTokens


class Result(msgspec.Struct, frozen=True):
    """`cold`: the chat's first question, `hot`: further ones, `warm`: the first one of a new host.

    `start_ms` (until the new host is ready, its model loaded) and `quit_ms` (until the old one has written
    what was left and ended) are medians and are part of no first token.
    """

    model: str
    prompt_tokens: int
    cold: Asked
    hot: Asked
    warm: Asked
    warm_to_hot: float
    cold_to_warm: float
    start_ms: float
    quit_ms: float


@dataclass(slots=True)
class _Host:
    """A host that is ready; `quit_ms` is known when it has gone."""

    driver: Driver
    model: ModelInfo
    start_ms: float
    quit_ms: float = 0.0


async def run(settings: EngineSettings, tokens: int = 3000, repeats: int = 3) -> Result:
    """Ask a chat of about `tokens`; then ask again, quit, start and ask, `repeats` times, in one folder."""
    with tempfile.TemporaryDirectory(prefix="samovar-bench-") as name:
        folder = Path(name)
        chat = Chat(_CHAT)
        hot, warm, hosts = [], [], []
        for number in range(repeats + 1):
            async with _host(settings, folder) as host:
                hosts.append(host)
                if number:
                    warm.append(await _ask(host.driver, chat, words(QUESTION_WORDS, seed=2 * number)))
                else:
                    opening = await _opening(host, tokens)
                    cold = await _ask(host.driver, chat, opening)
                if number < repeats:
                    await _until_written(host.driver)
                    hot.append(await _ask(host.driver, chat, words(QUESTION_WORDS, seed=2 * number + 1)))
    parts = _asked([cold]), _asked(hot), _asked(warm)
    return Result(
        model=hosts[0].model.name,
        prompt_tokens=cold.finished.stats.prompt_tokens,
        cold=parts[0],
        hot=parts[1],
        warm=parts[2],
        warm_to_hot=parts[2].first_token_ms / parts[1].first_token_ms,
        cold_to_warm=parts[0].first_token_ms / parts[2].first_token_ms,
        start_ms=statistics.median(host.start_ms for host in hosts[1:]),
        quit_ms=statistics.median(host.quit_ms for host in hosts[:-1]),
    )


@contextlib.asynccontextmanager
async def _host(settings: EngineSettings, folder: Path) -> AsyncIterator[_Host]:
    """A host on the common folder; it has quit at the end."""
    start = time.perf_counter()
    async with own_host(settings, folder) as client:
        driver = Driver(client)
        model = await driver.ready()
        host = _Host(driver, model, 1000 * (time.perf_counter() - start))
        yield host
        start = time.perf_counter()
    host.quit_ms = 1000 * (time.perf_counter() - start)


async def _opening(host: _Host, tokens: int) -> str:
    """A first message that makes a prompt of about `tokens`.

    How many a word takes is found by asking, in other words and without leaving anything in the cache.
    """
    room = host.model.context_tokens - 512
    if tokens > room:
        raise SamovarError(
            f"A chat of {tokens:,} tokens needs a larger context: try --context {tokens + 512}."
        )
    empty, trial = [await _length(host.driver, count) for count in (1, MEASURING_WORDS)]
    per_word = (trial - empty) / (MEASURING_WORDS - 1)
    host.driver.send(Focus(_CHAT))
    return words(round((tokens - empty) / per_word), seed=0)


async def _length(driver: Driver, num_words: int) -> int:
    """Tokens of a prompt of so many words."""
    request = msgspec.structs.replace(Chat("trial").ask(words(num_words, seed=1), 1), store=False)
    return (await driver.ask(request)).finished.stats.prompt_tokens


async def _until_written(driver: Driver) -> None:
    """Wait until the swap thread rests: a hot question is not to be slowed by what came before."""
    while (await driver.snapshot()).disk.queued_bytes:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(POLL_S)


async def _ask(driver: Driver, chat: Chat, text: str) -> Answer:
    answer = await driver.ask(chat.ask(text, REPLY_TOKENS))
    chat.hear(answer.finished)
    return answer


def _asked(answers: Sequence[Answer]) -> Asked:
    """What these have in common; the reused tokens are of the one that processed the most."""
    worst = max((answer.finished.stats for answer in answers), key=lambda stats: stats.processed_tokens)
    return Asked(
        n=len(answers),
        first_token_ms=statistics.median(answer.first_token_ms for answer in answers),
        first_token_max_ms=max(answer.first_token_ms for answer in answers),
        processed=worst.processed_tokens,
        reused_tokens=worst.reused,
    )


def text(result: Result) -> str:
    """The result for people."""
    lines = [
        f"{result.model}: a chat of {result.prompt_tokens:,} tokens, quit, started, asked",
        "",
        "       n   first token (max)   processed   reused: context      RAM     disk",
    ]
    for name, part in (("cold", result.cold), ("hot", result.hot), ("warm", result.warm)):
        reused = part.reused_tokens
        lines.append(
            f"{name:<5} {part.n:>2}  {part.first_token_ms:>6,.0f} ({part.first_token_max_ms:,.0f}) ms"
            f"  {part.processed:>9,}   {reused.context:>15,}  {reused.host:>7,}  {reused.disk:>7,}"
        )
    lines.append("")
    lines.append(
        f"warm is {result.warm_to_hot:.1f} × hot and {result.cold_to_warm:.0f} × faster than cold;"
        f" quitting takes {result.quit_ms:,.0f} ms, starting {result.start_ms:,.0f} ms"
    )
    return "\n".join(lines)
