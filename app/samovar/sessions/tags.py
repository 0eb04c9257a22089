"""How tags are written. Pure."""

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
