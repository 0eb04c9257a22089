"""Draws the heading of an entry: who, which version, what it cost, and what keys do with it. Pure."""

from collections.abc import Collection, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from samovar.core.safe_text import clean
from samovar.tui.widgets.transcript.attachments import render_attachments
from samovar.tui.widgets.transcript.entry import SUMMARY, Entry
from samovar.tui.widgets.transcript.page import Line, Page
from samovar.tui.widgets.transcript.thoughts import has_thought

NAME_LINE: Final = 1  # of the heading's lines; before it is an empty one
FIRST_FILE_LINE: Final = 2
_ENDINGS: Final = {"stopped": ("stopped", "brass"), "cut": ("cut", "brass"), "failed": ("failed", "red")}
_GAP: Final = 2


def render_heading(
    page: Page, entry: Entry, *, hints: Sequence[str] = (), unfolded: Collection[int] = ()
) -> list[Line]:
    """Return the empty line before an entry, its heading with as many `hints` as there is room for, and its
    files, those in `unfolded` with their text.
    """
    if not entry.has_heading:
        return [page.blank()]
    files = [line for _, line in render_attachments(page, entry, unfolded)]
    return [page.blank(), _name_line(page, entry, hints), *files]


def hints_of(entry: Entry) -> list[str]:
    """The keys that one would press on this message, the likeliest first."""
    if entry.state == "streaming":
        return []
    if entry.role == SUMMARY:
        return ["o read it", "u undo"]
    hints = ["g go on"] if entry.role == "assistant" and entry.state in {"cut", "stopped"} else []
    hints += ["o files"] if entry.attachments else []
    hints += ["o thinking"] if has_thought(entry) else []
    hints.append("e edit")
    return hints if entry.role == "system" else [*hints, "r again", "f fork", "d delete"]


def step_at(page: Page, entry: Entry, x: int) -> int:
    """Return -1 or 1 if column `x` of the heading is the arrow to another version, else 0."""
    if entry.num_siblings > 1:
        left = page.margin + len(_name(page, entry)[0]) + _GAP
        right = left + len(_versions(entry)) - 1
        for arrow, step in ((left, -1), (right, 1)):
            if abs(x - arrow) <= 1:
                return step
    return 0


def _name_line(page: Page, entry: Entry, hints: Sequence[str]) -> Line:
    styles = page.styles
    name, style = _name(page, entry)
    segments = [Segment(name, style)]
    if entry.num_siblings > 1:
        versions = _versions(entry)
        can_go = (entry.place > 0, entry.place + 1 < entry.num_siblings)
        first, last = [styles.secondary if can else styles.faint for can in can_go]
        segments += [
            Segment(" " * _GAP, styles.faint),
            Segment(versions[0], first),
            Segment(versions[1:-1], styles.secondary),
            Segment(versions[-1], last),
        ]
    cells = sum([segment.cell_length for segment in segments])
    parts = [(clean(text).replace("\n", " "), kind) for text, kind in entry.meta]
    if (ending := _ENDINGS.get(entry.state)) and not any(ending[0] in text for text, _ in parts):
        parts = [ending, (" · ", "faint"), *parts] if parts else [ending]
    room = page.text_width - cells - _GAP
    if parts and room > 0:
        segments.append(Segment(" " * _GAP, styles.faint))
        cells += _GAP
    for text, kind in parts:
        if room <= 0:
            break
        if cell_len(text) > room:
            text = set_cell_size(text, room - 1).rstrip() + "…"
        segments.append(Segment(text, styles.names.get(kind, styles.faint)))
        cells += cell_len(text)
        room = 0 if text.endswith("…") else room - cell_len(text)
    line = page.line(segments, cells)
    hint = _fitting(hints, page.text_width - cells - _GAP)
    if not hint:
        return line
    gap = Segment(" " * (page.text_width - cells - len(hint)), styles.faint)
    # What can be selected ends before the hint: it is no part of the chat.
    return page.line([*segments, gap, Segment(hint, styles.faint)], page.text_width)._replace(end=line.end)


def _fitting(hints: Sequence[str], room: int) -> str:
    """As many hints as there is room for, the first ones."""
    for number in range(len(hints), 0, -1):
        if len(text := " · ".join(hints[:number])) <= room:
            return text
    return ""


def _name(page: Page, entry: Entry) -> tuple[str, Style]:
    styles = page.styles
    names = {
        "user": ("you", styles.role_you),
        "assistant": ("samovar", styles.role_samovar),
        SUMMARY: ("summarized", styles.role_system),
    }
    return names.get(entry.role, (entry.role, styles.role_system))


def _versions(entry: Entry) -> str:
    return f"‹ {entry.place + 1}/{entry.num_siblings} ›"
