"""How text is cut into words for the search. Pure."""

import re
from typing import Final

# Scripts that are written without spaces: every character is a word of its own, so that a part is found.
_UNSPACED: Final = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff])"
)


def searchable(text: str) -> str:
    """The text as it is indexed and as a query for it is written: unspaced scripts get spaces."""
    return _UNSPACED.sub(r" \1 ", text)
