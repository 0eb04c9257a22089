"""Which chat a user means by a word on the command line. Pure."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean

MIN_ID_PREFIX: Final = 4  # shorter ones would take a title for the start of an id
SHORT_ID: Final = 8
_MAX_LISTED: Final = 10


class ChatName(msgspec.Struct, frozen=True):
    """What a chat is known by."""

    id: str
    title: str


def look_up(names: Iterable[ChatName], wanted: str) -> ChatName | None:
    """The chat of this id or title, or the only one whose id or title begins so (titles in any case).

    None if there is none, SamovarError with the candidates if it may be any of several.
    """
    names = list(names)
    if not wanted:
        return None
    folded = _folded(wanted)
    exact = [name for name in names if name.id == wanted]
    exact = exact or [name for name in names if name.title == wanted]
    exact = exact or [name for name in names if folded and _folded(name.title) == folded]
    is_prefix = len(wanted) >= MIN_ID_PREFIX
    found = exact or [
        name
        for name in names
        if (is_prefix and name.id.startswith(wanted)) or (folded and _folded(name.title).startswith(folded))
    ]
    if len(found) > 1:
        raise SamovarError(_which(names, found, wanted))
    return found[0] if found else None


def one_line(text: str) -> str:
    """A title as it is shown: harmless, on one line."""
    return " ".join(clean(text).split())


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """The beginning of each id, as long as all of them need to be told apart, `SHORT_ID` at least."""
    ordered = sorted(ids)
    length = SHORT_ID
    for before, after in itertools.pairwise(ordered):
        while length < len(after) and before[:length] == after[:length]:
            length += 1
    return {one: one[:length] for one in ids}


def _folded(text: str) -> str:
    return one_line(text).casefold()


def _which(names: Sequence[ChatName], found: Sequence[ChatName], wanted: str) -> str:
    shown = short_ids([name.id for name in names])
    lines = [f"  {shown[name.id]}  {one_line(name.title) or 'untitled'}" for name in found[:_MAX_LISTED]]
    if len(found) > _MAX_LISTED:
        lines.append(f"  and {len(found) - _MAX_LISTED:,} more")
    return "\n".join(
        [f"“{one_line(wanted)}” may be any of {len(found):,} chats. Give more of it, or an id:", *lines]
    )
