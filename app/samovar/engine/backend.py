"""What the engine loop needs from a model runtime, as an interface; `llama` implements it, tests fake it.

All methods but `interrupt` are called by the engine thread alone.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from samovar.core.chat import Sampling
from samovar.kv.family import Family


class DecodeResult(enum.Enum):
    """What became of one batch."""

    DONE = "done"
    NO_ROOM = "no room"  # nothing was changed
    ABORTED = "aborted"  # some cells of the batch may have been written
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """What is known about a loaded model.

    `control_tokens` maps the text of each control token to its id. `tokenizer` is a short id of the
    vocabulary: generated token ids are valid wherever it is equal. `num_cells` is the context's size.
    `can_shift`: positions in the context can be moved (`Backend.shift`).
    """

    name: str
    family: Family
    family_name: str
    num_cells: int
    trained_context: int
    vocab_size: int
    template: str | None
    bos: int | None
    eos: int | None
    add_bos: bool
    control_tokens: dict[str, int]
    tokenizer: str
    can_shift: bool = False


@dataclass(slots=True)
class Batch:
    """Tokens of one decode step, parallel lists; `logits` marks the rows that will be sampled."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    logits: list[bool] = field(default_factory=list)

    def add(self, token: int, pos: int, seq: int, logits: bool) -> int:
        """Append one token; returns its row."""
        self.tokens.append(token)
        self.positions.append(pos)
        self.sequences.append(seq)
        self.logits.append(logits)
        return len(self.tokens) - 1

    def __len__(self) -> int:
        return len(self.tokens)


class Sampler(Protocol):
    """A chain of samplers with the state of one request."""

    def sample(self, row: int) -> int:
        """The next token from the logits of `row` of the last batch; the chain remembers it.

        SamovarError if the grammar allows no token at all, or cannot be followed in reasonable time.
        """

    def close(self) -> None: ...


class Backend(Protocol):
    """One model with one context of `num_slots` sequences and one more for scratch."""

    traits: ModelTraits

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text: no control token is ever parsed from it, none is added."""

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; empty for control tokens."""

    def is_end(self, token: int) -> bool:
        """Whether the token ends a turn."""

    def new_sampler(self, sampling: Sampling, history: list[int], grammar: str = "") -> Sampler:
        """A sampler whose tokens follow `grammar` (GBNF that `check_grammar` let pass) unless it is empty."""

    def schema_grammar(self, schema: str) -> str:
        """The grammar of a JSON schema; SamovarError if that is not possible."""

    def check_grammar(self, grammar: str) -> None:
        """SamovarError if the runtime refuses a grammar."""

    def decode(self, batch: Batch) -> DecodeResult: ...

    def remove(self, seq: int, p0: int, p1: int) -> bool:
        """Drop the cells `[p0, p1)` of a sequence (-1 for "to the end"); False if the family cannot."""

    def shift(self, seq: int, p0: int, p1: int) -> None:
        """Drop the cells `[p0, p1)` of a sequence and move those behind them down to `p0`.

        Only where `traits.can_shift`; no other sequence may own what moves. No state of what has moved may be
        saved before the next decode, which turns its keys.
        """

    def copy(self, source: int, target: int, p0: int, p1: int) -> None:
        """Give `target` the cells `[p0, p1)` of `source` as well."""

    def oldest_pos(self, seq: int) -> int:
        """The smallest position still held for a sequence; -1 when it is empty."""

    def state_size(self, seq: int) -> int:
        """Bytes that `save` will write."""

    def save(self, seq: int, address: int, size: int) -> int:
        """Write a sequence's state to memory; returns the bytes written."""

    def load(self, seq: int, address: int, size: int) -> int:
        """Replace a sequence by saved state; returns the bytes read, 0 on failure."""

    def interrupt(self) -> None:
        """Make a running `decode` return ABORTED soon. Any thread."""

    def clear_interrupt(self) -> None: ...

    def unload(self) -> None:
        """Free model and context. Until `reload` only that, `close` and the interrupt may be called."""

    def reload(self, on_progress: Callable[[float], None]) -> None:
        """Load them again, with an empty context; SamovarError if that fails, and all stays freed."""

    def close(self) -> None: ...
