"""Blocks and their keys: `key(block) = hash(key(parent), tokens)`, so a key names a whole prefix.

The first parent is the model's fingerprint. Keys are never made from blob bytes.
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

KEY_BYTES: Final = 16


def root_key(fingerprint: str) -> bytes:
    """The parent of every first block under a model and its settings: 16 bytes."""
    return hashlib.blake2b(fingerprint.encode(), digest_size=KEY_BYTES, person=b"samovar-root").digest()


def child_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Key of the block that holds `tokens` behind the prefix named `parent`: 16 bytes."""
    return hashlib.blake2b(array("i", tokens).tobytes(), digest_size=KEY_BYTES, key=parent).digest()


@dataclass(slots=True, eq=False)
class Block:
    """KV state of the tokens `[start, end)` of one prefix; a node of the prefix index, owned by it.

    `users` counts running requests that need it, `pins` the pinned sessions that own it; either keeps it
    from eviction. `sessions` are those that have had a prompt through it, or made it; `PrefixIndex.label`
    adds to them. `last_used` is the index's clock. `on_disk`: the disk tier has it too, as far as is known.
    `from_disk`: it was read from there, and has not been used since.
    """

    key: bytes
    parent: "Block | None"
    tokens: tuple[int, ...]
    start: int
    num_bytes: int = 0
    children: dict[bytes, "Block"] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    users: int = 0
    pins: int = 0
    hits: int = 0
    last_used: int = 0
    on_disk: bool = False
    from_disk: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)
