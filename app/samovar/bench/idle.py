"""Does a chat decode as fast while the engine knows other chats as when it is alone?"""

import statistics
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from samovar.bench.driver import Chat, ClientFactory, Driver
from samovar.bench.texts import words
from samovar.core.commands import Focus
from samovar.core.errors import SamovarError

FOCUSED_WORDS: Final = 300


class Result(msgspec.Struct, frozen=True):
    """Rates are tokens a second, medians of repeats in turn; `ratio` is `among_idle` over `alone`."""

    model: str
    idle_chats: int
    idle_tokens: int
    alone: float
    among_idle: float
    ratio: float


async def run(
    client_factory: ClientFactory,
    idle_chats: int = 4,
    idle_words: int = 1350,
    reply_tokens: int = 64,
    repeats: int = 7,
) -> Result:
    """Two hosts, one of which knows `idle_chats` more; the same reply is generated on both in turn."""
    async with AsyncExitStack() as stack:
        alone = Driver(await stack.enter_async_context(client_factory()))
        model = await alone.ready()
        among = Driver(await stack.enter_async_context(client_factory()))
        await among.ready()
        idle_tokens = 0
        for number in range(idle_chats):
            answer = await among.ask(Chat(f"idle {number}").ask(words(idle_words, seed=number), 1))
            idle_tokens += answer.finished.stats.prompt_tokens
        rates: dict[Driver, list[float]] = {alone: [], among: []}
        for repeat in range(repeats + 1):
            for driver in (alone, among) if repeat % 2 else (among, alone):
                if driver is among and idle_chats:
                    driver.send(Focus(f"idle {repeat % idle_chats}"))
                question = Chat("focused").ask(words(FOCUSED_WORDS, seed=100), reply_tokens)
                rate = (await driver.ask(question)).finished.stats.tokens_per_second
                if rate is None:
                    raise SamovarError("The model ended its reply at once: nothing to measure.")
                if repeat:  # the first round fills the cache
                    rates[driver].append(rate)
    fast, slow = statistics.median(rates[alone]), statistics.median(rates[among])
    return Result(model.name, idle_chats, idle_tokens, fast, slow, slow / fast)


def text(result: Result) -> str:
    """The result for people."""
    return (
        f"{result.model}: decode speed of one chat\n\n"
        f"alone                                        {result.alone:6.1f} tokens/s\n"
        f"with {result.idle_chats} idle chats, {result.idle_tokens:,} tokens in all"
        f"          {result.among_idle:6.1f} tokens/s\n"
        f"ratio                                        {result.ratio:6.3f}"
    )
