"""Counts the tokens of texts for front ends: a slice between two steps, so that no reply waits.

Engine thread. llama.cpp's tokenizers take up to 4 ms for a slice, but seconds for a megabyte in one piece:
with some of them the time grows faster than the text.
"""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from samovar.core import events

MAX_BYTES: Final = 1 << 20
SLICE_CHARACTERS: Final = 4000
# No tokenizer joins what stands on both sides of one: a space belongs to the word behind it.
_SEAM: Final = re.compile(r"(?<=\w) (?=\w)")

Tell = Callable[[str | None, events.Event], None]


@dataclass(slots=True)
class _Job:
    """What one client asked: `counts` of the texts before the one that is counted, from `pos` on."""

    client: str
    request_id: str
    texts: tuple[str, ...]
    counts: list[int] = field(default_factory=lambda: [0])
    pos: int = 0


class Counting:
    """The counts that are under way; each gets a slice in turn, so that a short one is not held up.

    A text of more than a slice is cut between words. Where it has none, and under tokenizers that put a
    space in front of every text, a cut may add a token.
    """

    def __init__(self, tokenize: Callable[[str], list[int]], tell: Tell) -> None:
        self._tokenize = tokenize
        self._tell = tell
        self._jobs: deque[_Job] = deque()

    @property
    def is_open(self) -> bool:
        """Whether there is something left to count."""
        return bool(self._jobs)

    def begin(self, client: str, request_id: str, texts: tuple[str, ...]) -> None:
        """Count these, unless they are longer than `MAX_BYTES` together."""
        if sum(len(text.encode("utf-8", "replace")) for text in texts) > MAX_BYTES:
            self.refuse(client, request_id)
        elif texts:
            self._jobs.append(_Job(client, request_id, texts))
        else:
            self._tell(client, events.TokensCounted(request_id, ()))

    def refuse(self, client: str, request_id: str) -> None:
        """Say that this cannot be counted."""
        self._tell(client, events.TokensCounted(request_id, None))

    def count_slice(self) -> None:
        """Count one slice of one job."""
        if not self._jobs:
            return
        job = self._jobs.popleft()
        text = job.texts[len(job.counts) - 1]
        end = slice_end(text, job.pos)
        job.counts[-1] += len(self._tokenize(text[job.pos : end]))
        job.pos = end
        if end < len(text):
            self._jobs.append(job)
        elif len(job.counts) < len(job.texts):
            job.counts.append(0)
            job.pos = 0
            self._jobs.append(job)
        else:
            self._tell(job.client, events.TokensCounted(job.request_id, tuple(job.counts)))

    def drop(self, client: str) -> None:
        """A client has gone: nobody waits for its counts."""
        self._jobs = deque(job for job in self._jobs if job.client != client)

    def refuse_all(self) -> None:
        """The engine ends."""
        while self._jobs:
            job = self._jobs.popleft()
            self.refuse(job.client, job.request_id)


def slice_end(text: str, pos: int) -> int:
    """Where the slice that begins at `pos` ends: between two words if there are any."""
    end = pos + SLICE_CHARACTERS
    if end >= len(text):
        return len(text)
    seams = [found.start() for found in _SEAM.finditer(text, pos + SLICE_CHARACTERS // 2, end)]
    return seams[-1] if seams else end
