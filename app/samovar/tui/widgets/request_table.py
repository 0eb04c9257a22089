"""The last requests on the cache screen: a head, rows to go through, and the chosen one in full.

Takes what the host tells; knows no client.
"""

from collections.abc import Mapping, Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from samovar.core.snapshot import LastRequest
from samovar.tui.widgets.parts import Part
from samovar.tui.widgets.request_text import request_detail, request_head, request_row
from samovar.tui.widgets.row_list import RowList


class RequestTable(Vertical):
    """Head, rows, detail. With the class `-roomy` the detail has its title too."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.list = RowList("no request yet", follows_first=True, id="request-list")
        self._requests: dict[str, LastRequest] = {}
        self._now = 0.0

    def compose(self) -> ComposeResult:
        yield Static("", id="request-head", classes="row-head")
        yield self.list
        yield Static("", id="request-detail")

    @property
    def newest(self) -> LastRequest | None:
        """The request that ended last, as far as it has been told."""
        return next(iter(self._requests.values()), None)

    def set_requests(self, requests: Sequence[LastRequest]) -> None:
        """Take in the last requests, the newest first; the next `draw` shows them."""
        found: dict[str, LastRequest] = {}
        for last in requests:
            key = f"{last.session} {last.finished_at}"
            while key in found:
                key += "'"
            found[key] = last
        self._requests = found

    def draw(self, colors: Mapping[str, str], now: float) -> None:
        """Show them; `colors` are those of the sessions, `now` is in seconds since the epoch."""
        requests, self._now = self._requests, now

        def parts(key: str, width: int) -> list[Part]:
            last = requests[key]
            return request_row(last, colors.get(last.session, "$secondary"), width, now)

        self.list.set_rows(list(requests), parts)
        head = Content.assemble(*request_head(self.list.row_width))
        self.query_one("#request-head", Static).update(head)
        self._draw_detail()

    @on(RowList.Moved)
    def _draw_detail(self) -> None:
        last = self._requests.get(self.list.cursor)
        detail = self.query_one("#request-detail", Static)
        detail.display = last is not None
        if last is not None:
            width = max(20, self.list.row_width)
            detail.update(request_detail(last, width, self._now, roomy=self.has_class("-roomy")))
