"""The model is freed while nobody asks for anything, and comes back with the next request, warm."""

import threading

import pytest

from samovar.core import commands, events
from samovar.core.errors import SamovarError
from samovar.core.request import FinishReason
from samovar.core.settings import EngineSettings
from samovar.core.snapshot import CacheSnapshot
from samovar.engine.loop import EngineLoop, Envelope
from samovar.engine.sleep import FIRST_PATIENCE_S, STAGE, ModelChangedError
from tests.engine.fake_backend import FakeBackend, Kind
from tests.engine.harness import HOST_READY, Engine, system, user, words

every_kind = pytest.mark.parametrize("kind", Kind)


def since(engine: Engine, pos: int, *kinds: type[events.Event]) -> list[events.Event]:
    """Events of these kinds from the `pos`th on."""
    return [event for _, event in engine.events[pos:] if isinstance(event, kinds)]


def last_snapshot(engine: Engine) -> CacheSnapshot:
    engine.post(commands.Describe())
    engine.step()
    return [event for _, event in engine.events if isinstance(event, events.CacheChanged)][-1].snapshot


@every_kind
def test_a_turn_after_sleep_costs_what_a_swap_would(kind: Kind) -> None:
    engine = Engine(kind, keep_alive_s=60.0)
    engine.focus("s")
    history = [system(words(20))]
    first = engine.chat("s", history, words(40))
    blocks = engine.stored_blocks()
    engine.now += 60.0
    engine.step()
    assert not engine.backend.loaded
    assert engine.loop.slots.used() == []
    assert engine.stored_blocks() == blocks
    second = engine.chat("s", history, words(10, 3))
    assert engine.backend.loaded
    stats = second.finished.stats
    assert stats.reused.context == 0
    assert stats.reused.host > 0
    grain = 1 if kind.value.can_trim else 16
    assert stats.reused.total >= len(first.prompt) // grain * grain
    engine.check_all_ended()


def test_sleep_waits_for_the_last_request_and_starts_anew_with_each() -> None:
    engine = Engine(keep_alive_s=60.0)
    engine.ask("s", [user(words(10))])
    engine.now += 59.0
    engine.step()
    assert engine.backend.loaded
    asked = engine.submit("s", engine.talkative([], 10, 8), max_tokens=8)
    engine.step()
    engine.now += 1000.0
    engine.step()
    assert not asked.ended
    assert engine.backend.loaded, "it is at work"
    engine.drain()
    engine.now += 59.0
    engine.step()
    assert engine.backend.loaded
    engine.now += 1.0
    engine.step()
    assert not engine.backend.loaded


def test_keep_alive_of_zero_sleeps_at_once_but_not_before_the_first_request() -> None:
    engine = Engine(keep_alive_s=0.0)
    engine.step()
    assert engine.backend.loaded
    engine.ask("s", [user(words(10))])
    engine.step()
    assert not engine.backend.loaded
    unasked = Engine(keep_alive_s=0.0)
    unasked.now += FIRST_PATIENCE_S
    unasked.step()
    assert not unasked.backend.loaded


def test_negative_keep_alive_never_sleeps_and_can_be_changed_live() -> None:
    engine = Engine(keep_alive_s=-1.0)
    engine.ask("s", [user(words(10))])
    engine.now += 1e9
    engine.step()
    assert engine.backend.loaded
    engine.post(commands.SetKeepAlive(5.0))
    engine.step()
    assert not engine.backend.loaded


def test_requests_that_wait_keep_it_awake() -> None:
    engine = Engine(num_slots=1, keep_alive_s=0.0)
    first = engine.submit("a", [user(words(40))])
    second = engine.submit("b", [user(words(40, 5))])
    engine.drain()
    assert {first.finished.reason, second.finished.reason} <= {FinishReason.STOP, FinishReason.LENGTH}
    assert since(engine, 0, events.LoadingProgressed) == []
    engine.check_all_ended()


def test_only_a_request_wakes_it() -> None:
    engine = Engine(keep_alive_s=0.0)
    history = [system(words(20))]
    engine.chat("s", history, words(30))
    engine.step()
    for command in (
        commands.Focus("s"),
        commands.Focus(None),
        commands.Focus("s"),
        commands.Rename("s", "title"),
        commands.SetRamLimit("1GiB"),
        commands.SetTokenLimit("1000"),
        commands.Describe(),
        commands.Cancel("nothing"),
        commands.Forget("other"),
    ):
        engine.post(command)
        engine.step()
        assert not engine.backend.loaded, command
    engine.client_gone("b")
    engine.step()
    assert not engine.backend.loaded
    engine.chat("s", history, words(5))
    engine.check_all_ended()


def test_front_ends_see_it_asleep_and_what_waking_took() -> None:
    engine = Engine(keep_alive_s=0.0)
    history = [system(words(20))]
    engine.chat("s", history, words(30))
    assert not last_snapshot(engine).wake_ms
    engine.step()
    snapshot = last_snapshot(engine)
    assert snapshot.asleep
    assert snapshot.context.used_tokens == 0
    assert snapshot.host.tokens > 0
    engine.post(commands.SetKeepAlive(-1.0))
    pos = len(engine.events)
    engine.chat("s", history, words(5))
    told = since(
        engine, pos, events.LoadingProgressed, events.HostReady, events.RequestStarted, events.RequestFinished
    )
    assert told[:3] == [
        events.LoadingProgressed(STAGE, 0.0),
        events.LoadingProgressed(STAGE, 0.5),
        HOST_READY,
    ]
    assert [type(event) for event in told[3:]] == [events.RequestStarted, events.RequestFinished]
    snapshot = last_snapshot(engine)
    assert not snapshot.asleep
    assert snapshot.wake_ms is not None


def test_waking_that_fails_ends_the_request_and_the_next_tries_again() -> None:
    engine = Engine(keep_alive_s=0.0)
    history = [system(words(20))]
    engine.chat("s", history, words(30))
    engine.step()
    engine.backend.reload_error = SamovarError("There is no room for the model.")
    for _ in range(2):
        pos = len(engine.events)
        failed = engine.ask("s", [*history, user(words(5))])
        assert failed.finished.reason is FinishReason.FAILED
        assert failed.finished.error == "There is no room for the model."
        assert HOST_READY in since(engine, pos, events.HostReady), "front ends end their progress"
        assert last_snapshot(engine).asleep
    engine.backend.reload_error = None
    again = engine.ask("s", [*history, user(words(5))])
    assert again.finished.stats.reused.host > 0
    engine.check_all_ended()


def test_a_changed_model_file_ends_the_host_and_serves_nothing_stale() -> None:
    engine = Engine(keep_alive_s=0.0)
    engine.ask("s", [user(words(30))])
    engine.step()

    def refuse() -> None:
        raise ModelChangedError("The model file has changed.")

    engine.check_reload = refuse
    failed = engine.submit("s", [user(words(30))])
    engine.step()
    assert failed.finished.reason is FinishReason.FAILED
    assert failed.finished.error == "The model file has changed."
    assert not engine.backend.loaded
    assert engine.loop.stopping
    assert (None, events.HostStopping()) in engine.events


def test_the_engine_thread_falls_asleep_by_itself() -> None:
    backend = FakeBackend(Kind.DENSE)
    asleep, finished = threading.Event(), threading.Event()

    def emit(_client: str | None, event: events.Event) -> None:
        match event:
            case events.RequestFinished():
                finished.set()
            case events.CacheChanged(snapshot) if snapshot.asleep:
                asleep.set()
            case _:
                pass

    settings = EngineSettings("fake.gguf", num_slots=4, block_tokens=16, keep_alive_s=0.05)
    loop = EngineLoop(backend, settings, "f", emit, lambda: 1 << 30)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        request = Engine().submit("s", [user(words(10))]).request
        loop.post(Envelope("a", commands.Submit(request)))
        assert finished.wait(20)
        assert asleep.wait(20)
        assert not backend.loaded
    finally:
        loop.post(Envelope("", commands.StopHost()))
        thread.join(20)
    assert not thread.is_alive()
