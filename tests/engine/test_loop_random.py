"""Random operations on the engine loop, for every family: whatever happens, replies are the cold ones."""

import os
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from samovar.core import commands
from samovar.core.chat import ChatMessage
from samovar.engine.backend import DecodeResult
from tests.engine.fake_backend import Kind
from tests.engine.harness import Asked, Engine, system, user, words

NUM_EXAMPLES: Final = 600 if os.environ.get("SAMOVAR_SOAK") else 60
SESSIONS = ("s0", "s1", "s2", "s3")
sessions = st.sampled_from(SESSIONS)
clients = st.sampled_from(("a", "b"))
texts = st.builds(words, st.integers(1, 60), st.integers(0, 7))


class EngineMachine(RuleBasedStateMachine):
    """Chats, side tasks and mishaps in any order. The engine checks its invariants after every step."""

    kind: ClassVar[Kind] = Kind.DENSE

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine(self.kind)
        self.histories: dict[str, list[ChatMessage]] = {}
        self.latest: dict[str, Asked] = {}

    @initialize(
        num_cells=st.sampled_from([160, 400, 2000]),
        num_slots=st.integers(1, 4),
        ram=st.sampled_from(["unlimited", "off", "4KiB", "60KiB"]),
        tokens=st.sampled_from(["unlimited", "150"]),
        chunk=st.sampled_from([4, 16, 32]),
        shared=st.integers(0, 40),
        costs=st.sampled_from([(10.0, 0.0, 0.1, 0.0), (14.0, 10.0, 6.0, 0.0036), (900.0, 700.0, 400.0, 0.5)]),
    )
    def start(
        self,
        num_cells: int,
        num_slots: int,
        ram: str,
        tokens: str,
        chunk: int,
        shared: int,
        costs: tuple[float, float, float, float],
    ) -> None:
        self.engine = Engine(
            self.kind,
            num_cells=num_cells,
            num_slots=num_slots,
            ram_limit=ram,
            token_limit=tokens,
            chunk=chunk,
        )
        machine = self.engine.machine
        machine.decode_ms, machine.extra_ms, machine.token_ms, machine.cell_ms = costs
        self.histories = {name: [system(words(shared))] for name in SESSIONS}

    def submit(self, session: str, messages: list[ChatMessage], max_tokens: int | None, client: str) -> None:
        self.latest[session] = self.engine.submit(session, messages, max_tokens=max_tokens, client=client)

    def settle(self, session: str) -> None:
        """Take over the session's last answer, as a front end would."""
        asked = self.latest.pop(session, None)
        if asked is not None:
            if not asked.ended:
                self.engine.post(commands.Cancel(asked.request.id))
                self.engine.step()
            self.histories[session] = asked.history()

    @rule(session=sessions, text=texts, limit=st.integers(1, 40) | st.none(), client=clients)
    def next_turn(self, session: str, text: str, limit: int | None, client: str) -> None:
        self.settle(session)
        self.submit(session, [*self.histories[session], user(text)], limit, client)

    @rule(session=sessions, text=texts, keep=st.integers(0, 4), client=clients)
    def edit(self, session: str, text: str, keep: int, client: str) -> None:
        self.settle(session)
        self.submit(session, [*self.histories[session][: 2 * keep + 1], user(text)], 6, client)

    @rule(session=sessions)
    def regenerate(self, session: str) -> None:
        asked = self.latest.get(session)
        if asked is not None:
            self.submit(session, list(asked.request.messages), 6, asked.client)

    @rule(session=sessions, limit=st.integers(1, 20))
    def go_on(self, session: str, limit: int) -> None:
        self.settle(session)
        self.submit(session, self.histories[session], limit, "a")

    @rule(origin=sessions, copy=sessions, text=texts)
    def fork(self, origin: str, copy: str, text: str) -> None:
        self.settle(origin)
        self.settle(copy)
        self.histories[copy] = self.histories[origin][:]
        self.submit(copy, [*self.histories[copy], user(text)], 6, "a")

    @rule(session=sessions, text=texts, store=st.booleans(), urgent=st.booleans(), client=clients)
    def side_task(self, session: str, text: str, store: bool, urgent: bool, client: str) -> None:
        messages = [*self.histories[session], user(text)]
        self.engine.submit(
            session, messages, max_tokens=5, side_task=True, store=store, urgent=urgent, client=client
        )

    @rule(session=sessions, text=texts, count=st.integers(2, 6))
    def compare(self, session: str, text: str, count: int) -> None:
        messages = [*self.histories[session], user(text)]
        for _ in range(count):
            self.engine.submit(session, messages, max_tokens=5, side_task=True)

    @rule(session=sessions, text=texts, client=clients, complete=st.booleans())
    def prepare(self, session: str, text: str, client: str, complete: bool) -> None:
        messages = [*self.histories[session], user(text)]
        self.engine.prepare(session, messages, client=client, complete=complete)

    @rule(session=sessions, text=texts, more=texts)
    def type_and_send(self, session: str, text: str, more: str) -> None:
        self.settle(session)
        self.engine.focus(session)
        for draft, complete in (("", False), (text, True)):
            self.engine.prepare(session, [*self.histories[session], user(draft)], complete=complete)
            self.engine.step(3)
        self.submit(session, [*self.histories[session], user(text + more)], 6, "a")

    @rule(count=st.integers(1, 20))
    def serve(self, count: int) -> None:
        self.engine.step(count)

    @rule()
    def serve_all(self) -> None:
        self.engine.drain()

    @rule(seconds=st.floats(0, 100))
    def time_goes_by(self, seconds: float) -> None:
        self.engine.machine.now += seconds

    @rule(data=st.data())
    @precondition(lambda self: self.engine.busy)
    def cancel(self, data: st.DataObject) -> None:
        open_ids = sorted(name for name, asked in self.engine.asked.items() if not asked.ended)
        self.engine.post(commands.Cancel(data.draw(st.sampled_from(open_ids))))
        self.engine.step()

    @rule(session=sessions | st.none(), client=clients)
    def focus(self, session: str | None, client: str) -> None:
        self.engine.focus(session, client)

    @rule(client=clients)
    def client_gone(self, client: str) -> None:
        self.engine.client_gone(client)
        self.engine.step()

    @rule(session=sessions)
    def forget(self, session: str) -> None:
        self.engine.post(commands.Forget(session))
        self.engine.step()

    @rule(limit=st.sampled_from(["unlimited", "off", "4KiB", "40KiB", "auto", "nonsense"]))
    def set_ram_limit(self, limit: str) -> None:
        self.engine.post(commands.SetRamLimit(limit))
        self.engine.step()

    @rule(limit=st.sampled_from(["unlimited", "off", "20", "200"]))
    def set_token_limit(self, limit: str) -> None:
        self.engine.post(commands.SetTokenLimit(limit))
        self.engine.step()

    @rule(result=st.sampled_from([DecodeResult.ABORTED, DecodeResult.FAILED]))
    @precondition(lambda self: self.engine.busy)
    def break_a_step(self, result: DecodeResult) -> None:
        self.engine.abort_next(result)
        self.engine.step()

    @rule(good=st.integers(0, 4), bad=st.integers(0, 3))
    def break_loads(self, good: int, bad: int) -> None:
        self.engine.backend.good_loads, self.engine.backend.fail_loads = good, bad

    @rule()
    def sleep_if_idle(self) -> None:
        self.engine.post(commands.SetKeepAlive(0.0))
        self.engine.step()
        self.engine.post(commands.SetKeepAlive(-1.0))
        self.engine.step()

    @rule()
    def stop(self) -> None:
        self.engine.close()
        self.engine.check_all_ended()
        self.engine.check_nothing_is_held()
        self.start(400, 4, "unlimited", "unlimited", 16, 10, (14.0, 10.0, 6.0, 0.0))
        self.latest = {}

    def teardown(self) -> None:
        self.engine.check_all_ended()
        self.engine.check_nothing_is_held()


@pytest.mark.parametrize("kind", Kind)
def test_replies_are_the_cold_ones_whatever_happens(kind: Kind) -> None:
    machine = type(f"{kind.name}Machine", (EngineMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=NUM_EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
