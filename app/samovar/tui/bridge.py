"""From the client's events to the conversations: tokens once a frame, the cache four times a second.

A decode step brings an event for every running reply; drawing each would cost the decoding its cores. So text
waits for the next frame, merged by request, and of several pictures of the cache the last one is drawn. While
nothing happens, no timer runs. Lives in the event loop. Never imports Textual.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from samovar.core.events import CacheChanged, Event, TokensGenerated

SNAPSHOT_EVERY_S: Final = 0.25


class Bridge:
    """Hands events to `deliver`, at most `max_fps` times a second for generated text."""

    def __init__(self, deliver: Callable[[Event], None], max_fps: int) -> None:
        self._deliver = deliver
        self._frame_s = 1 / max_fps
        self._text: dict[str, list[TokensGenerated]] = {}  # by request
        self._text_timer: asyncio.TimerHandle | None = None
        self._snapshot: CacheChanged | None = None
        self._snapshot_timer: asyncio.TimerHandle | None = None
        self._last_frame = self._last_snapshot = 0.0

    async def run(self, events: AsyncIterator[Event]) -> None:
        """Pass on events until they end."""
        loop = asyncio.get_running_loop()
        async for event in events:
            if isinstance(event, TokensGenerated):
                self._text.setdefault(event.request_id, []).append(event)
                if self._text_timer is None:
                    wait_s = max(0.0, self._last_frame + self._frame_s - loop.time())
                    self._text_timer = loop.call_later(wait_s, self._flush_text)
            elif isinstance(event, CacheChanged):
                self._snapshot = event
                if self._snapshot_timer is None:
                    wait_s = max(0.0, self._last_snapshot + SNAPSHOT_EVERY_S - loop.time())
                    self._snapshot_timer = loop.call_later(wait_s, self._flush_snapshot)
            else:
                self._flush_text()  # an end must not overtake its text
                self._deliver(event)
        self._flush_text()

    def _flush_text(self) -> None:
        if self._text_timer is not None:
            self._text_timer.cancel()
            self._text_timer = None
        waiting, self._text = self._text, {}
        for parts in waiting.values():
            self._last_frame = asyncio.get_running_loop().time()
            text = "".join(part.text for part in parts)
            num_tokens = sum(part.num_tokens for part in parts)
            self._deliver(TokensGenerated(parts[0].request_id, parts[0].session, text, num_tokens))

    def _flush_snapshot(self) -> None:
        self._snapshot_timer = None
        self._last_snapshot = asyncio.get_running_loop().time()
        if self._snapshot is not None:
            snapshot, self._snapshot = self._snapshot, None
            self._deliver(snapshot)
