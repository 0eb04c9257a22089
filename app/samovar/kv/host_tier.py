"""The HOST tier: blobs in RAM under a byte budget and a token budget.

Owned by the engine thread. Every blob lies in an anonymous `mmap` of its own, so that dropping it really
returns the memory to the system. Bytes counted are bytes held: whole pages, what the prefix index takes for
a block, and blobs that are still being read.
"""

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from samovar.core.arithmetic import BLOCK_OVERHEAD_BYTES, TOKEN_OVERHEAD_BYTES


def page_bytes(size: int) -> int:
    """`size` in whole pages."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def held_bytes(size: int, num_tokens: int) -> int:
    """Bytes that a block of `num_tokens` with a blob of `size` bytes takes from the system."""
    return page_bytes(size) + BLOCK_OVERHEAD_BYTES + TOKEN_OVERHEAD_BYTES * num_tokens


class Blob:
    """`size` bytes of anonymous memory for the state of `num_tokens`; `held` are counted for it."""

    __slots__ = ("_memory", "held", "num_tokens", "size")

    def __init__(self, size: int, num_tokens: int) -> None:
        assert size > 0
        self.size = size
        self.num_tokens = num_tokens
        self.held = held_bytes(size, num_tokens)
        self._memory = mmap.mmap(-1, page_bytes(size))

    @contextmanager
    def address(self) -> Iterator[int]:
        """The memory's address, valid inside the `with` block alone."""
        export = ctypes.c_char.from_buffer(self._memory)
        try:
            yield ctypes.addressof(export)
        finally:
            del export

    @contextmanager
    def view(self) -> Iterator[memoryview]:
        """The blob's bytes, writable, inside the `with` block alone."""
        with memoryview(self._memory) as whole, whole[: self.size] as part:
            yield part

    def close(self) -> None:
        self._memory.close()


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of a tier; None is no limit. `off` means that nothing is kept at all."""

    max_bytes: int | None = None
    max_tokens: int | None = None
    off: bool = False


class HostTier:
    """Blobs by block key; never holds more than its limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.num_bytes = 0
        self.num_tokens = 0
        self._blobs: dict[bytes, Blob] = {}

    def __len__(self) -> int:
        return len(self._blobs)

    def __contains__(self, key: bytes) -> bool:
        return key in self._blobs

    def get(self, key: bytes) -> Blob | None:
        return self._blobs.get(key)

    def excess(self, more_bytes: int = 0, more_tokens: int = 0) -> tuple[int, int]:
        """Bytes and tokens over the limits if so much more were held; (0, 0) when it fits."""
        over_bytes = over_tokens = 0
        if self.limits.max_bytes is not None:
            over_bytes = max(0, self.num_bytes + more_bytes - self.limits.max_bytes)
        if self.limits.max_tokens is not None:
            over_tokens = max(0, self.num_tokens + more_tokens - self.limits.max_tokens)
        return over_bytes, over_tokens

    def could_ever_hold(self, num_bytes: int, num_tokens: int) -> bool:
        """Whether so much fits into an empty tier."""
        limits = self.limits
        return (
            not limits.off
            and (limits.max_bytes is None or num_bytes <= limits.max_bytes)
            and (limits.max_tokens is None or num_tokens <= limits.max_tokens)
        )

    def try_reserve(self, size: int, num_tokens: int) -> Blob | None:
        """Memory for a new blob, counted from now on; None if the system has none. Room has been made."""
        assert not self.limits.off
        assert self.excess(held_bytes(size, num_tokens), num_tokens) == (0, 0), "the budget is never exceeded"
        try:
            blob = Blob(size, num_tokens)
        except OSError:
            return None
        self.num_bytes += blob.held
        self.num_tokens += num_tokens
        return blob

    def put(self, key: bytes, blob: Blob) -> None:
        """A reserved blob now holds the block `key`."""
        assert key not in self._blobs
        self._blobs[key] = blob

    def release(self, blob: Blob) -> None:
        """Give a reserved blob's memory back."""
        blob.close()
        self.num_bytes -= blob.held
        self.num_tokens -= blob.num_tokens

    def drop(self, key: bytes) -> int:
        """Give a block's memory back; returns the bytes freed."""
        blob = self._blobs.pop(key)
        self.release(blob)
        return blob.held
