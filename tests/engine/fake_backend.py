"""A deterministic model runtime that really keeps cells, by llama.cpp's rules, and asserts how it is used.

Every cell holds a number made from its token and from the cells its token could see, as a real cell does.
The next token is a hash of everything that a sequence really holds. So a restore of wrong cells, in a wrong
order or at a wrong place, changes the reply, and `cold_reply` tells what the reply should have been.

Families differ in what a sequence has:

                attention cells   window cells                     state at the end
    dense       all
    window      all               those a window behind the end
    hybrid      all                                                one
    recurrent                                                      one
"""

import ctypes
import enum
import json
import re
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from samovar.core.chat import Sampling
from samovar.core.errors import SamovarError
from samovar.engine.backend import Batch, DecodeResult, ModelTraits, Sampler
from samovar.engine.gbnf import parse
from samovar.engine.prompt import CHATML
from samovar.kv.family import Family

WINDOW: Final = 24
IM_START: Final = 256
IM_END: Final = 257
TOKENIZER: Final = "fake"
_FIRST_WORD: Final = 260
_WORDS: Final = (
    *(f" {letter}{number}" for letter in "abcdefgh" for number in range(8)),
    " long",
    "\n",
    ".",
)
# Two halves of a character each, so that replies have to be put together from bytes.
_HALVES: Final = (b"\xf0\x9f", b"\x98\x80", b"\xc3", b"\xa9")
_FIRST_HALF: Final = _FIRST_WORD + len(_WORDS)
_VOCAB_SIZE: Final = _FIRST_HALF + len(_HALVES)
_WORD_IDS: Final = {word: _FIRST_WORD + i for i, word in enumerate(_WORDS)}
_WORD_PATTERN: Final = re.compile("|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True)))
_CELL: Final = struct.Struct("<iiq")
_HEADER: Final = struct.Struct("<4sIII")
_MAGIC: Final = b"fake"


class Kind(enum.Enum):
    """What a model's memory consists of, and what follows for planning."""

    DENSE = Family()
    WINDOW = Family(can_share=False, window=WINDOW)
    HYBRID = Family(can_trim=False, can_share=False)
    RECURRENT = Family(can_trim=False, can_share=False, whole_state=True)

    @property
    def has_attention(self) -> bool:
        return self is not Kind.RECURRENT

    @property
    def has_window(self) -> bool:
        return self is Kind.WINDOW

    @property
    def has_state(self) -> bool:
        return self in (Kind.HYBRID, Kind.RECURRENT)


class Cell:
    """One cell; sequences that share it hold the same object."""

    __slots__ = ("pos", "token", "value")

    def __init__(self, pos: int, token: int, value: int) -> None:
        self.pos = pos
        self.token = token
        self.value = value


@dataclass
class Machine:
    """A clock that only steps move, in seconds, and what they take, in milliseconds.

    As it is, a further sequence costs a step nothing, as on a graphics card.
    """

    now: float = 100.0
    decode_ms: float = 10.0
    extra_ms: float = 0.0
    token_ms: float = 0.1
    cell_ms: float = 0.0

    def spend(self, num_writing: int, num_reading: int, num_cells: int) -> None:
        ms = self.decode_ms + (num_writing - 1) * self.extra_ms if num_writing else 0.0
        self.now += (ms + num_reading * self.token_ms + num_cells * self.cell_ms) / 1000


class FakeSampler:
    """Takes the one token that the backend's logits leave, or the next one that the grammar allows."""

    def __init__(self, backend: "FakeBackend", grammar: str) -> None:
        self._backend = backend
        self._grammar = parse(grammar) if grammar else None
        self._stacks = self._grammar.begin() if self._grammar else frozenset()
        self.closed = False

    def sample(self, row: int) -> int:
        assert not self.closed
        wanted = self._backend.logits[row]
        if self._grammar is None:
            return wanted
        for token in ((wanted + i) % _VOCAB_SIZE for i in range(_VOCAB_SIZE)):
            if self._backend.is_end(token):
                if None in self._stacks:
                    return token
            elif text := self._backend.piece(token).decode("latin-1"):
                after = self._grammar.accept_text(self._stacks, text)
                if after:
                    self._stacks = after
                    return token
        raise SamovarError("no token is allowed")

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class FakeBackend:
    """`num_cells` cells for `num_slots` sequences and one for scratch.

    `before_decode` runs inside each `decode`, before anything is changed: a test may interrupt there.
    `next_result` makes the next decode end so; after `good_loads` loads the next `fail_loads` ones fail.
    `reload_error` is raised by every `reload` while it is set.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        num_cells: int = 400,
        num_slots: int = 4,
        batch_tokens: int = 64,
        template: str | None = CHATML,
    ) -> None:
        self.kind = kind
        self.scratch = num_slots
        self._batch_tokens = batch_tokens
        self.machine = Machine()
        self.traits = ModelTraits(
            name="fake",
            family=kind.value,
            family_name=kind.name.lower(),
            num_cells=num_cells,
            trained_context=num_cells,
            vocab_size=_VOCAB_SIZE,
            template=template,
            bos=None,
            eos=IM_END,
            add_bos=False,
            control_tokens={"<|im_start|>": IM_START, "<|im_end|>": IM_END},
            tokenizer=TOKENIZER,
            can_shift=kind is Kind.DENSE,
        )
        everyone = range(num_slots + 1)
        self._attention: dict[int, dict[int, Cell]] = {seq: {} for seq in everyone}
        self._window: dict[int, dict[int, Cell]] = {seq: {} for seq in everyone}
        self._state: dict[int, Cell | None] = dict.fromkeys(everyone)
        self.logits: dict[int, int] = {}
        self.samplers: list[FakeSampler] = []
        self.before_decode: Callable[[], None] = lambda: None
        self.next_result: DecodeResult | None = None
        self.good_loads = self.fail_loads = 0
        self.num_decoded = 0
        self.num_steps = 0
        self._interrupted = False
        self.loaded = True
        self.reload_error: SamovarError | None = None

    # ---- vocabulary

    def tokenize(self, text: str) -> list[int]:
        assert self.loaded, "the model sleeps"
        tokens: list[int] = []
        pos = 0
        for found in _WORD_PATTERN.finditer(text):
            tokens += text[pos : found.start()].encode()
            tokens.append(_WORD_IDS[found[0]])
            pos = found.end()
        tokens += text[pos:].encode()
        return tokens

    def piece(self, token: int) -> bytes:
        assert self.loaded, "the model sleeps"
        if token < 256:
            return bytes([token])
        if token < _FIRST_WORD:
            return b""
        if token < _FIRST_HALF:
            return _WORDS[token - _FIRST_WORD].encode()
        return _HALVES[token - _FIRST_HALF]

    def is_end(self, token: int) -> bool:
        assert self.loaded, "the model sleeps"
        return token == IM_END

    def new_sampler(self, sampling: Sampling, history: list[int], grammar: str = "") -> Sampler:
        assert self.loaded, "the model sleeps"
        sampler = FakeSampler(self, grammar)
        self.samplers.append(sampler)
        return sampler

    def schema_grammar(self, schema: str) -> str:
        """Of an `enum` of plain texts."""
        choices = json.loads(schema)["enum"]
        return "root ::= " + " | ".join(f'"\\"{choice}\\""' for choice in choices)

    def check_grammar(self, grammar: str) -> None:
        assert self.loaded, "the model sleeps"

    # ---- what tests look at

    def tokens_of(self, seq: int) -> list[int]:
        """Tokens by position, where cells tell; asserts that they have no gap."""
        cells = self._attention[seq]
        assert sorted(cells) == list(range(len(cells))), f"a gap in sequence {seq}"
        return [cells[pos].token for pos in range(len(cells))]

    def length(self, seq: int) -> int:
        """Positions that a sequence stands for."""
        state = self._state[seq]
        if self.kind.has_state:
            length = state.pos + 1 if state else 0
            assert not self.kind.has_attention or length == len(self._attention[seq])
            return length
        return len(self._attention[seq])

    def num_used(self) -> int:
        """Used attention cells, shared ones once."""
        return len({id(cell) for cells in self._attention.values() for cell in cells.values()})

    def is_empty(self, seq: int) -> bool:
        return not self._attention[seq] and not self._window[seq] and self._state[seq] is None

    # ---- decode

    def decode(self, batch: Batch) -> DecodeResult:
        assert self.loaded, "the model sleeps"
        assert 0 < len(batch) <= self._batch_tokens
        assert self.is_empty(self.scratch), "scratch is left empty"
        self.before_decode()
        expected: dict[int, int] = {}
        for pos, seq in zip(batch.positions, batch.sequences, strict=True):
            assert seq != self.scratch
            assert pos == expected.get(seq, self.length(seq)), "positions go on without a gap"
            expected[seq] = pos + 1
        if self.kind.has_attention and self.num_used() + len(batch) > self.traits.num_cells:
            return DecodeResult.NO_ROOM
        result, self.next_result = self.next_result or DecodeResult.DONE, None
        if self._interrupted and result is DecodeResult.DONE:
            result = DecodeResult.ABORTED
        if result is DecodeResult.NO_ROOM:
            return result
        tokens = Counter(batch.sequences)
        num_writing = sum(count == 1 for count in tokens.values())
        self.machine.spend(num_writing, len(batch) - num_writing, self.num_used())
        self._recycle()
        self.logits = {}
        written = len(batch) if result is DecodeResult.DONE else (self.num_decoded * 7) % (len(batch) + 1)
        for row in range(written):
            token, pos, seq = batch.tokens[row], batch.positions[row], batch.sequences[row]
            self._write(seq, pos, token)
            if result is not DecodeResult.DONE:
                self._spoil(seq, pos)
            elif batch.logits[row]:
                self.logits[row] = self._next_token(seq)
        self.num_decoded += len(batch)
        self.num_steps += 1
        return result

    def _recycle(self) -> None:
        """Cells outside of their sequence's window may be taken for others: as early as is allowed."""
        for cells in self._window.values():
            end = max(cells, default=-1) + 1
            for pos in [pos for pos in cells if pos <= end - WINDOW]:
                del cells[pos]

    def _write(self, seq: int, pos: int, token: int) -> None:
        if self.kind.has_attention:
            cells = self._attention[seq]
            before = cells[pos - 1].value if pos else 0
            cells[pos] = Cell(pos, token, hash((before, pos, token)))
        if self.kind.has_window:
            cells = self._window[seq]
            seen = range(max(0, pos - WINDOW + 1), pos)
            assert all(p in cells for p in seen), "decoded without the window's cells: wrong, and no error"
            values = tuple(cells[p].value for p in seen)
            cells[pos] = Cell(pos, token, hash((values, pos, token)))
        if self.kind.has_state:
            state = self._state[seq]
            assert (state.pos + 1 if state else 0) == pos
            self._state[seq] = Cell(pos, token, hash((state.value if state else 0, token)))

    def _spoil(self, seq: int, pos: int) -> None:
        """An aborted graph has written cells without the right content."""
        for cells in (self._attention[seq], self._window[seq]):
            if pos in cells:
                cells[pos].value = hash((cells[pos].value, 1))
        state = self._state[seq]
        if state is not None:
            state.value = hash((state.value, 1))

    def _next_token(self, seq: int) -> int:
        window, end = self._window[seq], self.length(seq)
        state = self._state[seq]
        seen = (
            tuple((pos, cell.token, cell.value) for pos, cell in sorted(self._attention[seq].items())),
            tuple(window[pos].value for pos in range(max(0, end - WINDOW), end) if self.kind.has_window),
            (state.pos, state.value) if state is not None else (),
        )
        number = hash(seen)
        choice = number % 100
        number //= 100
        if choice < 4:
            return IM_END
        if choice < 16:
            return _FIRST_HALF + number % len(_HALVES)
        return _FIRST_WORD + number % len(_WORDS)

    # ---- memory

    def remove(self, seq: int, p0: int, p1: int) -> bool:
        assert self.loaded, "the model sleeps"
        assert seq in self._attention, "llama.cpp aborts on other ids"
        first, last = max(p0, 0), p1 if p1 >= 0 else 1 << 30
        state = self._state[seq]
        if state is not None and first <= state.pos < last:
            if first > 0:
                return False
            self._state[seq] = None
        for cells in (self._attention[seq], self._window[seq]):
            for pos in [pos for pos in cells if first <= pos < last]:
                del cells[pos]
        return True

    def shift(self, seq: int, p0: int, p1: int) -> None:
        """What moves keeps its values, which tell of the positions it was computed at."""
        assert self.loaded, "the model sleeps"
        assert self.traits.can_shift
        cells = self._attention[seq]
        assert 0 <= p0 < p1 <= len(cells)
        others = [
            id(cell) for other, mine in self._attention.items() if other != seq for cell in mine.values()
        ]
        for pos in range(p0, p1):
            del cells[pos]
        moved = [cells.pop(pos) for pos in sorted(cells) if pos >= p1]
        assert not {id(cell) for cell in moved} & set(others), "no other sequence owns what moves"
        for pos, cell in enumerate(moved, p0):
            cell.pos = pos
            cell.value = hash((cell.value, "shifted"))
            cells[pos] = cell

    def copy(self, source: int, target: int, p0: int, p1: int) -> None:
        assert self.loaded, "the model sleeps"
        assert source in self._attention
        assert target in self._attention, "llama.cpp aborts on other ids"
        assert source != target
        assert 0 <= p0 < p1
        assert target != self.scratch or self.is_empty(target), "scratch is left empty"
        if self.kind.has_attention:
            cells, into = self._attention[source], self._attention[target]
            assert all(pos in cells for pos in range(p0, p1)), "copies what is there"
            assert target == self.scratch or p0 == len(into), "restores in ascending order"
            into.update({pos: cells[pos] for pos in range(p0, p1)})
        if self.kind.has_window:
            cells, into = self._window[source], self._window[target]
            assert self.scratch in (source, target), "shared window cells are never recycled"
            assert all(pos in cells for pos in range(p0, p1)), "a window's block is copied while it is alive"
            into.update({pos: cells[pos] for pos in range(p0, p1)})
        if self.kind.has_state:
            state = self._state[source]
            assert state is not None
            assert state.pos + 1 == p1, "a state exists at the end only"
            self._state[target] = state

    def oldest_pos(self, seq: int) -> int:
        assert self.loaded, "the model sleeps"
        assert seq != self.scratch
        cells = self._window[seq] if self.kind.has_window else self._attention[seq]
        return min(cells, default=-1)

    # ---- states

    def _parts(self, seq: int) -> tuple[list[Cell], list[Cell], list[Cell]]:
        state = self._state[seq]
        return (
            [cell for _, cell in sorted(self._attention[seq].items())],
            [cell for _, cell in sorted(self._window[seq].items())],
            [state] if state is not None else [],
        )

    def state_size(self, seq: int) -> int:
        assert self.loaded, "the model sleeps"
        return _HEADER.size + sum(map(len, self._parts(seq))) * _CELL.size

    def save(self, seq: int, address: int, size: int) -> int:
        assert self.loaded, "the model sleeps"
        assert seq == self.scratch
        assert size == self.state_size(seq)
        parts = self._parts(seq)
        data = _HEADER.pack(_MAGIC, *map(len, parts))
        for cells in parts:
            data += b"".join(_CELL.pack(cell.pos, cell.token, cell.value) for cell in cells)
        ctypes.memmove(address, data, size)
        return size

    def load(self, seq: int, address: int, size: int) -> int:
        assert self.loaded, "the model sleeps"
        assert seq == self.scratch, "loads into scratch only"
        assert self.is_empty(seq), "scratch is left empty"
        data = ctypes.string_at(address, size)
        magic, *counts = _HEADER.unpack_from(data)
        assert magic == _MAGIC
        assert size == _HEADER.size + sum(counts) * _CELL.size
        cells = [Cell(*_CELL.unpack_from(data, pos)) for pos in range(_HEADER.size, size, _CELL.size)]
        num_attention, num_window, num_states = counts
        assert (num_states > 0) == self.kind.has_state
        if self.num_used() + num_attention > self.traits.num_cells:
            return 0
        self._recycle()
        self._attention[seq] = {cell.pos: cell for cell in cells[:num_attention]}
        if self.good_loads:
            self.good_loads -= 1
        elif self.fail_loads:
            self.fail_loads -= 1
            return 0  # half of the cells stay behind
        window = cells[num_attention : num_attention + num_window]
        self._window[seq] = {cell.pos: cell for cell in window}
        self._state[seq] = cells[-1] if num_states else None
        return size

    # ---- interrupt

    def interrupt(self) -> None:
        self._interrupted = True

    def clear_interrupt(self) -> None:
        self._interrupted = False

    def unload(self) -> None:
        assert self.loaded
        assert all(map(self.is_empty, self._attention)), "every sequence has left"
        assert all(sampler.closed for sampler in self.samplers)
        self.loaded = False

    def reload(self, on_progress: Callable[[float], None]) -> None:
        assert not self.loaded
        on_progress(0.5)
        if self.reload_error is not None:
            raise self.reload_error
        self.loaded = True

    def close(self) -> None:
        pass


def cold_reply(kind: Kind, prompt: tuple[int, ...], num_tokens: int) -> list[int]:
    """Up to `num_tokens` tokens that answer `prompt` when nothing is reused, without the end token."""
    backend = FakeBackend(kind, num_cells=1 << 20)
    known, pos = list(prompt), 0
    while len(known) - len(prompt) < num_tokens:
        while pos < len(known):
            batch = Batch()
            for _ in range(min(64, len(known) - pos)):
                row = batch.add(known[pos], pos, 0, pos == len(known) - 1)
                pos += 1
            assert backend.decode(batch) is DecodeResult.DONE
        token = backend.logits[row]
        if backend.is_end(token):
            break
        known.append(token)
    return known[len(prompt) :]
