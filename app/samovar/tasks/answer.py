"""What the answer of a side task means: titles, tags, suggestions. Pure; an answer may be cut or nonsense."""

import json
from collections.abc import Iterable
from typing import Final

from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.sessions.encoding import storable
from samovar.sessions.tags import tag_of
from samovar.tasks.spec import Output, TaskSpec

MAX_TITLE: Final = 60
MAX_TAGS: Final = 5
MAX_SUGGESTIONS: Final = 3


def meaning(spec: TaskSpec, text: str) -> tuple[str, ...]:
    """The texts in an answer, by where they go: a title, tags, suggestions, else one text. May be none."""
    return (text.strip(),) if text.strip() else ()
