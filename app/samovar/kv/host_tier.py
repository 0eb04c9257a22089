"""The HOST tier: blobs in RAM under a byte budget and a token budget.

Owned by the engine thread. Every blob lies in an anonymous `mmap` of its own, so that dropping it really
returns the memory to the system. Bytes counted are bytes held: whole pages.
"""

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def held_bytes(size: int) -> int:
    """Bytes that a blob of `size` bytes takes from the system: whole pages."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class Blob:
    """`size` bytes of anonymous memory, `held` of them counted."""

    __slots__ = ("_memory", "held", "size")

    def __init__(self, size: int) -> None:
        assert size > 0
        self.size = size
        self.held = held_bytes(size)
        self._memory = mmap.mmap(-1, self.held)

    @contextmanager
    def address(self) -> Iterator[int]:
        """The memory's address, valid inside the `with` block alone."""
        export = ctypes.c_char.from_buffer(self._memory)
        try:
            yield ctypes.addressof(export)
        finally:
            del export

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
        self._blobs: dict[bytes, tuple[Blob, int]] = {}

    def __len__(self) -> int:
        return len(self._blobs)

    def __contains__(self, key: bytes) -> bool:
        return key in self._blobs

    def get(self, key: bytes) -> Blob | None:
        found = self._blobs.get(key)
        return found[0] if found else None

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

    def try_reserve(self, key: bytes, size: int, num_tokens: int) -> Blob | None:
        """Memory for a new blob, counted from now on; None if the system has none. Room has been made."""
        assert key not in self._blobs
        assert not self.limits.off
        assert self.excess(held_bytes(size), num_tokens) == (0, 0), "the budget is never exceeded"
        try:
            blob = Blob(size)
        except OSError:
            return None
        self._blobs[key] = (blob, num_tokens)
        self.num_bytes += blob.held
        self.num_tokens += num_tokens
        return blob

    def drop(self, key: bytes) -> int:
        """Give a blob's memory back; returns the bytes freed."""
        blob, num_tokens = self._blobs.pop(key)
        blob.close()
        self.num_bytes -= blob.held
        self.num_tokens -= num_tokens
        return blob.held
