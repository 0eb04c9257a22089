"""`samovar ask`: one question, one reply, on the shared engine; with `-s` as a part of a stored chat.

Runs in one event loop, over the same `Answers` as the interactive front ends: a reply of a stored chat is on
disk about once a second while it is written, and as it ended, however that was.
"""

import asyncio
import contextlib
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from samovar.chats.answers import Answers, ReplyEvent
from samovar.chats.archive import Archive
from samovar.chats.changes import Change, Noticed
from samovar.chats.chat import Chat, auto_title
from samovar.chats.mentions import attached
from samovar.chats.sent import Sender
from samovar.chats.turns import Turn, store_turn
from samovar.client.interface import Client
from samovar.config import Config
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.events import (
    Event,
    HostFailed,
    HostReady,
    HostStopping,
    LoadingProgressed,
    ModelInfo,
    Refused,
    RequestFinished,
    RequestStarted,
    TokensGenerated,
    Welcome,
)
from samovar.core.lint import prompt_warning
from samovar.core.reasoning import Streamed, split_reply
from samovar.core.request import FinishReason
from samovar.core.safe_text import clean
from samovar.sessions.encoding import storable
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import MessageState, Store, StoredMessage

_FAILURES = (FinishReason.FAILED, FinishReason.HOST_LOST, FinishReason.CANCELLED)


@dataclass(frozen=True, slots=True)
class Question:
    """What the command line asks for. A `session` of None stores nothing; a `system` of None is the default.

    Raises SamovarError for an empty text.
    """

    text: str
    session: str | None = None
    system: str | None = None
    as_json: bool = False

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise SamovarError("There is nothing to ask: give a question, or pipe one in.")


async def ask(client: Client, store: Store | None, config: Config, question: Question) -> int:
    """Ask, print the reply as it comes (or one JSON object), store it; returns the exit code.

    `store` is used if the question names a chat. When this is cancelled, what has arrived is stored.
    """
    problems: list[str] = []
    archive = Archive(store, problems.append) if store is not None and question.session else None
    sender = Sender(config)
    answers = Answers(client, archive, config, _tell, time.time, sender)
    answers.rooms = known = _ContextKnown(sender)
    async with _events(client, answers, known, archive) as events:
        chat, place = await _chat(archive, config, question)
        answers.ask(chat, place)
        finished = await _reply(events, chat, quiet=question.as_json)
    assert chat.path
    code = _report(finished, chat.path[-1], question)
    for problem in problems:
        print(f"samovar: {clean(problem)}", file=sys.stderr)
    return 1 if problems else code


class _ContextKnown:
    """Holds a question in a chat back until the model is loaded: what is sent depends on its context."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._is_told = asyncio.Event()

    def is_needed(self, chat: Chat, path: Sequence[StoredMessage], settings: SessionSettings) -> bool:
        return len(path) > 1 and not self._is_told.is_set()

    async def make_room(self, chat: Chat, settings: SessionSettings) -> None:
        await self._is_told.wait()

    def is_turn_too_long(self, chat: Chat) -> bool:
        return False  # nothing is summarized here

    def handle(self, event: Event) -> None:
        """Take in what the engine says of its model.

        One that fails says so to the request itself, and the request starts one that has been stopped. One
        that is lost is started again without it.
        """
        match event:
            case HostReady(ModelInfo() as model) | Welcome(model=ModelInfo() as model):
                self._sender.context_tokens = model.context_tokens
                self._sender.template_tokens = model.template_tokens
                self._is_told.set()
            case HostFailed() | HostStopping() | Refused():
                self._is_told.set()
            case _:
                pass


@contextlib.asynccontextmanager
async def _events(
    client: Client, answers: Answers, known: _ContextKnown, archive: Archive | None
) -> AsyncIterator["asyncio.Queue[Event | None]"]:
    """The client's events (None: no more will come), each once `answers` has taken it in.

    At the end, whatever the reason, what runs is stopped and stored.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def follow() -> None:
        try:
            async for event in client.events():
                if isinstance(event, ReplyEvent):
                    answers.handle(event)
                known.handle(event)
                events.put_nowait(event)
        finally:
            events.put_nowait(None)

    await client.start()
    follower = asyncio.create_task(follow())
    try:
        yield events
    finally:
        await answers.close()
        await client.close()
        await follower
        if archive is not None:
            await archive.close()


async def _chat(
    archive: Archive | None, config: Config, question: Question
) -> tuple[Chat, StoredMessage | None]:
    """The chat whose path ends in the question, and where its reply is stored (None: nowhere)."""
    default = config.system_prompt if question.system is None else question.system
    text, system_prompt = storable(question.text), storable(default)
    if warning := prompt_warning(system_prompt):
        print(f"samovar: {clean(warning)}", file=sys.stderr)
    if archive is None:
        chat = Chat.fresh(system_prompt, time.time())
        chat.id, chat.title = f"ask-{uuid.uuid4().hex[:12]}", auto_title(text)
        created_at, state = chat.updated_at, MessageState.COMPLETE
        chat.path = [StoredMessage(0, chat.id, None, Role.USER, text, created_at, state)]
        return chat, None

    def work(store: Store) -> Turn:
        assert question.session
        if store.find(question.session) is None:
            attached(text, (), store.paste)  # a file that cannot be attached leaves no empty chat behind
        session = store.find_or_create(question.session, system_prompt)
        if question.system is not None and system_prompt != session.system_prompt:
            raise SamovarError(
                f"The chat “{clean(session.title)}” has a system prompt already. "
                "Leave --system out, or use a new chat."
            )
        return store_turn(store, session.id, text, UNSET)

    turn = await archive.run(work)
    chat = Chat.known(turn.session)
    chat.compactions = turn.compactions
    chat.path = [*(turn.path or ()), turn.message]
    return chat, turn.reply


def _tell(change: Change) -> None:
    """What the user has to know besides the reply."""
    if isinstance(change, Noticed):
        print(f"samovar: {clean(change.text)}", file=sys.stderr)


async def _reply(events: "asyncio.Queue[Event | None]", chat: Chat, *, quiet: bool) -> RequestFinished:
    """Wait for the end of the chat's running reply; prints text as it comes unless `quiet`."""
    assert chat.reply is not None
    request_id = chat.reply.request_id
    progress = sys.stderr.isatty() and not quiet
    failure = ""
    streamed = Streamed()
    while (event := await events.get()) is not None:
        match event:
            case LoadingProgressed(stage, fraction) if progress:
                print(f"\r\x1b[K{stage} {100 * fraction:.0f} %", end="", file=sys.stderr, flush=True)
            case RequestStarted() if event.request_id == request_id:
                streamed = Streamed(thinks=event.thinks)
            case TokensGenerated() if event.request_id == request_id and not quiet:
                if progress:
                    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
                    progress = False
                _print(streamed.push(event.text))
            case HostFailed(message):
                failure = message
            case RequestFinished() if event.request_id == request_id:
                if progress:
                    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
                _print([] if quiet else streamed.finish())
                return event
            case _:
                pass
    raise SamovarError(failure or "The engine ended without an answer. Try again.")


def _print(pieces: Sequence[tuple[bool, str]]) -> None:
    """Print the answer; and where somebody watches, dimmed on standard error, the thinking before it."""
    for is_thinking, text in pieces:
        if not is_thinking:
            print(_harmless(text), end="", flush=True)
        elif sys.stderr.isatty():
            print(f"\x1b[2m{clean(text)}\x1b[0m", end="", file=sys.stderr, flush=True)


def _harmless(text: str) -> str:
    """Text for a terminal: nothing in it can steer the terminal. Piped output stays as it is."""
    return clean(text) if sys.stdout.isatty() else text


def _report(finished: RequestFinished, reply: StoredMessage, question: Question) -> int:
    stats = finished.stats
    failed = finished.reason in _FAILURES
    error = reply.error or "The engine stopped before the reply was complete. Ask again."
    parts = split_reply(reply.content, thinks=stats.thinking_tokens > 0)
    answer = "".join(part.text for part in parts if not part.is_thinking)
    thinking = "\n\n".join(part.text for part in parts if part.is_thinking and part.text)
    if question.as_json:
        report = {
            "session": reply.session_id,
            "reply": storable(answer.lstrip() if thinking else answer),
            "finish_reason": finished.reason.value,
            "prompt_tokens": stats.prompt_tokens,
            "reused_tokens": stats.reused,
            "processed_tokens": stats.processed_tokens,
            "generated_tokens": stats.generated_tokens,
            "restore_ms": stats.restore_ms,
            "first_token_ms": stats.first_token_ms,
            "tokens_per_second": stats.tokens_per_second,
            "mismatch": stats.mismatch,
            "thinking": storable(thinking),
            "thinking_tokens": stats.thinking_tokens,
            "thinking_ms": stats.thinking_ms,
        }
        if failed:
            report["error"] = storable(error)
        print(msgspec.json.encode(report).decode())
    elif reply.content:
        print()
    if failed:
        print(f"samovar: {clean(error)}", file=sys.stderr)
        return 1
    if thinking and not answer.strip() and not question.as_json:
        print("samovar: the model only thought about it; max_tokens may be too low", file=sys.stderr)
    return 0
