"""How values become columns and columns values. Pure functions."""

import struct
from collections.abc import Iterable

import msgspec

from samovar.core.request import RequestStats


def pack_tokens(tokens: Iterable[int]) -> bytes:
    """Token ids as little-endian 32-bit numbers."""
    ids = tuple(tokens)
    return struct.pack(f"<{len(ids)}I", *ids)


def unpack_tokens(blob: bytes) -> tuple[int, ...]:
    """The ids of `pack_tokens`; bytes that are no whole number are left out."""
    return struct.unpack_from(f"<{len(blob) // 4}I", blob)


def encode_stats(stats: RequestStats) -> str:
    """The stats as JSON."""
    try:
        return msgspec.json.encode(stats).decode()
    except UnicodeEncodeError:  # only the texts of the mismatch can hold what UTF-8 cannot
        return msgspec.json.encode(msgspec.structs.replace(stats, mismatch=None)).decode()


def decode_stats(text: object) -> RequestStats | None:
    """The stats of a reply; None where there are none or another release wrote other ones."""
    if not isinstance(text, str):
        return None
    try:
        return msgspec.json.decode(text, type=RequestStats)
    except msgspec.DecodeError:
        return None


def storable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, replaced by �. Pairs become their character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
