"""Pieces of a line: texts with the names of their colours, fitted into cells. Pure."""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from textual.content import Content

Part = tuple[str, str]  # a text, and its colour: `$text`, `$faint`, …, or a colour itself


def two_sides(left: Sequence[Part], right: Sequence[Part], width: int) -> Content:
    """Parts at the left and at the right edge of a line of `width` cells."""
    gap = width - sum(cell_len(text) for text, _ in (*left, *right))
    return Content.assemble(*left, " " * max(1, gap), *right)


def fitted(text: str, width: int) -> str:
    """The text in exactly `width` cells."""
    return (
        set_cell_size(text, width)
        if cell_len(text) <= width
        else set_cell_size(text, max(0, width - 1)) + "…"
    )
