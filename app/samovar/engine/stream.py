"""From token bytes to text that may be shown: whole characters only, and never a part of a stop string."""

import codecs


class TextStream:
    """Collects one reply. `shown` text never has to be taken back.

    Bytes of an unfinished character and text that may be the start of a stop string are held back.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._num_shown = 0
        self._ends: list[int | None] = []  # text length after each token; None inside a character
        self.stopped = False

    @property
    def text(self) -> str:
        """The whole reply so far, without a stop string and what follows it."""
        return self._text

    def push(self, piece: bytes) -> str:
        """Take one token's bytes; returns the text that may be shown now."""
        assert not self.stopped
        self._text += self._decoder.decode(piece)
        self._ends.append(None if self._decoder.getstate()[0] else len(self._text))
        # A match can only end in what is new, and begin in what has not been shown. The one that ends first
        # counts, as if characters came one by one.
        starts = {stop: self._text.find(stop, self._num_shown) for stop in self._stop}
        matches = [(start + len(stop), start) for stop, start in starts.items() if start >= 0]
        if matches:
            self._text = self._text[: min(matches)[1]]
            self.stopped = True
        held = 0 if self.stopped else self._held_back()
        return self._show(len(self._text) - held)

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
