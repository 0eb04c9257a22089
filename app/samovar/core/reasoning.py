"""Tells a reply's thinking from its answer, also while it streams. Pure.

Models that reason write it before the answer, between tags that their chat template knows. Where the template
opens the thinking itself, at the end of the prompt, the reply has the closing tag alone. A reply is tiled by
parts; tags and the space around them belong to the thinking:

    <think> a way to go </think>   The answer, in which <think> is text like any other.
    |--------- thinking ----------||------------------- answer -----------------------|
"""

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

Tags = tuple[str, str]
"""What opens and what closes a thinking part."""

KNOWN_TAGS: Final[tuple[Tags, ...]] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
)


class Phase(enum.Enum):
    """Where a reply stands."""

    OPEN = "open"  # nothing but space so far, or what may become a tag
    THINKING = "thinking"
    ANSWER = "answer"  # from here on, tags are text


class Part(msgspec.Struct, frozen=True):
    """What stands from `start` to `end`; `text`, from `inner` on, is it without tags and their space."""

    is_thinking: bool
    text: str
    start: int
    inner: int
    end: int


class Reasoning:
    """Follows one reply. `thinks` says that it begins inside of a thinking part.

    The first closing tag ends a thinking part, whatever was opened within. After it another one may follow at
    once; with anything else the answer begins, and goes on to the end.
    """

    def __init__(self, *, thinks: bool = False, tags: Sequence[Tags] = KNOWN_TAGS) -> None:
        self._tags = tags
        self._text = ""
        self._closed: list[Part] = []
        self._start = 0  # of the part that is under way
        self._inner = 0  # where its text begins
        self._scanned = 0  # no closing tag begins before
        self._closing = [close for _, close in tags] if thinks else []
        self._may_repeat = thinks  # a model may open what its prompt has opened already
        self.phase = Phase.THINKING if thinks else Phase.OPEN

    def push(self, text: str) -> Phase:
        """Take in what comes next of the reply; returns where it then stands."""
        self._text += text
        while self.phase is not Phase.ANSWER:
            advanced = self._open() if self.phase is Phase.OPEN else self._close()
            if not advanced:
                break
        return self.phase

    @property
    def parts(self) -> list[Part]:
        """All parts so far; together they are the text. What is not known to be thinking counts as answer."""
        found = list(self._closed)
        if self._start < len(self._text):
            if self.phase is Phase.THINKING:
                found.append(self._thinking(len(self._text), len(self._text)))
            else:
                text = self._text[self._start :]
                found.append(Part(False, text, self._start, self._start, len(self._text)))
        return found

    @property
    def num_settled(self) -> int:
        """How many characters will stay what they are, whatever follows."""
        if self.phase is Phase.ANSWER:
            return len(self._text)
        if self.phase is Phase.OPEN or self._may_repeat:
            return self._start
        longest = max(map(len, self._closing))
        for length in range(min(longest - 1, len(self._text) - self._inner), 0, -1):
            if any(tag.startswith(self._text[-length:]) for tag in self._closing):
                return len(self._text) - length
        return len(self._text)

    def _thinking(self, inner_end: int, end: int) -> Part:
        text = self._text[self._inner : inner_end]
        inner = self._inner + len(text) - len(text.lstrip())
        return Part(True, text.strip(), self._start, inner, end)

    def _open(self) -> bool:
        rest = self._text[self._start :].lstrip()
        for opening, closing in self._tags:
            if rest.startswith(opening):
                self._inner = len(self._text) - len(rest) + len(opening)
                self._scanned = self._inner
                self._closing = [closing]
                self.phase = Phase.THINKING
                return True
        if rest and not any(opening.startswith(rest) for opening, _ in self._tags):
            self.phase = Phase.ANSWER
        return False

    def _close(self) -> bool:
        if self._may_repeat:
            rest = self._text[self._start :].lstrip()
            repeated = next((opening for opening, _ in self._tags if rest.startswith(opening)), "")
            if not repeated and any(opening.startswith(rest) for opening, _ in self._tags):
                return False
            self._may_repeat = False
            self._inner = self._scanned = len(self._text) - len(rest) + len(repeated)
        found = [(at, tag) for tag in self._closing if (at := self._text.find(tag, self._scanned)) >= 0]
        if not found:
            longest = max(map(len, self._closing))
            self._scanned = max(self._scanned, len(self._text) - longest + 1)
            return False
        at, tag = min(found)
        end = at + len(tag)
        self._closed.append(self._thinking(at, end))
        self._start = end
        self.phase = Phase.OPEN
        return True


class Streamed:
    """Sorts the text of a reply into thinking and answer as it is printed: each piece once, in order.

    Tags are left out, and so is the space around thinking; what may become a tag is held back.
    """

    def __init__(self, *, thinks: bool = False) -> None:
        self._reasoning = Reasoning(thinks=thinks)
        self._text = ""
        self._num_told = 0

    def push(self, text: str) -> list[tuple[bool, str]]:
        """What can be printed now, each piece with whether it is thinking."""
        self._text += text
        self._reasoning.push(text)
        return self._tell(final=False)

    def finish(self) -> list[tuple[bool, str]]:
        """What was held back."""
        return self._tell(final=True)

    def _tell(self, *, final: bool) -> list[tuple[bool, str]]:
        told = []
        parts = self._reasoning.parts
        settled = len(self._text) if final else self._reasoning.num_settled
        for number, part in enumerate(parts):
            begin = max(part.inner, self._num_told)
            # The space at the end of a thought that is not closed may be within it yet.
            end = min(part.inner + len(part.text), settled)
            if part.is_thinking:
                end = begin + len(self._text[begin:end].rstrip())
            text = self._text[begin:end]
            if number and begin == part.inner and not part.is_thinking:
                text = text.lstrip()
            if text:
                told.append((part.is_thinking, text))
                self._num_told = end
        return told


def split_reply(text: str, *, thinks: bool = False, tags: Sequence[Tags] = KNOWN_TAGS) -> list[Part]:
    """The parts of a whole reply. Space between two parts, or before the answer, is the answer's."""
    reasoning = Reasoning(thinks=thinks, tags=tags)
    reasoning.push(text)
    return reasoning.parts


def answer_of(text: str, *, thinks: bool = False) -> str:
    """A reply without its thinking; empty if it has no answer."""
    parts = split_reply(text, thinks=thinks)
    if not any(part.is_thinking for part in parts):
        return text
    answer = "".join(part.text for part in parts if not part.is_thinking)
    return answer.lstrip()


def find_tags(template: str) -> Tags | None:
    """The thinking tags that a chat template names, None if it knows no thinking."""
    places = [(at, tags) for tags in KNOWN_TAGS if (at := template.find(tags[1])) >= 0]
    return min(places)[1] if places else None


def opens_thinking(prompt: str, tags: Tags) -> bool:
    """Whether a prompt ends right behind an opening tag."""
    return prompt.rstrip().endswith(tags[0])


def begins_inside(text: str, tags: Tags) -> bool:
    """Whether a text begins inside of a thinking part, or with one."""
    opening, closing = tags
    end = text.find(closing)
    start = text.find(opening)
    return text.lstrip().startswith(opening) or (end >= 0 and not 0 <= start < end)
