"""Search in all chats, as one types: what was found, best first, and where. Ends with what the user chose."""

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from samovar.core.chat import Role
from samovar.core.figures import clock_time
from samovar.core.safe_text import clean
from samovar.sessions.search import Hit, SearchResults
from samovar.tui.widgets.line import Line
from samovar.tui.widgets.parts import Part, fitted
from samovar.tui.widgets.row_list import RowList

_HINT: Final = 'words, "exact words", -without, tag: before:2026-11 after:7d role:me model: is:archived'
_NAMES: Final = {Role.USER: "you", Role.ASSISTANT: "reply", Role.SYSTEM: "system"}


class SearchScreen(ModalScreen[Hit | None]):
    """`find` answers a query (None: a newer one came). `clock` gives seconds since the epoch."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f3", "dismiss(None)", "close", show=False),
        Binding("up", "move(-1)", "up", show=False, priority=True),
        Binding("down", "move(1)", "down", show=False, priority=True),
        Binding("pageup", "page(-1)", "page up", show=False, priority=True),
        Binding("pagedown", "page(1)", "page down", show=False, priority=True),
    ]

    def __init__(
        self,
        find: Callable[[str], Awaitable[SearchResults | None]],
        clock: Callable[[], float],
        text: str = "",
    ) -> None:
        super().__init__()
        self._find = find
        self._clock = clock
        self._text = text
        self._hits: dict[str, Hit] = {}
        self._list = RowList("type to search in all chats", row_height=2, follows_first=True, id="hits")

    def compose(self) -> ComposeResult:
        with Vertical(id="search"):
            yield Line(self._text, placeholder="search in all chats", id="query", compact=True)
            yield Static("", id="found", markup=False)
            yield self._list
            yield Static(Content.assemble(("enter opens · esc closes", "$faint")), id="search-keys")

    def on_mount(self) -> None:
        self._list.can_focus = False  # the keys go to the text; the list is moved through it
        self.query_one(Input).focus()
        self._say(_HINT)
        self.run_worker(self._find(""), group="search")  # what the first search reads takes a moment

    # What is typed

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self.run_worker(self._search(event.value), group="search", exclusive=False)

    async def _search(self, text: str) -> None:
        if not text.strip():
            self._show(SearchResults())
            self._list.set_empty("type to search in all chats")
            self._say(_HINT)
            return
        found = await self._find(text)
        if found is not None and self.is_mounted and text == self.query_one(Input).value:
            self._list.set_empty("nothing found" if found.problems else "")
            self._show(found)
            self._say("; ".join(found.problems) or _count(found))

    def _show(self, found: SearchResults) -> None:
        self._hits = {f"{hit.session_id} {hit.message_id} {hit.is_title}": hit for hit in found.hits}
        self._list.set_rows(list(self._hits), self._draw)

    def _say(self, text: str) -> None:
        self.query_one("#found", Static).update(Content.assemble((clean(text), "$faint")))

    # What was found

    def _draw(self, key: str, width: int) -> Sequence[Part]:
        hit = self._hits[key]
        who = "title" if hit.is_title else _NAMES.get(hit.role, "") if hit.role is not None else ""
        when = clock_time(hit.created_at, self._clock())
        aside = " · ".join(part for part in (who, when, "archived" if hit.is_archived else "") if part)
        title = " ".join(clean(hit.title).split()) or "new chat"
        room = max(8, width - cell_len(aside) - 2)
        parts: list[Part] = [(fitted(title, room), "$text"), ("  ", "$faint"), (aside, "$faint"), ("\n", "")]
        left = width - 2
        parts.append(("  ", "$faint"))
        for piece in hit.snippet:
            text = " ".join(clean(piece.text).split("\n"))
            if cell_len(text) > left:
                text = fitted(text, left)
            parts.append((text, "$brass" if piece.is_match else "$secondary"))
            left -= cell_len(text)
            if left <= 0:
                break
        return parts

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._open()

    @on(RowList.Chosen)
    def _open(self) -> None:
        hit = self._hits.get(self._list.cursor)
        if hit is not None:
            self.dismiss(hit)

    def action_move(self, step: int) -> None:
        self._list.action_move(step)

    def action_page(self, step: int) -> None:
        self._list.action_page(step)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._list.scroll_relative(y=2, animate=False)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._list.scroll_relative(y=-2, animate=False)


def _count(found: SearchResults) -> str:
    total = len(found.hits) + found.num_more
    if not total:
        return "nothing found"
    more = "" if found.is_complete else " of the newest matches; more words find older ones"
    shown = "" if not found.num_more else f", the best {len(found.hits)} shown"
    return f"{total:,}{'' if found.is_complete else '+'} found{shown}{more}"
