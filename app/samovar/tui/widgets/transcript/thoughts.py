"""A reply's thinking in the transcript: one line where it is folded, with its text below where open. Pure.

While a reply grows, its text is split again once a frame; blocks that stay the same are the same ones as
before, so only what changed is rendered again.

    ▸ thought for 4.2 s · 312 tokens        a THOUGHT_LINE
    │ what the model thought                blocks that are `of_thought`, while it is open
    the answer                              the blocks of any other reply
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from rich.cells import cell_len
from rich.segment import Segment

from samovar.core.reasoning import KNOWN_TAGS, Part, answer_of, split_reply
from samovar.tui.widgets.transcript.blocks import Block, Kind, resume
from samovar.tui.widgets.transcript.entry import Entry
from samovar.tui.widgets.transcript.page import Line, Page
from samovar.tui.widgets.transcript.wrap import wrap

MARKDOWN_ROLES: Final = frozenset({"assistant", "answer"})
"""Of entries that a model has written."""
THOUGHT: Final = -1
"""Stands for the thinking where files have their numbers."""
_OPENINGS: Final = tuple(opening for opening, _ in KNOWN_TAGS)
_FIRST: Final = frozenset(opening[0] for opening in _OPENINGS)
_BAR: Final = "│ "


def may_think(entry: Entry, text: str) -> bool:
    """Whether a text of an entry begins with thinking, as far as can be told fast."""
    if entry.role not in MARKDOWN_ROLES:
        return False
    return entry.thinks or (text[:64].lstrip()[:1] in _FIRST and text.lstrip().startswith(_OPENINGS))


def has_thought(entry: Entry) -> bool:
    """Whether an entry has thinking in it that can be shown."""
    return may_think(entry, entry.text) and any(
        part.is_thinking and part.text for part in split_reply(entry.text, thinks=entry.thinks)
    )


def answer(entry: Entry, text: str) -> str:
    """The text of an entry without its thinking; the whole of it where that is all there is."""
    return (answer_of(text, thinks=entry.thinks) or text) if may_think(entry, text) else text


def reply_blocks(
    entry: Entry, text: str, *, is_open: bool, before: Sequence[Block] = (), growing: bool = False
) -> list[Block]:
    """Split a reply's text; `before` are blocks of a beginning of it."""
    known = [block for block in before if not block.of_thought]
    if not may_think(entry, text):
        return resume(text, known)
    parts = split_reply(text, thinks=entry.thinks)
    thought = "\n\n".join(part.text for part in parts if part.is_thinking and part.text)
    rest = next((part for part in parts if not part.is_thinking and part.text.strip()), None)
    blocks = [] if rest is None else resume(rest.text, known)
    if not thought and not (growing and rest is None):
        return blocks
    line = _thought_line(entry, thought, rest, is_open=is_open, growing=growing)
    if not is_open:
        return [line, *blocks]
    inner = resume(
        thought,
        [block for block in before if block.of_thought and block.kind is not line.kind],
        markdown=False,
    )
    marked = [b if b.of_thought else msgspec.structs.replace(b, of_thought=True) for b in inner]
    return [line, *marked, *blocks]


def _thought_line(entry: Entry, thought: str, rest: Part | None, *, is_open: bool, growing: bool) -> Block:
    """What is said of a thought; while it grows and is folded, with its last line."""
    is_thinking = growing and rest is None
    label = entry.thought or ("thinking …" if is_thinking else "thought")
    last_line = thought[thought.rfind("\n") + 1 :] if is_thinking and not is_open else ""
    mark = "▾" if is_open else "▸"
    return Block(Kind.THOUGHT_LINE, f"{mark} {label}\n{last_line}".rstrip(), 0, of_thought=True)


def render_thought_line(page: Page, text: str) -> list[Line]:
    """The line that stands for a thought, and under it the end of what is being thought."""
    label, _, last_line = text.partition("\n")
    label = label[: page.text_width]
    styles = page.styles
    lines = [
        page.line([Segment(label[:2], styles.secondary), Segment(label[2:], styles.faint)], cell_len(label))
    ]
    if last_line:
        row = wrap([(last_line.expandtabs(4), styles.faint)], page.text_width - len(_BAR))[-1]
        lines.append(_barred(page, row.segments, row.cells))
    return [line._replace(left=line.end) for line in lines]


def render_thought(page: Page, text: str) -> list[Line]:
    """A piece of an open thought, behind a bar."""
    rows = wrap([(text.expandtabs(4), page.styles.secondary)], page.text_width - len(_BAR))
    return [_barred(page, row.segments, row.cells, row.joint) for row in rows]


def thought_gap(page: Page) -> Line:
    """An empty line within an open thought, or between it and the line above."""
    return _barred(page, [], 0)


def _barred(page: Page, segments: Sequence[Segment], cells: int, joint: str = "\n") -> Line:
    bar = Segment(_BAR, page.styles.rule)
    return page.line([bar, *segments], len(_BAR) + cells, joint, left=len(_BAR))


def opens_for(entry: Entry, words: Sequence[str]) -> bool:
    """Whether words that were found stand in the thinking of a reply alone, so that it has to be opened."""
    if not words or not may_think(entry, entry.text):
        return False
    said, all_of_it = answer(entry, entry.text).casefold(), entry.text.casefold()
    folded = [word.casefold() for word in words]
    return any(word in all_of_it for word in folded) and not any(word in said for word in folded)
