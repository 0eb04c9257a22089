"""`kill -9` of the host in the middle of a reply, 20 times: nothing sent is lost, the chats go on."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from samovar.chats.chat import Chat
from samovar.chats.conversation import Conversations
from samovar.config import Config, SamplingConfig
from samovar.core.chat import Role
from samovar.core.events import HostLost
from samovar.sessions.store import MessageState, Store, StoredMessage
from tests.crash.conftest import FrontEnd, Site, kill, until

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

NUM_KILLS: Final = 20
ANSWERED: Final = (MessageState.COMPLETE, MessageState.CUT)  # the model may not end within `max_tokens`


@contextlib.asynccontextmanager
async def conversations(front_end: FrontEnd, store: Store) -> AsyncIterator[Conversations]:
    """The chats of a front end, fed with the events of a real host."""
    config = Config(sampling=SamplingConfig(temperature=0.0, max_tokens=32))
    chats = Conversations(front_end.client, store, config, lambda _change: None)
    front_end.listener = chats.handle
    await front_end.start()
    try:
        await chats.load()
        yield chats
    finally:
        await chats.close()


async def wait_for_end(chat: Chat, stored: Store) -> list[StoredMessage]:
    """The chat's path as another process reads it, once the reply has ended there as well."""
    await until(lambda: chat.reply is None)
    await until(lambda: stored.path(chat.id)[-1].state is not MessageState.STREAMING)
    return stored.path(chat.id)


async def kill_in_reply(front_end: FrontEnd, chats: Conversations, text: str, num_tokens: int) -> str:
    """Send, kill the host once so much of the reply is there; returns what was shown by then."""
    chat, since = chats.shown, len(front_end.events)
    await chats.send(chat, text)
    await until(lambda: chat.reply is None or chat.reply.num_tokens >= num_tokens)
    assert chat.reply is not None, "the reply was too short to be killed"
    assert front_end.client.host_pid is not None
    arrived = chat.reply.text
    kill(front_end.client.host_pid)
    await front_end.wait_for(HostLost, since=since)
    return arrived


async def test_killed_in_reply_20_times_loses_nothing(site: Site, tmp_path: Path) -> None:
    # A chat each: a small model takes replies that break off for the way to reply, and ends its own early.
    file = tmp_path / "chats.db"
    with contextlib.closing(Store.open(file)) as store, contextlib.closing(Store.open(file)) as stored:
        async with site.front_end(start=False) as front_end, conversations(front_end, store) as chats:
            sent: dict[str, list[str]] = {}
            for number in range(NUM_KILLS):
                chat = chats.new()
                sent[chat.id] = [f"Write a long story about the number {number}.", "Name a colour."]

                arrived = await kill_in_reply(front_end, chats, sent[chat.id][0], 2 + number % 8)
                path = await wait_for_end(chat, stored)
                assert [message.content for message in path[:-1]] == sent[chat.id][:1]
                assert path[-1].state is MessageState.FAILED
                assert path[-1].content.startswith(arrived)
                assert arrived

                await chats.send(chat, sent[chat.id][1])
                path = await wait_for_end(chat, stored)
                assert path[-1].state in ANSWERED
                assert path[-1].content
            assert len(front_end.of(HostLost)) == NUM_KILLS
            for session, texts in sent.items():
                path = stored.path(session)
                assert [message.content for message in path if message.role is Role.USER] == texts
                failed, answered = [m.state for m in path if m.role is Role.ASSISTANT]
                assert failed is MessageState.FAILED
                assert answered in ANSWERED
