"""The last line: the model, its speed, what the cache saved, and the keys to begin with.

Takes figures; what does not fit is left out from the right, most keys before the figures.
"""

import msgspec
from textual.content import Content
from textual.widget import Widget

from samovar.chats.host_state import HostPhase, HostState
from samovar.core.events import ModelInfo
from samovar.core.figures import count, duration, rate
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot

_KEYS = (
    "f1 help · f2 chats · f4 cache · f5 all of it · ctrl+p palette",
    "f1 help · f2 chats · f4 cache · ctrl+p palette",
    "f1 help · f2 chats · f4 cache",
    "f1 help",
    "",
)
_METER_CELLS = 16
_MIN_NAME_CELLS = 12


class StatusFigures(msgspec.Struct, frozen=True):
    """What the status bar shows; None where nothing has been measured yet."""

    host: HostState = HostState()
    tokens_per_second: float | None = None
    first_token_ms: float | None = None
    saved_ms: float = 0.0
    asleep: bool = False
    num_waiting: int = 0


def status_figures(host: HostState, snapshot: CacheSnapshot) -> StatusFigures:
    """The figures of this moment."""
    first_token_ms = snapshot.last.stats.first_token_ms if snapshot.last is not None else None
    return StatusFigures(
        host,
        snapshot.decode_tokens_per_second,
        first_token_ms,
        snapshot.totals.saved_ms,
        snapshot.asleep,
        snapshot.num_waiting,
    )


class StatusBar(Widget):
    """One line of figures."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._figures = StatusFigures()

    def set_figures(self, figures: StatusFigures) -> None:
        """Show these figures."""
        if figures != self._figures:
            self._figures = figures
            self.refresh()

    def render(self) -> Content:
        width = self.size.width - 4
        pieces = [piece for piece in status_pieces(self._figures) if piece.plain]
        line = pieces[0]
        if len(pieces) > 1:
            line = line.truncate(max(_MIN_NAME_CELLS, width // 3), ellipsis=True)
        least = next((keys for keys in _KEYS[-2:] if line.cell_length + 3 + len(keys) <= width), "")
        for piece in pieces[1:]:
            longer = Content.assemble(line, "   ", piece)
            if longer.cell_length + 3 + len(least) > width:
                break
            line = longer
        keys = next((keys for keys in _KEYS if line.cell_length + 3 + len(keys) <= width), "")
        gap = width - line.cell_length - len(keys)
        return Content.assemble("  ", line, " " * max(0, gap), (keys, "$faint"))


def status_pieces(figures: StatusFigures) -> list[Content]:
    """The figures from the most to the least important."""
    host = figures.host
    if host.phase is HostPhase.FAILED:
        return [Content.assemble((host.doing, "$red"))]
    if host.phase is not HostPhase.READY or host.model is None:
        return [loading_piece(host)]
    speed, first = figures.tokens_per_second, figures.first_token_ms
    return [
        Content.assemble((" ".join(clean(host.model.name).split()), "$brass")),
        Content.assemble(("asleep", "$text")) if figures.asleep else Content(""),
        Content.assemble((rate(speed).rjust(3), "$text"), (" tok/s", "$secondary")) if speed else Content(""),
        Content.assemble((f"{figures.num_waiting} waiting", "$brass"))
        if figures.num_waiting
        else Content(""),
        Content.assemble(("first token ", "$secondary"), (duration(first), "$text"))
        if first
        else Content(""),
        Content.assemble(("saved ", "$secondary"), (duration(figures.saved_ms), "$green"))
        if figures.saved_ms >= 1
        else Content(""),
        Content.assemble(
            (f"{kv_type(host.model)} kv · {count(host.model.context_tokens)} context", "$secondary")
        ),
    ]


def loading_piece(host: HostState) -> Content:
    """What the host is at, with a thin meter where it says how far it is."""
    if host.fraction is None:
        return Content.assemble((host.doing, "$brass"))
    done = round(max(0.0, min(host.fraction, 1.0)) * _METER_CELLS)
    return Content.assemble(
        (host.doing, "$brass"), "  ", ("━" * done, "$brass"), ("━" * (_METER_CELLS - done), "$track")
    )


def kv_type(model: ModelInfo) -> str:
    """`f16`, or `q8_0/f16` where keys and values differ."""
    same = model.kv_type_k == model.kv_type_v
    return model.kv_type_k if same else f"{model.kv_type_k}/{model.kv_type_v}"
