"""llama.cpp's own position shift: what it saves, and that only who asked for it gets it."""

from pathlib import Path

import pytest
from llama_cpp import llama_cpp as C

from samovar.bench.texts import words
from samovar.core.chat import ChatMessage
from samovar.core.request import FinishReason, MismatchReason
from samovar.core.settings import EngineSettings
from tests.model.conftest import StartEngine
from tests.model.harness import Engine, Reply, system, user

pytestmark = pytest.mark.model

SYSTEM = system("You are the keeper of a lighthouse. Answer in one short sentence.")


def settings(model: Path) -> EngineSettings:
    return EngineSettings(str(model), context_tokens=1024, num_threads=1)


def turns(engine: Engine, session: str) -> list[ChatMessage]:
    """Three turns of some 100 tokens."""
    messages = [SYSTEM]
    for number in range(3):
        messages.append(user(words(80, number)))
        messages.append(engine.ask(session, messages, max_tokens=8).message())
    return messages


def shifted(engine: Engine, messages: list[ChatMessage]) -> Reply:
    return engine.wait(engine.submit("chat", messages, max_tokens=12, may_shift=True))


def test_turns_left_out_cost_only_what_is_new_and_positions_follow(
    smollm2: Path, start_engine: StartEngine
) -> None:
    engine = start_engine(settings(smollm2))
    engine.focus("chat")
    whole = turns(engine, "chat")
    later = [SYSTEM, *whole[3:], user("What did you see?")]
    reply = shifted(engine, later)
    assert reply.finished.reason in (FinishReason.STOP, FinishReason.LENGTH), reply.finished.error
    assert reply.processed <= 30
    stats = reply.finished.stats
    assert stats.mismatch is not None
    assert stats.mismatch.reason is MismatchReason.TURNS_LEFT_OUT
    engine.snapshot()  # the engine rests
    (sequence,) = engine.loop.slots.used()
    real = engine.backend.real
    assert C.llama_memory_seq_pos_max(real._memory, sequence.seq) == len(sequence.tokens) - 1
    assert real.oldest_pos(sequence.seq) == 0
    again = shifted(engine, [*later, reply.message(), user("And then?")])
    assert again.processed <= 30


def test_who_does_not_ask_for_it_gets_what_the_tokens_give_from_scratch(
    smollm2: Path, start_engine: StartEngine
) -> None:
    engine = start_engine(settings(smollm2))
    engine.focus("chat")
    whole = turns(engine, "chat")
    later = [SYSTEM, *whole[3:], user("What did you see?")]
    shifted(engine, later)
    exact = engine.ask("chat", later)
    engine.focus("other")
    elsewhere = engine.ask("other", later)
    cold = start_engine(settings(smollm2)).ask("chat", later)
    assert exact.tokens == elsewhere.tokens == cold.tokens


def test_a_model_with_a_sliding_window_processes_them(gemma3: Path, start_engine: StartEngine) -> None:
    engine = start_engine(settings(gemma3))
    assert not engine.backend.traits.can_shift
    engine.focus("chat")
    whole = turns(engine, "chat")
    reply = shifted(engine, [SYSTEM, *whole[3:], user("What did you see?")])
    assert reply.finished.reason in (FinishReason.STOP, FinishReason.LENGTH), reply.finished.error
    assert reply.processed > 100
