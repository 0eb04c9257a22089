"""The same prompt asked several times at once, with the bundled model: it is processed once."""

import uuid
from pathlib import Path
from typing import Final

import pytest

from samovar.bench.texts import words
from samovar.core import commands
from samovar.core.chat import Sampling
from samovar.core.request import FinishReason, Request, RequestKind
from samovar.core.settings import EngineSettings
from tests.model.conftest import StartEngine
from tests.model.harness import system, user

pytestmark = pytest.mark.model

NUM_ANSWERS: Final = 4
OWN_TOKENS: Final = 1  # what each further answer processes for itself: the last token, for its logits


def test_four_answers_to_a_long_prompt_process_it_once(smollm2: Path, start_engine: StartEngine) -> None:
    engine = start_engine(
        EngineSettings(str(smollm2), context_tokens=4096, disk_limit="off", step_budget_ms=1e4)
    )
    messages = (system(words(100, seed=0)), user(words(1900, seed=1)))
    engine.focus("chat")
    requests = [
        Request(
            id=uuid.uuid4().hex,
            session="chat",
            messages=messages,
            kind=RequestKind.SIDE_TASK,
            sampling=Sampling(temperature=1.0, seed=seed),
            max_tokens=12,
            store=False,
            urgent=True,
        )
        for seed in range(NUM_ANSWERS)
    ]
    for request in requests:
        engine.send(commands.Submit(request))
    ended = [engine.wait(request.id).finished for request in requests]
    assert all(one.reason in (FinishReason.STOP, FinishReason.LENGTH) for one in ended)
    prompt_tokens = ended[0].stats.prompt_tokens
    assert prompt_tokens > 1900
    processed = sum(one.stats.processed_tokens for one in ended)
    assert prompt_tokens <= processed <= prompt_tokens + (NUM_ANSWERS - 1) * OWN_TOKENS
    assert len({one.reply for one in ended}) > 1, "other seeds answer otherwise"
