"""What the answer of a side task means: titles, tags, suggestions. Pure; an answer may be cut or nonsense."""

import json
import re
from collections.abc import Iterable
from typing import Final

from samovar.core.errors import SamovarError
from samovar.sessions.encoding import storable
from samovar.sessions.tags import tag_of
from samovar.tasks.spec import Output, TaskSpec

MAX_TITLE: Final = 60
MAX_TAGS: Final = 8
MAX_SUGGESTIONS: Final = 3
_MAX_TAG_WORDS: Final = 4
_MAX_JSON: Final = 100_000

_LABEL: Final = re.compile(r"^(the\s+)?(chat\s+|conversation\s+)?(title|topic|name|subject)\s*[:：]\s*", re.I)
_BULLET: Final = re.compile(r"^\s*(?:[-*•·]|\d{1,2}[.)])\s+")
_WORD: Final = re.compile(r"[^\W\d_]{3,}")
_WRAPPING: Final = " \t\"'`“”„‘’«»*_#"


def meaning(spec: TaskSpec, text: str) -> tuple[str, ...]:
    """The texts in an answer, by where they go: a title, tags, suggestions, else one text. May be none."""
    text = storable(text).strip()
    found = json_texts(text)
    match spec.output:
        case Output.TITLE:
            lines = tuple(text.splitlines()) if found is None else found
            return next(((title,) for line in lines if (title := title_of(line))), ())
        case Output.TAGS:
            return tags_of(found if found is not None else re.split(r"[,;\n]", text))
        case Output.COMPOSER:
            texts = (text,) if found is None else found
            return _without_repeats(filter(None, map(str.strip, texts)))[:MAX_SUGGESTIONS]
        case Output.PANEL:
            shown = "\n".join(found).strip() if found and spec.json_schema else text
            return (shown,) if shown else ()


def title_of(text: str) -> str:
    """A title from a line that a model has written; empty if there is none in it."""
    title = "".join(char for char in " ".join(text.split()) if char.isprintable())
    while (bare := _LABEL.sub("", title.strip(_WRAPPING))) != title:
        title = bare
    title = title.rstrip(" .,;:")
    if not any(map(str.isalnum, title)):
        return ""
    if len(title) <= MAX_TITLE:
        return title
    cut = title[: MAX_TITLE - 1]
    head, space, _ = cut.rpartition(" ")
    return (head if space and len(head) >= MAX_TITLE // 2 else cut).rstrip(" ,;:.-") + "…"


def is_about(title: str, texts: Iterable[str]) -> bool:
    """Whether a title has a word of three letters or more that stands in these texts: small models make up
    words.

    Of scripts that put no space between words, two letters in a row will do. A title without a word of that
    length passes.
    """
    words = _WORD.findall(title.casefold())
    if not words:
        return True
    wanted = {piece for word in words for piece in _pieces(word)}
    return any(piece in folded for folded in map(str.casefold, texts) for piece in wanted)


def _pieces(word: str) -> list[str]:
    """A folded word, or its pairs of letters where its script has no capitals."""
    has_capitals = word.upper() != word
    return [word] if has_capitals else [word[at : at + 2] for at in range(len(word) - 1)]


def tags_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Those of the texts that can be tags, as tags are written."""
    tags: list[str] = []
    for text in texts:
        bare = _BULLET.sub("", text).strip(_WRAPPING + ".,;:")
        if not any(map(str.isalnum, bare)) or len(bare.split()) > _MAX_TAG_WORDS or not bare.isprintable():
            continue
        try:
            tags.append(tag_of(bare))
        except SamovarError:
            continue  # too long for a tag
    return _without_repeats(tags)[:MAX_TAGS]


def json_texts(text: str) -> tuple[str, ...] | None:
    """The texts of the first value of an answer in JSON, which may be cut; None if it is no JSON.

    A text that is cut keeps its beginning, an item of a list that is cut is left out.
    """
    begin = min((place for char in "{[" if (place := text.find(char)) >= 0), default=-1)
    if begin < 0 or text[:begin].strip(" \n`json"):
        return None
    try:
        value = _value(text[begin : begin + _MAX_JSON])
        return None if value is None else tuple(_texts(value))
    except RecursionError:
        return None


def _value(text: str) -> object | None:
    """The JSON value at the beginning of a text; of a cut one, what is there of it."""
    try:
        found: object = json.JSONDecoder().raw_decode(text)[0]
    except ValueError:
        for candidate in _mended(text):
            try:
                return json.loads(candidate)  # type: ignore[no-any-return]  # any value at all
            except ValueError:
                continue
        return None
    return found


def _mended(text: str) -> list[str]:
    """What a cut text could be if it was ended sooner, the longest first."""
    closers: list[str] = []
    ends = list[tuple[int, str]]()  # where a value may end, with what then closes all that is open
    string_at: int | None = None
    skip = False
    for pos, char in enumerate(text):
        if skip:
            skip = False
        elif string_at is not None:
            skip = char == "\\"
            if char == '"':
                string_at = None
        elif char == '"':
            string_at = pos
        elif char in "{[":
            closers.append("}" if char == "{" else "]")
            ends.append((pos + 1, "".join(reversed(closers))))
        elif char in "}]" and closers:
            closers.pop()
            ends.append((pos + 1, "".join(reversed(closers))))
        elif char == ",":
            ends.append((pos, "".join(reversed(closers))))
    rest = "".join(reversed(closers))
    mended = [text[:pos] + close for pos, close in reversed(ends[-8:])]
    if string_at is None:
        return [text + rest, *mended]
    if closers and closers[-1] == "}":
        body = re.sub(r"\\(u[0-9a-fA-F]{0,3})?$", "", text)
        return [f'{body}"{rest}', *mended]
    return mended


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return _texts(next(iter(value.values()), ""))
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if value is None or isinstance(value, bool):
        return []
    text = storable(str(value))  # JSON can spell what UTF-8 cannot
    return [text] if text.strip() else []


def _without_repeats(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
