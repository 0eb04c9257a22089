"""The engine loop in a thread of its own, as the host runs it."""

import queue
import threading
from collections.abc import Iterator

import pytest

from samovar.core import commands, events
from samovar.core.chat import GREEDY
from samovar.core.request import FinishReason, Request
from samovar.core.settings import EngineSettings
from samovar.engine.backend import Batch, DecodeResult
from samovar.engine.loop import ClientGone, EngineLoop, Envelope
from tests.engine.fake_backend import FakeBackend, Kind
from tests.engine.harness import user, words

TIMEOUT_S = 20


class SlowBackend(FakeBackend):
    """Its long decodes last until somebody interrupts them."""

    def __init__(self) -> None:
        super().__init__(Kind.DENSE, num_cells=2000)
        self.slow = False
        self.decoding = threading.Event()
        self._stop = threading.Event()

    def decode(self, batch: Batch) -> DecodeResult:
        if self.slow:
            self.decoding.set()
            assert self._stop.wait(TIMEOUT_S), "nobody has interrupted the step"
        return super().decode(batch)

    def interrupt(self) -> None:
        super().interrupt()
        self._stop.set()

    def clear_interrupt(self) -> None:
        super().clear_interrupt()
        self._stop.clear()


class Host:
    """Runs the loop and hands out its events."""

    def __init__(self) -> None:
        self.backend = SlowBackend()
        self.inbox: queue.SimpleQueue[tuple[str | None, events.Event]] = queue.SimpleQueue()
        settings = EngineSettings("fake.gguf", num_slots=4, block_tokens=16, ram_limit="unlimited")
        self.loop = EngineLoop(
            self.backend,
            settings,
            "f",
            lambda client, event: self.inbox.put((client, event)),
            lambda: 1 << 30,
        )
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def submit(self, name: str, client: str = "a") -> None:
        request = Request(name, name, (user(words(300)),), sampling=GREEDY, max_tokens=4)
        self.loop.post(Envelope(client, commands.Submit(request)))

    def wait_for_end(self, name: str) -> events.RequestFinished:
        while True:
            _, event = self.inbox.get(timeout=TIMEOUT_S)
            if isinstance(event, events.RequestFinished) and event.request_id == name:
                return event

    def stop(self) -> None:
        self.loop.post(Envelope("", commands.StopHost()))
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def host() -> Iterator[Host]:
    running = Host()
    yield running
    if running.thread.is_alive():
        running.stop()


def test_a_stop_ends_a_long_step(host: Host) -> None:
    host.backend.slow = True
    host.submit("one")
    assert host.backend.decoding.wait(TIMEOUT_S)
    host.backend.slow = False
    host.loop.post(Envelope("a", commands.Cancel("one")))
    assert host.wait_for_end("one").reason is FinishReason.CANCELLED


def test_stopping_the_host_ends_every_request(host: Host) -> None:
    host.backend.slow = True
    for name in ("one", "two"):
        host.submit(name)
    assert host.backend.decoding.wait(TIMEOUT_S)
    host.stop()
    told = [host.inbox.get()[1] for _ in range(host.inbox.qsize())]
    ends = {event.request_id: event.reason for event in told if isinstance(event, events.RequestFinished)}
    assert ends == {"one": FinishReason.CANCELLED, "two": FinishReason.CANCELLED}
    assert all(sampler.closed for sampler in host.backend.samplers)


def test_requests_from_several_threads_all_end(host: Host) -> None:
    def submit_all(client: str) -> None:
        for i in range(3):
            host.submit(f"{client}{i}", client)

    names = [f"{client}{i}" for client in "abc" for i in range(3)]
    threads = [threading.Thread(target=submit_all, args=(client,)) for client in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    host.loop.post(ClientGone("c"))
    ends: dict[str, events.RequestFinished] = {}
    while len(ends) < len(names):
        _, event = host.inbox.get(timeout=TIMEOUT_S)
        if isinstance(event, events.RequestFinished):
            assert event.request_id not in ends
            ends[event.request_id] = event
    assert {ends[name].reason for name in names if name[0] != "c"} <= {FinishReason.STOP, FinishReason.LENGTH}
    replies = {ends[name].reply for name in names if name[0] != "c"}
    assert len(replies) == 1
