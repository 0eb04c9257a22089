"""What the transcript shows: one entry for every message."""

from typing import Final

import msgspec

SUMMARY: Final = "summary"
LEFT_OUT: Final = "left out"


class AttachmentLine(msgspec.Struct, frozen=True, gc=False):
    """A text file in a message. `num_tokens` is None until it has been counted; a `repeated` one stands
    earlier in the chat already. `text` may be anything that a file holds.
    """

    name: str
    num_tokens: int | None
    num_bytes: int
    repeated: bool
    text: str


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One message as the transcript shows it.

    `role` is "user", "assistant", "system", `SUMMARY` (the mark behind what has been summarized), `LEFT_OUT`
    (the one behind what is no longer sent), or without a heading "note" (a line of Samovar's own) or "answer" (as the assistant's). `meta` stands behind the
    heading: parts of (text, style), joined as they are, where style is one of "faint", "secondary", "green",
    "brass", "teal" and "red". `state` is "complete", "streaming", "stopped", "cut" or "failed". It is number
    `place` (from 0 on) of `num_siblings` versions. `thinks` says that the text begins inside of a thinking
    part; `thought` is what is said of the thinking, empty for a word that always fits.
    """

    id: str
    role: str
    text: str
    meta: tuple[tuple[str, str], ...] = ()
    state: str = "complete"
    place: int = 0
    num_siblings: int = 1
    attachments: tuple[AttachmentLine, ...] = ()
    thinks: bool = False
    thought: str = ""

    @property
    def is_message(self) -> bool:
        """Whether it can be worked on; a note belongs to the message above it."""
        return self.role not in {"note", LEFT_OUT}

    @property
    def has_heading(self) -> bool:
        """Whether a line above it says who wrote it."""
        return self.role not in {"note", "answer"}
