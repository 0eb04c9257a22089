"""The disk tier: what it keeps, what it lets go, and what it makes of a folder that was tampered with."""

import contextlib
import dataclasses
import errno
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from samovar.core.errors import SamovarError
from samovar.core.snapshot import Totals
from samovar.kv import block_file, disk_tier
from samovar.kv.disk_index import VERSION, PastRow, Row
from samovar.kv.disk_tier import MAX_SET_ASIDE, Checked, DiskError, DiskTier
from samovar.kv.tokens import pack
from tests.unit.disk_support import (
    BLOCK,
    HELD,
    NO_LIMIT,
    PAYLOAD_BYTES,
    Budget,
    blocks_in,
    chain,
    file_of,
    model_of,
    open_tier,
    put,
    put_all,
    read,
    serve,
    set_aside,
    verify,
)

PROMPT: Final = tuple(range(10))  # two blocks and a half


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def tier(folder: Path) -> Iterator[DiskTier]:
    opened = open_tier(folder)
    yield opened
    opened.close()


@contextlib.contextmanager
def sql(folder: Path) -> Iterator[sqlite3.Connection]:
    """The index behind the tier's back."""
    with contextlib.closing(sqlite3.connect(folder / "kv" / "index.db", isolation_level=None)) as connection:
        yield connection


def past_of(session: str, *, pinned: bool = False, used: float = 1.0) -> PastRow:
    return PastRow(session, f"title of {session}", b"past", 3, used, pinned)


def keys_of(tier: DiskTier, *prompts: tuple[int, ...]) -> set[bytes]:
    """Keys of the blocks of these prompts that can be found."""
    return {row.key for prompt in prompts for row in tier.find(prompt, 0, None)}


# ---- keeping


def test_a_chain_is_found_and_read(tier: DiskTier) -> None:
    pieces = put_all(tier, PROMPT)
    rows = tier.find(PROMPT, 0, None)
    assert [row.key for row in rows] == [piece.key for piece in pieces]
    assert [read(tier, row) for row in rows] == [piece.payload for piece in pieces]
    assert tier.usage() == (3 * HELD, len(PROMPT), 3)
    assert tier.count(PROMPT) == len(PROMPT)
    assert tier.quarantined == 0


def test_a_chain_is_found_from_the_middle_on(tier: DiskTier) -> None:
    first, second, third = put_all(tier, PROMPT)
    assert [row.key for row in tier.find(PROMPT, BLOCK, first.key)] == [second.key, third.key]


def test_another_prompt_finds_what_it_shares(tier: DiskTier) -> None:
    put_all(tier, PROMPT)
    assert serve(tier, (*PROMPT[:5], 99, 98)) == 5
    assert serve(tier, (99, *PROMPT)) == 0
    assert tier.count((*PROMPT[:5], 99, 98)) == 5


def test_a_model_that_cannot_use_parts_finds_whole_blocks(folder: Path) -> None:
    model = model_of(partial=False)
    tier = open_tier(folder, model)
    put_all(tier, PROMPT, model)
    assert serve(tier, PROMPT[:9], model) == 8
    assert tier.count(PROMPT[:9]) == 8
    assert serve(tier, PROMPT, model) == 10
    tier.close()


def test_a_longer_tail_takes_the_shorter_ones_place_and_owners(tier: DiskTier) -> None:
    put_all(tier, PROMPT[:9], owner="a")
    *_, tail = chain(PROMPT, model_of())
    assert put(tier, tail, ["b"])
    assert tier.usage()[2] == 3
    assert serve(tier, PROMPT) == 10
    tier.forget("b")
    assert serve(tier, PROMPT) == 10, "the first owner still has it"


def test_all_is_there_after_opening_again(folder: Path) -> None:
    tier = open_tier(folder)
    put_all(tier, PROMPT)
    tier.remember(past_of("s"), 10)
    tier.close()
    again = open_tier(folder)
    assert serve(again, PROMPT) == 10
    assert again.past() == [past_of("s")]
    assert again.usage() == (3 * HELD, 10, 3)
    again.close()


def test_writing_a_block_twice_keeps_one(tier: DiskTier) -> None:
    piece = put_all(tier, PROMPT[:4])[0]
    assert put(tier, piece, ["other"])
    assert tier.usage() == (HELD, 4, 1)
    tier.forget("s")
    assert serve(tier, PROMPT) == 4, "it is the other's too"


def test_folders_are_private(folder: Path, tier: DiskTier) -> None:
    put_all(tier, PROMPT)
    assert stat.S_IMODE((folder / "kv").stat().st_mode) == 0o700
    for path in (folder / "kv" / "blocks").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in blocks_in(folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "kv.secret").stat().st_mode) == 0o600


def test_a_folder_open_to_others_is_closed(folder: Path) -> None:
    (folder / "kv").mkdir(parents=True)
    (folder / "kv").chmod(0o777)
    open_tier(folder).close()
    assert stat.S_IMODE((folder / "kv").stat().st_mode) == 0o700


def test_a_link_in_the_folders_place_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    (folder / "kv").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiskError, match="a link or belongs to another user"):
        open_tier(folder)


# ---- bad files


def _flip_header(file: Path) -> None:
    _flip(file, 50)


def _flip_tag(file: Path) -> None:
    _flip(file, 20)


def _flip_magic(file: Path) -> None:
    _flip(file, 0)


def _flip_payload(file: Path) -> None:
    _flip(file, file.stat().st_size - 1)


def _flip(file: Path, pos: int) -> None:
    data = bytearray(file.read_bytes())
    data[pos] ^= 0x80
    file.write_bytes(data)


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def _empty(file: Path) -> None:
    os.truncate(file, 0)


def _lengthen(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"\0")


def _no_block(file: Path) -> None:
    file.write_bytes(b"\0" * file.stat().st_size)


def _link(file: Path) -> None:
    file.symlink_to(file.rename(file.with_name("moved")))


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "inner").write_bytes(b"x")


def _remove(file: Path) -> None:
    file.unlink()


def _rename(file: Path) -> None:
    file.rename(file.with_name(f"{'0' * 32}.kv"))


def _file_for_folder(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.write_bytes(b"x")


def _other_layout(file: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        secret = block_file.load_secret(file.parents[3] / "kv.secret")
        header = block_file.check_block(file, secret)
        patch.setattr(block_file, "LAYOUT", block_file.LAYOUT + 1)
        payload = file.read_bytes()[-header.size :]
        block_file.write_block(file, file.with_suffix(".tmp"), secret, header, memoryview(payload))


def _other_user(file: Path) -> None:
    header = block_file.check_block(file, block_file.load_secret(file.parents[3] / "kv.secret"))
    payload = file.read_bytes()[-header.size :]
    block_file.write_block(file, file.with_suffix(".tmp"), b"\1" * 32, header, memoryview(payload))


DAMAGES: Final = (
    _flip_header,
    _flip_tag,
    _flip_magic,
    _flip_payload,
    _truncate,
    _empty,
    _lengthen,
    _no_block,
    _link,
    _fifo,
    _folder,
    _remove,
    _rename,
    _file_for_folder,
    _other_layout,
    _other_user,
)
damages = pytest.mark.parametrize("damage", DAMAGES)
GONE: Final = (_remove, _rename, _file_for_folder)


@damages
def test_a_bad_file_is_a_miss_and_is_counted_once(
    folder: Path, tier: DiskTier, damage: Callable[[Path], None]
) -> None:
    first, second, _ = put_all(tier, PROMPT)
    damage(file_of(folder, second))
    assert serve(tier, PROMPT) == BLOCK, "up to the bad one"
    assert tier.quarantined == 1
    assert serve(tier, PROMPT) == BLOCK
    assert tier.quarantined == 1, "it is not met again"
    assert tier.usage()[2] == 2
    assert keys_of(tier, PROMPT) == {first.key}
    if damage not in GONE:
        assert file_of(folder, second).name in {path.name for path in set_aside(folder)}


@damages
def test_a_file_that_turns_bad_after_it_was_found_is_refused(
    folder: Path, tier: DiskTier, damage: Callable[[Path], None]
) -> None:
    piece = put_all(tier, PROMPT[:4])[0]
    (row,) = tier.find(PROMPT, 0, None)
    damage(file_of(folder, piece))
    assert read(tier, row) is None
    assert tier.quarantined == 1
    assert tier.usage() == (0, 0, 0)
    assert tier.find(PROMPT, 0, None) == []


@damages
def test_after_a_bad_file_the_block_can_be_stored_again(
    folder: Path, tier: DiskTier, damage: Callable[[Path], None]
) -> None:
    pieces = put_all(tier, PROMPT)
    damage(file_of(folder, pieces[1]))
    assert serve(tier, PROMPT) == BLOCK
    assert put(tier, pieces[1], ["s"])
    assert serve(tier, PROMPT) == 10, "what stood on it is of use again"


@damages
def test_verify_finds_a_bad_file(folder: Path, tier: DiskTier, damage: Callable[[Path], None]) -> None:
    pieces = put_all(tier, PROMPT)
    damage(file_of(folder, pieces[1]))
    found = verify(tier)
    assert found.files == 2
    if damage is _file_for_folder:
        assert found.bad + found.orphans == 2, "the block, and the file in its folder's place"
    else:
        assert found.bad == (damage not in GONE)
        assert found.orphans == {"_remove": 1, "_rename": 2, "_link": 1}.get(damage.__name__, 0)
    after = verify(tier)
    assert (after.files, after.bad, after.orphans) == (2, 0, 0), "all is mended"
    assert tier.usage()[2] == 2


def test_swapped_contents_are_refused_on_both_sides(folder: Path, tier: DiskTier) -> None:
    left, right = chain(PROMPT[:4], model_of())[0], chain((5, 6, 7, 8), model_of())[0]
    assert put(tier, left)
    assert put(tier, right)
    one, two = file_of(folder, left), file_of(folder, right)
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    assert serve(tier, left.tokens) == serve(tier, right.tokens) == 0
    assert tier.quarantined == 2
    assert len(set_aside(folder)) == 2


def test_a_lost_secret_makes_every_block_a_miss(folder: Path) -> None:
    tier = open_tier(folder)
    put_all(tier, PROMPT)
    tier.close()
    (folder / "kv.secret").unlink()
    again = open_tier(folder)
    assert serve(again, PROMPT) == 0
    assert verify(again) == Checked(0, 0, 2, 0)
    assert again.quarantined == 3
    again.close()


def test_only_some_bad_files_are_kept(folder: Path, tier: DiskTier) -> None:
    for number in range(MAX_SET_ASIDE + 5):
        prompt = (number, 0, 0, 0)
        _flip_payload(file_of(folder, put_all(tier, prompt)[0]))
        assert serve(tier, prompt) == 0
    assert tier.quarantined == MAX_SET_ASIDE + 5
    assert len(set_aside(folder)) == MAX_SET_ASIDE


# ---- bad rows


@pytest.mark.parametrize(
    "change",
    [
        "parent = x'00112233445566778899aabbccddeeff'",
        "start = start + 1",
        "tokens = x'0000000000000000'",
        "tokens = x'00'",
        "size = size + 1",
        "size = -5",
        "held = held * 2",
        "held = -1",
        "model = 77",
        "state = 0",
        "state = 2",
        "state = 9",
    ],
)
@pytest.mark.parametrize("by_verify", [False, True])
def test_a_bad_row_is_a_miss_and_verify_finds_it(
    folder: Path, tier: DiskTier, change: str, by_verify: bool
) -> None:
    pieces = put_all(tier, PROMPT)
    with sql(folder) as index:
        index.execute(f"UPDATE blocks SET {change} WHERE key = ?", (pieces[1].key,))
    if not by_verify:
        assert serve(tier, PROMPT) == BLOCK
    found = verify(tier)
    assert found.files == 2
    assert tier.quarantined + found.orphans >= 1
    assert tier.usage() == (2 * HELD, 6, 2)
    assert blocks_in(folder) == sorted(file_of(folder, pieces[number]) for number in (0, 2))
    assert verify(tier) == Checked(2, found.bytes, 0, 0)


def test_a_key_of_another_length_cannot_be_entered(folder: Path, tier: DiskTier) -> None:
    put_all(tier, PROMPT)
    with sql(folder) as index, pytest.raises(sqlite3.IntegrityError):
        index.execute("UPDATE blocks SET key = zeroblob(300)")


# ---- a bad index


def _random_bytes(file: Path) -> None:
    file.write_bytes(random.Random(1).randbytes(20_000))


def _half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _short(file: Path) -> None:
    os.truncate(file, 50)


def _no_tables(file: Path) -> None:
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as index:
        index.execute("CREATE TABLE other (x)")
        index.execute(f"PRAGMA user_version = {VERSION}")


def _older(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as index:
        index.execute("PRAGMA user_version = -3")


def _no_counters(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as index:
        index.execute("DELETE FROM meta")


def _read_only_header(file: Path) -> None:
    _patch(file, 18, b"\x09\x01")


def _bad_schema_format(file: Path) -> None:
    _patch(file, 44, b"\0\0\0\x77")


def _index_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _index_link(file: Path) -> None:
    file.symlink_to(file.rename(file.with_name("moved.db")))


def _patch(file: Path, pos: int, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(pos)
        stream.write(data)


@pytest.mark.parametrize(
    "damage",
    [
        _random_bytes,
        _half,
        _short,
        _no_tables,
        _older,
        _no_counters,
        _read_only_header,
        _bad_schema_format,
        _index_folder,
        _index_link,
    ],
)
def test_a_damaged_index_is_set_aside_and_the_tier_starts_empty(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    tier = open_tier(folder)
    for number in range(40):
        put_all(tier, (number, 1, 2, 3))
    tier.close()
    damage(folder / "kv" / "index.db")
    again = open_tier(folder)
    found = verify(again)  # what opening does not meet, this does
    assert again.quarantined == 1
    assert again.usage() == (0, 0, 0)
    assert blocks_in(folder) == []
    assert found.bad <= 1
    assert [path.name for path in set_aside(folder)] == ["index.db"]
    put_all(again, PROMPT)
    assert serve(again, PROMPT) == 10
    again.close()


def test_an_index_that_turns_bad_while_open_is_told_as_damaged(folder: Path, tier: DiskTier) -> None:
    put_all(tier, PROMPT)
    with sql(folder) as index:
        index.execute("DELETE FROM meta")
    with pytest.raises(DiskError) as caught:
        tier.usage()
    assert caught.value.damaged
    anew = open_tier(folder, distrust=True)
    assert anew.usage() == (0, 0, 0)
    assert not tier.is_there()
    anew.close()


def test_an_index_of_a_newer_release_is_left_alone(folder: Path) -> None:
    tier = open_tier(folder)
    pieces = put_all(tier, PROMPT)
    tier.close()
    with sql(folder) as index:
        index.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = (folder / "kv" / "index.db").read_bytes()
    with pytest.raises(DiskError, match="newer Samovar and is left alone") as caught:
        open_tier(folder)
    assert not caught.value.damaged
    assert (folder / "kv" / "index.db").read_bytes() == before
    assert blocks_in(folder) == sorted(file_of(folder, piece) for piece in pieces)
    assert set_aside(folder) == []


def test_a_folder_that_was_removed_is_noticed(folder: Path, tier: DiskTier) -> None:
    put_all(tier, PROMPT)
    assert tier.is_there()
    shutil.rmtree(folder / "kv")
    assert not tier.is_there()
    with pytest.raises(DiskError, match="is gone"):
        tier.limit_bytes()
    assert read(tier, row_of_first()) is None
    with pytest.raises(DiskError, match="is gone"):
        put(tier, chain((7, 7, 7, 7), model_of())[0])
    assert not (folder / "kv").exists(), "the old tier does not make it anew"


def test_another_folder_in_its_place_is_noticed(folder: Path, tier: DiskTier) -> None:
    (folder / "kv").rename(folder / "moved")
    other = open_tier(folder)
    assert not tier.is_there()
    assert other.is_there()
    other.close()


def row_of_first() -> Row:
    """The row of the prompt's first block, as `find` would give it."""
    piece = chain(PROMPT[:4], model_of())[0]
    header = block_file.BlockHeader(
        model_of().fingerprint, piece.key, piece.parent, 0, pack(piece.tokens), PAYLOAD_BYTES
    )
    return Row(piece.key, piece.parent, 0, header.tokens, header.size, HELD, header.fingerprint)


# ---- disk full


def full(*_args: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_is_full_in_the_middle_of_a_write(
    folder: Path, tier: DiskTier, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    put_all(tier, PROMPT)
    before, files = tier.usage(), blocks_in(folder)
    piece = chain((9, 9, 9, 9), model_of())[0]
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(DiskError, match="is full") as caught:
            put(tier, piece)
        assert caught.value.full
        assert not caught.value.damaged
        assert serve(tier, PROMPT) == 10, "reads go on"
    assert tier.usage() == before
    assert blocks_in(folder) == files, "nothing is left behind"
    assert put(tier, piece), "with room it goes on"
    assert verify(tier).files == 4


def test_nothing_is_written_when_little_is_left(
    folder: Path, tier: DiskTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(tier, PROMPT)
    total = 1 << 40

    def usage(_path: object) -> object:
        return type("Usage", (), {"total": total, "used": total - 1000, "free": 1000})()

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(DiskError) as caught:
        put(tier, chain((9, 9, 9, 9), model_of())[0])
    assert caught.value.full
    assert tier.usage()[2] == 3
    assert serve(tier, PROMPT) == 10


def test_a_file_size_limit_of_the_system(folder: Path) -> None:
    """A write that the kernel itself refuses, in a process of its own."""
    script = f"""
import resource, signal
from pathlib import Path
from samovar.kv.disk_tier import DiskError
from tests.unit.disk_support import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
tier = open_tier(Path({str(folder)!r}))
put_all(tier, range(10))
before = blocks_in(Path({str(folder)!r}))
piece = chain((9, 9, 9, 9), model_of())[0]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    put(tier, piece)
except DiskError:
    print("refused", end=" ")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert blocks_in(Path({str(folder)!r})) == before
print(serve(tier, range(10)), put(tier, piece), tier.usage()[2], verify(tier).files)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == ["refused", "10", "True", "4", "4"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, where the system lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_really_is_full(small_disk: Path) -> None:
    tier = open_tier(small_disk)
    put_all(tier, PROMPT)
    filler = small_disk / "filler"
    (small_disk / "others").write_bytes(bytes(300_000))
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(1 << 20))
    assert shutil.disk_usage(small_disk).free == 0
    for number in range(3):
        with pytest.raises(DiskError) as caught:
            put(tier, chain((number, 9, 9, 9), model_of())[0])
        assert caught.value.full
    assert serve(tier, PROMPT) == 10, "reads go on"
    filler.unlink()
    (small_disk / "others").unlink()
    put_all(tier, (7, 7, 7, 7))
    found = verify(tier)
    assert (found.files, found.bad, found.orphans) == (4, 0, 0)
    tier.close()


def test_a_row_that_could_not_be_taken_back_is_taken_back_later(
    tier: DiskTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is so full that the index cannot be written either."""
    piece = chain(PROMPT[:4], model_of())[0]

    def no_room(_keys: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(tier._index, "end_delete", no_room)
        with pytest.raises(DiskError):
            put(tier, piece)
    assert serve(tier, PROMPT) == 0
    assert put(tier, piece)
    assert serve(tier, PROMPT) == 4
    assert tier.usage() == (HELD, 4, 1)


# ---- the budget


def test_the_least_recently_used_leaves_go_first(folder: Path) -> None:
    budget = Budget(6 * HELD)
    tier = open_tier(folder, budget=budget)
    old, new = tuple(range(12)), tuple(range(100, 112))
    old_pieces, new_pieces = put_all(tier, old), put_all(tier, new)
    assert put(tier, chain((7, 7, 7, 7), model_of())[0])
    assert keys_of(tier, old) == {piece.key for piece in old_pieces[:2]}, "a leaf, not the oldest block"
    tier.touch([piece.key for piece in old_pieces[:2]], "s")
    assert put(tier, chain((8, 8, 8, 8), model_of())[0])
    assert keys_of(tier, new) == {piece.key for piece in new_pieces[:2]}, "the other chain is the older now"
    assert tier.evictions == 2
    tier.close()


def test_shrinking_takes_children_before_parents_and_never_exceeds(folder: Path) -> None:
    budget = Budget()
    tier = open_tier(folder, budget=budget)
    pieces = put_all(tier, tuple(range(40)))
    for left in range(10, -1, -1):
        budget.num_bytes = left * HELD
        tier.shrink()
        assert tier.usage()[0] <= budget.num_bytes
        assert keys_of(tier, tuple(range(40))) == {piece.key for piece in pieces[:left]}
        assert len(blocks_in(folder)) == left
    tier.close()


def test_what_does_not_fit_is_not_stored(folder: Path) -> None:
    tier = open_tier(folder, budget=Budget(HELD - 1))
    assert not put(tier, chain(PROMPT, model_of())[0])
    assert tier.usage() == (0, 0, 0)
    assert blocks_in(folder) == []
    tier.close()


def test_the_budget_holds_after_every_step(folder: Path) -> None:
    rng = random.Random(3)
    budget = Budget(5 * HELD)
    tier = open_tier(folder, budget=budget)
    for number in range(120):
        prompt = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 20)))
        match number % 4:
            case 0:
                budget.num_bytes = rng.randrange(8) * HELD
                tier.shrink()
            case _:
                for piece in chain(prompt, model_of()):
                    put(tier, piece, ["s"])
                    assert tier.usage()[0] <= budget.num_bytes
        assert tier.usage()[0] == HELD * len(blocks_in(folder)) <= budget.num_bytes
    assert tier.evictions
    tier.close()


def test_pinned_blocks_are_never_evicted(folder: Path) -> None:
    budget = Budget(4 * HELD)
    tier = open_tier(folder, budget=budget)
    pieces = put_all(tier, tuple(range(12)), owner="pinned")
    tier.remember(past_of("pinned"), 10)
    tier.pin("pinned", True)
    for number in range(50, 54):
        assert put(tier, chain((number, 0, 0, 0), model_of())[0], ["other"])
        assert keys_of(tier, tuple(range(12))) == {piece.key for piece in pieces}
    budget.num_bytes = HELD
    tier.shrink()
    assert keys_of(tier, tuple(range(12))) == {piece.key for piece in pieces}, "not even for the limit"
    assert not put(tier, chain((60, 0, 0, 0), model_of())[0])
    tier.pin("pinned", False)
    tier.shrink()
    assert tier.usage()[0] == HELD
    tier.close()


def test_two_models_share_one_budget(folder: Path) -> None:
    budget = Budget(4 * HELD)
    one, two = model_of("one"), model_of("two")
    first, second = open_tier(folder, one, budget), open_tier(folder, two, budget)
    put_all(first, tuple(range(12)), one)
    put_all(second, tuple(range(12)), two)
    assert first.usage() == second.usage() == (4 * HELD, 16, 4)
    assert serve(second, tuple(range(12)), two) == 12
    assert serve(first, tuple(range(12)), one) == 4, "the older ones made room, leaves first"
    assert len(blocks_in(folder)) == 4
    assert first.quarantined == second.quarantined == 0
    first.close()
    second.close()


def test_room_that_another_host_takes_at_the_last_moment_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(3 * HELD)
    first, second = open_tier(folder, model_of("one"), budget), open_tier(folder, model_of("two"), budget)
    put_all(first, tuple(range(12)), model_of("one"))
    late = chain((1, 1, 1, 1), model_of("two"))
    real = first._check_free

    def other_writes(more_bytes: int) -> None:
        if late:
            assert put(second, late.pop())
        real(more_bytes)

    monkeypatch.setattr(first, "_check_free", other_writes)
    assert put(first, chain((2, 2, 2, 2), model_of("one"))[0])
    assert not late
    assert first.usage()[0] <= budget.num_bytes
    assert serve(first, (2, 2, 2, 2), model_of("one")) == 4
    first.close()
    second.close()


def test_models_never_serve_each_others_blocks(folder: Path) -> None:
    one, two = model_of("one"), model_of("two")
    first, second = open_tier(folder, one), open_tier(folder, two)
    put_all(first, PROMPT, one)
    assert second.find(PROMPT, 0, None) == []
    assert second.count(PROMPT) == 0
    foreign = chain(PROMPT, one)[0]
    assert second.find(PROMPT, BLOCK, foreign.key) == [], "not even behind its parent"
    first.close()
    second.close()


# ---- crashes


DEAD: Final = "999999999 1.00"


@pytest.mark.parametrize("state", [0, 2])
@pytest.mark.parametrize(
    "writer",
    [
        DEAD,
        "",
        "x",
        "1 2 3",
        f"{2**70} 1.0",
        "-4 1.0",
        pytest.param(f"{os.getpid()} 1.00", id="another start"),
    ],
)
def test_what_a_dead_process_left_half_done_is_swept(folder: Path, state: int, writer: str) -> None:
    tier = open_tier(folder)
    pieces = put_all(tier, PROMPT)
    tier.close()
    with sql(folder) as index:
        index.execute("UPDATE blocks SET state = ?, writer = ? WHERE key = ?", (state, writer, pieces[2].key))
    half = file_of(folder, pieces[2]).with_suffix(".999999999")
    half.write_bytes(b"half")
    again = open_tier(folder)
    assert again.usage() == (2 * HELD, 8, 2)
    assert blocks_in(folder) == sorted(file_of(folder, piece) for piece in pieces[:2])
    assert verify(again).orphans == 0
    again.close()


@pytest.mark.parametrize("drift", [0.0, 1.0, -1.0])
def test_what_a_live_process_is_doing_is_left_alone(folder: Path, drift: float) -> None:
    tier = open_tier(folder)
    pieces = put_all(tier, PROMPT)
    tier.close()
    other = psutil.Process(os.getppid())
    writer = f"{other.pid} {other.create_time() + drift:.2f}"
    with sql(folder) as index:
        index.execute("UPDATE blocks SET state = 0, writer = ? WHERE key = ?", (writer, pieces[2].key))
    half = file_of(folder, pieces[2]).with_suffix(f".{other.pid}")
    half.write_bytes(b"half")
    again = open_tier(folder)
    assert again.usage()[2] == 3
    assert again.find(PROMPT, 0, None)[-1].key == pieces[1].key, "it is not served yet"
    found = verify(again)
    assert (found.files, found.bad, found.orphans) == (2, 0, 0)
    assert half.exists()
    assert not put(again, pieces[2]), "another host writes it"
    again.close()


def test_a_writer_that_was_taken_for_dead_leaves_no_file(
    folder: Path, tier: DiskTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = chain(PROMPT[:4], model_of())[0]
    real = os.replace

    def swept(source: Path, target: Path) -> None:
        with sql(folder) as index:
            index.execute("DELETE FROM blocks")
        real(source, target)

    monkeypatch.setattr(os, "replace", swept)
    assert not put(tier, piece)
    assert blocks_in(folder) == []
    assert tier.usage() == (0, 0, 0)


# ---- verify


def test_verify_of_a_sound_folder(folder: Path, tier: DiskTier) -> None:
    put_all(tier, PROMPT)
    steps = list(tier.verify())
    assert steps[:-1] == [(0, 3), (1, 3), (2, 3)]
    num_bytes = sum(path.stat().st_size for path in blocks_in(folder))
    assert steps[-1] == Checked(3, num_bytes, 0, 0)
    assert tier.quarantined == 0


def test_verify_of_an_empty_folder(tier: DiskTier) -> None:
    assert verify(tier) == Checked(0, 0, 0, 0)


def test_verify_removes_what_belongs_to_nothing(folder: Path, tier: DiskTier) -> None:
    pieces = put_all(tier, PROMPT)
    good = file_of(folder, pieces[0])
    blocks = folder / "kv" / "blocks"
    (blocks / "stray").write_bytes(b"x")
    (blocks / "link").symlink_to(good.parent)
    (good.parent / "notes.txt").write_bytes(b"x")
    (good.parent / "inner").mkdir()
    (good.parent / "inner" / "deep").write_bytes(b"x")
    good.with_suffix(".12345").write_bytes(b"an old half of a block that is there")
    (blocks / "zz").mkdir()
    shutil.copy(good, blocks / "zz" / good.name)
    shutil.copy(good, good.with_name(f"{'0' * 32}.kv"))
    assert verify(tier).orphans == 7
    assert blocks_in(folder) == sorted(file_of(folder, piece) for piece in pieces)
    assert verify(tier).orphans == 0
    assert serve(tier, PROMPT) == 10


def test_verify_counts_rows_without_files(folder: Path, tier: DiskTier) -> None:
    pieces = put_all(tier, PROMPT)
    shutil.rmtree(folder / "kv" / "blocks")
    (folder / "kv" / "blocks").mkdir()
    assert verify(tier) == Checked(0, 0, 0, len(pieces))
    assert tier.usage() == (0, 0, 0)


def test_verify_puts_the_counters_right(folder: Path, tier: DiskTier) -> None:
    put_all(tier, PROMPT)
    with sql(folder) as index:
        index.execute("UPDATE meta SET bytes = 1, tokens = 2, blocks = 3")
    verify(tier)
    assert tier.usage() == (3 * HELD, 10, 3)


def test_verify_gives_way_to_what_happens_meanwhile(tier: DiskTier) -> None:
    put_all(tier, PROMPT)
    steps = tier.verify()
    next(steps)
    tier.forget("s")
    put_all(tier, (5, 6, 7, 8))
    *_, last = steps
    assert isinstance(last, Checked)
    assert (last.bad, last.orphans) == (0, 0)
    assert serve(tier, (5, 6, 7, 8)) == 4


# ---- clear, prune, forget


def test_clear_keeps_what_is_pinned(folder: Path, tier: DiskTier) -> None:
    pieces = put_all(tier, PROMPT, owner="pinned")
    put_all(tier, (*PROMPT[:4], 50, 51, 52, 53), owner="other")
    put_all(tier, (90, 91), owner="other")
    tier.remember(past_of("pinned", pinned=True), 10)
    assert tier.clear() == (2, 2 * HELD, 3)
    assert keys_of(tier, PROMPT) == {piece.key for piece in pieces}
    assert len(blocks_in(folder)) == 3
    tier.pin("pinned", False)
    assert tier.clear() == (3, 3 * HELD, 0)
    assert blocks_in(folder) == []


def test_clear_takes_what_was_set_aside_too(folder: Path, tier: DiskTier) -> None:
    _flip_payload(file_of(folder, put_all(tier, PROMPT)[0]))
    assert serve(tier, PROMPT) == 0
    assert set_aside(folder)
    tier.clear()
    assert set_aside(folder) == []


def weights_of(path: Path) -> str:
    """As the files now are: one has gone, one has changed."""
    match path.stem:
        case "gone":
            raise FileNotFoundError(path)
        case "unreadable":
            raise SamovarError("It is no model.")
        case "changed":
            return "other weights"
        case name:
            return f"weights of {name}"


def test_prune_removes_the_models_that_can_never_be_used_again(folder: Path) -> None:
    prompts = {}
    for number, name in enumerate(("gone", "unreadable", "changed", "built", "good", "mine")):
        model = model_of(name)
        if name == "built":
            model = dataclasses.replace(model, build="an older build")
        with contextlib.closing(open_tier(folder, model)) as tier:
            prompts[name] = tuple(range(100 * number, 100 * number + 10))
            put_all(tier, prompts[name], model, owner=name)
            tier.remember(past_of(name, pinned=True), 10)
    mine = open_tier(folder, model_of("mine"))
    stale = {"gone", "unreadable", "changed", "built"}
    before = mine.models("build", weights_of)
    assert {model.name for model in before if model.stale} == stale
    assert [model.name for model in before if model.current] == ["mine"]
    assert all((model.blocks, model.bytes) == (3, 3 * HELD) for model in before)
    names, num_blocks, num_bytes = mine.prune("build", weights_of)
    assert (set(names), num_blocks, num_bytes) == (stale, 12, 12 * HELD)
    assert [model.name for model in mine.models("build", weights_of)] == ["good", "mine"]
    assert len(blocks_in(folder)) == 6
    assert serve(mine, prompts["mine"], model_of("mine")) == 10
    assert {model for model, _, _ in mine.all_past()} == {"good", "mine"}
    assert mine.prune("build", weights_of) == ([], 0, 0)
    mine.close()


def test_prune_spares_the_model_that_runs(folder: Path) -> None:
    tier = open_tier(folder, model_of("gone"))
    put_all(tier, PROMPT, model_of("gone"))
    assert tier.prune("build", weights_of) == ([], 0, 0)
    assert tier.usage()[2] == 3
    tier.close()


def test_forgetting_a_session_deletes_what_only_it_has(folder: Path, tier: DiskTier) -> None:
    ours = (*PROMPT[:8], 50, 51)
    shared = put_all(tier, PROMPT[:8], owner="a")
    own = put_all(tier, PROMPT, owner="a")[2:]
    put_all(tier, ours, owner="b")
    tier.remember(past_of("a", pinned=True), 10)
    tier.remember(past_of("b"), 10)
    assert tier.forget("a") == len(own)
    assert keys_of(tier, PROMPT) == {piece.key for piece in shared}
    assert serve(tier, ours) == 10
    assert [past.session for past in tier.past()] == ["b"]
    assert tier.forget("b") == 3
    assert tier.usage() == (0, 0, 0)
    assert blocks_in(folder) == []
    assert tier.forget("nobody") == 0


def test_a_forgotten_middle_stays_while_others_stand_on_it(tier: DiskTier) -> None:
    put_all(tier, PROMPT[:8], owner="a")
    assert put(tier, chain(PROMPT, model_of())[2], ["b"])
    tier.forget("a")
    assert serve(tier, PROMPT) == 10


# ---- sessions and counters


def test_of_many_sessions_the_oldest_are_not_remembered(tier: DiskTier) -> None:
    tier.remember(past_of("old but pinned", pinned=True, used=0.0), 3)
    for number in range(1, 7):
        tier.remember(past_of(f"s{number}", used=float(number)), 3)
    assert [past.session for past in tier.past()] == ["old but pinned", "s4", "s5", "s6"]


def test_sessions_are_remembered_for_each_model(folder: Path) -> None:
    first, second = open_tier(folder, model_of("one")), open_tier(folder, model_of("two"))
    first.remember(past_of("s", used=1.0), 10)
    second.remember(past_of("s", used=2.0), 10)
    put_all(second, PROMPT, model_of("two"))
    assert first.past() == [past_of("s", used=1.0)]
    assert [(name, past.used, tokens) for name, past, tokens in first.all_past()] == [
        ("two", 2.0, 10),
        ("one", 1.0, 0),
    ]
    first.close()
    second.close()


def test_totals_add_up_for_ever(folder: Path) -> None:
    first, second = open_tier(folder, model_of("one")), open_tier(folder, model_of("two"))
    assert first.totals() == Totals()
    parts = [Totals(requests=2, saved_ms=1.5, hits=1), Totals(requests=3, evictions=4), Totals(disk_reads=7)]
    first.add_totals(parts[0])
    second.add_totals(parts[1])
    whole = first.add_totals(parts[2])
    assert whole == parts[0] + parts[1] + parts[2]
    assert whole == Totals(requests=5, saved_ms=1.5, hits=1, evictions=4, disk_reads=7)
    first.close()
    second.close()
    again = open_tier(folder)
    assert again.totals() == whole
    verify(again)
    again.clear()
    assert again.totals() == whole
    again.close()


def test_damaged_totals_start_again(folder: Path, tier: DiskTier) -> None:
    with sql(folder) as index:
        index.execute("UPDATE meta SET totals = x'c1c1'")
    assert tier.totals() == Totals()
    assert tier.add_totals(Totals(requests=1)) == Totals(requests=1)


def test_a_tier_without_a_model_can_be_looked_after(folder: Path) -> None:
    tier = open_tier(folder)
    put_all(tier, PROMPT)
    tier.close()
    keeper = DiskTier(folder, lambda _free, _own: NO_LIMIT)
    assert verify(keeper).files == 3
    assert keeper.models("build", weights_of)[0].current is False
    assert keeper.clear() == (3, 3 * HELD, 0)
    keeper.close()


def test_the_limit_is_told_free_and_own_bytes(folder: Path) -> None:
    seen: list[tuple[int, int]] = []

    def limit(free: int, own: int) -> int:
        seen.append((free, own))
        return NO_LIMIT

    tier = DiskTier(folder, limit, model_of())
    put_all(tier, PROMPT)
    assert tier.limit_bytes() == NO_LIMIT
    assert seen[-1][1] == 3 * HELD
    assert seen[-1][0] > 0
    tier.close()


def test_an_unreadable_disk_is_one_sentence(tier: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(tier, PROMPT[:4])

    def broken(*_args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(disk_tier, "read_block", broken)
    (row,) = tier.find(PROMPT, 0, None)
    assert read(tier, row) is None, "a bad sector is a bad file"
    assert tier.quarantined == 1


def test_a_row_that_names_no_path_is_of_a_model_that_is_gone(folder: Path, tier: DiskTier) -> None:
    put_all(tier, PROMPT)
    with sql(folder) as index:
        index.execute("UPDATE models SET path = char(0)")
    (model,) = tier.models("build", lambda path: str(path.stat()))
    assert model.stale


def test_only_a_full_disk_is_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(file: Path, *_args: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))

    with contextlib.closing(open_tier(tmp_path / "fuller")) as tier:
        monkeypatch.setattr(disk_tier, "write_block", denied)
        with pytest.raises(DiskError, match="permission denied") as caught:
            put(tier, chain(PROMPT, model_of())[0])
    assert not caught.value.full


def test_counting_a_models_blocks_reads_no_blocks(folder: Path, tier: DiskTier) -> None:
    """It is done after nearly every job, so it must not grow with what the blocks hold."""
    put_all(tier, PROMPT)
    with sql(folder) as index:
        plan = index.execute(
            "EXPLAIN QUERY PLAN SELECT count(*), sum(held) FROM blocks WHERE model = 1"
        ).fetchall()
    assert "COVERING INDEX" in str(plan)


def test_a_prompt_larger_than_the_budget_keeps_its_beginning(folder: Path) -> None:
    tier = open_tier(folder, budget=Budget(3 * HELD))
    prompt = tuple(range(24))
    stored = [put(tier, piece) for piece in chain(prompt, model_of())]
    assert stored == [True, True, True, False, False, False]
    assert serve(tier, prompt) == 12, "what follows on nothing would only take room"
    tier.close()
