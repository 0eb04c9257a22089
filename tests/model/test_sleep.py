"""A model that sleeps gives its memory back, and goes on warm and exactly when it is woken."""

import shutil
from pathlib import Path

import psutil
import pytest

from samovar.bench.texts import words
from samovar.core import commands, events
from samovar.core.request import FinishReason
from samovar.core.settings import EngineSettings
from tests.model.conftest import StartEngine
from tests.model.harness import Engine, Reply, system, user

pytestmark = pytest.mark.model

SYSTEM = system(words(300, seed=4))
CONTEXT_TOKENS = 8192


def settings(model: Path) -> EngineSettings:
    return EngineSettings(str(model), context_tokens=CONTEXT_TOKENS, ram_limit="1GiB", keep_alive_s=-1.0)


def fall_asleep(engine: Engine) -> None:
    """Wait until it sleeps; from then on it stays awake again."""
    since = engine.mark()
    engine.send(commands.SetKeepAlive(0.0))
    engine.wait_for(events.CacheChanged, lambda event: event.snapshot.asleep, since)
    engine.send(commands.SetKeepAlive(-1.0))


def ask_twice(engine: Engine, *, with_sleep: bool) -> tuple[Reply, Reply]:
    messages = [SYSTEM, user("Describe a small harbour in the morning.")]
    first = engine.ask("a", messages)
    if with_sleep:
        fall_asleep(engine)
    return first, engine.ask("a", [*messages, first.message(), user("And in the evening?")])


@pytest.mark.parametrize("name", ["smollm2", "gemma3", "lfm2", "mamba"])
def test_the_reply_after_waking_is_the_same_and_served_from_ram(
    name: str, request: pytest.FixtureRequest, start_engine: StartEngine
) -> None:
    model: Path = request.getfixturevalue(name)
    _, expected = ask_twice(start_engine(settings(model)), with_sleep=False)
    slept = start_engine(settings(model))
    first, second = ask_twice(slept, with_sleep=True)
    assert second.tokens == expected.tokens
    assert second.text == expected.text
    assert second.finished.stats.reused.context == 0
    assert second.finished.stats.reused.host >= first.finished.stats.prompt_tokens - slept.block_tokens
    snapshot = slept.snapshot()
    assert not snapshot.asleep
    assert snapshot.wake_ms


def test_sleep_gives_the_memory_of_model_and_context_back(smollm2: Path, start_engine: StartEngine) -> None:
    engine = start_engine(settings(smollm2))
    engine.ask("a", [SYSTEM, user("Hello.")])
    process = psutil.Process()
    awake = process.memory_info().rss
    held = engine.snapshot().host.bytes
    fall_asleep(engine)
    fallen = awake - process.memory_info().rss
    # Of the context only what has been written to is resident: here a few hundred of its cells.
    assert fallen > 0.9 * smollm2.stat().st_size
    assert engine.snapshot().host.bytes == held > 0


def test_a_model_file_that_is_gone_or_changed_is_not_served_from_the_cache(
    smollm2: Path, tmp_path: Path, start_engine: StartEngine
) -> None:
    path, aside = tmp_path / "model.gguf", tmp_path / "aside.gguf"
    shutil.copyfile(smollm2, path)
    engine = start_engine(settings(path))
    messages = [SYSTEM, user("Hello.")]
    first = engine.ask("a", messages)
    fall_asleep(engine)

    path.rename(aside)
    gone = engine.ask("a", messages)
    assert gone.finished.reason is FinishReason.FAILED
    assert f"{path} cannot be read" in gone.finished.error

    aside.rename(path)
    again = engine.ask("a", messages)
    assert again.text == first.text
    assert again.finished.stats.reused.host > 0
    fall_asleep(engine)

    with path.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    changed = engine.wait(engine.submit("a", messages))
    assert changed.finished.reason is FinishReason.FAILED
    assert "has changed" in changed.finished.error
    engine.wait_for(events.HostStopping)
