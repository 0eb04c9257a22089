"""When which beginning of a draft is worth processing before it is sent. Pure: the clock is passed in.

    typed      Could you expl        a word ends here and there; the one under the cursor may still change
    prepared   Could you |           up to the first space behind the last whole word
    typed      Could you explain?    a sentence ends here: the message may be complete
    prepared   Could you explain?|   with all that follows it in a prompt

After a longer pause the last word counts as whole, and the message as complete. Texts that run through the
model word by word end up in the same cells as a text processed at once; what is taken back has been processed
for nothing, so that a draft that only gets shorter is left alone until it goes on differently, and messages
are not taken for complete too often.
"""

import re
from dataclasses import dataclass
from typing import Final

from samovar.chats.slash import is_command

DEBOUNCE_S: Final = 0.3
SENTENCE_S: Final = 0.05
"""Enter may follow with the next key."""
PAUSE_S: Final = 1.0
MIN_GROWTH: Final = 3
"""Characters. Less is not worth a step of its own while the next word is being typed."""
GUESS_CHARACTERS: Final = 64
"""Of a message for each time that it is wrongly taken for complete: that costs five tokens of a dozen."""
_WHOLE_WORDS: Final = re.compile(r".*\S\s", re.DOTALL)
_SENTENCE_END: Final = re.compile(
    r"""[.?!\u2026\u3002\uff1f\uff01]['")\]}\u2019\u201d\u00bb\u300d\u300f\uff09]*\Z"""
)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a message begins with; with `complete` it may be all of it."""

    text: str
    complete: bool = False


class AheadPolicy:
    """The draft of one composer. Ask `due` at the time that `typed` names."""

    def __init__(self) -> None:
        self._text = ""
        self._typed_at = 0.0
        self._whole_at = 0.0
        self._prepared = Beginning("")
        self._num_guesses = 0

    def typed(self, text: str, now: float) -> float | None:
        """The draft is now `text`; the time at which something will be due, None if nothing will."""
        if text != self._text:
            # While words follow each other quickly, the first one that waits sets the time.
            if not self._is_worth(whole_words(self._text)):
                self._whole_at = now
            self._text, self._typed_at = text, now
        return self.next_due()

    def due(self, now: float) -> Beginning | None:
        """The beginning of the draft to process now, told once; None if it is too early or nothing is new.

        Where it returns one, `next_due` may name another time.
        """
        found = next((beginning for at, beginning in self._candidates() if at <= now), None)
        if found is not None:
            self._prepared = found
            self._num_guesses += found.complete
        return found

    def next_due(self) -> float | None:
        """The next time at which `due` has something, unless more is typed before."""
        return min((at for at, _ in self._candidates()), default=None)

    def begin(self, prepared: str = "") -> None:
        """The composer starts anew: the draft was sent, or it is another chat's. `prepared` is in place."""
        self._text, self._prepared, self._num_guesses = prepared, Beginning(prepared), 0

    def _candidates(self) -> list[tuple[float, Beginning]]:
        """What is worth processing, the most first, and from when on."""
        text, found = self._text, list[tuple[float, Beginning]]()
        pause = self._typed_at + PAUSE_S
        if self._may_be_complete():
            at = self._typed_at + SENTENCE_S if _SENTENCE_END.search(text) else pause
            found.append((at, Beginning(text, complete=True)))
        if self._is_worth(text, min_growth=1):
            found.append((pause, Beginning(text)))
        if self._is_worth(whole := whole_words(text)):
            found.append((self._whole_at + DEBOUNCE_S, Beginning(whole)))
        return found

    def _may_be_complete(self) -> bool:
        text, prepared = self._text, self._prepared
        is_new = text == prepared.text and not prepared.complete
        if not (is_new or self._is_worth(text, min_growth=1)) or not text.strip():
            return False
        return self._num_guesses * GUESS_CHARACTERS <= len(text) and not _begins_command(text)

    def _is_worth(self, text: str, min_growth: int = MIN_GROWTH) -> bool:
        """Whether so much of `text` is new, and meant for the model."""
        prepared = self._prepared.text
        if not text.strip() or _begins_command(self._text) or prepared.startswith(text):
            return False
        return len(text) - _num_common(text, prepared) >= min_growth


def whole_words(text: str) -> str:
    """The beginning of a text whose words will not change if it grows, with one space behind them."""
    found = _WHOLE_WORDS.match(text)
    return found[0] if found else ""


def _begins_command(text: str) -> bool:
    return text == "/" or is_command(text)


def _num_common(a: str, b: str) -> int:
    """How many characters two texts begin with in common, by halves: a draft may be long."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
