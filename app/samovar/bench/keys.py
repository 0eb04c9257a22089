"""A message typed key by key, with corrections, as times and drafts. Pure functions."""

from collections.abc import Iterator
from typing import Final

BACKSPACE_S: Final = 0.08
"""A key that is held down repeats."""


def keystrokes(
    text: str, words_per_minute: float, *, num_corrections: int, num_wrong: int
) -> Iterator[tuple[float, str]]:
    """Seconds since the beginning, and the draft after each key, until `text` is complete.

    `num_corrections` times, spread over the text, `num_wrong` other words are typed, taken back and replaced.
    """
    words = text.split(" ")
    word_s = 60 / words_per_minute
    places = {len(words) * (n + 1) // (num_corrections + 1) for n in range(num_corrections)}
    now, draft = 0.0, ""

    def typed(word: str) -> Iterator[tuple[float, str]]:
        nonlocal now, draft
        for key in word:
            now += word_s / len(word)
            draft += key
            yield now, draft

    for number, word in enumerate(words):
        if number in places:
            right = len(draft)
            # Words of the message itself, in another order: as likely to the model as any.
            for wrong in words[:num_wrong]:
                yield from typed(f"{wrong} ")
            while len(draft) > right:
                now += BACKSPACE_S
                draft = draft[:-1]
                yield now, draft
        yield from typed(word if number == len(words) - 1 else f"{word} ")
