"""When which beginning of a draft is worth processing before it is sent. Pure: the clock is passed in.

    typed      Could you expl        a word ends here and there; the one under the cursor may still change
    prepared   Could you |           up to the first space behind the last whole word

After a longer pause the last word counts as whole. Texts that run through the model word by word end up in
the same cells as a text processed at once; what is taken back has been processed for nothing, so that a draft
that only gets shorter is left alone until it goes on differently.
"""

import re
from typing import Final

from samovar.chats.slash import is_command

DEBOUNCE_S: Final = 0.3
PAUSE_S: Final = 1.0
MIN_GROWTH: Final = 3
"""Characters. Less is not worth a step of its own while the next word is being typed."""
_WHOLE_WORDS: Final = re.compile(r".*\S\s", re.DOTALL)


class AheadPolicy:
    """The draft of one composer. Ask `due` at the time that `typed` names."""

    def __init__(self) -> None:
        self._text = ""
        self._typed_at = 0.0
        self._whole_at = 0.0
        self._prepared = ""

    def typed(self, text: str, now: float) -> float | None:
        """The draft is now `text`; the time at which something will be due, None if nothing will."""
        if text != self._text:
            # While words follow each other quickly, the first one that waits sets the time.
            if not self._is_worth(whole_words(self._text)):
                self._whole_at = now
            self._text, self._typed_at = text, now
        return self.next_due()

    def due(self, now: float) -> str | None:
        """The beginning of the draft to process now, told once; None if it is too early or nothing is new.

        Where it returns a text, `next_due` may name another time.
        """
        text = self._candidate(now)
        if text is not None:
            self._prepared = text
        return text

    def next_due(self) -> float | None:
        """The next time at which `due` has something, unless more is typed before."""
        if self._is_worth(whole_words(self._text)):
            return self._whole_at + DEBOUNCE_S
        return self._typed_at + PAUSE_S if self._is_worth(self._text, min_growth=1) else None

    def begin(self, prepared: str = "") -> None:
        """The composer starts anew: the draft was sent, or it is another chat's. `prepared` is in place."""
        self._text = self._prepared = prepared

    def _candidate(self, now: float) -> str | None:
        whole = whole_words(self._text)
        if now >= self._typed_at + PAUSE_S and self._is_worth(self._text, min_growth=1):
            return self._text
        return whole if now >= self._whole_at + DEBOUNCE_S and self._is_worth(whole) else None

    def _is_worth(self, text: str, min_growth: int = MIN_GROWTH) -> bool:
        """Whether so much of `text` is new, and meant for the model."""
        if not text.strip() or _begins_command(self._text) or self._prepared.startswith(text):
            return False
        return len(text) - _num_common(text, self._prepared) >= min_growth


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
