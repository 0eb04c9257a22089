"""The table of prompts on the cache screen: a head, and rows to choose from, sorted as the user likes.

Takes snapshots; what is to be done with a prompt is the screen's business.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from samovar.core.snapshot import PromptRow
from samovar.tui.widgets.parts import Part
from samovar.tui.widgets.prompt_rows import (
    BY_TITLE,
    HITS,
    LAST_USED,
    OWN,
    TOKENS,
    all_columns,
    prompt_head,
    prompt_row,
)
from samovar.tui.widgets.row_list import RowList

_SORT_KEYS: Final[dict[str, Callable[[PromptRow], tuple[float, str]]]] = {
    LAST_USED.head: lambda row: (-row.last_used, ""),
    TOKENS.head: lambda row: (-row.tokens, ""),
    OWN.head: lambda row: (-row.own_bytes, ""),
    HITS.head: lambda row: (-row.hits, ""),
    BY_TITLE: lambda row: (0, row.title.casefold()),
}


class PromptList(RowList):
    """The prompts, and what can be done with the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "screen.pin", "pin the prompt: it stays; again: let it go", id="cache.pin"),
        Binding("e", "screen.evict", "evict it from context and RAM", id="cache.evict"),
        Binding("E", "screen.evict_everywhere", "evict it from the disk too", id="cache.evict_all"),
        Binding("f", "screen.fetch", "fetch it from disk to RAM", id="cache.fetch"),
        Binding("s", "screen.sort", "sort by the next column", id="cache.sort"),
        Binding("enter", "screen.open", "open the chat", id="cache.open"),
    ]


class PromptTable(Vertical):
    """Head and rows."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.list = PromptList("nothing is cached yet", id="prompt-list")
        self._sorted_by = LAST_USED.head

    def compose(self) -> ComposeResult:
        yield Static("", id="prompt-head", classes="row-head")
        yield self.list

    def set_prompts(self, prompts: Sequence[PromptRow], colors: Mapping[str, str], now: float) -> None:
        """Show these prompts; `colors` are those of the sessions, `now` is in seconds since the epoch."""
        rows = {row.session: row for row in sorted(prompts, key=_SORT_KEYS[self._sorted_by])}

        def draw(key: str, width: int) -> list[Part]:
            return prompt_row(rows[key], all_columns(width), colors.get(key, "$secondary"), width, now)

        self.list.set_rows(list(rows), draw)
        width = self.list.row_width
        head = Content.assemble(*prompt_head(all_columns(width), width, self._sorted_by))
        self.query_one("#prompt-head", Static).update(head)

    def sort_by_next(self) -> None:
        """Sort by the next column from the next `set_prompts` on."""
        heads = list(_SORT_KEYS)
        self._sorted_by = heads[(heads.index(self._sorted_by) + 1) % len(heads)]
