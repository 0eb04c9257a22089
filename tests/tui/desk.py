"""Conversations without a screen, over a fake client and a real store."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.conversation import Conversations
from samovar.config import Config
from samovar.core.request import FinishReason, Request
from samovar.sessions.store import MessageState, Store
from tests.tui.fake_client import FakeClient


class Desk:
    """Conversations over a fake client and a real store, and all they told."""

    def __init__(self, file: Path, config: Config, tasks_dir: Path | None = None) -> None:
        self.client = FakeClient()
        self.told: list[changes.Change] = []
        self._own_store = Store.open(file)
        self.store = Store.open(file)  # another connection than the chats': it sees what has been committed
        self.chats = Conversations(
            self.client, self._own_store, config, self.told.append, tasks_dir=tasks_dir
        )

    async def close(self) -> None:
        await self.chats.close()
        self._own_store.close()
        self.store.close()

    def hear(self) -> None:
        """Deliver what the client has been told to say."""
        while not self.client.waiting.empty():
            event = self.client.waiting.get_nowait()
            assert event is not None
            self.chats.handle(event)

    async def until_stored(self, session: str, state: MessageState, content: str) -> None:
        """Wait until a chat ends like this in the store."""

        def holds() -> bool:
            last = self.store.path(session)[-1]
            return (last.state, last.content) == (state, content)

        await until(holds)

    def names(self) -> list[str]:
        return [type(change).__name__ for change in self.told]

    async def exchange(self, chat: Chat, text: str, reply: str) -> Request:
        """A message and its whole reply, both stored; returns the request."""
        await self.chats.send(chat, text)
        return await self.reply(chat, reply)

    async def reply(
        self,
        chat: Chat,
        reply: str,
        reason: FinishReason = FinishReason.STOP,
        tokens: tuple[int, ...] = (),
        begun: tuple[int, ...] = (),
    ) -> Request:
        """Let the reply that runs in a chat end so, and wait until it is stored."""
        assert chat.reply is not None
        request = next(one for one in self.client.requests if one.id == chat.reply.request_id)
        place, goes_on = chat.reply.row, chat.reply.goes_on
        assert place is not None
        content = reply if goes_on is None else goes_on.content + reply
        self.client.finish(request, reply, reason, tokens=tokens, begun=begun)
        self.hear()

        def is_stored() -> bool:
            stored = self.store.messages.message(place.id)
            return stored.content == content and stored.state is not MessageState.STREAMING

        await until(is_stored)
        return request

    def shown_texts(self) -> list[str]:
        """The messages of the shown chat."""
        return [message.content for message in self.chats.shown.path or ()]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
