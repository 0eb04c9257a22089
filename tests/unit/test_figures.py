"""Numbers as the screen shows them."""

import pytest

from samovar.core.figures import age, duration, mib, percent, rate, short_count


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (3912, "3.9k"),
        (9960, "10k"),
        (62_400, "62k"),
        (1_200_000, "1.2m"),
    ],
)
def test_short_counts_have_at_most_four_characters(number: int, shown: str) -> None:
    assert short_count(number) == shown
    assert len(shown) <= 4


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "0 ms"), (9.4, "9 ms"), (999.7, "1.0 s"), (9960, "10 s"), (48_000, "48 s"), (372_000, "6 m 12 s")],
)
def test_durations_have_one_or_two_units(ms: float, shown: str) -> None:
    assert duration(ms) == shown


def test_sizes_keep_a_digit_where_they_are_small() -> None:
    assert [mib(size) for size in (0, 1000, 450_000, 9 << 20, 88 << 20, 2 << 30)] == [
        "0",
        "<0.1",
        "0.4",
        "9.0",
        "88",
        "2,048",
    ]


def test_almost_all_is_not_all() -> None:
    assert [percent(share) for share in (0.0, 0.984, 0.99999, 1.0)] == [
        "0.0 %",
        "98.4 %",
        "99.9 %",
        "100.0 %",
    ]


def test_ages_and_rates_are_short() -> None:
    assert [age(seconds) for seconds in (0, 12, 180, 7300, 4 * 86400)] == ["now", "12 s", "3 m", "2 h", "4 d"]
    assert [rate(value) for value in (None, 7.77, 78.2)] == ["–", "7.8", "78"]
