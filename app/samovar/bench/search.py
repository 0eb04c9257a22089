"""How long do searches take among very many chats, and how long does their list?"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from samovar.bench import library
from samovar.core.errors import SamovarError
from samovar.sessions import schema
from samovar.sessions.database import open_for_reading
from samovar.sessions.searcher import Searcher

KEYS_PER_S: Final = 12
TYPED: Final = 'the message from a server -error "first value" role:me'

# What is asked for, by what it shows. A space at the end: the word is whole.
QUERIES: Final = {
    "the most frequent word": "the ",
    "two frequent words": "the of ",
    "five frequent words": "the of and to a ",
    "one letter": "t",
    "two letters": "th",
    "three letters": "the",
    "four letters of a frequent word": "with",
    "a frequent word and a letter": "that s",
    "a frequent word and two letters": "the of th",
    "an ordinary word": "server ",
    "a rare word": library.vocabulary()[-2000] + " ",
    "a rare and a frequent word": library.vocabulary()[-2000] + " the ",
    "a word that is nowhere": "zzzzyx ",
    "a frequent phrase": '"of the"',
    "a long phrase of frequent words": '"the of and to"',
    "a phrase that is being typed": '"of the wi',
    "without a frequent word": "the -of ",
    "nothing but an excluded word": "-the ",
    "tag alone": "tag:work ",
    "role alone": "role:me ",
    "model alone": "model:gemma ",
    "old messages alone": "before:2025-01 ",
    "favourites alone": "is:favourite ",
    "title alone": "title:server ",
    "a frequent word in a rare tag": "the tag:rare ",
    "a frequent word in a common tag": "the tag:work ",
    "a frequent word in old messages": "the before:2024-06 ",
    "a frequent word in the last week": "the after:7d ",
    "a letter in favourites of a model": "is:favourite model:qwen role:assistant t",
    "a rare tag, old": "tag:rare before:2026 ",
    "all filters": "the -of tag:work role:me is:archived before:2026-06 after:2024 title:the ",
}


class Times(msgspec.Struct, frozen=True):
    """Of one query: once with neither the system's nor SQLite's cache filled, then `n` times again.

    `cpu_ms` is the median of the processor's time, which says more than the others on a busy machine.
    """

    query: str
    hits: int
    cold_ms: float
    n: int
    median_ms: float
    p99_ms: float
    max_ms: float
    cpu_ms: float


class Typing(msgspec.Struct, frozen=True):
    """A query typed key by key: from a key to what it found, where no other key came before that."""

    keys: int
    superseded: int
    median_ms: float
    max_ms: float


class Result(msgspec.Struct, frozen=True):
    """`first_ms` is a program's first search, which reads all titles; `median_ms` to `max_ms` are over all
    repeats of all queries, `cpu_max_ms` and `cold_max_ms` those of the slowest query; `list_ms` is the median
    for reading the list of all chats.
    """

    chats: int
    messages: int
    file_bytes: int
    made_s: float
    first_ms: float
    median_ms: float
    p99_ms: float
    max_ms: float
    cpu_max_ms: float
    cold_max_ms: float
    queries: dict[str, Times]
    typing: Typing
    list_ms: float


def run(chats: int = 20_000, messages: int = 400_000, repeats: int = 20) -> Result:
    """Make a store in a temporary folder and search it."""
    if messages < chats:
        raise SamovarError("A chat needs a message: --messages must not be less than --chats.")
    with tempfile.TemporaryDirectory(prefix="samovar-bench-") as folder:
        path = Path(folder, "chats.db")
        start = time.perf_counter()
        library.make(path, chats, messages)
        return measure(path, repeats, made_s=time.perf_counter() - start)


def measure(path: Path, repeats: int, *, made_s: float = 0.0, keys_per_s: float = KEYS_PER_S) -> Result:
    """Search the store that `library.make` has written there."""
    _forget(path)
    with Searcher(path) as searcher:
        first_ms, _, _ = _timed(searcher, next(iter(QUERIES.values())))
    times: dict[str, Times] = {}
    warm: list[float] = []
    for name, query in QUERIES.items():
        with Searcher(path) as searcher:
            searcher.search("", now=library.NOW)  # reads the titles
            _forget(path)
            cold_ms, _, num_hits = _timed(searcher, query)
            repeated = [_timed(searcher, query) for _ in range(repeats)]
        again = [elapsed_ms for elapsed_ms, _, _ in repeated]
        cpu_ms = statistics.median(one for _, one, _ in repeated)
        times[name] = Times(
            *(query, num_hits, cold_ms, repeats, statistics.median(again), _p99(again), max(again), cpu_ms)
        )
        warm += again
    with Searcher(path) as searcher:
        typing = asyncio.run(_typed(searcher, keys_per_s))
    database = open_for_reading(path)
    chats, messages = database.rows(
        "SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM messages)"
    )[0]
    listed: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        database.rows(f"{schema.SELECT_SESSION} ORDER BY updated_at DESC")
        listed.append(1000 * (time.perf_counter() - start))
    database.close()
    return Result(
        chats=chats,
        messages=messages,
        file_bytes=path.stat().st_size,
        made_s=made_s,
        first_ms=first_ms,
        median_ms=statistics.median(warm),
        p99_ms=_p99(warm),
        max_ms=max(warm),
        cpu_max_ms=max(one.cpu_ms for one in times.values()),
        cold_max_ms=max(one.cold_ms for one in times.values()),
        queries=times,
        typing=typing,
        list_ms=statistics.median(listed),
    )


def text(result: Result) -> str:
    """The result for people."""
    lines = [
        f"{result.chats:,} chats, {result.messages:,} messages, {result.file_bytes / 1e6:,.0f} MB,"
        f" made in {result.made_s:.0f} s",
        "",
        f"{'search':<36} {'hits':>4} {'cold':>7} {'median':>7} {'p99':>7} {'max':>7} {'cpu':>7}  ms",
    ]
    lines += [
        f"{name:<36} {one.hits:>4} {one.cold_ms:>7.1f} {one.median_ms:>7.1f} {one.p99_ms:>7.1f}"
        f" {one.max_ms:>7.1f} {one.cpu_ms:>7.1f}"
        for name, one in result.queries.items()
    ]
    lines += [
        f"{'all':<36} {'':>4} {result.cold_max_ms:>7.1f} {result.median_ms:>7.1f} {result.p99_ms:>7.1f}"
        f" {result.max_ms:>7.1f} {result.cpu_max_ms:>7.1f}",
        "",
        f"first search of a program {result.first_ms:.1f} ms; list of all chats {result.list_ms:.1f} ms",
        f"typing {result.typing.keys} keys at {KEYS_PER_S} a second: median {result.typing.median_ms:.1f} ms,"
        f" max {result.typing.max_ms:.1f} ms, {result.typing.superseded} superseded",
    ]
    return "\n".join(lines)


async def _typed(searcher: Searcher, keys_per_s: float) -> Typing:
    """Type `TYPED` while earlier searches may still run."""
    searcher.search("", now=library.NOW)

    async def key(number: int) -> float | None:
        await asyncio.sleep(number / keys_per_s)
        start = time.perf_counter()
        found = await asyncio.to_thread(searcher.search, TYPED[:number], now=library.NOW)
        return None if found is None else 1000 * (time.perf_counter() - start)

    answers = await asyncio.gather(*(key(number) for number in range(1, len(TYPED) + 1)))
    answered = [answer for answer in answers if answer is not None]
    return Typing(len(answers), len(answers) - len(answered), statistics.median(answered), max(answered))


def _timed(searcher: Searcher, query: str) -> tuple[float, float, int]:
    """Search once: (ms, ms of the processor, number of hits)."""
    start, start_cpu = time.perf_counter(), time.thread_time()
    results = searcher.search(query, now=library.NOW)
    elapsed_ms = 1000 * (time.perf_counter() - start)
    cpu_ms = 1000 * (time.thread_time() - start_cpu)
    assert results is not None  # nobody else searches
    assert not results.problems
    return elapsed_ms, cpu_ms, len(results.hits)


def _forget(path: Path) -> None:
    """Have the system drop the file from its cache, as far as it does such things."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[max(0, -(-99 * len(values) // 100) - 1)]
