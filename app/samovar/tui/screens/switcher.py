"""The quick switcher: a few letters of a chat's title or of its tags, and enter goes there."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from rich.cells import cell_len

from samovar.core.figures import age
from samovar.tui.chat_finder import ChatFinder, Findable
from samovar.tui.screens.picker import Picker
from samovar.tui.theme import palette_of, session_color
from samovar.tui.widgets.parts import Part, fitted
from samovar.tui.widgets.session_list import (
    ARCHIVED,
    AT_WORK,
    FAVOURITE,
    GLYPHS,
    SessionRow,
    shown_title,
    tag_words,
)

_SEARCH: Final = "search"  # in place of a chat's id, which is longer
_AGE_WIDTH: Final = 5
_TAGS_FROM: Final = 44
_MAX_TAGS_SHARE: Final = 0.4


class SearchWanted(msgspec.Struct, frozen=True):
    """What was typed shall be looked for in all messages."""

    text: str


class Switcher(Picker[str | SearchWanted]):
    """Ends with a chat's id, or `SearchWanted`, or None."""

    def __init__(
        self, chats: Sequence[Findable], row_of: Callable[[str], SessionRow], clock: Callable[[], float]
    ) -> None:
        """`chats` have the most recent first, `row_of` tells what to show of one, `clock` gives seconds."""
        super().__init__("go to chat", "letters of a title or a tag", "there is no other chat yet")
        self._chats = chats
        self._row_of = row_of
        self._clock = clock
        self._finder: ChatFinder | None = None

    def find(self, text: str) -> Sequence[str]:
        if not text.strip():
            return [chat.id for chat in self._chats]
        if self._finder is None:  # only now, so that the screen is there at once
            self._finder = ChatFinder(self._chats)
        return [*self._finder.find(text), _SEARCH]

    def parts(self, key: str, width: int) -> Sequence[Part]:
        if key == _SEARCH:
            words = shown_title(self.text)
            return [("/ ", "$brass"), (fitted(f"search all messages for “{words}”", width - 2), "$secondary")]
        row = self._row_of(key)
        tags = f" {tag_words(row.tags)}" if row.tags and width >= _TAGS_FROM else ""
        if cell_len(tags) > width * _MAX_TAGS_SHARE:
            tags = fitted(tags, int(width * _MAX_TAGS_SHARE))
        used = age(max(0.0, self._clock() - row.used_at)).rjust(_AGE_WIDTH)
        mark = f"{FAVOURITE} " if row.is_favourite else f"{ARCHIVED} " if row.is_archived else ""
        is_here = row.running or row.tier is not None
        color = session_color(palette_of(self.app.current_theme), key) if is_here else "$secondary"
        room = width - 2 - len(mark) - cell_len(tags) - _AGE_WIDTH
        return [
            (f"{AT_WORK if row.running else GLYPHS[row.tier]} ", color),
            (mark, "$brass" if row.is_favourite else "$faint"),
            (fitted(shown_title(row.title), max(1, room)), "$faint" if row.is_archived else "$text"),
            (tags, "$faint"),
            (used, "$secondary"),
        ]

    def choose(self, key: str) -> None:
        self.dismiss(SearchWanted(self.text.strip()) if key == _SEARCH else key)
