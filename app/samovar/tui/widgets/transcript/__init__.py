"""The chat view: a whole chat in one widget, rendered block by block, drawn line by line."""

from samovar.tui.widgets.transcript.entry import Entry
from samovar.tui.widgets.transcript.view import Transcript

__all__ = ["Entry", "Transcript"]
