"""Random requests, cancels, changes of focus and stops on real models: each ends once, nothing is leaked.

The loop is stepped by the test, as in `tests/engine`, where the same is done at length on a fake backend.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from samovar.bench.texts import words
from samovar.core import commands, events
from samovar.core.chat import GREEDY
from samovar.core.request import Request, RequestKind
from samovar.core.settings import EngineSettings
from samovar.engine.backend import Batch
from samovar.engine.loop import ClientGone, EngineLoop, Envelope
from samovar.engine.start import available_bytes, load
from tests.model.harness import RecordingBackend, system, user

pytestmark = pytest.mark.model

SESSIONS = ("a", "b", "c")
MAX_STEPS = 400


class Stepped:
    """An engine on a real model that does a step when it is told to."""

    def __init__(self, model: Path, probe_dir: Path) -> None:
        wanted = EngineSettings(str(model), context_tokens=1024, num_slots=4, ram_limit="64MiB")
        loaded = load(wanted, probe_dir, lambda _stage, _fraction: None)
        self.backend = RecordingBackend(loaded.backend)
        self.ended: dict[str, int] = {}
        self.loop = EngineLoop(
            self.backend, wanted, loaded.info.fingerprint, self._emit, available_bytes, loaded.block_tokens
        )

    def _emit(self, _client: str | None, event: events.Event) -> None:
        match event:
            case events.RequestFinished(request_id):
                self.ended[request_id] += 1
            case events.TokensGenerated(request_id):
                assert not self.ended[request_id], "nothing comes after the end"
            case _:
                pass

    def send(self, command: commands.Command, client: str = "one") -> None:
        self.loop.post(Envelope(client, command))

    @property
    def open(self) -> list[str]:
        return sorted(name for name, count in self.ended.items() if not count)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.loop.serve_once(wait=False)

    @contextmanager
    def stopping(self, command: commands.Command) -> Iterator[None]:
        """The command comes inside the next decode."""

        def come(_batch: Batch) -> None:
            self.backend.before_decode = lambda _batch: None
            self.send(command)

        self.backend.before_decode = come
        yield
        self.backend.before_decode = lambda _batch: None

    def check_at_rest(self) -> None:
        """Serve all; then every request has ended once, and only what a focused chat holds is in use."""
        for _ in range(MAX_STEPS):
            if not self.open:
                break
            self.step()
        self.step()
        assert set(self.ended.values()) <= {1}, "exactly one end each"
        used = self.loop.slots.used()
        assert all(sequence.idle for sequence in used)
        assert len(used) + self.loop.slots.num_free == self.loop.slots.num_slots
        held = [block for sequence in used for block in sequence.stored]
        assert all(block.users == held.count(block) for block in self.loop.index)
        for sequence in used:
            assert self.backend.oldest_pos(sequence.seq) >= 0
        assert self.backend.oldest_pos(self.loop.slots.scratch) == -1


class Machine(RuleBasedStateMachine):
    """What front ends may do, in any order."""

    make: ClassVar[Callable[[], Stepped]]
    numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.engine = type(self).make()
        self.engine.ended.clear()

    @rule(
        session=st.sampled_from(SESSIONS),
        kind=st.sampled_from(
            [RequestKind.CHAT, RequestKind.CHAT, RequestKind.SIDE_TASK, RequestKind.PREPARE]
        ),
        length=st.integers(1, 200),
        limit=st.integers(1, 6),
        urgent=st.booleans(),
    )
    def submit(self, session: str, kind: RequestKind, length: int, limit: int, urgent: bool) -> None:
        request = Request(
            id=f"r{next(self.numbers)}",
            session=session,
            messages=(system(words(80, seed=0)), user(words(length, seed=ord(session)))),
            kind=kind,
            sampling=GREEDY,
            max_tokens=limit,
            store=kind is not RequestKind.SIDE_TASK,
            urgent=urgent,
        )
        self.engine.ended[request.id] = 0
        self.engine.send(commands.Submit(request))

    @rule(count=st.integers(1, 6))
    def serve(self, count: int) -> None:
        self.engine.step(count)

    @rule(session=st.sampled_from(SESSIONS) | st.none())
    def focus(self, session: str | None) -> None:
        self.engine.send(commands.Focus(session))
        self.engine.step()

    @rule(data=st.data(), inside=st.booleans())
    @precondition(lambda self: self.engine.open)
    def cancel(self, data: st.DataObject, inside: bool) -> None:
        command = commands.Cancel(data.draw(st.sampled_from(self.engine.open)))
        if inside:
            with self.engine.stopping(command):
                self.engine.step()
        else:
            self.engine.send(command)
        self.engine.step()

    @rule(session=st.sampled_from(SESSIONS))
    def forget(self, session: str) -> None:
        self.engine.send(commands.Forget(session))
        self.engine.step()

    @rule()
    def leave(self) -> None:
        self.engine.loop.post(ClientGone("one"))
        self.engine.step()

    def teardown(self) -> None:
        self.engine.check_at_rest()


@pytest.mark.parametrize("model", ["smollm2", "gemma3", "lfm2"])
def test_each_request_ends_once_and_nothing_is_leaked(
    model: str, request: pytest.FixtureRequest, probe_dir: Path
) -> None:
    engine = Stepped(request.getfixturevalue(model), probe_dir)
    machine = type("RealMachine", (Machine,), {"make": staticmethod(lambda: engine)})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=8,
                stateful_step_count=16,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        engine.backend.close()
