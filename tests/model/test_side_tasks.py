"""What side tasks cost beside a chat, with a real model: a few tokens each, and nothing that stays."""

from pathlib import Path
from typing import Final

import msgspec
import pytest

from samovar.bench.texts import words
from samovar.core.chat import ChatMessage
from samovar.core.commands import Submit
from samovar.core.request import FinishReason
from samovar.core.settings import EngineSettings
from samovar.tasks.builtin import BUILTIN
from samovar.tasks.prompt import Filling, side_request
from tests.model.conftest import StartEngine
from tests.model.harness import Engine, Reply, user

pytestmark = pytest.mark.model

MAX_TASK_TOKENS: Final = 40
MAX_TURN_TOKENS: Final = 30
FILLINGS: Final = {
    "aside": Filling("What was the third word of my first message?"),
    "translate": Filling("German", "a reply", "your last reply"),
    "explain": Filling("", "a reply", "your last reply"),
}


def test_side_tasks_process_their_own_words_alone_and_keep_nothing(
    smollm2: Path, start_engine: StartEngine
) -> None:
    engine = start_engine(EngineSettings(str(smollm2), context_tokens=2048, ram_limit="1GiB"))
    messages: list[ChatMessage] = []
    _turn(engine, messages, words(250, seed=1))
    for seed, specs in ((2, BUILTIN), (3, BUILTIN[:1])):
        kept = engine.snapshot().host.tokens
        for spec in specs:
            request = side_request(
                spec,
                tuple(messages),
                FILLINGS.get(spec.name, Filling()),
                session="chat",
                chat_title="chat",
                urgent=True,
            )
            engine.send(Submit(msgspec.structs.replace(request, max_tokens=2)))
            task = engine.wait(request.id)
            assert task.finished.reason in (FinishReason.LENGTH, FinishReason.STOP), task.finished.error
            assert task.processed <= MAX_TASK_TOKENS, spec.name
        assert engine.snapshot().host.tokens == kept
        turn = _turn(engine, messages, words(3, seed=seed))
        assert turn.processed <= MAX_TURN_TOKENS
        stats = turn.finished.stats
        own = stats.prompt_tokens + stats.generated_tokens
        assert engine.snapshot().host.tokens <= own
        assert engine.snapshot().totals.evictions == 0


def _turn(engine: Engine, messages: list[ChatMessage], text: str) -> Reply:
    messages.append(user(text))
    engine.focus("chat")
    reply = engine.ask("chat", messages)
    messages.append(reply.message())
    return reply
