"""First token after Enter, with the message processed while it was typed, and without."""

import asyncio
import statistics
import time
import uuid
from dataclasses import dataclass
from typing import Final

import msgspec

from samovar.bench.driver import Answer, Chat, ClientFactory, Driver
from samovar.bench.keys import keystrokes
from samovar.bench.texts import words
from samovar.chats.ahead_policy import AheadPolicy
from samovar.core import events
from samovar.core.chat import ChatMessage, Role
from samovar.core.commands import CountTokens, Submit
from samovar.core.errors import SamovarError
from samovar.core.request import Request, RequestKind

WORDS_PER_MINUTE: Final = 60.0
CORRECTIONS: Final = 2
WRONG_WORDS: Final = 4
QUESTION_WORDS: Final = 10  # ten seconds at that speed
REPLY_TOKENS: Final = 33
ENTER_S: Final = 0.2  # another key
REST_S: Final = 3.0
"""So long nothing happens before Enter where nothing is processed ahead."""


class Case(msgspec.Struct, frozen=True):
    """One kind of message. Times until the first token and tokens processed after Enter are medians.

    `steps` is `on_ms` in decode steps. Of each message's tokens, so many were `prepared` ahead, of which some
    were `used` and some `wasted` (means).
    """

    n: int
    on_ms: float
    off_ms: float
    steps: float
    on_processed: float
    off_processed: float
    prepared: float
    used: float
    wasted: float


class Result(msgspec.Struct, frozen=True):
    """`message` is typed word by word, `file` is attached ten seconds before Enter.

    Typing went `speed` times as fast as 60 words a minute.
    """

    model: str
    chat_tokens: int
    message_tokens: int
    file_tokens: int
    speed: float
    decode_step_ms: float
    message: Case
    file: Case


@dataclass(frozen=True, slots=True)
class _Message:
    """What is typed into a chat, behind the text of a file if there is one."""

    text: str
    corrections: int
    file: str = ""

    def content(self, draft: str) -> str:
        """The message while only `draft` of it is there: files stand first."""
        return "\n\n".join(filter(None, [self.file, draft]))


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message that was answered. `prepared`, `used` and `wasted` as in `Case`."""

    answer: Answer
    prepared: int
    used: int
    wasted: int


async def run(
    client_factory: ClientFactory,
    chat_tokens: int = 1500,
    message_tokens: int = 120,
    file_tokens: int = 1500,
    repeats: int = 3,
    speed: float = 1.0,
) -> Result:
    """Both kinds of message, `repeats` times each with and without work ahead, each in a chat of its own."""
    async with client_factory() as client:
        typist = _Typist(Driver(client), speed)
        model = await typist.driver.ready()
        per_word = await typist.tokens_per_word()
        chat_words, message_words = round(chat_tokens / per_word), round(message_tokens / per_word)
        cases: dict[tuple[bool, bool], list[_Sent]] = {}
        for number in range(repeats):
            for has_file in (False, True):
                for is_on in (True, False) if number % 2 else (False, True):
                    seed = 100 * number + 10 * has_file + is_on
                    question = words(QUESTION_WORDS if has_file else message_words, seed)
                    file = words(round(file_tokens / per_word), 1000 + seed) if has_file else ""
                    message = _Message(question, 0 if has_file else CORRECTIONS, file)
                    sent = await typist.send(f"chat {seed}", words(chat_words, 2000 + seed), message, is_on)
                    cases.setdefault((has_file, is_on), []).append(sent)
    if not typist.step_ms:
        raise SamovarError("The model ended its replies at once: nothing to measure.")
    step_ms = statistics.median(typist.step_ms)
    return Result(
        model.name,
        round(statistics.median(typist.chat_tokens)),
        round(message_words * per_word),
        file_tokens,
        speed,
        step_ms,
        _case(cases[False, True], cases[False, False], step_ms),
        _case(cases[True, True], cases[True, False], step_ms),
    )


class _Typist:
    """A front end that types in one chat after the other; notes decode steps and sizes of chats."""

    def __init__(self, driver: Driver, speed: float) -> None:
        self.driver = driver
        self._speed = speed
        self.step_ms: list[float] = []
        self.chat_tokens: list[int] = []

    async def tokens_per_word(self) -> float:
        """Of the texts that are typed here, for the model at hand."""
        request_id, num_words = uuid.uuid4().hex, 1000
        self.driver.send(CountTokens(request_id, (words(num_words, seed=0),)))
        event = await self.driver.wait_for(
            lambda event: isinstance(event, events.TokensCounted) and event.request_id == request_id
        )
        assert isinstance(event, events.TokensCounted)
        assert event.counts is not None, "the model is loaded"
        return event.counts[0] / num_words

    async def send(self, session: str, opening: str, message: _Message, is_on: bool) -> _Sent:
        """Write in a chat that has one turn behind it."""
        chat = Chat(session)
        opened = await self._ask(chat, opening)
        self.chat_tokens.append(opened.finished.stats.prompt_tokens + opened.finished.stats.generated_tokens)
        before = (await self.driver.snapshot()).totals
        if is_on:
            await self._type(chat, message)
        else:
            await asyncio.sleep(REST_S)
        answer = await self._ask(chat, message.content(message.text))
        spent = (await self.driver.snapshot()).totals - before
        return _Sent(answer, spent.ahead_tokens, spent.ahead_used_tokens, spent.ahead_wasted_tokens)

    async def _ask(self, chat: Chat, content: str) -> Answer:
        answer = await self.driver.ask(chat.ask(content, REPLY_TOKENS), focus=len(chat.messages) == 1)
        chat.hear(answer.finished)
        rate = answer.finished.stats.tokens_per_second
        if rate is not None:
            self.step_ms.append(1000 / rate)
        return answer

    async def _type(self, chat: Chat, message: _Message) -> None:
        """Key by key; processed ahead are the end of the turn, the file, and the words as they come."""
        policy = AheadPolicy()
        start = time.perf_counter()

        async def until(moment: float) -> None:
            await asyncio.sleep(start + moment / self._speed - time.perf_counter())

        async def follow(moment: float) -> None:
            while (due := policy.next_due()) is not None and due <= moment:
                await until(due)
                if (worth := policy.due(due)) is not None:
                    self._prepare(chat, message.content(worth.text), complete=worth.complete)

        self._prepare(chat, message.content(""))
        for moment, draft in keystrokes(
            message.text, WORDS_PER_MINUTE, num_corrections=message.corrections, num_wrong=WRONG_WORDS
        ):
            await follow(moment)
            await until(moment)
            policy.typed(draft, moment)
        await follow(moment + ENTER_S)
        await until(moment + ENTER_S)

    def _prepare(self, chat: Chat, content: str, *, complete: bool = False) -> None:
        messages = (*chat.messages, ChatMessage(Role.USER, content))
        name = uuid.uuid4().hex
        self.driver.send(
            Submit(Request(name, chat.session, messages, RequestKind.PREPARE, complete=complete))
        )


def _case(on: list[_Sent], off: list[_Sent], step_ms: float) -> Case:
    on_ms = statistics.median(sent.answer.first_token_ms for sent in on)
    return Case(
        n=len(on),
        on_ms=on_ms,
        off_ms=statistics.median(sent.answer.first_token_ms for sent in off),
        steps=on_ms / step_ms,
        on_processed=statistics.median(sent.answer.finished.stats.processed_tokens for sent in on),
        off_processed=statistics.median(sent.answer.finished.stats.processed_tokens for sent in off),
        prepared=statistics.mean(sent.prepared for sent in on),
        used=statistics.mean(sent.used for sent in on),
        wasted=statistics.mean(sent.wasted for sent in on),
    )


def text(result: Result) -> str:
    """The result for people."""
    lines = [
        f"{result.model}: first token after Enter; one decode step takes {result.decode_step_ms:.1f} ms",
        "",
        f"{'':<22} {'off':>9} {'on':>10} {'in steps':>9}   {'processed':>13}   ahead: used, wasted",
    ]
    for name, part in (
        (f"typed, {result.message_tokens} tokens", result.message),
        (f"file, {result.file_tokens:,} tokens", result.file),
    ):
        lines.append(
            f"{name:<22} {part.off_ms:>6,.0f} ms {part.on_ms:>7,.0f} ms {part.steps:>9.1f}"
            f"   {part.off_processed:>5,.0f} → {part.on_processed:>5,.0f}"
            f"   {part.used:>11,.0f}, {part.wasted:>6,.0f}"
        )
    return "\n".join(lines)
