"""The engine loop with a disk below it, on the fake backend: restarts, damage, pins, limits, pressure."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from samovar.core import commands, events
from samovar.core.chat import ChatMessage
from samovar.core.request import MismatchReason, TierTokens
from samovar.core.snapshot import CacheSnapshot, Tier
from samovar.engine import control, swapper
from samovar.engine.swapper import Job, Write
from samovar.kv.disk_tier import DiskError, DiskTier
from samovar.kv.explain import Previous
from tests.engine.fake_backend import Kind
from tests.engine.harness import BLOCK, CLIENT, Asked, Engine, system, user, words

every_kind = pytest.mark.parametrize("kind", Kind)


def told(engine: Engine) -> CacheSnapshot:
    """The picture of the cache now."""
    engine.post(commands.Describe())
    engine.step()
    return next(e.snapshot for _, e in reversed(engine.events) if isinstance(e, events.CacheChanged))


def refused(engine: Engine) -> list[str]:
    return [event.message for _, event in engine.events if isinstance(event, events.CommandRefused)]


def chat(engine: Engine, session: str, own: int = 60) -> tuple[list[ChatMessage], Asked]:
    """A session with one finished turn: its history, and the turn."""
    history = [system(words(20))]
    asked = engine.chat(session, history, words(own, ord(session[-1])))
    engine.step(2)
    return history, asked


def kept_tokens(asked: Asked) -> int:
    """Tokens that stood in the context when the request ended."""
    end = asked.finished
    return len(asked.prompt) + end.stats.generated_tokens - (end.reason.value == "length")


def files(folder: Path) -> list[Path]:
    return sorted((folder / "kv" / "blocks").rglob("*.kv"))


@every_kind
def test_after_a_restart_a_turn_costs_only_what_is_new(kind: Kind, tmp_path: Path) -> None:
    engine = Engine(kind, disk=tmp_path)
    history, first = chat(engine, "s")
    engine.close()
    engine = Engine(kind, disk=tmp_path)
    second = engine.chat("s", history, words(10, 3))
    stats = second.finished.stats
    assert stats.reused == TierTokens(disk=kept_tokens(first))
    assert stats.processed_tokens == len(second.prompt) - kept_tokens(first)
    assert stats.mismatch is not None
    assert stats.mismatch.reason is MismatchReason.NEW_MESSAGE, "the past is remembered too"
    engine.seen.add(tuple(second.prompt))
    engine.drain()


@every_kind
def test_a_focus_change_brings_a_chat_from_disk_into_the_context(kind: Kind, tmp_path: Path) -> None:
    engine = Engine(kind, disk=tmp_path)
    _, first = chat(engine, "s")
    engine.close()
    engine = Engine(kind, disk=tmp_path)
    engine.focus("s")
    while not engine.context_of("s"):
        engine.step()
    assert len(engine.context_of("s")) == kept_tokens(first)
    swap = next(e for _, e in engine.events if isinstance(e, events.SwapFinished) and e.into_context)
    assert swap.disk_tokens == swap.num_tokens == kept_tokens(first)


def test_prefetch_brings_it_to_ram_only(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    _, first = chat(engine, "s")
    engine.close()
    engine = Engine(disk=tmp_path)
    engine.step(3)
    before = next(row for row in told(engine).prompts if row.session == "s")
    assert (before.host_tokens, before.disk_tokens, before.tier) == (0, kept_tokens(first), Tier.DISK)
    engine.post(commands.Prefetch("s"))
    engine.step(4)
    after = next(row for row in told(engine).prompts if row.session == "s")
    assert (after.context_tokens, after.host_tokens, after.tier) == (0, kept_tokens(first), Tier.HOST)


def test_where_a_chat_is_is_known_as_soon_as_the_disk_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "COUNT_S", 1e9)
    engine = Engine(disk=tmp_path)
    _, first = chat(engine, "s")
    engine.close()
    engine = Engine(disk=tmp_path)
    # The disk opens after the first tick, as it may with a thread of its own.
    engine.loop._control.tick()
    engine.step(3)
    row = next(row for row in told(engine).prompts if row.session == "s")
    assert (row.disk_tokens, row.tier) == (kept_tokens(first), Tier.DISK)


def test_what_leaves_ram_for_want_of_room_comes_back_from_disk(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path, ram_limit="80KiB")
    histories = {name: chat(engine, name, 90) for name in ("s0", "s1", "s2", "s3")}
    assert engine.loop.ledger.evictions > 0
    history, _ = histories["s0"]
    second = engine.chat("s0", history, words(10, 3))
    stats = second.finished.stats
    assert stats.reused.disk > 0
    assert stats.reused.total == second.reusable
    engine.check_all_ended()


@pytest.mark.parametrize("how", ["flip", "cut", "delete", "swap"])
def test_a_damaged_file_costs_tokens_and_is_counted(how: str, tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    history, _ = chat(engine, "s")
    engine.close()
    victim, other = files(tmp_path)[1], files(tmp_path)[0]
    content = victim.read_bytes()
    match how:
        case "flip":
            victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            victim.write_bytes(content[:-1])
        case "delete":
            victim.unlink()
        case _:
            victim.write_bytes(other.read_bytes())
    engine = Engine(disk=tmp_path)
    second = engine.chat("s", history, words(10, 3))
    stats = second.finished.stats
    assert stats.reused.total < len(second.prompt) - 20
    assert stats.reused.total + stats.processed_tokens == len(second.prompt)
    assert told(engine).disk.quarantined >= 1
    engine.post(commands.VerifyDisk())
    engine.step(60)
    verified = next(e for _, e in engine.events if isinstance(e, events.DiskVerified))
    assert (verified.bad, verified.problem) == (0, ""), "it was set aside already"


def test_the_folder_may_go_while_the_engine_runs(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    history, _ = chat(engine, "s")
    (tmp_path / "kv").rename(tmp_path / "gone")
    engine.chat("s", history, words(10, 3))
    assert "is gone" in told(engine).disk.problem
    engine.check_all_ended()
    assert engine.swapper is not None
    engine.swapper._t_failed = None  # the time until the next attempt is over
    history, _ = chat(engine, "t")
    engine.step(3)
    snapshot = told(engine)
    assert snapshot.disk.problem == ""
    assert snapshot.disk.blocks == snapshot.host.blocks, "everything is written again"


def test_a_full_disk_is_told_and_reading_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(disk=tmp_path)
    history, first = chat(engine, "s")
    engine.close()
    engine = Engine(disk=tmp_path)
    usage = type("Usage", (), {"total": 1 << 30, "used": 1 << 30, "free": 0})
    monkeypatch.setattr("samovar.kv.disk_tier.shutil.disk_usage", lambda _: usage)
    chat(engine, "t")
    assert "is full" in told(engine).disk.problem
    second = engine.chat("s", history, words(10, 3))
    assert second.finished.stats.reused.disk > 0
    assert second.finished.stats.reused.total == kept_tokens(first)
    monkeypatch.undo()
    chat(engine, "v")
    assert "is full" in told(engine).disk.problem, "not tried again at every block"
    assert engine.swapper is not None
    engine.swapper._t_full = -1e9
    chat(engine, "u")
    assert told(engine).disk.problem == ""


def test_a_pinned_chat_stays_in_ram_and_its_pin_lasts(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path, ram_limit="80KiB")
    _, first = chat(engine, "s0", 60)
    engine.post(commands.Pin("s0", True))
    for name in ("s1", "s2", "s3", "s4"):
        chat(engine, name, 90)
    rows = {row.session: row for row in told(engine).prompts}
    assert rows["s0"].pinned
    assert rows["s0"].host_tokens == kept_tokens(first)
    assert any(row.host_tokens < row.tokens for row in rows.values())
    engine.post(commands.SetRamLimit("4KiB"))
    engine.step()
    assert any("Pinned" in message for message in refused(engine))
    engine.close()
    engine = Engine(disk=tmp_path, ram_limit="40KiB")
    engine.step(3)
    assert next(row for row in told(engine).prompts if row.session == "s0").pinned


def test_evicting_one_chat_leaves_its_copy_on_disk_unless_everywhere(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    _, first = chat(engine, "s")
    chat(engine, "t")
    engine.post(commands.Evict("s"))
    engine.step(2)
    row = next(row for row in told(engine).prompts if row.session == "s")
    assert row.host_tokens < kept_tokens(first), "only what it shares may stay"
    assert row.context_tokens == 0
    num_files = len(files(tmp_path))
    engine.post(commands.Evict("s", everywhere=True))
    engine.step(2)
    assert len(files(tmp_path)) < num_files
    assert refused(engine) == []


def test_what_cannot_be_done_is_refused_with_a_reason(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path, disk_limit="off")
    chat(engine, "s")
    engine.post(commands.Pin("s", True))
    for command in (
        commands.Evict("s"),
        commands.Pin("nobody", True),
        commands.ClearTier(Tier.CONTEXT),
        commands.ClearTier(Tier.DISK),
        commands.VerifyDisk(),
        commands.SetDiskLimit("plenty"),
        commands.SetRamLimit("off"),
    ):
        engine.post(command)
    engine.step()
    assert len(refused(engine)) == 7
    assert not files(tmp_path)
    assert told(engine).disk.off


def test_a_deleted_chat_leaves_nothing_on_disk_but_what_others_share(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s", 90)
    shared = [system(words(20))]
    engine.ask("t", [*shared, user(words(40, 5))])
    engine.post(commands.Forget("s"))
    engine.step(2)
    engine.post(commands.VerifyDisk())
    engine.step(60)
    verified = next(e for _, e in engine.events if isinstance(e, events.DiskVerified))
    assert (verified.bad, verified.orphans) == (0, 0)
    assert verified.files == len(engine.stored_blocks()) == len(files(tmp_path))


def test_lowering_the_disk_limit_takes_effect_at_once(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    for name in ("s0", "s1", "s2"):
        chat(engine, name, 90)
    engine.post(commands.SetDiskLimit("40KiB"))
    engine.step(2)
    use = told(engine).disk
    assert use.limit_bytes == 40 * 1024
    assert use.room_bytes is not None
    assert use.room_bytes > use.bytes
    assert 0 < use.bytes <= 40 * 1024
    assert sum(-(-file.stat().st_size // 4096) * 4096 for file in files(tmp_path)) == use.bytes


def test_pinned_chats_above_the_disk_limit_stay_and_are_told(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s0", 90)
    chat(engine, "s1", 90)
    engine.post(commands.Pin("s0", True))
    engine.post(commands.SetDiskLimit("8KiB"))
    engine.step(3)
    use = told(engine).disk
    assert use.bytes > 8 * 1024
    assert "Pinned chats hold" in use.problem
    engine.post(commands.Pin("s0", False))
    engine.step(3)
    use = told(engine).disk
    assert use.bytes <= 8 * 1024
    assert use.problem == ""


def test_clearing_the_disk_answers_with_what_went(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")
    num_files = len(files(tmp_path))
    assert num_files > 3
    engine.post(commands.ClearTier(Tier.DISK))
    engine.step(2)
    cleared = next((c, e) for c, e in engine.events if isinstance(e, events.TierCleared))
    assert cleared[0] == CLIENT
    assert (cleared[1].num_blocks, cleared[1].kept_blocks) == (num_files, 0)
    assert not files(tmp_path)


def test_a_disk_that_was_cleared_stays_so_until_a_chat_goes_on(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    history, _ = chat(engine, "s")
    engine.post(commands.ClearTier(Tier.DISK))
    engine.step(2)
    engine.close()
    assert not files(tmp_path)
    engine = Engine(disk=tmp_path)
    history, _ = chat(engine, "t")
    engine.post(commands.ClearTier(Tier.DISK))
    engine.step(2)
    engine.chat("t", history, words(10, 3))
    engine.step(4)
    engine.close()
    engine = Engine(disk=tmp_path)
    engine.step(3)
    row = next(row for row in told(engine).prompts if row.session == "t")
    assert row.tier is Tier.DISK, "all of it, also what had been cleared"


def test_memory_pressure_shrinks_the_budget_and_it_grows_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PRESSURE_S", 0.0)
    monkeypatch.setattr(control, "MIN_PRESSED_BYTES", 8192)
    monkeypatch.setattr(control, "memory_floor", lambda: 1 << 20)
    engine = Engine(disk=tmp_path, ram_limit="4MiB")
    histories = {name: chat(engine, name, 90)[0] for name in ("s0", "s1", "s2", "s3")}
    full = told(engine).host
    assert full.lowered_from is None
    engine.available_bytes = 1 << 19
    engine.step(3)
    lower = told(engine).host
    assert lower.lowered_from == full.limit_bytes
    assert lower.limit_bytes is not None
    assert lower.bytes <= lower.limit_bytes < full.bytes
    engine.available_bytes = 1 << 24
    engine.step(12)
    again = told(engine).host
    assert (again.lowered_from, again.limit_bytes) == (None, full.limit_bytes)
    for name, history in histories.items():
        engine.chat(name, history, words(9, 2))
    engine.check_all_ended()


def test_a_request_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(disk=tmp_path)
    history, _ = chat(engine, "s")
    engine.close()
    engine = Engine(disk=tmp_path)
    engine.swap_eagerly = False
    history.append(user(words(10, 3)))
    asked = engine.submit("s", history)
    engine.step(5)
    assert asked.started is None, "it waits for the disk"
    monkeypatch.setattr("samovar.engine.disk.FETCH_PATIENCE_S", -1.0)
    engine.step(3)
    assert asked.started is not None
    assert asked.started.stats.reused.total == 0
    engine.drain()
    engine.check_all_ended()


def test_totals_last_over_restarts(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    history, _ = chat(engine, "s")
    engine.close()
    engine = Engine(disk=tmp_path)
    engine.chat("s", history, words(10, 3))
    engine.step(2)
    snapshot = told(engine)
    assert snapshot.totals.requests == 1
    assert snapshot.totals_ever is not None
    assert snapshot.totals_ever.requests == 2
    assert snapshot.totals_ever.reused_tokens == snapshot.totals.reused_tokens > 2 * BLOCK


@pytest.mark.parametrize(
    "past",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(
            msgspec.msgpack.encode(Previous((user("hi"),), (1, 2))).replace(b"hi", b"\xff\xff"), id="text"
        ),
        pytest.param(b"\x81\xa1x" + b"\x91" * 100_000 + b"\x01", id="nested"),
        pytest.param(msgspec.msgpack.encode(Previous((), (1, 1 << 40))), id="token too large for a number"),
        pytest.param(msgspec.msgpack.encode(Previous((), (1, 1 << 30))), id="token that the model has not"),
        pytest.param(msgspec.msgpack.encode(Previous((), (1, -1))), id="negative token"),
    ],
)
def test_a_damaged_past_is_forgotten(past: bytes, tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    history, _ = chat(engine, "s")
    chat(engine, "t")
    engine.close()
    with closing(sqlite3.connect(tmp_path / "kv" / "index.db")) as index, index:
        index.execute("UPDATE sessions SET past = ? WHERE session = 's'", (past,))
    engine = Engine(disk=tmp_path)
    engine.step(3)
    assert {row.session for row in told(engine).prompts} == {"t"}
    assert engine.chat("s", history, words(10, 3)).finished.stats.reused.disk > 0


def verified(engine: Engine) -> list[tuple[str | None, events.DiskVerified]]:
    return [(client, event) for client, event in engine.events if isinstance(event, events.DiskVerified)]


def test_everyone_who_asks_to_verify_is_answered(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")
    engine.swap_eagerly = False
    engine.post(commands.VerifyDisk())
    engine.step()
    assert engine.swapper is not None
    for _ in range(2):
        engine.swapper.serve_next(wait=False)  # it has begun
    engine.post(commands.VerifyDisk(), "b")
    engine.post(commands.VerifyDisk(), "c")
    engine.step()
    engine.swap_eagerly = True
    engine.step(3)
    assert [client for client, _ in verified(engine)] == [CLIENT, "b", "c"]
    assert len({event for _, event in verified(engine)}) == 1
    assert verified(engine)[0][1].files == len(files(tmp_path))


def test_turning_the_disk_off_ends_verifying_with_a_reason(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")
    engine.swap_eagerly = False
    engine.post(commands.VerifyDisk())
    engine.step()
    assert engine.swapper is not None
    for _ in range(2):
        engine.swapper.serve_next(wait=False)
    engine.post(commands.SetDiskLimit("off"))
    engine.step()
    engine.swap_eagerly = True
    engine.step(3)
    assert [event.problem for _, event in verified(engine)] == ["The disk cache is off."]
    assert told(engine).disk.off


def test_what_left_the_disk_is_written_again(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    history, first = chat(engine, "s")
    engine.post(commands.SetDiskLimit("1KiB"))
    engine.step(2)
    assert files(tmp_path) == []
    engine.post(commands.SetDiskLimit("1GiB"))
    engine.step(2)
    engine.close()
    engine = Engine(disk=tmp_path)
    stats = engine.chat("s", history, words(10, 3)).finished.stats
    assert stats.reused == TierTokens(disk=kept_tokens(first))


def test_what_another_host_took_from_the_disk_is_written_again(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    history, _ = chat(engine, "s")
    with closing(DiskTier(tmp_path, lambda _free, _own: 0)) as other:
        other.shrink()
    second = engine.chat("s", history, words(10, 3))
    engine.step(2)
    engine.close()
    engine = Engine(disk=tmp_path)
    stats = engine.chat("s", history, words(10, 5)).finished.stats
    assert stats.reused == TierTokens(disk=kept_tokens(second))


def test_ram_does_not_wait_for_a_disk_without_room(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path, disk_limit="1KiB", ram_limit="64KiB")
    assert engine.swapper is not None
    engine.swapper.eager = True
    posted: list[Write] = []
    post = engine.swapper.post

    def count(job: Job) -> None:
        if isinstance(job, Write):
            posted.append(job)
        post(job)

    engine.swapper.post = count  # type: ignore[method-assign]  # to count
    for number in range(6):
        chat(engine, f"s{number}", 100)
    assert engine.loop.ledger.evictions > 6
    assert len(posted) < 1000, "not again and again while a block waits to be stored"


@pytest.mark.parametrize("text", ["off", "OFF", " Off ", "0"])
def test_a_disk_that_is_turned_off_keeps_what_it_has(text: str, tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")
    before = files(tmp_path)
    engine.post(commands.SetDiskLimit(text))
    engine.step(2)
    disk = told(engine).disk
    assert (disk.off, disk.setting) == (True, text)
    assert files(tmp_path) == before


@pytest.mark.parametrize("command", [commands.ClearTier(Tier.DISK), commands.PruneDisk()])
def test_what_the_disk_could_not_do_is_not_told_as_done(
    command: commands.ClearTier | commands.PruneDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")

    def fails(*_args: object) -> None:
        raise DiskError("The disk fails.")

    monkeypatch.setattr(DiskTier, "clear", fails)
    monkeypatch.setattr(DiskTier, "prune", fails)
    engine.post(command)
    engine.step(3)
    assert refused(engine) == ["The disk fails."]
    assert not [e for _, e in engine.events if isinstance(e, events.TierCleared | events.DiskPruned)]


def test_a_chat_deleted_before_the_disk_is_open_does_not_come_back(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")
    chat(engine, "t")
    engine.close()
    engine = Engine(disk=tmp_path)
    engine.post(commands.Forget("s"))
    engine.step(3)
    assert {row.session for row in told(engine).prompts} == {"t"}


def test_a_chat_deleted_while_it_is_read_leaves_nothing_in_ram(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")
    engine.close()
    engine = Engine(disk=tmp_path)
    engine.step(3)
    engine.swap_eagerly = False
    engine.post(commands.Prefetch("s"))
    engine.step()
    assert engine.swapper is not None
    engine.swapper.serve_all()
    engine.step()  # its blocks were found, and are being read
    engine.post(commands.Forget("s"))
    engine.step()
    engine.swap_eagerly = True
    engine.step(3)
    assert (len(engine.loop.index), engine.loop.host.num_bytes) == (0, 0)
    assert files(tmp_path) == []


def test_a_chat_deleted_while_the_disk_is_off_leaves_the_disk(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")
    engine.post(commands.SetDiskLimit("off"))
    engine.step(2)
    assert files(tmp_path)
    engine.post(commands.Forget("s"))
    engine.step(2)
    assert files(tmp_path) == []
    assert told(engine).disk.off


def test_a_chat_deleted_while_the_disk_fails_leaves_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")

    def fails(*_args: object) -> None:
        raise DiskError("The disk fails.")

    with monkeypatch.context() as patch:
        patch.setattr(DiskTier, "forget", fails)
        engine.post(commands.Forget("s"))
        engine.step(2)
    assert files(tmp_path)
    monkeypatch.setattr(swapper, "RETRY_S", 0.0)
    engine.post(commands.SetDiskLimit("1GiB"))
    engine.step(2)
    assert files(tmp_path) == []


def test_a_deleted_chats_words_leave_the_index(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    engine.ask("s", [user("the launch code is 0000-1234"), *([user(words(20))] * 9)])
    engine.step(2)
    engine.post(commands.Forget("s"))
    engine.step(2)
    engine.close()
    assert b"launch code" not in (tmp_path / "kv" / "index.db").read_bytes()


@pytest.mark.parametrize("limit", ["", "100000"])
def test_a_deleted_chat_leaves_ram_when_it_has_been_written(limit: str, tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    engine.swap_eagerly = False
    asked = engine.submit("s", [user(words(60))])
    while not asked.ended:
        engine.step()
        assert engine.swapper is not None
        if not asked.started:
            engine.swapper.serve_all()
    engine.post(commands.Forget("s"))
    engine.step()
    assert len(engine.loop.index), "it is being written"
    if limit:
        engine.post(commands.SetTokenLimit(limit))
        engine.step()
    engine.swap_eagerly = True
    engine.step(3)
    assert len(engine.loop.index) == 0
    assert files(tmp_path) == []


def test_what_was_counted_stays_counted_while_the_disk_is_off(tmp_path: Path) -> None:
    engine = Engine(disk=tmp_path)
    chat(engine, "s")
    files(tmp_path)[0].write_bytes(b"damaged")
    engine.post(commands.VerifyDisk())
    engine.step(3)
    before = told(engine)
    assert before.disk.quarantined == 1
    engine.post(commands.SetDiskLimit("off"))
    engine.step(3)
    after = told(engine)
    assert (after.disk.quarantined, after.totals_ever) == (1, before.totals_ever)
