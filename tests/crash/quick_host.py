"""A host that answers every request at once, with words that are made up."""

import asyncio
import random
from typing import Final

from samovar.core.commands import Cancel, Command, Submit
from samovar.core.request import FinishReason, Request
from tests.crash.chats_lines import text_of
from tests.tui.fake_client import FakeClient

REASONS: Final = (FinishReason.STOP,) * 5 + (FinishReason.LENGTH,) * 2 + (FinishReason.FAILED,)


class QuickHost(FakeClient):
    """Answers every request with words that are made up, now faster, now slower."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self._cancelled = set[str]()
        self._tasks = set[asyncio.Task[None]]()

    async def start(self) -> None:
        await super().start()
        self.ready()

    def send(self, command: Command) -> None:
        match command:
            case Submit(request):
                task = asyncio.create_task(self._answer(request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Cancel(request_id):
                self._cancelled.add(request_id)
            case _:
                pass

    async def _answer(self, request: Request) -> None:
        self.begin(request)
        interval_s, text = self._dice.choice([0.0, 0.0, 0.005, 0.1]), ""
        for word in text_of(self._dice, self._dice.randrange(0, 30)).split(" "):
            await asyncio.sleep(interval_s)
            if request.id in self._cancelled:
                self.finish(request, text, FinishReason.CANCELLED)
                return
            text += word + " "
            self.say(request, word + " ")
        self.finish(request, text, self._dice.choice(REASONS))
