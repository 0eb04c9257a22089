"""What was processed before anybody asked for it, and whether that paid. Pure accounting.

    position        0 ─────────── start ───────────── end
    of a session    asked before |    ahead, open     |
    CHAT comes                   |  used   |  wasted  |     used: as far as its prompt agrees and was reused

Every token processed ahead is open at first, then used or wasted: `tokens` is the sum of all three.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from samovar.kv.index import common_prefix

MAX_SESSIONS: Final = 200


@dataclass(slots=True)
class _Open:
    """`spans` of positions of the prompt that begins with `tokens`, ascending, apart, at least one."""

    tokens: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)

    def cut(self, pos: int) -> int:
        """Nothing from `pos` on is open any longer; the number of tokens that were."""
        before = self.num_tokens
        self.spans = [(start, min(end, pos)) for start, end in self.spans if start < pos]
        return before - self.num_tokens

    @property
    def num_tokens(self) -> int:
        return sum(end - start for start, end in self.spans)


class Ahead:
    """Counts tokens, each time that a position is processed. Owned by the engine thread."""

    def __init__(self) -> None:
        self.tokens = 0
        self.used_tokens = 0
        self.wasted_tokens = 0
        self._open: OrderedDict[str, _Open] = OrderedDict()

    @property
    def open_tokens(self) -> int:
        """Tokens that may still be used."""
        return sum(run.num_tokens for run in self._open.values())

    def processed(self, session: str, tokens: Sequence[int], start: int) -> None:
        """`tokens[start:]` have been processed ahead, behind `tokens[:start]`, which were in place."""
        assert start < len(tokens)
        run = self._open.setdefault(session, _Open())
        self._open.move_to_end(session)
        self.wasted_tokens += run.cut(min(start, common_prefix(run.tokens, tokens)))
        self.tokens += len(tokens) - start
        if run.spans and run.spans[-1][1] == start:
            start, _ = run.spans.pop()
        run.spans.append((start, len(tokens)))
        run.tokens = list(tokens)
        while len(self._open) > MAX_SESSIONS:
            self.forget(next(iter(self._open)))

    def asked(self, session: str, prompt: Sequence[int], reused: int) -> int:
        """A session's own request begins, with `reused` tokens in place: how many of these were ahead.

        What it does not use is wasted.
        """
        run = self._open.pop(session, None)
        if run is None:
            return 0
        self.wasted_tokens += run.cut(min(reused, common_prefix(run.tokens, prompt)))
        used = run.num_tokens
        self.used_tokens += used
        return used

    def left(self, session: str, tokens: Sequence[int], kept: int) -> None:
        """`tokens` have left the context; the cache still has the first `kept` of them."""
        run = self._open.get(session)
        if run is None or common_prefix(run.tokens, tokens) <= max(kept, run.spans[0][0]):
            return
        self.wasted_tokens += run.cut(kept)
        if not run.spans:
            del self._open[session]

    def forget(self, session: str) -> None:
        """Nothing of this session will be used."""
        run = self._open.pop(session, None)
        if run is not None:
            self.wasted_tokens += run.num_tokens

    def first_of(self, session: str, tokens: Sequence[int]) -> int:
        """The number of leading `tokens` that some request asked for; what follows was processed ahead."""
        run = self._open.get(session)
        if run is None:
            return len(tokens)
        start = run.spans[0][0]
        return start if common_prefix(run.tokens, tokens) >= start else len(tokens)
