"""Mutations of block files, index rows and the index's bytes: nothing wrong is ever handed out.

After each one every prompt is asked for (each payload compared with the only right one) and the folder is
verified; index bytes that changed under open tiers may be noticed at the next opening only. A mutation is
counted when one of these holds, in this order:

- COUNTED: a tier's count of files that were set aside went up, or `verify` found something bad or an orphan;
- REFUSED: the index says that it is of a newer release, and is left alone with a sentence;
- GONE: rows are gone and so are their files, as after a crash (an entry that says it is being written);
- HARMLESS: the index has the same blocks as before and every prompt is served whole (bytes that SQLite does
  not use, a time of use, a title). For index bytes only: no mutation of a file or a block's row may be that.

Any exception but a `DiskError` that opening again mends is a crash.
"""

import contextlib
import enum
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from samovar.kv.disk_tier import Checked, DiskError, DiskTier, Model
from tests.unit.disk_support import (
    BLOCK,
    blocks_in,
    chain,
    file_of,
    model_of,
    open_tier,
    put,
    serve,
    verify,
)

NUM_MUTATIONS: Final = 1000 if os.environ.get("SAMOVAR_SOAK") else 150
NUM_PROMPTS: Final = 10
MODELS: Final = (model_of("one"), model_of("two", partial=False))
T = TypeVar("T")


class Outcome(enum.Enum):
    COUNTED = "counted"
    REFUSED = "refused"
    GONE = "gone"
    HARMLESS = "harmless"


def prompts_of(model: Model) -> list[tuple[int, ...]]:
    """Prompts of two or three blocks and a tail; some share their first one."""
    rng = random.Random(model.name)
    return [
        (number // 3, 0, 0, 0, *(rng.randrange(1000) for _ in range(2 * BLOCK + number % 4)))
        for number in range(NUM_PROMPTS)
    ]


PROMPTS: Final = [(model, prompt) for model in MODELS for prompt in prompts_of(model)]


class Keeper:
    """Holds a model's tier open as the swap thread does: what fails or is gone is opened again, once."""

    def __init__(self, folder: Path, model: Model) -> None:
        self._folder = folder
        self._model = model
        self._closed = 0
        self.tier = open_tier(folder, model)

    @property
    def counted(self) -> int:
        """Files that were set aside."""
        return self._closed + self.tier.quarantined

    def open_again(self, *, distrust: bool = False) -> None:
        self.tier.close()
        tier = open_tier(self._folder, self._model, distrust=distrust)
        self._closed += self.tier.quarantined
        self.tier = tier

    def attempt(self, action: Callable[[DiskTier], T]) -> T:
        if not self.tier.is_there():
            self.open_again()
        try:
            return action(self.tier)
        except DiskError as error:
            self.open_again(distrust=error.damaged)
            return action(self.tier)

    def fill(self) -> None:
        """Everything is there."""
        self.attempt(lambda tier: fill(tier, self._model))

    def read_all(self) -> int:
        """Prompts that are served whole; a wrong payload is an AssertionError."""
        return self.attempt(lambda tier: read_all(tier, self._model))


def fill(tier: DiskTier, model: Model) -> None:
    for prompt in prompts_of(model):
        for piece in chain(prompt, model):
            assert put(tier, piece, [f"session {prompt[0]}"])


def read_all(tier: DiskTier, model: Model) -> int:
    whole = 0
    for prompt in prompts_of(model):
        served = serve(tier, prompt, model)
        assert served <= len(prompt)
        whole += served == len(prompt)
    return whole


def rows_of(folder: Path) -> set[tuple[object, ...]]:
    """All that decides what is served."""
    with contextlib.closing(sqlite3.connect(folder / "kv" / "index.db")) as index:
        return set(
            index.execute(
                "SELECT key, parent, start, tokens, size, held, state, fingerprint"
                " FROM blocks LEFT JOIN models ON models.id = model"
            )
        )


# ---- mutations of a file


def flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 8))):
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    if bytes(data) == file.read_bytes():
        data[0] ^= 1
    file.write_bytes(data)


def truncate(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(file.stat().st_size))


def extend(file: Path, rng: random.Random) -> None:
    with file.open("ab") as stream:
        stream.write(rng.randbytes(rng.randrange(1, 5000)))


def swap(file: Path, rng: random.Random) -> None:
    other = another(file, rng)
    data = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(data)


def copy_over(file: Path, rng: random.Random) -> None:
    shutil.copyfile(another(file, rng), file)


def rename(file: Path, rng: random.Random) -> None:
    name = rng.randbytes(16).hex()
    file.rename(file.with_name(rng.choice((f"{name}.kv", "x", f"{file.stem}.123", f"{file.stem}.KV"))))


def rename_over(file: Path, rng: random.Random) -> None:
    file.rename(another(file, rng))


def link(file: Path, rng: random.Random) -> None:
    other = another(file, rng)
    file.unlink()
    file.symlink_to(rng.choice((str(other), "/dev/zero", "nowhere", str(file.parent))))


def replace_by_other_kind(file: Path, rng: random.Random) -> None:
    file.unlink()
    if rng.random() < 0.5:
        file.mkdir()
    else:
        os.mkfifo(file)


def delete(file: Path, rng: random.Random) -> None:
    if rng.random() < 0.8:
        file.unlink()
    else:
        shutil.rmtree(file.parent)


def another(file: Path, rng: random.Random) -> Path:
    return rng.choice([other for other in blocks_in(file.parents[3]) if other != file])


FILE_MUTATIONS: Final = (
    flip,
    truncate,
    extend,
    swap,
    copy_over,
    rename,
    rename_over,
    link,
    replace_by_other_kind,
    delete,
)

# ---- mutations of a row


def mutate_row(folder: Path, rng: random.Random) -> str:
    """Change one column of one block's row to another value; its name."""
    with contextlib.closing(sqlite3.connect(folder / "kv" / "index.db", isolation_level=None)) as index:
        keys = [row[0] for row in index.execute("SELECT key FROM blocks ORDER BY key")]
        key, other = rng.sample(keys, 2)
        column = rng.choice(("key", "parent", "tokens", "start", "size", "held", "state", "model"))
        (old,) = index.execute(f"SELECT {column} FROM blocks WHERE key = ?", (key,)).fetchone()
        choices = _values(column, old, key, other, rng)
        value = rng.choice([choice for choice in choices if choice != old])
        index.execute(f"UPDATE blocks SET {column} = ? WHERE key = ?", (value, key))
        return f"row {column}"


def _values(column: str, old: Any, key: bytes, other: bytes, rng: random.Random) -> list[object]:  # noqa: ANN401 - a column's
    match column:
        case "key":
            return [rng.randbytes(16)]
        case "parent":
            return [rng.randbytes(16), b"", key, other, rng.randbytes(300)]
        case "tokens":
            return [rng.randbytes(len(old)), b"", old[:-1], old[:-4], old + old, rng.randbytes(4000)]
        case "start":
            return [old + BLOCK, -1, 2**62, old + rng.randrange(1, 100)]
        case "size":
            return [old + 1, old - 1, 0, -old, 2**62]
        case "held":
            return [old * 2, 0, -old, 2**62, old + 1]
        case "state":
            return [0, 2, 7, -1]
        case _:
            return [3 - old if old in (1, 2) else old + 1, 99, -1]


def mutate_index(folder: Path, rng: random.Random) -> None:
    """Random bytes somewhere in the index's file, or its end cut off."""
    file = folder / "kv" / "index.db"
    size = file.stat().st_size
    if rng.random() < 0.1:
        os.truncate(file, rng.randrange(size))
        return
    with file.open("r+b") as stream:
        # The first page says what everything else is.
        stream.seek(rng.randrange(100 if rng.random() < 0.2 else size))
        stream.write(rng.randbytes(rng.choice((1, 4, 64, 1000))))


# ---- the test


def test_random_mutations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    rng = random.Random(20261122)
    folder = tmp_path / "cache"
    keepers = [Keeper(folder, model) for model in MODELS]
    outcomes: Counter[tuple[str, Outcome]] = Counter()
    for _ in range(NUM_MUTATIONS):
        for keeper in keepers:
            keeper.fill()
        assert sum(keeper.read_all() for keeper in keepers) == len(PROMPTS)
        outcomes[one_mutation(folder, keepers, rng)] += 1
    for keeper in keepers:
        keeper.tier.close()
    print(
        "\n".join(
            f"{name:<28} {outcome.value:<9} {n}" for (name, outcome), n in sorted(outcomes.items(), key=str)
        )
    )
    assert sum(outcomes.values()) == NUM_MUTATIONS
    for name, outcome in outcomes:
        match outcome:
            case Outcome.HARMLESS | Outcome.REFUSED:
                assert name == "index bytes"
            case Outcome.GONE:
                assert name in ("row state", "index bytes")
            case Outcome.COUNTED:
                pass


def one_mutation(folder: Path, keepers: list[Keeper], rng: random.Random) -> tuple[str, Outcome]:
    """Mutate, read all, verify: what was mutated, and how it was counted."""
    before = rows_of(folder)
    counted = sum(keeper.counted for keeper in keepers)
    is_open = rng.random() < 0.5
    if not is_open:
        for keeper in keepers:
            keeper.tier.close()
    name = mutate(folder, rng)
    served = len(PROMPTS)
    found = Checked(0, 0, 0, 0)
    if is_open:
        served, found = look(keepers)
    if (not is_open or name == "index bytes") and not try_open(keepers):
        shutil.rmtree(folder / "kv")
        assert try_open(keepers)
        return name, Outcome.REFUSED
    served_then, found_then = look(keepers)
    again = keepers[0].attempt(verify)
    assert (again.bad, again.orphans) == (0, 0), f"{name}: one verification mends all"
    num_found = found.bad + found.orphans + found_then.bad + found_then.orphans
    if num_found or sum(keeper.counted for keeper in keepers) > counted:
        return name, Outcome.COUNTED
    served = min(served, served_then)
    after = rows_of(folder)
    if after == before and served == len(PROMPTS):
        return name, Outcome.HARMLESS
    assert after < before, f"{name}: something changed and nobody noticed"
    kept = {row[0] for row in after}
    for model, prompt in PROMPTS:
        for piece in chain(prompt, model):
            assert file_of(folder, piece).exists() == (piece.key in kept)
    return name, Outcome.GONE


def look(keepers: list[Keeper]) -> tuple[int, Checked]:
    """Read all, verify: prompts that are served whole, and what was found."""
    return sum(keeper.read_all() for keeper in keepers), keepers[0].attempt(verify)


def mutate(folder: Path, rng: random.Random) -> str:
    """One mutation; its name."""
    match rng.randrange(5):
        case 0 | 1:
            change = rng.choice(FILE_MUTATIONS)
            change(rng.choice(blocks_in(folder)), rng)
            return f"file {change.__name__}"
        case 2 | 3:
            return mutate_row(folder, rng)
        case _:
            mutate_index(folder, rng)
            return "index bytes"


def try_open(keepers: list[Keeper]) -> bool:
    """Open all tiers; False if the index claims to be of a newer release."""
    for keeper in keepers:
        try:
            keeper.open_again()
        except DiskError as error:
            if "newer Samovar" in str(error):
                return False
            raise
    return True
