"""How tags are written. Pure."""

from collections.abc import Sequence
from typing import Final

from samovar.core.errors import SamovarError
from samovar.sessions.encoding import storable

MAX_TAG: Final = 60


def cut_tag(text: str) -> str:
    """A tag as it is stored: one line, lower case, no `#` before it, cut where it is long; may be empty."""
    words = storable(text).replace("\x00", "").split()
    return " ".join(words).lstrip("#").strip().lower()[:MAX_TAG].strip()


def tag_of(text: str) -> str:
    """The tag that a user has typed; SamovarError if there is none in it, or it is too long."""
    tag = cut_tag(text)
    if not tag or len(" ".join(text.split())) > MAX_TAG + 1:
        raise SamovarError(f"a tag is a word or a few, of at most {MAX_TAG} characters")
    return tag


def split_tags(text: str) -> tuple[str, ...]:
    """The tags in a typed line: between commas if there are any, else between spaces.

    SamovarError for one that is none.
    """
    parts = text.split(",") if "," in text else text.split()
    return tuple(sorted({tag_of(part) for part in parts if part.strip(" #")}))


def joined_tags(tags: Sequence[str]) -> str:
    """A line that `split_tags` reads as the same tags, but for those that hold a comma."""
    has_phrase = any(" " in tag for tag in tags)
    return ", ".join(tags) + ("," if len(tags) == 1 else "") if has_phrase else " ".join(tags)
