"""Values as TOML that a person likes to edit: texts as they are, dates, tables by their name. Pure."""

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import tomli_w

_INLINE_DEPTH: Final = 8  # tables in tables are not readable for long
_MAX_INTEGER: Final = 2**63

# What an editor or a terminal would not show as it is: C0 but tab and line feed, C1, bidi overrides.
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_ESCAPED: Final = re.compile(rf"\\|{_UNSAFE.pattern}|\"")
_ESCAPED_IN_LINES: Final = re.compile(rf'\\|{_UNSAFE.pattern}|"(?="")|"\Z')
_SHORT: Final = {"\\": "\\\\", '"': '\\"', "\r": "\\r", "\b": "\\b", "\f": "\\f"}


def table(
    plain: Mapping[str, Any], extra: Mapping[str, Any], known: frozenset[str], section: str
) -> Iterator[str]:
    """Lines of a table, then its sections. Of `extra` what TOML can hold stands under its own name."""
    yield from lines(plain)
    rest: dict[str, Any] = {}
    sections: list[str] = []
    for name, value in extra.items():
        if name in known or not _fits(value):
            rest[name] = value
            continue
        text = tomli_w.dumps({name: value})
        if isinstance(value, dict) or text.startswith("[["):
            text = tomli_w.dumps({section: {name: value}}) if section else text
            sections.append("\n" + text)
        else:
            yield text
    if rest:
        yield from lines({"extra": msgspec.json.encode(rest).decode()})
    yield from sections


def lines(values: Mapping[str, Any]) -> Iterator[str]:
    """A line for every value that is not None; a text with line breaks takes several."""
    for name, value in values.items():
        if isinstance(value, str):
            yield f"{name} = {_text(value)}\n"
        elif isinstance(value, dt.datetime):
            yield f"{name} = {value.isoformat().replace('+00:00', 'Z')}\n"
        elif value is not None:
            yield tomli_w.dumps({name: value})


def _text(text: str) -> str:
    """A text in the quotes that leave the most of it as it is.

    Our own: between three quotes, `tomli_w` writes a line feed for CRLF, and it escapes every quote of code.
    """
    has_lines = "\n" in text
    quotes, start = ("'''", "'''\n") if has_lines else ("'", "'")
    is_plain = not has_lines and '"' not in text and "\\" not in text
    if not (is_plain or quotes in text or text.endswith("'") or _UNSAFE.search(text)):
        return f"{start}{text}{quotes}"
    if has_lines:
        return '"""\n' + _ESCAPED_IN_LINES.sub(_escape, text) + '"""'
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04X}"


def _fits(value: object, depth: int = 1) -> bool:
    """Whether TOML holds this JSON value as what it is, in a way that a reader can follow."""
    if isinstance(value, bool | str):
        return True
    if isinstance(value, int):
        return -_MAX_INTEGER <= value < _MAX_INTEGER
    if isinstance(value, float):
        return math.isfinite(value)
    if depth >= _INLINE_DEPTH:
        return False
    if isinstance(value, dict):
        return all(_fits(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return len(set(map(type, value))) <= 1 and all(_fits(item, depth + 1) for item in value)
    return False


def time_of(time_s: float | None) -> dt.datetime | float | None:
    """The time as a date where that is exact, which it is for whole microseconds; else seconds."""
    if time_s is None:
        return None
    try:
        date = dt.datetime.fromtimestamp(time_s, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return time_s
    return date if date.timestamp() == time_s else time_s
