"""A chat that runs three times past its context, with a real model: front end and engine in one process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from samovar.bench.texts import words
from samovar.chats import changes
from samovar.chats.conversation import Conversations
from samovar.config import Config, SamplingConfig
from samovar.core.commands import Command, Submit
from samovar.core.events import Event, HostReady, RequestFinished
from samovar.core.request import Request, RequestKind
from samovar.core.settings import EngineSettings
from samovar.sessions.store import MessageState, Store
from tests.model.harness import Engine

pytestmark = pytest.mark.model

CONTEXT: Final = 2048
SYSTEM: Final = "You are the keeper of a lighthouse. Answer in one short sentence."
MESSAGE_WORDS: Final = 150
NEW_TOKENS: Final = 40  # what a template puts around a message and a reply, and the reply's last token


class EngineClient(Engine):
    """An engine in this process, as a front end's client.

    `submitted` are all requests, `finished` the ids of those that have ended.
    """

    def __init__(self, settings: EngineSettings, cache_dir: Path) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._front_end = asyncio.get_running_loop()
        self.submitted: list[Request] = []
        self.finished = set[str]()
        super().__init__(settings, cache_dir)

    async def start(self) -> None:
        self._queue.put_nowait(HostReady(self.info))

    async def close(self) -> None:
        self._queue.put_nowait(None)

    def send(self, command: Command) -> None:
        if isinstance(command, Submit):
            self.submitted.append(command.request)
        super().send(command)

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event

    def _on_event(self, client: str | None, event: Event) -> None:
        super()._on_event(client, event)
        if isinstance(event, RequestFinished):
            self.finished.add(event.request_id)
        self._front_end.call_soon_threadsafe(self._queue.put_nowait, event)


@contextlib.asynccontextmanager
async def front_end(
    client: EngineClient, store: Store, config: Config, told: list[changes.Change]
) -> AsyncIterator[Conversations]:
    """Chats over this engine."""
    chats = Conversations(client, store, config, told.append)

    async def follow() -> None:
        async for event in client.events():
            chats.handle(event)

    await client.start()
    follower = asyncio.create_task(follow())
    await chats.load()
    try:
        yield chats
    finally:
        await chats.close()
        await client.close()
        await follower


async def until_prepared(chats: Conversations, client: EngineClient) -> None:
    """Wait until the shown chat is answered, summarized where it has to be, and its next prompt processed."""

    def is_prepared() -> bool:
        if chats.shown.is_busy or chats.compacting.is_running(chats.shown):
            return False
        begins = chats.sender.sent(chats.shown).messages
        ahead = [one for one in client.submitted if one.kind is RequestKind.PREPARE]
        return any(one.messages[: len(begins)] == begins and one.id in client.finished for one in ahead)

    async with asyncio.timeout(240):
        while not is_prepared():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def test_a_chat_runs_three_times_past_its_context(
    smollm2: Path, probe_dir: Path, tmp_path: Path
) -> None:
    config = Config(
        system_prompt=SYSTEM,
        work_ahead="on",
        side_tasks="on",
        sampling=SamplingConfig(temperature=0.0, max_tokens=12),
    )
    # One thread: two that wait for each other come to a standstill on a machine that is busy.
    settings = EngineSettings(model_path=str(smollm2), context_tokens=CONTEXT, num_threads=1)
    told: list[changes.Change] = []
    store = Store.open(tmp_path / "chats.db")
    with EngineClient(settings, probe_dir) as client:
        async with front_end(client, store, config, told) as chats:
            chat = chats.shown
            num_tokens, number = 0, 0
            while num_tokens < 3 * CONTEXT:
                known = len(chat.path or ())
                await chats.send(chat, f"Entry {number}, word marker{number}. {words(MESSAGE_WORDS, number)}")
                await until_prepared(chats, client)
                assert chat.path is not None
                assert len(chat.path) == known + 2
                reply = chat.path[-1]
                assert reply.state in (MessageState.COMPLETE, MessageState.CUT), reply.error
                assert reply.stats is not None
                num_tokens += MESSAGE_WORDS + reply.stats.generated_tokens
                number += 1
            summaries = [one for one in chat.compactions if not one.is_undone]
            assert len(summaries) >= 2
    asked = [request for request in client.submitted if request.kind is RequestKind.CHAT]
    assert len(asked) == number
    assert all(request.messages[0].content.startswith(SYSTEM) for request in asked)
    assert not any(isinstance(change, changes.SendFailed) for change in told)
    notices = [change.text for change in told if isinstance(change, changes.Noticed)]
    assert not any("no longer sent" in text or "could not be" in text for text in notices)

    path = store.path(chat.id)
    assert len(path) == 2 * number, "the history is complete"
    for place in (0, number // 2, number - 1):
        hits = store.search(f"marker{place}").hits
        assert path[2 * place].id in [hit.message_id for hit in hits]

    replies = [message for message in path if message.stats is not None]
    for after in replies[1:]:
        assert after.stats is not None
        message = path[path.index(after) - 1]
        new = len(client.backend.tokenize(message.content)) + NEW_TOKENS
        assert after.stats.processed_tokens <= new, f"turn {path.index(after) // 2} processed old messages"
    store.close()
