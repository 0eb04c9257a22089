"""Draws the files of a message under its heading: a line each, and the text of unfolded ones. Pure."""

from collections.abc import Collection
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment

from samovar.core.figures import count
from samovar.core.safe_text import clean
from samovar.core.units import format_size
from samovar.tui.widgets.transcript.entry import AttachmentLine, Entry
from samovar.tui.widgets.transcript.page import Line, Page

MAX_LINES: Final = 200
MAX_CHARS: Final = 40_000


def render_attachments(page: Page, entry: Entry, unfolded: Collection[int]) -> list[tuple[int | None, Line]]:
    """Return the lines of the files, each line that stands for a file with that file's number."""
    lines: list[tuple[int | None, Line]] = []
    for number, attachment in enumerate(entry.attachments):
        is_open = number in unfolded
        lines.append((number, _title(page, attachment, is_open=is_open)))
        if is_open:
            lines += [(None, line) for line in _text(page, attachment.text)]
    if lines and lines[-1][0] is None:
        lines.append((None, page.blank()))
    return lines


def _title(page: Page, attachment: AttachmentLine, *, is_open: bool) -> Line:
    styles = page.styles
    size = (
        f"{count(attachment.num_tokens)} token{'' if attachment.num_tokens == 1 else 's'}"
        if attachment.num_tokens is not None
        else format_size(attachment.num_bytes)
    )
    rest = [Segment(" · ", styles.faint), Segment(size, styles.secondary)]
    if attachment.repeated:
        rest += [Segment(" · ", styles.faint), Segment("already in the chat", styles.names["green"])]
    name = " ".join(clean(attachment.name).split()) or "text"
    room = max(4, page.text_width - 2 - sum([segment.cell_length for segment in rest]))
    if cell_len(name) > room:
        name = set_cell_size(name, room - 1).rstrip() + "…"
    segments = [
        Segment("▾ " if is_open else "▸ ", styles.secondary),
        Segment(name, styles.names["teal"]),
        *rest,
    ]
    cells = 0
    for number, segment in enumerate(segments):
        if cells + segment.cell_length > page.text_width:
            segments = segments[:number]
            break
        cells += segment.cell_length
    return page.line(segments, cells, left=2)


def _text(page: Page, text: str) -> list[Line]:
    """Return the beginning of a text, and how much more there is."""
    shown = clean(text[:MAX_CHARS]).removesuffix("\n").split("\n")[:MAX_LINES]
    lines = [page.code_line(row) for row in page.code_rows("\n".join(shown), "", page.text_width)]
    more_lines = _num_lines(text) - len(shown)
    if more_lines > 0:
        more = f"… {count(more_lines)} more line{'' if more_lines == 1 else 's'}"
    elif len(shown) < MAX_LINES and len(text) > MAX_CHARS:
        more = f"… {count(len(text) - MAX_CHARS)} more characters"
    else:
        return lines
    (row,) = page.code_rows(more[: page.text_width - 4], "", page.text_width)
    faint = page.styles.highlight["comment"]
    segments = [row.segments[0], *[Segment(part.text, faint) for part in row.segments[1:]]]
    return [*lines, page.code_line(row._replace(segments=segments))._replace(left=0, end=0)]


def _num_lines(text: str) -> int:
    ends = text.count("\n") + text.count("\r") - text.count("\r\n")
    return ends + (not text.endswith(("\n", "\r")))
