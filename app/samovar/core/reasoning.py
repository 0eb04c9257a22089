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
    """The text from `start` to `end` of a reply; `text` is it without tags, and without the space at them."""

    is_thinking: bool
    text: str
    start: int
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
            is_thinking = self.phase is Phase.THINKING
            inner = self._text[self._inner if is_thinking else self._start :]
            found.append(
                Part(is_thinking, inner.strip() if is_thinking else inner, self._start, len(self._text))
            )
        return found

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
        self._closed.append(Part(True, self._text[self._inner : at].strip(), self._start, end))
        self._start = end
        self.phase = Phase.OPEN
        return True


def split_reply(text: str, *, thinks: bool = False, tags: Sequence[Tags] = KNOWN_TAGS) -> list[Part]:
    """The parts of a whole reply. Space between two parts, or before the answer, is the answer's."""
    reasoning = Reasoning(thinks=thinks, tags=tags)
    reasoning.push(text)
    return reasoning.parts


def answer_of(text: str, *, thinks: bool = False) -> str:
    """A reply without its thinking; the whole of it if there is no answer in it."""
    parts = split_reply(text, thinks=thinks)
    if not any(part.is_thinking for part in parts):
        return text
    answer = "".join(part.text for part in parts if not part.is_thinking)
    return answer.lstrip() or text


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
