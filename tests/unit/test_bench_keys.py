"""A message as it is typed in the benchmark."""

import itertools

import pytest

from samovar.bench.keys import keystrokes

TEXT = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize("num_corrections", [0, 2])
def test_the_whole_message_is_there_in_the_end(num_corrections: int) -> None:
    keys = list(keystrokes(TEXT, 60.0, num_corrections=num_corrections, num_wrong=3))
    assert keys[-1][1] == TEXT
    assert all(a[0] < b[0] for a, b in itertools.pairwise(keys))
    assert all(abs(len(a[1]) - len(b[1])) == 1 for a, b in itertools.pairwise(keys)), "one key at a time"
    turns = sum(
        len(b) < len(a) and len(b) < len(c)
        for (_, a), (_, b), (_, c) in zip(keys, keys[1:], keys[2:], strict=False)
    )
    assert turns == num_corrections


def test_words_are_typed_at_their_speed() -> None:
    keys = list(keystrokes(TEXT, 60.0, num_corrections=0, num_wrong=0))
    assert keys[-1][0] == pytest.approx(len(TEXT.split()))
