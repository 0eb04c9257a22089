"""Numbers as the screen shows them: short, right-alignable, lower case. Pure functions."""

import time
from functools import lru_cache
from typing import Final

_MIB: Final = 1024 * 1024


def count(number: int) -> str:
    """`3,888`."""
    return f"{number:,}"


def short_count(number: int) -> str:
    """At most four characters: `900`, `3.9k`, `62k`, `1.2m`."""
    if number < 1000:
        return str(number)
    for factor, unit in ((1000, "k"), (1_000_000, "m")):
        value = number / factor
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
    return f"{number / 1e9:.1f}g"


def mib(num_bytes: int) -> str:
    """MiB without the unit: `0.4`, `88`, `2,048`; a little that would round to nothing is `<0.1`."""
    value = num_bytes / _MIB
    if value >= 9.95 or num_bytes == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.05 else "<0.1"


def duration(ms: float) -> str:
    """`9 ms`, `1.2 s`, `48 s`, `6 m 12 s`, `2 h 5 m`."""
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 9950:
        return f"{ms / 1000:.1f} s"
    seconds = round(ms / 1000)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} m {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} m"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`."""
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def age(seconds: float) -> str:
    """How long ago, in at most four characters: `now`, `12 s`, `3 m`, `2 h`, `4 d`."""
    if seconds < 5:
        return "now"
    for limit, unit_s, unit in ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // unit_s)} {unit}"
    return f"{min(int(seconds // 86400), 99)} d"


def rate(per_second: float | None) -> str:
    """Tokens a second, without the unit: `78`, `7.8`, or `–` when it is not known."""
    if per_second is None:
        return "–"
    return f"{per_second:,.0f}" if per_second >= 9.95 else f"{per_second:.1f}"


def percent(fraction: float) -> str:
    """`98.4 %`; never `100.0 %` unless it is all."""
    return f"{min(fraction * 100, 99.9) if fraction < 1 else 100:.1f} %"


def clock_time(at: float, now: float) -> str:
    """`14:02` for today, else with the day: `12 mar 14:02`. Both are seconds since the epoch."""
    moment, today = time.localtime(at), time.localtime(now)
    year, month, day, hour, minute, *_ = moment
    if day == today.tm_mday and moment[:3] == today[:3]:
        return f"{hour:02}:{minute:02}"
    its_year = "" if year == today.tm_year else f" {year}"
    return f"{day} {_month(month)}{its_year} {hour:02}:{minute:02}"


@lru_cache(maxsize=12)
def _month(number: int) -> str:
    return time.strftime("%b", (2000, number, 1, 0, 0, 0, 0, 1, 0)).lower()
