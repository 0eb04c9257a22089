"""The transcript: a whole chat in one widget, rendered block by block, drawn line by line."""

from samovar.tui.widgets.transcript.entry import LEFT_OUT, SUMMARY, AttachmentLine, Entry
from samovar.tui.widgets.transcript.transcript import Transcript

__all__ = ["LEFT_OUT", "SUMMARY", "AttachmentLine", "Entry", "Transcript"]
