"""Token ids as bytes: little-endian int32, as they stand in files and in the index."""

import struct
from collections.abc import Sequence
from typing import Final

TOKEN_BYTES: Final = 4


def pack(tokens: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(tokens)}i", *tokens)


def unpack(data: bytes) -> tuple[int, ...]:
    """The tokens in `data`; none where its length is not one of whole tokens."""
    return struct.unpack(f"<{len(data) // TOKEN_BYTES}i", data) if len(data) % TOKEN_BYTES == 0 else ()
