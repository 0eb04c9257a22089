"""What the engine remembers of each session between its requests: last prompt, hits, title. Engine thread."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from samovar.kv.explain import Previous
from samovar.kv.index import Match, PrefixIndex

MAX_RECORDS: Final = 200


@dataclass(slots=True)
class SessionRecord:
    """One session.

    `match` is what RAM held of `previous` when it was last looked up, `disk_tokens` what the disk did.
    """

    title: str = ""
    previous: Previous | None = None
    match: Match = field(default_factory=Match)
    hits: int = 0
    disk_tokens: int = 0
    last_used: float = field(default_factory=time.time)


class Records:
    """The sessions used last; one question from a script is a session too, so their number is bounded."""

    def __init__(self, index: PrefixIndex) -> None:
        self._index = index
        self._records: dict[str, SessionRecord] = {}

    def __iter__(self) -> Iterator[tuple[str, SessionRecord]]:
        """Sessions and their records, the one used last first."""
        return iter(sorted(self._records.items(), key=lambda item: -item[1].last_used))

    def get(self, session: str) -> SessionRecord | None:
        return self._records.get(session)

    def open(self, session: str, title: str) -> None:
        """Make or touch a record; the one that was not used for the longest time may go for it."""
        record = self._records.setdefault(session, SessionRecord())
        record.title = title or record.title
        record.last_used = time.time()
        while len(self._records) > MAX_RECORDS:
            oldest = min(
                self._records, key=lambda name: (self._index.is_pinned(name), self._records[name].last_used)
            )
            self.forget(oldest)
            self._index.unlabel(oldest)

    def remember(self, session: str, previous: Previous) -> None:
        """Note what now stands for the session, and that it uses the blocks it runs through whole."""
        record = self._records.get(session)
        if record is None:
            return
        record.previous = previous
        record.match = self._index.match(previous.tokens)
        for block in record.match.blocks:
            if block.end <= record.match.num_tokens:
                self._index.label(block, [session])

    def restore(self, session: str, record: SessionRecord) -> None:
        """Take over what an earlier host knew of a session; what is known already is newer."""
        known = self._records.get(session)
        if record.previous is None or (known is not None and known.previous is not None):
            return
        if known is not None:
            record.title, record.last_used = known.title or record.title, known.last_used
        self._records[session] = record
        self.remember(session, record.previous)

    def look_again(self) -> None:
        """The cache has changed at large: see what it holds of each session now."""
        for session, record in self._records.items():
            if record.previous is not None:
                self.remember(session, record.previous)

    def forget(self, session: str) -> None:
        self._records.pop(session, None)
