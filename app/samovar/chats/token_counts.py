"""How many tokens texts take, asked of the engine and awaited. Event loop. Never imports Textual."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Final

from samovar.client.interface import Client
from samovar.core.commands import CountTokens
from samovar.core.events import TokensCounted

_PATIENCE_S: Final = 2.0  # an engine that is busy for longer is not waited for


class TokenCounts:
    """The counts that are awaited."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked: dict[str, asyncio.Future[tuple[int, ...] | None]] = {}

    async def count(self, texts: Sequence[str]) -> tuple[int, ...] | None:
        """The tokens of each text; None if the engine cannot say, or does not within two seconds."""
        request_id = uuid.uuid4().hex
        answer: asyncio.Future[tuple[int, ...] | None] = asyncio.get_running_loop().create_future()
        self._asked[request_id] = answer
        self._client.send(CountTokens(request_id, tuple(texts)))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._asked[request_id]

    def handle(self, event: TokensCounted) -> bool:
        """Take in a count; False if it is none of ours."""
        answer = self._asked.get(event.request_id)
        if answer is None:
            return False
        if not answer.done():
            answer.set_result(event.counts)
        return True
