"""Random operations on the engine loop with a disk below it: restarts, damage, pins, limits, late answers."""

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
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
from samovar.core.snapshot import Tier
from samovar.engine import control, mover
from tests.engine.fake_backend import Kind
from tests.engine.harness import Asked, Engine, system, user, words

NUM_EXAMPLES: Final = 1500 if os.environ.get("SAMOVAR_SOAK") else 50
SESSIONS = ("s0", "s1", "s2", "s3")
sessions = st.sampled_from(SESSIONS)
texts = st.builds(words, st.integers(1, 60), st.integers(0, 7))


class DiskMachine(RuleBasedStateMachine):
    """Chats over restarts. The swap thread's work is done when a rule says so, so that answers come late."""

    kind: ClassVar[Kind] = Kind.DENSE

    def __init__(self) -> None:
        super().__init__()
        fast = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = Path(tempfile.mkdtemp(prefix="samovar-test-", dir=fast))
        self.options: dict[str, str | int] = {}
        self.histories: dict[str, list[ChatMessage]] = {}
        self.latest: dict[str, Asked] = {}
        self.engine = Engine(self.kind)

    @initialize(
        num_cells=st.sampled_from([160, 400, 2000]),
        num_slots=st.integers(1, 4),
        ram=st.sampled_from(["unlimited", "off", "20KiB", "60KiB"]),
        disk=st.sampled_from(["1GiB", "100KiB", "30KiB", "off"]),
        shared=st.integers(0, 40),
        eager=st.booleans(),
    )
    def start(self, num_cells: int, num_slots: int, ram: str, disk: str, shared: int, eager: bool) -> None:
        self.options = {"num_cells": num_cells, "num_slots": num_slots, "ram_limit": ram, "disk_limit": disk}
        self.eager = eager
        self.boot()
        self.histories = {name: [system(words(shared))] for name in SESSIONS}

    def boot(self) -> None:
        seen = self.engine.seen
        self.engine = Engine(self.kind, disk=self.folder, **self.options)  # type: ignore[arg-type]
        self.engine.seen |= seen
        self.engine.swap_eagerly = self.eager

    def settle(self, session: str) -> None:
        """Take over the session's last answer, as a front end would."""
        asked = self.latest.pop(session, None)
        if asked is not None:
            if not asked.ended:
                self.engine.post(commands.Cancel(asked.request.id))
                self.engine.step()
            self.histories[session] = [*asked.request.messages, asked.answer()]

    @rule(session=sessions, text=texts, limit=st.integers(1, 40))
    def next_turn(self, session: str, text: str, limit: int) -> None:
        self.settle(session)
        self.latest[session] = self.engine.submit(
            session, [*self.histories[session], user(text)], max_tokens=limit
        )

    @rule(origin=sessions, copy=sessions, text=texts)
    def fork(self, origin: str, copy: str, text: str) -> None:
        self.settle(origin)
        self.settle(copy)
        self.histories[copy] = self.histories[origin][:]
        self.latest[copy] = self.engine.submit(copy, [*self.histories[copy], user(text)], max_tokens=6)

    @rule(session=sessions, text=texts, store=st.booleans())
    def side_task(self, session: str, text: str, store: bool) -> None:
        messages = [*self.histories[session], user(text)]
        self.engine.submit(session, messages, max_tokens=5, side_task=True, store=store)

    @rule(count=st.integers(1, 20))
    def serve(self, count: int) -> None:
        self.engine.step(count)

    @rule()
    def serve_all(self) -> None:
        self.engine.drain()

    @rule(count=st.integers(1, 6))
    def swap(self, count: int) -> None:
        assert self.engine.swapper is not None
        for _ in range(count):
            self.engine.swapper.serve_next(wait=False)
        self.engine.step()

    @rule(data=st.data())
    @precondition(lambda self: self.engine.busy)
    def cancel(self, data: st.DataObject) -> None:
        open_ids = sorted(name for name, asked in self.engine.asked.items() if not asked.ended)
        self.engine.post(commands.Cancel(data.draw(st.sampled_from(open_ids))))
        self.engine.step()

    @rule(session=sessions | st.none())
    def focus(self, session: str | None) -> None:
        self.engine.focus(session)

    @rule(
        command=st.one_of(
            st.builds(commands.Prefetch, sessions),
            st.builds(commands.Pin, sessions, st.booleans()),
            st.builds(commands.Evict, sessions, st.booleans()),
            st.builds(commands.Forget, sessions),
            st.builds(commands.ClearTier, st.sampled_from(Tier)),
            st.just(commands.VerifyDisk()),
            st.just(commands.PruneDisk()),
            st.builds(commands.SetRamLimit, st.sampled_from(["unlimited", "off", "20KiB", "60KiB"])),
            st.builds(commands.SetDiskLimit, st.sampled_from(["1GiB", "off", "40KiB", "no size"])),
            st.builds(commands.SetTokenLimit, st.sampled_from(["unlimited", "100"])),
        )
    )
    def control(self, command: commands.Command) -> None:
        self.engine.post(command)
        self.engine.step()

    @rule(seed=st.integers(0, 1 << 16), how=st.sampled_from(["flip", "cut", "delete", "swap", "link"]))
    def damage(self, seed: int, how: str) -> None:
        files = sorted(f for f in (self.folder / "kv" / "blocks").rglob("*.kv") if not f.is_symlink())
        if not files:
            return
        dice = random.Random(seed)
        file, other = dice.choice(files), dice.choice(files)
        content = bytearray(file.read_bytes())
        match how:
            case "flip" if content:
                content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
                file.write_bytes(content)
            case "cut":
                file.write_bytes(content[: dice.randrange(len(content) + 1)])
            case "swap":
                file.write_bytes(other.read_bytes())
            case "link":
                file.unlink()
                file.symlink_to(other)
            case _:
                file.unlink()

    @rule()
    def remove_the_folder(self) -> None:
        shutil.rmtree(self.folder / "kv", ignore_errors=True)
        self.engine.step()

    @rule()
    def restart(self) -> None:
        for session in SESSIONS:
            self.settle(session)
        self.engine.check_all_ended()
        self.engine.close()
        self.boot()

    def teardown(self) -> None:
        try:
            self.engine.check_all_ended()
            self.engine.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


@pytest.mark.parametrize("kind", Kind)
def test_replies_are_the_cold_ones_whatever_happens_to_the_disk(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((mover, "WRITE"), (mover, "SHRINK"), (control, "EVICT")):
        monkeypatch.setattr(module, f"{name}_PATIENCE_S", 0.0)
    machine = type(f"{kind.name}DiskMachine", (DiskMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=NUM_EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],  # shrinking takes many minutes here
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
