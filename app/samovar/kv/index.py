"""The prefix index: the tree of all stored blocks; answers "how much of this prompt is stored?".

Owned by the engine thread. It knows structure and use, not bytes in memory: blobs live in the tiers.

    root ── [0,128) ── [128,256) ── [256,301)        a tail: shorter than a block, replaced by a longer one
                  └── [128,256)' ── [256,384)'       another chat with the same first block
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from samovar.kv.block import Block, child_key


@dataclass(frozen=True, slots=True)
class Match:
    """The longest stored prefix of a prompt: blocks from position 0, and how many tokens of it count.

    Only the last block may be used in part (`num_tokens` < `blocks[-1].end`).
    """

    blocks: tuple[Block, ...] = ()
    num_tokens: int = 0


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading positions at which both hold the same token."""
    limit = min(len(a), len(b))
    if list(a[:limit]) == list(b[:limit]):
        return limit
    return next(i for i in range(limit) if a[i] != b[i])


class PrefixIndex:
    """All blocks of one fingerprint, as a tree by prefix.

    `partial` says whether a block may be used in part (attention-only models).
    """

    def __init__(self, root: bytes, block_tokens: int, *, partial: bool) -> None:
        assert block_tokens > 0
        self.block_tokens = block_tokens
        self._root = root
        self._partial = partial
        self._top: dict[bytes, Block] = {}
        self._blocks: dict[bytes, Block] = {}
        self._clock = 0
        self._pinned: set[str] = set()
        self.version = 0  # grows whenever a block comes, goes, or changes its owners

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks.values())

    def __contains__(self, key: bytes) -> bool:
        return key in self._blocks

    def get(self, key: bytes) -> Block | None:
        return self._blocks.get(key)

    def key_of(self, parent: Block | None, tokens: Sequence[int]) -> bytes:
        """Key that a block of `tokens` behind `parent` has or would have."""
        return child_key(parent.key if parent else self._root, tokens)

    def match(self, tokens: Sequence[int], limit: int | None = None) -> Match:
        """The longest stored prefix of `tokens[:limit]`. Changes nothing."""
        end = len(tokens) if limit is None else min(limit, len(tokens))
        chain: list[Block] = []
        parent: Block | None = None
        pos = 0
        while pos + self.block_tokens <= end:
            block = self._blocks.get(self.key_of(parent, tokens[pos : pos + self.block_tokens]))
            if block is None:
                break
            chain.append(block)
            parent, pos = block, block.end
        rest = tokens[pos:end]
        best, best_len = None, 0
        for child in self._children(parent).values():
            length = common_prefix(child.tokens, rest)
            if length > best_len and (self._partial or length == child.num_tokens):
                best, best_len = child, length
        if best is not None:
            chain.append(best)
            pos += best_len
        return Match(tuple(chain), pos)

    def chain(self, tokens: Sequence[int]) -> tuple[Block, ...]:
        """The stored blocks that `tokens` runs through whole, from position 0 on. Changes nothing."""
        found = self.match(tokens)
        return (
            found.blocks
            if not found.blocks or found.blocks[-1].end <= found.num_tokens
            else found.blocks[:-1]
        )

    def superseded(self, parent: Block | None, tokens: Sequence[int]) -> tuple[Block, ...]:
        """Unused tails behind `parent` that a block of `tokens` makes needless. Changes nothing.

        Without partial use a shorter tail is the only way back to its end, so none is needless.
        """
        if not self._partial:
            return ()
        return tuple(
            child
            for child in self._children(parent).values()
            if child.num_tokens < len(tokens)
            and not (child.users or child.pins or child.children)
            and child.tokens == tuple(tokens[: child.num_tokens])
        )

    def is_needless(self, block: Block) -> bool:
        """Whether a longer block behind the same parent serves all of a leaf. Changes nothing."""
        return self._partial and any(
            child is not block and child.tokens[: block.num_tokens] == block.tokens
            for child in self._children(block.parent).values()
        )

    def covered(self, parent: Block | None, tokens: Sequence[int]) -> bool:
        """Whether a block behind `parent` already serves all of `tokens`. Changes nothing."""
        if self.key_of(parent, tokens) in self._blocks:
            return True
        if not self._partial:
            return False
        wanted = tuple(tokens)
        return any(child.tokens[: len(wanted)] == wanted for child in self._children(parent).values())

    def add(self, parent: Block | None, tokens: Sequence[int], num_bytes: int) -> Block:
        """Insert the block of `tokens` behind `parent`, which must be in the index."""
        assert 0 < len(tokens) <= self.block_tokens
        assert parent is None or self._blocks.get(parent.key) is parent
        assert parent is None or parent.num_tokens == self.block_tokens, "nothing follows a tail"
        key = self.key_of(parent, tokens)
        assert key not in self._blocks
        block = Block(key, parent, tuple(tokens), parent.end if parent else 0, num_bytes)
        self._children(parent)[key] = block
        self._blocks[key] = block
        self.version += 1
        self.touch([block])
        return block

    def remove(self, block: Block) -> None:
        """Take out a leaf that nobody uses."""
        assert self._blocks.get(block.key) is block
        assert not block.children, "parents exist while children do"
        assert block.users == 0, "in use is never evicted"
        del self._children(block.parent)[block.key]
        del self._blocks[block.key]
        self.version += 1

    def touch(self, blocks: Iterable[Block]) -> None:
        """Mark as just used, ancestors included, so that a parent is never older than its child."""
        self._clock += 1
        for block in blocks:
            node: Block | None = block
            while node is not None and node.last_used < self._clock:
                node.last_used = self._clock
                node = node.parent

    def label(self, block: Block, sessions: Iterable[str]) -> None:
        """Note that `sessions` own a block too."""
        block.sessions.update(sessions)
        self.version += 1
        block.pins = len(block.sessions & self._pinned)

    def unlabel(self, session: str) -> list[Block]:
        """A session owns nothing any more; its blocks."""
        self.version += 1
        mine = [block for block in self._blocks.values() if session in block.sessions]
        for block in mine:
            block.sessions.discard(session)
            block.pins = len(block.sessions & self._pinned)
        return mine

    def pin(self, session: str, pinned: bool) -> None:
        """Keep what a session owns, now and later, from eviction; or stop doing so."""
        if pinned:
            self._pinned.add(session)
        else:
            self._pinned.discard(session)
        for block in self._blocks.values():
            block.pins = len(block.sessions & self._pinned)

    def is_pinned(self, session: str) -> bool:
        return session in self._pinned

    def check(self) -> None:
        """Assert the structure: chains of keys from the root, positions, parents older or equal."""
        for block in self._blocks.values():
            assert block.key == self.key_of(block.parent, block.tokens)
            assert block.start == (block.parent.end if block.parent else 0)
            assert self._children(block.parent)[block.key] is block
            if block.parent is not None:
                assert self._blocks.get(block.parent.key) is block.parent
                assert block.parent.last_used >= block.last_used

    def _children(self, parent: Block | None) -> dict[bytes, Block]:
        return parent.children if parent else self._top
