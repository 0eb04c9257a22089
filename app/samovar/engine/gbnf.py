"""Grammars in llama.cpp's GBNF: what is refused before llama.cpp sees it, and which texts one allows.

Pure. llama.cpp follows a grammar with sets of stacks, and trusts it: a left recursion that it overlooks never
returns, rules that branch without end hang or fill the memory, and an accepted token that it cannot go on
from ends the process. So a grammar is read and tried out here first, by the same method and with a budget.
Source: src/llama-grammar.cpp as vendored by llama-cpp-python 0.3.36.

A stack is the place in the grammar that comes next, and what comes after each rule that it is inside of:
`(place, rest)`, or None where the grammar is complete.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from samovar.core.errors import SamovarError

MAX_BYTES: Final = 64 * 1024
MAX_NESTING: Final = 1_000
MAX_REPEATS: Final = 2_000  # MAX_REPETITION_THRESHOLD there
_MAX_PLACES: Final = 50_000
_MAX_RULES: Final = 10_000
_MAX_PATHS: Final = 1_000_000  # of its search for left recursion, which remembers nothing
_MAX_STACKS: Final = 2_000
_MAX_WAYS: Final = 20_000
_TOKEN_LENGTH: Final = 16
_WALK_STEPS: Final = 144
_WALK_WIDTH: Final = 3
_WALK_CHARACTERS: Final = 24
_WALK_BUDGET: Final = 200_000

_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
_NUMBERS: Final = re.compile(r"\{[ \t]*([0-9]+)[ \t]*(?:(,)[ \t]*([0-9]*)[ \t]*)?\}")
_SPACE: Final = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES: Final = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_HEX: Final = {"x": 2, "u": 4, "U": 8}
_ESCAPES: Final = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_SAMPLES: Final = (ord("a"), ord("0"), ord(" "), ord("\n"), ord("-"), 0xE9, 0x4E00)

Stack = tuple[int, "Stack"] | None
_Ways = dict[Stack, int]
"""Stacks, and in how many ways each was reached."""


class GrammarError(SamovarError):
    """A grammar that is not valid, or that cannot be followed within reason."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The grammar cannot be used: {why}.")


@dataclass(frozen=True, slots=True)
class Characters:
    """One character out of `ranges` (ends included), or one out of all others."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def match(self, character: int) -> bool:
        return any(low <= character <= high for low, high in self.ranges) is not self.negated

    def sample(self) -> Iterator[int]:
        """A few characters that match."""
        if self.negated:
            yield from filter(self.match, _SAMPLES)
        else:
            for low, high in self.ranges[:4]:
                yield low
                if high != low:
                    yield high


Item = Characters | int
"""One character, or the number of a rule."""


class Grammar:
    """Rules by number, each with its alternatives; `starts` is where each alternative begins in `places`."""

    def __init__(self, rules: Sequence[Sequence[Sequence[Item]]], root: int, named: Sequence[int]) -> None:
        self.rules = rules
        self.root = root
        self.named = named
        self._places: list[Item | None] = []  # None ends an alternative
        self._starts: list[list[int]] = []
        for alternatives in rules:
            starts = []
            for alternative in alternatives:
                starts.append(len(self._places))
                self._places += [*alternative, None]
            self._starts.append(starts)

    def begin(self, rule: int | None = None) -> frozenset[Stack]:
        """What may come first, of the whole or of one rule. GrammarError if that is too much to follow."""
        starts = self._starts[self.root if rule is None else rule]
        return self._expand([self._at(start, None) for start in starts])

    def accept(self, stacks: Iterable[Stack], character: int) -> frozenset[Stack]:
        """What may come after one more character; empty if it is not allowed."""
        after = []
        for stack in stacks:
            if stack is not None:
                place, rest = stack
                item = self._places[place]
                assert isinstance(item, Characters)
                if item.match(character):
                    after.append(self._at(place + 1, rest))
        return self._expand(after)

    def accept_text(self, stacks: frozenset[Stack], text: str) -> frozenset[Stack]:
        """What may come after a text; empty if it is not allowed."""
        for character in text:
            stacks = self.accept(stacks, ord(character))
        return stacks

    def next_characters(self, stacks: Iterable[Stack]) -> list[int]:
        """A few of the characters that may come next."""
        found: dict[int, None] = {}
        for stack in stacks:
            if stack is not None:
                item = self._places[stack[0]]
                assert isinstance(item, Characters)
                found.update(dict.fromkeys(item.sample()))
                if len(found) >= _WALK_CHARACTERS:
                    break
        return list(found)

    def _at(self, place: int, rest: Stack) -> Stack:
        """Inside of an alternative, or behind its end."""
        return rest if self._places[place] is None else (place, rest)

    def _expand(self, todo: list[Stack]) -> frozenset[Stack]:
        """Enter rules until each stack begins with a character, or is complete."""
        seen: set[Stack] = set()
        found: set[Stack] = set()
        while todo:
            stack = todo.pop()
            if stack in seen:
                continue
            seen.add(stack)
            item = self._places[stack[0]] if stack is not None else None
            if stack is None or not isinstance(item, int):
                found.add(stack)
            else:
                rest = self._at(stack[0] + 1, stack[1])
                todo += [self._at(start, rest) for start in self._starts[item]]
            if len(found) > _MAX_STACKS or len(seen) > 10 * _MAX_STACKS:
                raise _too_ambiguous()
        return frozenset(found)


@functools.lru_cache(maxsize=64)
def check_grammar(text: str) -> None:
    """GrammarError unless `text` is a grammar that llama.cpp can follow."""
    grammar = parse(text)
    _check_recursion(grammar.rules)
    _try_out(grammar)


def parse(text: str) -> Grammar:
    """Read a grammar; GrammarError, with the line, where it is not one."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise GrammarError(f"it is longer than {MAX_BYTES // 1024} KiB")
    if "\0" in text:
        raise GrammarError("it has a character 0")
    return _Parser(text).parse()


@dataclass(slots=True)
class _Group:
    """A rule that is being read: `last` is where the item begins that a repetition would repeat."""

    rule: int
    alternatives: list[list[Item]]
    last: int | None = None


class _Parser:
    """Reads rules. Groups and repetitions become rules of their own, as llama.cpp makes them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0
        self._numbers: dict[str, int] = {}
        self._rules: list[list[list[Item]] | None] = []
        self._lines: dict[str, int] = {}  # where a name is used first
        self._num_places = 0

    def parse(self) -> Grammar:
        self._skip(_SPACE_AND_LINES)
        while self._pos < len(self._text):
            self._rule()
            self._skip(_SPACE_AND_LINES)
        rules = []
        for name, number in self._numbers.items():
            if self._rules[number] is None:
                raise GrammarError(f"line {self._lines[name]} names the rule {name}, which is missing")
        if "root" not in self._numbers:
            raise GrammarError("it has no rule named root")
        for rule in self._rules:
            assert rule is not None
            rules.append(rule)
        return Grammar(rules, self._numbers["root"], list(self._numbers.values()))

    def _error(self, why: str) -> GrammarError:
        return GrammarError(f"line {self._line()}: {why}")

    def _line(self) -> int:
        return self._text.count("\n", 0, self._pos) + 1

    def _peek(self) -> str:
        return self._text[self._pos : self._pos + 1]

    def _skip(self, space: re.Pattern[str]) -> None:
        found = space.match(self._text, self._pos)
        assert found is not None
        self._pos = found.end()

    def _new_rule(self) -> int:
        if len(self._rules) >= _MAX_RULES:
            raise self._error("it has too many rules; repeat less, or simplify it")
        self._rules.append(None)
        return len(self._rules) - 1

    def _name(self) -> str:
        found = _NAME.match(self._text, self._pos)
        if found is None:
            raise self._error(f"a rule's name is expected, not {self._peek()!r}")
        self._lines.setdefault(found[0], self._line())
        self._pos = found.end()
        return found[0]

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = self._new_rule()
        return self._numbers[name]

    def _rule(self) -> None:
        number = self._number(self._name())
        self._skip(_SPACE)
        if not self._text.startswith("::=", self._pos):
            raise self._error("::= is expected after a rule's name")
        self._pos += 3
        self._skip(_SPACE_AND_LINES)
        groups = [_Group(number, [[]])]
        while True:
            group = groups[-1]
            nested = len(groups) > 1
            character = self._peek()
            if character == "(":
                if len(groups) > MAX_NESTING:
                    raise self._error(f"groups are nested more than {MAX_NESTING:,} deep")
                self._pos += 1
                self._skip(_SPACE_AND_LINES)
                groups.append(_Group(self._new_rule(), [[]]))
                continue
            if character == ")" and nested:
                self._rules[group.rule] = group.alternatives
                groups.pop()
                self._pos += 1
                self._add(groups[-1], [group.rule])
                nested = len(groups) > 1
            elif character == "|":
                self._pos += 1
                group.alternatives.append([])
                group.last = None
                self._skip(_SPACE_AND_LINES)
                continue
            elif character in ("*", "+", "?", "{") and character:
                self._repeat(group, *self._times(character))
            elif not character or (character in "\r\n" and not nested):
                break
            else:
                self._add(group, self._item(character))
            self._skip(_SPACE_AND_LINES if nested else _SPACE)
        if len(groups) > 1:
            raise self._error("a ) is missing")
        self._rules[number] = groups[0].alternatives

    def _item(self, character: str) -> list[Item]:
        if character == '"':
            self._pos += 1
            items: list[Item] = []
            while self._peek() != '"':
                code = self._character()
                items.append(Characters(((code, code),)))
            self._pos += 1
            return items
        if character == "[":
            return [self._set()]
        if character == ".":
            self._pos += 1
            return [Characters(((0, 0x10FFFF),))]
        if character in "<!":
            # What is checked of such a rule and what is accepted differ, which would end the process.
            raise self._error("rules about tokens, such as <think>, are not supported; write their text")
        if _NAME.match(character):
            return [self._number(self._name())]
        raise self._error(f"{character!r} is not expected here")

    def _set(self) -> Characters:
        self._pos += 1
        negated = self._peek() == "^"
        self._pos += negated
        ranges = []
        while self._peek() != "]":
            low = high = self._character()
            if self._peek() == "-" and self._text[self._pos + 1 : self._pos + 2] != "]":
                self._pos += 1
                high = self._character()
            ranges.append((low, high))
        self._pos += 1
        if not ranges:
            raise self._error("a set of characters is empty")
        return Characters(tuple(ranges), negated)

    def _character(self) -> int:
        character = self._peek()
        if not character:
            raise self._error("it ends within a text or a set of characters")
        self._pos += 1
        if character != "\\":
            return ord(character)
        escape = self._peek()
        self._pos += 1
        if escape in _HEX:
            digits = self._text[self._pos : self._pos + _HEX[escape]]
            if not re.fullmatch(f"[0-9a-fA-F]{{{_HEX[escape]}}}", digits):
                raise self._error(f"\\{escape} needs {_HEX[escape]} hexadecimal digits")
            self._pos += len(digits)
            return int(digits, 16)
        if escape not in _ESCAPES:
            raise self._error(f"\\{escape} is not known")
        return ord(_ESCAPES[escape])

    def _times(self, character: str) -> tuple[int, int | None]:
        """How often a repetition repeats, at least and at most."""
        if character != "{":
            self._pos += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[character]
        found = _NUMBERS.match(self._text, self._pos)
        if found is None:
            raise self._error("{ needs one or two numbers, as in {2} or {0,5}")
        self._pos = found.end()
        texts = found[1], found[3]
        if any(len(text or "") > 6 or int(text or 0) > MAX_REPEATS for text in texts):
            raise self._error(f"more than {MAX_REPEATS:,} repetitions are asked for")
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if most is not None and most < least:
            raise self._error(f"{found[0]} asks for less than its least number")
        return least, most

    def _repeat(self, group: _Group, least: int, most: int | None) -> None:
        items = group.alternatives[-1]
        if group.last is None or group.last == len(items):
            raise self._error("there is nothing to repeat")
        repeated = items[group.last :]
        del items[group.last :]
        self._count((least + 2) * len(repeated))
        items += repeated * least
        optional = 1 if most is None else most - least
        inner: int | None = None
        for _ in range(optional):
            rule = self._new_rule()
            self._count(len(repeated) + 1)
            follow: list[Item] = [rule] if most is None else [] if inner is None else [inner]
            self._rules[rule] = [[*repeated, *follow], []]
            inner = rule
        if inner is not None:
            items.append(inner)

    def _add(self, group: _Group, items: Sequence[Item]) -> None:
        self._count(len(items))
        group.last = len(group.alternatives[-1])
        group.alternatives[-1] += items

    def _count(self, num_places: int) -> None:
        self._num_places += num_places
        if self._num_places > _MAX_PLACES:
            raise self._error("it becomes too large; repeat less, or simplify it")


def _check_recursion(rules: Sequence[Sequence[Sequence[Item]]]) -> None:
    """GrammarError if a rule can begin with itself, or if to see that none does takes too long there."""
    empty = _can_be_empty(rules)
    first: list[list[int]] = []
    for alternatives in rules:
        entered = []
        for alternative in alternatives:
            for item in alternative:
                if not isinstance(item, int):
                    break
                entered.append(item)
                if not empty[item]:
                    break
        first.append(entered)
    num_paths: list[int | None] = [None] * len(rules)
    for root in range(len(rules)):
        if num_paths[root] is not None:
            continue
        path = [(root, iter(first[root]))]
        on_path = {root}
        while path:
            rule, entered_by = path[-1]
            child = next((entered for entered in entered_by if num_paths[entered] is None), None)
            if child is None:
                num_paths[rule] = 1 + sum(num_paths[entered] or 0 for entered in first[rule])
                on_path.discard(rule)
                path.pop()
            elif child in on_path:
                raise GrammarError(
                    "a rule begins with itself (left recursion); let it end with itself instead"
                )
            else:
                path.append((child, iter(first[child])))
                on_path.add(child)
    if sum(number or 0 for number in num_paths) > _MAX_PATHS:
        raise GrammarError("its rules branch too often; simplify it")


def _can_be_empty(rules: Sequence[Sequence[Sequence[Item]]]) -> list[bool]:
    empty = [False] * len(rules)
    used_by: list[list[int]] = [[] for _ in rules]
    for rule, alternatives in enumerate(rules):
        for alternative in alternatives:
            for item in alternative:
                if isinstance(item, int):
                    used_by[item].append(rule)
    todo = list(range(len(rules)))
    while todo:
        rule = todo.pop()
        if not empty[rule] and any(
            all(isinstance(item, int) and empty[item] for item in alternative) for alternative in rules[rule]
        ):
            empty[rule] = True
            todo += used_by[rule]
    return empty


def _try_out(grammar: Grammar) -> None:
    """Walk into the grammar where it branches most; GrammarError if that grows beyond all measure.

    Each named rule is a start, since what grows does so inside of a rule that comes back to itself. All go on
    side by side, so that none takes the whole budget. Equal stacks are one between two tokens, but within a
    token llama.cpp follows each way on its own: so the ways are counted, anew for every few characters.
    """
    budget = _WALK_BUDGET
    starts = [grammar.begin(), *map(grammar.begin, grammar.named)]
    walks: list[list[_Ways]] = [[dict.fromkeys(start, 1)] for start in starts]
    for step in range(_WALK_STEPS):
        for i, walk in enumerate(walks):
            reached: dict[frozenset[Stack], _Ways] = {}
            for ways in walk:
                for character in grammar.next_characters(ways):
                    after = _follow(grammar, ways, character)
                    if after:
                        reached[frozenset(after)] = after
                    budget -= len(ways)
            if budget < 0:
                return
            widest = sorted(reached.values(), key=lambda ways: sum(ways.values()), reverse=True)[:_WALK_WIDTH]
            walks[i] = widest if (step + 1) % _TOKEN_LENGTH else [dict.fromkeys(ways, 1) for ways in widest]


def _follow(grammar: Grammar, ways: _Ways, character: int) -> _Ways:
    after: _Ways = {}
    for stack, number in ways.items():
        for reached in grammar.accept((stack,), character):
            after[reached] = after.get(reached, 0) + number
    if len(after) > _MAX_STACKS or sum(after.values()) > _MAX_WAYS:
        raise _too_ambiguous()
    return after


def _too_ambiguous() -> GrammarError:
    return GrammarError("it is too ambiguous: the same text can be read in thousands of ways")
