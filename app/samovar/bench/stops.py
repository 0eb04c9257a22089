"""How long until a stop or a switch takes effect, at random moments of prefill and decode."""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from samovar.bench.driver import Chat, ClientFactory, Driver
from samovar.bench.texts import words
from samovar.core import events
from samovar.core.commands import Focus, Submit
from samovar.core.request import FinishReason

PROMPT_WORDS: Final = 1000
KNOWN_WORDS: Final = 300
REPLY_TOKENS: Final = 400
MAX_WAIT_S: Final = 1.0


class Times(msgspec.Struct, frozen=True):
    """Milliseconds from sending the command to the arrival of its effect."""

    n: int
    median_ms: float
    max_ms: float


class Result(msgspec.Struct, frozen=True):
    """Stops in prefill and decode until `RequestFinished`, switches in prefill until the swap is done."""

    model: str
    prefill: Times
    decode: Times
    switch: Times


async def run(client_factory: ClientFactory, stops: int = 100) -> Result:
    """`stops` stops and switches at random moments, the kinds in turn; equal seeds give equal moments."""
    moments = random.Random(0)
    times: dict[str, list[float]] = {"prefill": [], "decode": [], "switch": []}
    async with client_factory() as client:
        driver = Driver(client)
        model = await driver.ready()
        await driver.ask(Chat("known").ask(words(KNOWN_WORDS, seed=1), 1))
        kinds = list(times)
        number = 0
        while sum(map(len, times.values())) < stops:
            number += 1
            kind = kinds[number % len(kinds)]
            wait_s = moments.uniform(0, MAX_WAIT_S)
            measured = await _one(driver, kind, wait_s, seed=1000 + number)
            if measured is not None:
                times[kind].append(measured)
    return Result(model.name, *(_times(times[kind]) for kind in kinds))


async def _one(driver: Driver, kind: str, wait_s: float, seed: int) -> float | None:
    """One stop; None if the request ended by itself before."""
    short = kind == "decode"
    request = Chat(f"chat {seed}").ask(words(20 if short else PROMPT_WORDS, seed), REPLY_TOKENS)
    driver.send(Focus(request.session))
    driver.send(Submit(request))
    if short:
        await driver.wait_for(
            lambda event: isinstance(event, events.TokensGenerated) and event.request_id == request.id
        )
    else:
        await driver.wait_for(
            lambda event: isinstance(event, events.RequestStarted) and event.request_id == request.id
        )
    await asyncio.sleep(wait_s)
    if kind == "switch":
        start = time.perf_counter()
        driver.send(Focus("known"))
        await driver.wait_for(
            lambda event: (
                isinstance(event, events.SwapFinished) and event.into_context and event.session == "known"
            )
        )
        elapsed_ms = 1000 * (time.perf_counter() - start)
        await driver.cancel(request.id)
        return elapsed_ms
    finished, elapsed_ms = await driver.cancel(request.id)
    return elapsed_ms if finished.reason is FinishReason.CANCELLED else None


def _times(values: Sequence[float]) -> Times:
    return Times(len(values), statistics.median(values), max(values)) if values else Times(0, 0.0, 0.0)


def text(result: Result) -> str:
    """The result for people."""
    lines = [
        f"{result.model}: from a command to its effect",
        "",
        "                       n   median      max",
    ]
    for name, part in (
        ("stop in prefill", result.prefill),
        ("stop in decode", result.decode),
        ("switch in prefill", result.switch),
    ):
        lines.append(f"{name:<20} {part.n:>3}  {part.median_ms:>5.1f} ms  {part.max_ms:>4.1f} ms")
    return "\n".join(lines)
