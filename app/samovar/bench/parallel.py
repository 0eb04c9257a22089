"""Many chats that write at once, and what the chat in focus feels of side tasks beside it."""

import statistics
import time
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from samovar.bench.driver import Chat, ClientFactory, Driver
from samovar.bench.texts import words
from samovar.core import events
from samovar.core.chat import GREEDY, ChatMessage, Role
from samovar.core.commands import Cancel, Focus, Submit
from samovar.core.errors import SamovarError
from samovar.core.request import Request, RequestKind

CHATS: Final = (1, 2, 4, 8)
NUM_SIDE_TASKS: Final = 4
GOAL: Final = 1.25
MIN_ROUNDS: Final = 3
_QUESTION: Final = "Tell me a very long story about a teapot that travels, with many details."
_SIDE: Final = "Summarize this conversation in great detail, as a long list."


class AtOnce(msgspec.Struct, frozen=True):
    """`chats` that write at once: tokens a second of all, and of the same replies one after the other.

    The rates are medians; what they are `against` is the median of each round's own ratio.
    """

    chats: int
    tokens_per_second: float
    one_by_one: float
    against_one: float
    against_one_by_one: float


class Focused(msgspec.Struct, frozen=True):
    """The focused chat's times between tokens in milliseconds.

    `ratio` is the median, over the rounds, of the mean against that of alone in the same round.
    `others_tokens` is what the side tasks wrote in the meantime, `others_share` their part of the engine's
    time as it measured it, the last time in each round.
    """

    mean_ms: float
    median_ms: float
    p95_ms: float
    ratio: float = 1.0
    others_tokens: float = 0.0
    others_share: float | None = None


class Result(msgspec.Struct, frozen=True):
    """`same_chat` and `other_chats`: four side tasks on the focused chat, and on four others.

    All three were measured in each of the `rounds`, each time in another order.
    """

    model: str
    at_once: tuple[AtOnce, ...]
    alone: Focused
    same_chat: Focused
    other_chats: Focused
    rounds: int
    goal: float = GOAL


class _Reply:
    """One focused reply: the times between its tokens."""

    def __init__(self) -> None:
        self.gaps_ms: list[float] = []
        self.mean_ms = 0.0
        self.others_tokens = 0
        self.share: float | None = None


async def run(
    client_factory: ClientFactory, tokens: int = 96, own_words: int = 350, repeats: int = 5
) -> Result:
    """Replies of `tokens` tokens in chats of `own_words`; what is compared takes turns in one run."""
    async with client_factory() as client:
        driver = Driver(client)
        model = await driver.ready()
        chats = [
            Chat(f"chat {number}", [ChatMessage(Role.SYSTEM, words(own_words, seed=number))])
            for number in range(1, max(CHATS) + 1)
        ]
        bench = _Bench(driver, tokens)
        # What follows is about writing: the beginnings are in the cache.
        for chat in chats:
            await bench.write([bench.request(chat, 1)])
        together: dict[int, list[float]] = {count: [] for count in CHATS}
        apart: dict[int, list[float]] = {count: [] for count in CHATS}
        for _ in range(max(MIN_ROUNDS, repeats // 2)):
            for count in CHATS:
                asked = [bench.request(chat, tokens) for chat in chats[:count]]
                together[count].append(await bench.write(asked))
                rates = [await bench.write([bench.request(chat, tokens)]) for chat in chats[:count]]
                apart[count].append(statistics.harmonic_mean(rates))
        main = chats[0]
        beside = [[], [main] * NUM_SIDE_TASKS, chats[1 : NUM_SIDE_TASKS + 1]]
        replies: list[list[_Reply]] = [[] for _ in beside]
        for number in range(repeats):
            for place in range(len(beside)):
                kind = (number + place) % len(beside)
                replies[kind].append(await bench.focused(main, beside[kind]))
    alone, same, other = replies
    at_once = tuple(
        AtOnce(
            count,
            statistics.median(together[count]),
            statistics.median(apart[count]),
            _ratio(together[count], together[1]),
            _ratio(together[count], apart[count]),
        )
        for count in CHATS
    )
    return Result(
        model.name,
        at_once,
        _summary(alone, alone),
        _summary(same, alone),
        _summary(other, alone),
        rounds=repeats,
    )


class _Bench:
    def __init__(self, driver: Driver, tokens: int) -> None:
        self._driver = driver
        self._tokens = tokens

    @staticmethod
    def request(chat: Chat, max_tokens: int, side_number: int | None = None) -> Request:
        """A question to the chat; or a side task on it, each with another text."""
        question = ChatMessage(Role.USER, _QUESTION)
        side = () if side_number is None else (ChatMessage(Role.USER, f"{_SIDE} Part {side_number}."),)
        return Request(
            id=uuid.uuid4().hex,
            session=chat.session,
            messages=(*chat.messages, question, *side),
            kind=RequestKind.CHAT if side_number is None else RequestKind.SIDE_TASK,
            title=chat.session,
            sampling=GREEDY,
            max_tokens=max_tokens,
            store=side_number is None,
        )

    async def write(self, requests: Sequence[Request]) -> float:
        """Have all of them answered at once, without a focus; tokens a second."""
        self._driver.send(Focus(None))
        start = time.perf_counter()
        for request in requests:
            self._driver.send(Submit(request))
        ended = await self._ends({request.id for request in requests})
        return sum(end.stats.generated_tokens for end in ended) / (time.perf_counter() - start)

    async def focused(self, chat: Chat, beside: Sequence[Chat]) -> _Reply:
        """One reply in the focused chat; from its first token on a side task on each of `beside`."""
        request, reply = self.request(chat, self._tokens), _Reply()
        tasks = [self.request(other, 4 * self._tokens, number) for number, other in enumerate(beside)]
        names = {task.id for task in tasks}
        self._driver.send(Focus(chat.session))
        self._driver.send(Submit(request))
        last: float | None = None

        def wanted(event: events.Event) -> bool:
            nonlocal last
            match event:
                case events.TokensGenerated(request_id, num_tokens=count) if request_id == request.id:
                    now = time.perf_counter()
                    if last is None:
                        for task in tasks:
                            self._driver.send(Submit(task))
                    else:
                        # Tokens that come fast share an event, and its time.
                        reply.gaps_ms += [1000 * (now - last) / count] * count
                    last = now
                case events.TokensGenerated(request_id, num_tokens=count) if request_id in names:
                    reply.others_tokens += count
                case events.CacheChanged(snapshot) if snapshot.others_share is not None:
                    reply.share = snapshot.others_share
                case events.RequestFinished(request_id):
                    names.discard(request_id)
                case _:
                    pass
            return isinstance(event, events.RequestFinished) and event.request_id == request.id

        finished = await self._driver.wait_for(wanted)
        assert isinstance(finished, events.RequestFinished)
        for name in names:
            self._driver.send(Cancel(name))
        await self._ends(names)
        rate = finished.stats.tokens_per_second
        if rate is None or not reply.gaps_ms:
            raise SamovarError("The model ended its reply after one token. Try another model.")
        reply.mean_ms = 1000 / rate
        return reply

    async def _ends(self, names: set[str]) -> list[events.RequestFinished]:
        ended: list[events.RequestFinished] = []
        names = set(names)
        while names:
            event = await self._driver.wait_for(
                lambda event: isinstance(event, events.RequestFinished) and event.request_id in names
            )
            assert isinstance(event, events.RequestFinished)
            if event.error:
                raise SamovarError(event.error)
            names.remove(event.request_id)
            ended.append(event)
        return ended


def _ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(rate / other for rate, other in zip(rates, others, strict=True))


def _summary(replies: Sequence[_Reply], alone: Sequence[_Reply]) -> Focused:
    gaps = [gap for reply in replies for gap in reply.gaps_ms]
    shares = [reply.share for reply in replies if reply.share is not None]
    return Focused(
        mean_ms=statistics.mean(reply.mean_ms for reply in replies),
        median_ms=statistics.median(gaps),
        p95_ms=statistics.quantiles(gaps, n=20)[-1],
        ratio=_ratio([reply.mean_ms for reply in replies], [reply.mean_ms for reply in alone]),
        others_tokens=statistics.mean(reply.others_tokens for reply in replies),
        others_share=statistics.mean(shares) if shares else None,
    )


def text(result: Result) -> str:
    """The result for people."""
    lines = [f"{result.model}: many at once", "", "chats   tokens/s   against one   one after the other"]
    lines += [
        f"{row.chats:>5}   {row.tokens_per_second:>8.1f}   {row.against_one:>9.2f} ×"
        f"   {row.one_by_one:>8.1f} ({row.against_one_by_one:.2f} ×)"
        for row in result.at_once
    ]
    lines += ["", "the chat in focus           mean   median      p95 ms between tokens"]
    for name, part in (
        ("alone", result.alone),
        (f"{NUM_SIDE_TASKS} side tasks on it", result.same_chat),
        (f"{NUM_SIDE_TASKS} on other chats", result.other_chats),
    ):
        beside = ""
        if part is not result.alone:
            beside = f"  {part.ratio:.2f} × alone (goal {result.goal} ×), they wrote {part.others_tokens:.0f}"
        lines.append(f"{name:<22}{part.mean_ms:>10.1f}{part.median_ms:>9.1f}{part.p95_ms:>9.1f}{beside}")
    lines.append(f"× alone: median of {result.rounds} rounds, in each the mean against that of alone")
    return "\n".join(lines)
