"""How full the context is with a chat and its draft, in words and as a thin bar. Pure."""

from typing import Final

from textual.content import Content

from samovar.chats.meter import ContextUse
from samovar.core.figures import count
from samovar.tui.widgets.meter import meter_cells

_BAR_CELLS: Final = 12


def context_meters(use: ContextUse | None) -> list[Content]:
    """`1,204 / 2,048 ━━━━━━━━━━━━`, the longest form first; none for an empty chat, or while it is not known.

    The draft's part of the bar is teal. Brass says that it fills up, red that the next message will not fit.
    """
    if use is None or not use.forecast_tokens:
        return []
    color = "$red" if use.is_full else "$brass" if use.is_filling else "$secondary"
    total = count(use.total_tokens)
    figures = Content.assemble(
        (count(use.forecast_tokens).rjust(len(total)), color), (f" / {total}", "$faint")
    )
    draft_tokens = use.forecast_tokens - use.used_tokens
    taken, draft = meter_cells([use.used_tokens, draft_tokens], use.total_tokens, _BAR_CELLS)
    bar = Content.assemble(
        ("━" * taken, color),
        ("━" * draft, "$red" if use.is_full else "$teal"),
        ("━" * (_BAR_CELLS - taken - draft), "$track"),
    )
    return [Content.assemble(figures, " ", bar), figures]
