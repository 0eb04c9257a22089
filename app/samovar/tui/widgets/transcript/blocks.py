"""Splits a message into blocks that can be rendered one by one.

Pure. Scanning goes line by line and never looks back, so that text that is still growing changes at most its
last two blocks: `resume` scans only those again. Every block is bounded in size, whatever the text looks
like.
"""

import enum
import re

import msgspec

MAX_CHARS = 4_000
"""A paragraph, list or quote is cut at a line end or space when it gets longer than this."""
MAX_TABLE_ROWS = 100
# Code is cut where a reader sees a new part begin, so that a piece highlighted by itself comes out right.
_CODE_LINES_TOP, _CODE_LINES_BLANK, _CODE_LINES_MAX = 40, 70, 100

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*(.*)$")
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]+|$)")
_QUOTE = re.compile(r" {0,3}>")
_TABLE_RULE = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")


class Kind(enum.Enum):
    """How a block is rendered."""

    MARKDOWN = enum.auto()
    CODE = enum.auto()
    PLAIN = enum.auto()
    THOUGHT_LINE = enum.auto()
    """Stands for a reply's thinking; see `thoughts`."""


class Block(msgspec.Struct, frozen=True):
    """A piece of a message; `start` is where it begins in the message's text, thinking or answer."""

    kind: Kind
    text: str
    start: int
    language: str = ""
    first: bool = True
    """False for a further piece of something that was cut: no empty line before it."""
    last: bool = True
    """False for a piece of code that goes on in the next block."""
    fence: str = ""
    """The opening fence of a code block, with which scanning can go on."""
    head: str = ""
    """The head lines of a table that was cut."""
    of_thought: bool = False


def split(text: str, *, markdown: bool = True) -> list[Block]:
    """Split a whole message; without `markdown` only code fences are recognised (what people type)."""
    return _Scanner(text, markdown).scan(0, None)


def resume(text: str, blocks: list[Block], *, markdown: bool = True) -> list[Block]:
    """Return what `split(text)` returns, given the blocks of a beginning of the same text."""
    kept = blocks[:-2]
    if not kept:
        return split(text, markdown=markdown)
    return kept + _Scanner(text, markdown).scan(blocks[-2].start, blocks[-2])


class _Scanner:
    def __init__(self, text: str, markdown: bool) -> None:
        self.text = text
        self.markdown = markdown
        self.blocks: list[Block] = []
        self.continuing: str | None = None
        """After a cut, the head lines for the block that continues; None otherwise."""

    def scan(self, pos: int, first: Block | None) -> list[Block]:
        """Scan from `pos`, where `first` began when the text was scanned before."""
        if first is not None and first.kind is Kind.CODE and not first.first:
            pos = self._code(pos, first.fence, first.language, first=False)
        elif first is not None and not first.first:
            self.continuing = first.head
        while pos < len(self.text):
            line, after = self._line(pos)
            if self.continuing is not None:
                head, self.continuing = self.continuing, None
                pos = self._prose(pos, head, first=False)
            elif not line.strip():
                pos = after
            elif fence := _opening_fence(line):
                marker, language = fence
                pos = self._code(after, marker, language, first=True, start=pos)
            else:
                pos = self._prose(pos, "", first=True)
        return self.blocks

    def _line(self, pos: int) -> tuple[str, int]:
        end = self.text.find("\n", pos)
        return (self.text[pos:], len(self.text)) if end < 0 else (self.text[pos:end], end + 1)

    def _code(self, pos: int, marker: str, language: str, *, first: bool, start: int | None = None) -> int:
        """Take the lines of a code block up to its closing fence; return where it ends."""
        start = pos if start is None else start
        lines: list[str] = []
        num_chars = 0
        while pos < len(self.text):
            line, after = self._line(pos)
            if _closes(line, marker):
                pos = after
                break
            if _code_is_full(lines, line) or (num_chars + len(line) > 4 * MAX_CHARS and lines):
                self._add_code(lines, start, marker, language, first, last=False)
                lines, first, start, num_chars = [], False, pos, 0
            while len(line) > 4 * MAX_CHARS:
                line, after = line[: 4 * MAX_CHARS], pos + 4 * MAX_CHARS
                lines.append(line)
                self._add_code(lines, start, marker, language, first, last=False)
                lines, first, start, pos = [], False, after, after
                line, after = self._line(pos)
            lines.append(line)
            num_chars += len(line) + 1
            pos = after
        self._add_code(lines, start, marker, language, first, last=True)
        return pos

    def _add_code(
        self, lines: list[str], start: int, marker: str, language: str, first: bool, last: bool
    ) -> None:
        self.blocks.append(Block(Kind.CODE, "\n".join(lines), start, language, first, last, fence=marker))

    def _prose(self, start: int, head: str, *, first: bool) -> int:
        """Take one paragraph, list, quote, table, heading or rule, or a part of one; return where it ends."""
        pos, num_chars = start, 0
        lines: list[str] = []
        in_item = in_quote = blank = False
        in_table = bool(head)
        inner_fence = ""
        while pos < len(self.text):
            line, after = self._line(pos)
            if inner_fence:
                inner_fence = "" if _closes(line.strip(), inner_fence) else inner_fence
            elif not line.strip():
                if not in_item:
                    pos = after
                    break
                blank = True
            elif lines and self._begins_anew(line, lines, in_item, in_quote, blank):
                break
            elif lines and self._is_full(line, len(lines), num_chars, in_item, in_table):
                self._cut(
                    lines, start, head or ("\n".join(lines[:2]) if in_table else ""), head, first, blank
                )
                return pos
            else:
                blank = False
                if in_item and line[:1] in " \t" and (fence := _opening_fence(line.lstrip())):
                    inner_fence = fence[0]
            if (len(line) > MAX_CHARS and not in_table) or num_chars > 4 * MAX_CHARS:
                cut = (line.rfind(" ", MAX_CHARS // 2, MAX_CHARS) + 1) or min(MAX_CHARS, len(line))
                self._cut([*lines, line[:cut]], start, "", head, first, False)
                return min(pos + cut, len(self.text))
            if self.markdown and not lines:
                in_item, in_quote = bool(_ITEM.match(line)), bool(_QUOTE.match(line))
                if _HEADING.match(line) or _RULE.match(line):
                    lines.append(line)
                    pos = after
                    break
            elif (
                self.markdown
                and len(lines) == 1
                and not in_item
                and "|" in lines[0]
                and _TABLE_RULE.match(line)
            ):
                in_table = True
            lines.append(line)
            num_chars += len(line) + 1
            pos = after
        self._add_prose(lines, start, head, first)
        return pos

    def _is_full(self, line: str, num_lines: int, num_chars: int, in_item: bool, in_table: bool) -> bool:
        if in_table:
            return num_lines >= MAX_TABLE_ROWS or num_chars > 4 * MAX_CHARS
        if in_item and num_chars > MAX_CHARS // 4 and _ITEM.match(line):
            return True
        return num_chars + len(line) > MAX_CHARS

    def _cut(self, lines: list[str], start: int, next_head: str, head: str, first: bool, blank: bool) -> None:
        """End a block before its time; the scan goes on with a block that continues it."""
        self._add_prose(lines, start, head, first)
        if not blank:
            self.continuing = next_head

    def _begins_anew(self, line: str, lines: list[str], in_item: bool, in_quote: bool, blank: bool) -> bool:
        """Tell whether `line` ends the block that `lines` holds so far."""
        if in_item and line[:1] in " \t" and line.strip():
            return False
        if _opening_fence(line):
            return True
        if not self.markdown:
            return False
        if in_item:
            same_list = _ITEM.match(line) and not _RULE.match(line)
            return not same_list if blank else bool(_HEADING.match(line) or _RULE.match(line))
        if _HEADING.match(line) or (_ITEM.match(line) and not in_quote and not line.lstrip()[:1].isdigit()):
            return not _is_setext(line, lines)
        return (bool(_QUOTE.match(line)) and not in_quote) or (
            bool(_RULE.match(line)) and not _is_setext(line, lines)
        )

    def _add_prose(self, lines: list[str], start: int, head: str, first: bool) -> None:
        while lines and not lines[-1].strip():
            lines.pop()
        if lines:
            kind = Kind.MARKDOWN if self.markdown else Kind.PLAIN
            self.blocks.append(Block(kind, "\n".join(lines), start, first=first, head=head))


def _opening_fence(line: str) -> tuple[str, str] | None:
    match = _FENCE.match(line)
    if match is None or (match[1][0] == "`" and "`" in match[2]):
        return None
    return match[1], match[2].split(maxsplit=1)[0].strip("{}.").lower() if match[2].strip() else ""


def _closes(line: str, marker: str) -> bool:
    stripped = line.strip()
    return (
        stripped.startswith(marker) and not stripped.strip(marker[0]) and len(line) - len(line.lstrip()) < 4
    )


def _code_is_full(lines: list[str], line: str) -> bool:
    if len(lines) < _CODE_LINES_TOP:
        return False
    after_blank = not lines[-1].strip() and bool(line.strip())
    if len(lines) >= _CODE_LINES_MAX:
        return True
    return after_blank and (len(lines) >= _CODE_LINES_BLANK or not line[0].isspace())


def _is_setext(line: str, lines: list[str]) -> bool:
    """A line of dashes under text is that text's heading, not a rule."""
    return line.strip().strip("-") == "" and len(lines) >= 1
