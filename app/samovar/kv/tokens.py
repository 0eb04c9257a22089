"""Token ids as bytes: little-endian int32, as they stand in files and in the index."""

import struct
from collections.abc import Sequence


def pack(tokens: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(tokens)}i", *tokens)


def unpack(data: bytes) -> tuple[int, ...]:
    """The tokens in `data`; none where its length is not one of whole tokens."""
    return struct.unpack(f"<{len(data) // 4}i", data) if len(data) % 4 == 0 else ()
