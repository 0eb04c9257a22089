"""What the readers of other programs' files share: texts, times, roles, what is kept beside a message. Pure.

Every function takes what a decoder made of a file, so any type may come: wrong ones raise SamovarError with
the end of a sentence that the caller begins (`importing`), or are left out with a note.
"""

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.core.units import format_size
from samovar.sessions.encoding import storable
from samovar.sessions.transfer.notes import Notes

MAX_TEXT_BYTES: Final = 16 << 20
MAX_KEPT_CHARS: Final = 256 << 10
"""The longest text that is kept beside a message; longer ones are images and the like."""
_MAX_KEPT_DEPTH: Final = 48  # our own files hold 64, and what is kept may stand within something
_MAX_SHOWN_CHARS: Final = 60
_LAST_SECOND: Final = 253_402_300_799.0  # of the year 9999
_MILLISECONDS_FROM: Final = 1e11  # as seconds this is the year 5138, as milliseconds 1973

FILES_LEFT_OUT: Final = "images, audio and other files are left out, their names are kept"
DATA_LEFT_OUT: Final = "large data beside messages is left out"
TOOL_CALLS: Final = "tool calls are kept as text"

_ROLES: Final = {
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
}

_Kind = TypeVar("_Kind")
Raw = msgspec.Raw
Fields = dict[str, Raw]
"""A JSON object whose values are not decoded yet: views into the file, so a large one costs nothing."""


def decode(raw: Raw | bytes | memoryview, kind: type[_Kind]) -> _Kind:
    """The JSON text as a value of this kind; SamovarError if it is none."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise SamovarError(f"a value has the wrong type ({error})") from error
    except msgspec.DecodeError as error:
        raise SamovarError(f"it is not valid JSON ({error}), or was cut off") from error
    except UnicodeDecodeError as error:
        raise SamovarError("a text in it is not UTF-8") from error
    except RecursionError as error:
        raise SamovarError("it is nested too deeply") from error


def try_decode(text: object) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a text that should be JSON, None if it is not."""
    if not isinstance(text, (str, bytes)):
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def text_of(value: object) -> str:
    """The value if it is a text, else an empty one. Lone surrogates become �."""
    return storable(value) if isinstance(value, str) else ""


def key_of(value: object, what: str = "message") -> str:
    """An id as a text: programs use texts and whole numbers."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise SamovarError(f"a {what} has no id")


def shown(text: str) -> str:
    """A text of the file for a sentence: in quotes, on one line, harmless and not long."""
    line = " ".join(clean(text).split())
    return f"“{line[:_MAX_SHOWN_CHARS]}{'…' if len(line) > _MAX_SHOWN_CHARS else ''}”"


def checked_text(text: str, whose: str) -> str:
    """The text as it can be stored; SamovarError if it is over 16 MiB. `whose` is an id of the file."""
    if len(text) > MAX_TEXT_BYTES // 4 and len(text.encode(errors="surrogatepass")) > MAX_TEXT_BYTES:
        limit = format_size(MAX_TEXT_BYTES)
        raise SamovarError(f"message {shown(whose)} is longer than {limit}, the most a message can have")
    return storable(text)


def seconds(value: object, notes: Notes) -> float | None:
    """Seconds since the epoch from seconds, milliseconds, microseconds or an ISO date (UTC without a zone).

    None where the file does not say, and with a note where what it says is no time.
    """
    if value in (None, "", 0):
        return None
    found = _seconds(value)
    if found is None:
        notes.add("times that make no sense are left out")
    return found


def _seconds(value: object) -> float | None:
    try:
        if isinstance(value, str):
            value = _seconds_in(value)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None
        number = float(value)
    except (ValueError, OverflowError):
        return None
    for _ in range(3):
        if math.isfinite(number) and number >= _MILLISECONDS_FROM:
            number /= 1000
    return number if 0 < number <= _LAST_SECOND else None


def _seconds_in(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def role_of(name: object, whose: str, notes: Notes) -> tuple[Role, dict[str, Any]]:
    """The role of ours, and what of the file's own is kept: roles that we do not have speak as the user."""
    if not isinstance(name, str) or not name:
        raise SamovarError(f"message {shown(whose)} has no role")
    role = _ROLES.get(name)
    if role is not None and role.value == name:
        return role, {}
    if role is None:
        notes.add(
            "messages of tools are kept as yours, with their role noted"
            if name in ("tool", "function", "ipython")
            else "messages of roles that Samovar does not have are kept as yours"
        )
    return role or Role.USER, {"role": storable(name)}


def kept(fields: Mapping[str, Any], notes: Notes, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What a file says beyond what we take over, under its own names. Fields without a value say nothing."""
    return {
        storable(name): _kept(value, notes, 0)
        for name, value in fields.items()
        if name not in without and value is not None
    }


def _kept(value: object, notes: Notes, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    if depth > _MAX_KEPT_DEPTH:
        raise SamovarError(f"it is nested deeper than {_MAX_KEPT_DEPTH} levels")
    match value:
        case dict():
            return {storable(str(name)): _kept(item, notes, depth + 1) for name, item in value.items()}
        case list() | tuple():
            return [_kept(item, notes, depth + 1) for item in value]
        case str() | bytes() if len(value) > MAX_KEPT_CHARS or isinstance(value, bytes):
            notes.add(DATA_LEFT_OUT)
            return f"[left out: {format_size(len(value))}]"
        case str():
            return storable(value)
        case bool() | None:
            return value
        case int() if -(1 << 63) <= value < 1 << 63:
            return value
        case float() if math.isfinite(value):
            return value
        case _:  # what JSON or TOML cannot hold as a number
            return str(value)


def with_reasoning(reasoning: str, content: str) -> str:
    """A reply with what the model thought before it, as models write it themselves."""
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{content}" if reasoning.strip() else content


def fenced(text: str, language: str = "") -> str:
    """The text as a Markdown block that nothing in it can end."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`{3,}", text)), 3)
    return f"{fence}{language}\n{text}\n{fence}"


def placeholder(kind: str, name: str = "") -> str:
    """A short visible text for what is no text: `[image: cat.png]`."""
    line = " ".join(name.split())
    if line.startswith("data:"):  # a whole file
        line = line.partition(";")[0].partition(",")[0].removeprefix("data:")
    return f"[{kind}: {line[:200]}]" if line else f"[{kind}]"


def tool_call_text(name: object, arguments: object) -> str:
    """A tool call as a line: `[tool call: search({"q": "tea"})]`."""
    if not isinstance(arguments, str):
        try:
            arguments = "" if arguments is None else msgspec.json.encode(arguments).decode()
        except (UnicodeEncodeError, RecursionError, OverflowError):
            arguments = "…"
    return f"[tool call: {text_of(name) or 'unnamed'}({arguments})]"


def joined(*pieces: str) -> str:
    """The pieces that are not empty, a blank line between them."""
    return "\n\n".join(piece for piece in pieces if piece)
