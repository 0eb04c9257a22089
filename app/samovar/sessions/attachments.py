"""Text files that a message carries. Pure."""

import hashlib
from typing import Final

PASTE_DIGITS: Final = 10  # of a digest, in the name of a pasted text


def digest_of(text: str) -> str:
    """What names this text in the store: 32 hex digits, equal for equal texts only."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
