"""Which blocks leave first: leaves of the prefix tree, least recently used, never in use or pinned."""

import heapq
from collections.abc import Iterable

from samovar.kv.block import Block


def choose_victims(
    blocks: Iterable[Block], need_bytes: int, need_tokens: int, *, or_less: bool = False
) -> tuple[Block, ...] | None:
    """Blocks to evict, in order, to free at least so many bytes and tokens.

    Where that is impossible: None, or with `or_less` all that can go. A parent comes after all of its
    children.
    """

    def evictable(block: Block, gone: set[bytes]) -> bool:
        return not (block.users or block.pins) and all(key in gone for key in block.children)

    gone: set[bytes] = set()
    leaves = [(block.last_used, block.key, block) for block in blocks if evictable(block, gone)]
    heapq.heapify(leaves)
    chosen: list[Block] = []
    while need_bytes > 0 or need_tokens > 0:
        if not leaves:
            return tuple(chosen) if or_less else None
        _, key, block = heapq.heappop(leaves)
        gone.add(key)
        chosen.append(block)
        need_bytes -= block.num_bytes
        need_tokens -= block.num_tokens
        parent = block.parent
        if parent is not None and evictable(parent, gone):
            heapq.heappush(leaves, (parent.last_used, parent.key, parent))
    return tuple(chosen)
