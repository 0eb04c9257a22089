"""What the transcript shows: one entry for every message."""

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One message as the transcript shows it.

    `role` is "user", "assistant", "system" or "note" (a line of Samovar's own, without a heading). `meta`
    stands behind the heading: parts of (text, style), joined as they are, where style is one of "faint",
    "secondary", "green", "brass", "teal" and "red". `state` is "complete", "streaming", "stopped" or
    "failed".
    """

    id: str
    role: str
    text: str
    meta: tuple[tuple[str, str], ...] = ()
    state: str = "complete"
