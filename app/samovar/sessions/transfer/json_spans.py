"""Where the parts of a large JSON text lie, without decoding it: linear in time, and next to no memory. Pure.

Brackets and commas are counted, texts are stepped over. Whether a part is valid is found when it is decoded.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from samovar.core.errors import SamovarError
from samovar.sessions.transfer.reading import fault, position

_MAX_DEPTH: Final = 500  # far more than any value that is read may have

# A text; also one that never ends, so that it is looked at once.
_TEXT: Final = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_FLAT: Final = rb'[^"\[\]{}]++|' + _TEXT + rb'|\[[^"\[\]{}]*+\]'
# What is stepped over as one: texts, and objects of up to three levels, which are most messages.
_OBJECT: Final = rb"\{(?:%b|\{(?:%b|\{(?:%b)*+\})*+\})*+\}" % (_FLAT, _FLAT, _FLAT)
_TOKEN: Final = re.compile(_TEXT + rb"|" + _OBJECT + rb"|[\[\]{},]", re.DOTALL)
_BLANK: Final = re.compile(rb"[ \t\r\n]*+")
_NAME: Final = re.compile(rb"[ \t\r\n]*+(" + _TEXT + rb")[ \t\r\n]*+:", re.DOTALL)

Span = tuple[int, int]


def list_spans(text: memoryview, span: Span, where: str) -> Iterator[Span]:
    """Begin and end of every element of the list that stands there; SamovarError if none does."""
    return _elements(text, span, b"[]", f"{where}: there must be a list here".removeprefix(": "))


def member_spans(text: memoryview, span: Span, where: str) -> Iterator[tuple[str, Span]]:
    """Name and place of every value of the object that stands there; SamovarError if none does."""
    for begin, end in _elements(
        text, span, b"{}", f"{where}: there must be an object here".removeprefix(": ")
    ):
        found = _NAME.match(text, begin, end)
        if found is None:
            raise _malformed(text, _skip_blank(text, begin), "a name in quotes and a colon must stand here")
        yield value_at(text, found.span(1), where), (found.end(), end)


def value_at(text: memoryview, span: Span, where: str) -> Any:  # noqa: ANN401 - any JSON
    """What stands there, decoded; SamovarError says where it is at fault."""
    try:
        return msgspec.json.decode(text[span[0] : span[1]])
    except RecursionError as error:
        raise fault(where, "values are nested too deep") from error
    except UnicodeDecodeError as error:
        raise fault(where, "not UTF-8") from error
    except msgspec.ValidationError as error:  # a number out of range
        raise fault(where, str(error)) from error
    except msgspec.DecodeError as error:
        place = re.search(r" \(byte (\d+)\)$", str(error))
        if place is None:
            raise _malformed(text, span[1], "a value is cut off here") from error
        said = str(error)[: place.start()].removeprefix("JSON is malformed: ")
        raise _malformed(text, span[0] + int(place[1]), said) from error


def _elements(text: memoryview, span: Span, brackets: bytes, otherwise: str) -> Iterator[Span]:
    start = _skip_blank(text, span[0])
    if bytes(text[start : min(start + 1, span[1])]) != brackets[:1]:
        raise fault("", otherwise)
    depth, begin = 1, start + 1
    for found in _TOKEN.finditer(text, start + 1, span[1]):
        token = bytes(found[0]) if found.end() - found.start() == 1 else b""
        if token in (b"[", b"{"):
            depth += 1
            if depth > _MAX_DEPTH:
                raise _malformed(text, found.start(), "values are nested too deep")
        elif token in (b"]", b"}"):
            depth -= 1
            if depth == 0:
                after = _skip_blank(text, found.end())
                if token != brackets[1:] or after < span[1]:
                    raise _malformed(
                        text, found.start() if after >= span[1] else after, "unexpected character"
                    )
                if begin > start + 1 or _skip_blank(text, begin) < found.start():
                    yield begin, found.start()
                return
        elif token == b"," and depth == 1:
            yield begin, found.start()
            begin = found.end()
    raise SamovarError("the file ends too early; export or copy it again")


def _skip_blank(text: memoryview, pos: int) -> int:
    found = _BLANK.match(text, pos)
    assert found is not None, "nothing matches too"
    return found.end()


def _malformed(text: memoryview, pos: int, what: str) -> SamovarError:
    line, column = position(text, pos)
    return fault(f"line {line}, byte {column}", f"not valid JSON: {what}")
