"""From token bytes to text that may be shown: whole characters only, and never a part of a stop string."""

import codecs


class TextStream:
    """Collects one reply. `shown` text never has to be taken back.

    Bytes of an unfinished character and text that may be the start of a stop string are held back. `before`
    was shown earlier and stays: a stop string that begins in it, and ends in what comes, leaves nothing new.

                        before                 new
        ... ──────────────────|──────────────────────────────────|
              may begin a stop string      shown      held back
    """

    def __init__(self, stop: tuple[str, ...] = (), before: str = "") -> None:
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        longest = max(map(len, self._stop), default=0)
        self._text = before[-longest:] if longest else ""
        self._num_before = self._num_shown = len(self._text)
        self._num_settled = 0  # no stop string begins in so much of the text
        self._ends: list[int | None] = []  # text length after each token; None inside a character
        self.stopped = False

    @property
    def text(self) -> str:
        """What is new of the reply so far, without a stop string and what follows it."""
        return self._text[self._num_before :]

    def push(self, piece: bytes) -> str:
        """Take one token's bytes; returns the text that may be shown now."""
        assert not self.stopped
        self._text += self._decoder.decode(piece)
        self._ends.append(None if self._decoder.getstate()[0] else len(self._text))
        # A match can only end in what is new, and begin in what was held back. The one that ends first
        # counts, as if characters came one by one.
        starts = {stop: self._text.find(stop, self._first_start(stop)) for stop in self._stop}
        matches = [(start + len(stop), start) for stop, start in starts.items() if start >= 0]
        if matches:
            self._text = self._text[: max(min(matches)[1], self._num_before)]
            self.stopped = True
        held = 0 if self.stopped else self._held_back()
        self._num_settled = len(self._text) - held
        return self._show(self._num_settled)

    def finish(self) -> str:
        """The text that was held back and turned out to be none of a stop string."""
        return self._show(len(self._text))

    def num_tokens_spelled(self) -> int:
        """How many leading tokens spell the text, or a beginning of it, exactly."""
        for index in range(len(self._ends), 0, -1):
            end = self._ends[index - 1]
            if end is not None and end <= len(self._text):
                return index
        return 0

    def _first_start(self, stop: str) -> int:
        """Where a stop string may begin that ends in new text."""
        return max(self._num_settled, self._num_before - len(stop) + 1)

    def _held_back(self) -> int:
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._text)), longest, -1):
                if self._text.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def _show(self, end: int) -> str:
        new = self._text[self._num_shown : max(end, self._num_shown)]
        self._num_shown = max(end, self._num_shown)
        return new
