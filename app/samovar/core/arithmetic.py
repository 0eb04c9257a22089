"""What chats take in the context, in RAM and on disk: sums over a model's shape. Pure.

a block in RAM:  tokens × (numbers × bytes + cell)  + the state (recurrent, hybrid)
the context:     cells  × full attention's numbers  + window cells × the window layers' + states
"""

import math
from typing import Final

import msgspec

from samovar.core.kv_types import KV_TYPES, Heads

PAGE_BYTES: Final = 4096
FILE_BYTES: Final = 512  # a block file's head, about
TOKEN_ID_BYTES: Final = 4
_CELL_STEP: Final = 256  # llama.cpp rounds a context up to it


class KvShape(msgspec.Struct, frozen=True):
    """What a model keeps of tokens, whatever the KV types: numbers, not bytes.

    `numbers` are keys and values of one token in all attention layers, `key_share` of them keys;
    `window_numbers` of them lie in layers that see the last `window` tokens alone. `state_bytes` is kept
    of each sequence whatever its length. `cell_bytes` is what a saved block holds of a token besides.
    """

    numbers: int = 0
    key_share: float = 0.5
    window_numbers: int = 0
    window: int = 0
    state_bytes: int = 0
    cell_bytes: int = 0
    heads: Heads = Heads()


class Load(msgspec.Struct, frozen=True):
    """Chats to plan for: `shared` of each one's `tokens` are the same in all."""

    chats: int
    tokens: int
    shared: int = 0

    @property
    def distinct_tokens(self) -> int:
        return self.shared + self.chats * (self.tokens - self.shared)


BLOCK_OVERHEAD_BYTES: Final = 1024  # a block of the prefix index: key, set of sessions, blob
TOKEN_OVERHEAD_BYTES: Final = 40  # a token id in the index: the number and the reference to it


class Needs(msgspec.Struct, frozen=True):
    """What a load takes with one pair of KV types.

    `context_bytes` holds one chat, as while it is the one that is open; `together_bytes` all of them.
    """

    kv_type_k: str
    kv_type_v: str
    bytes_per_token: float
    context_bytes: int
    together_bytes: int
    ram_bytes: int
    disk_bytes: int


def bytes_per_number(shape: KvShape, type_k: str, type_v: str) -> float:
    """The mean over keys and values."""
    key, value = KV_TYPES[type_k].bytes_per_number, KV_TYPES[type_v].bytes_per_number
    return shape.key_share * key + (1 - shape.key_share) * value


def bytes_per_token(shape: KvShape, type_k: str, type_v: str) -> float:
    """Keys and values of one token: layers × KV heads × head size × 2 × bytes, where all layers are alike."""
    return shape.numbers * bytes_per_number(shape, type_k, type_v)


def context_bytes(
    *,
    full_bytes: float,
    window_bytes: float,
    window: int,
    state_bytes: int,
    num_cells: int,
    num_slots: int,
    batch_tokens: int,
) -> int:
    """A context of `num_cells` for `num_slots` sequences and one for scratch.

    `full_bytes` and `window_bytes` are of one token in layers of either kind. Layers with a window have a
    cache of their own, which need not be longer than all sequences' windows and one step (llama.cpp:
    `llama_kv_cache_iswa`).
    """
    cells = _rounded(num_cells)
    window_cells = _rounded(min(cells, window * (num_slots + 1) + batch_tokens))
    return math.ceil(cells * full_bytes + window_cells * window_bytes + state_bytes * (num_slots + 1))


def needs(
    shape: KvShape,
    type_k: str,
    type_v: str,
    load: Load,
    *,
    block_tokens: int,
    num_slots: int,
    batch_tokens: int,
) -> Needs:
    """What a load takes. A prefix that chats share is counted once in RAM, on disk and in the context.

    Sliding-window, hybrid and recurrent models cannot share cells, so there the context holds it for each.
    """
    each = bytes_per_number(shape, type_k, type_v)
    can_share = not (shape.window or shape.state_bytes)

    def context(num_cells: int, slots: int) -> int:
        return context_bytes(
            full_bytes=(shape.numbers - shape.window_numbers) * each,
            window_bytes=shape.window_numbers * each,
            window=shape.window,
            state_bytes=shape.state_bytes,
            num_cells=num_cells,
            num_slots=slots,
            batch_tokens=batch_tokens,
        )

    ram, disk = 0, 0
    own = load.tokens - load.shared
    for chats, tokens in ((1, load.shared), (load.chats, own)):
        whole, tail = divmod(tokens, block_tokens)
        for count, size in ((whole, block_tokens), (1 if tail else 0, tail)):
            blob = size * (shape.numbers * each + shape.cell_bytes) + shape.state_bytes
            ram += chats * count * (_pages(blob) + BLOCK_OVERHEAD_BYTES + TOKEN_OVERHEAD_BYTES * size)
            disk += chats * count * _pages(blob + size * TOKEN_ID_BYTES + FILE_BYTES)
    all_tokens = load.distinct_tokens if can_share else load.chats * load.tokens
    return Needs(
        kv_type_k=type_k,
        kv_type_v=type_v,
        bytes_per_token=shape.numbers * each,
        context_bytes=context(load.tokens, num_slots),
        together_bytes=context(all_tokens, max(num_slots, load.chats)),
        ram_bytes=ram,
        disk_bytes=disk,
    )


def _rounded(num_cells: int) -> int:
    return -(-num_cells // _CELL_STEP) * _CELL_STEP


def _pages(num_bytes: float) -> int:
    return math.ceil(num_bytes / PAGE_BYTES) * PAGE_BYTES
