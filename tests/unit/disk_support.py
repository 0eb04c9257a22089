"""Models, chains of blocks and payloads for tests of the disk tier."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from samovar.kv.block import child_key, root_key
from samovar.kv.disk_index import Row
from samovar.kv.disk_tier import Checked, DiskTier, Model
from samovar.kv.host_tier import page_bytes
from samovar.kv.index import common_prefix
from samovar.kv.tokens import unpack

BLOCK: Final = 4
PAYLOAD_BYTES: Final = 200
HELD: Final = page_bytes(1)  # of every block here: header and payload fit a page
NO_LIMIT: Final = 1 << 40


def model_of(name: str = "one", *, partial: bool = True) -> Model:
    return Model(
        fingerprint=f"fingerprint of {name}",
        root=root_key(f"fingerprint of {name}"),
        block_tokens=BLOCK,
        partial=partial,
        name=name,
        path=f"/models/{name}.gguf",
        weights=f"weights of {name}",
        build="build",
    )


@dataclass(frozen=True, slots=True)
class Piece:
    """One block of a chain, with the only payload that may ever be read for it."""

    key: bytes
    parent: bytes
    start: int
    tokens: tuple[int, ...]

    @property
    def payload(self) -> bytes:
        return random.Random(self.key).randbytes(PAYLOAD_BYTES)


def chain(tokens: Sequence[int], model: Model) -> list[Piece]:
    """The blocks of `tokens`, the last one maybe shorter."""
    pieces, key = [], model.root
    for start in range(0, len(tokens), BLOCK):
        part = tuple(tokens[start : start + BLOCK])
        pieces.append(Piece(child_key(key, part), key, start, part))
        key = pieces[-1].key
    return pieces


@dataclass(slots=True)
class Budget:
    """A limit in bytes that a test can change."""

    num_bytes: int = NO_LIMIT

    def __call__(self, free: int, own: int) -> int:
        del free, own
        return self.num_bytes


def open_tier(
    folder: Path, model: Model | None = None, budget: Budget | None = None, *, distrust: bool = False
) -> DiskTier:
    return DiskTier(folder, budget or Budget(), model or model_of(), distrust=distrust)


def put(tier: DiskTier, piece: Piece, owners: Sequence[str] = ()) -> bool:
    return tier.write(
        piece.key, piece.parent, piece.start, piece.tokens, memoryview(bytearray(piece.payload)), owners
    )


def put_all(
    tier: DiskTier, tokens: Sequence[int], model: Model | None = None, owner: str = "s"
) -> list[Piece]:
    """Write a chain of blocks; all of them must have been stored."""
    pieces = chain(tokens, model or model_of())
    for piece in pieces:
        assert put(tier, piece, [owner])
    return pieces


def read(tier: DiskTier, row: Row) -> bytes | None:
    """The payload of a row; None if the tier refuses it."""
    memory = bytearray(row.size)
    return bytes(memory) if tier.read(row, memoryview(memory)) else None


def serve(tier: DiskTier, tokens: Sequence[int], model: Model | None = None) -> int:
    """Tokens of a prompt that the tier serves, each payload compared with the only right one."""
    used = model or model_of()
    rows = tier.find(tokens, 0, None)
    served, key = 0, used.root
    for row in rows:
        data = read(tier, row)
        if data is None:
            break
        mine = unpack(row.tokens)
        piece = Piece(child_key(key, mine), key, row.start, mine)
        assert (row.key, row.parent) == (piece.key, piece.parent)
        assert data == piece.payload, "a wrong payload was handed out"
        common = common_prefix(mine, tokens[row.start :])
        assert common, "a block of another prompt"
        served, key = row.start + common, row.key
    return served


def verify(tier: DiskTier) -> Checked:
    """All steps of a verification; its result."""
    *_, last = tier.verify()
    assert isinstance(last, Checked)
    return last


def blocks_in(folder: Path) -> list[Path]:
    """All files below the folder of blocks."""
    return sorted(path for path in (folder / "kv" / "blocks").rglob("*") if not path.is_dir())


def set_aside(folder: Path) -> list[Path]:
    return sorted((folder / "kv" / "bad").iterdir())


def file_of(folder: Path, piece: Piece) -> Path:
    name = f"{piece.key.hex()}.kv"
    return folder / "kv" / "blocks" / name[:2] / name
