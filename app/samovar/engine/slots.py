"""The sequences of the context: which are free, and what tokens each one holds. Engine thread."""

from dataclasses import dataclass, field

from samovar.kv.block import Block


@dataclass(slots=True, eq=False)
class ContextSequence:
    """One `seq_id` of the llama context.

    Its positions `[0, len(tokens))` are in the context. `stored` are the whole blocks of that prefix that
    are in the cache, without a gap from position 0. `owner` is the request that runs on it, if one does.
    `exact` is None where the cells are what these tokens give from scratch. Once positions have been moved,
    only the first `exact` ones are: what follows is this session's alone, and never stored.
    """

    seq: int
    session: str
    tokens: list[int] = field(default_factory=list)
    stored: list[Block] = field(default_factory=list)
    owner: str | None = None
    last_used: int = 0
    exact: int | None = None

    @property
    def num_exact(self) -> int:
        """Leading tokens whose cells anybody may use."""
        return len(self.tokens) if self.exact is None else min(self.exact, len(self.tokens))

    @property
    def idle(self) -> bool:
        return self.owner is None


class Slots:
    """All sequences but the scratch one, which is `scratch`. Free and used ones add up to all."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.scratch = num_slots
        self._free = list(range(num_slots - 1, -1, -1))
        self._used: dict[int, ContextSequence] = {}
        self._clock = 0

    @property
    def num_free(self) -> int:
        return len(self._free)

    def used(self) -> list[ContextSequence]:
        """The sequences in use, in order of their ids."""
        return [self._used[seq] for seq in sorted(self._used)]

    def idle(self) -> list[ContextSequence]:
        """Sequences that no request runs on, least recently used first."""
        return sorted((s for s in self._used.values() if s.idle), key=lambda s: s.last_used)

    def get(self, seq: int) -> ContextSequence:
        return self._used[seq]

    def of_session(self, session: str) -> ContextSequence | None:
        """The sequence that holds most of a session, if it is in the context."""
        found = [s for s in self._used.values() if s.session == session]
        return max(found, key=lambda s: len(s.tokens), default=None)

    def take(self, session: str) -> ContextSequence:
        """A free sequence; there must be one."""
        sequence = ContextSequence(self._free.pop(), session)
        self._used[sequence.seq] = sequence
        self.touch(sequence)
        return sequence

    def free(self, sequence: ContextSequence) -> None:
        freed = self._used.pop(sequence.seq)
        assert freed is sequence
        self._free.append(sequence.seq)
        assert len(self._free) + len(self._used) == self.num_slots

    def touch(self, sequence: ContextSequence) -> None:
        self._clock += 1
        sequence.last_used = self._clock
