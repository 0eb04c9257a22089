"""Paints one block of Markdown: markdown-it reads it, this module lays it out in the theme's colours.

Pure. Nothing is interpreted but Markdown: no HTML, no console markup, no terminal links.
"""

from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.segment import Segment
from rich.style import Style

from samovar.core.safe_text import clean
from samovar.tui.widgets.transcript.page import Line, Page
from samovar.tui.widgets.transcript.table import paint_table
from samovar.tui.widgets.transcript.wrap import Span, wrap

_PARSER = (
    MarkdownIt("commonmark", {"html": False, "maxNesting": 20})
    .enable(["table", "strikethrough"])
    .disable(["html_block", "html_inline", "text_join", "reference"])
)
_LONGEST_SHOWN_URL = 80


def paint_markdown(page: Page, text: str, *, skip_table_head: bool = False) -> list[Line]:
    """Return the lines of one block."""
    painter = _Painter(page, skip_table_head)
    painter.walk(_PARSER.parse(text), page.styles.text)
    return painter.lines


def code_in(text: str) -> list[tuple[str, str]]:
    """Return (language, code) of every code block inside `text`."""
    return [
        (token.info.strip().split(" ")[0], token.content.rstrip("\n"))
        for token in _PARSER.parse(text)
        if token.type in {"fence", "code_block"}
    ]


class _Painter:
    def __init__(self, page: Page, skip_table_head: bool) -> None:
        self.page = page
        self.styles = page.styles
        self.skip_table_head = skip_table_head
        self.lines: list[Line] = []
        self.prefix: list[Segment] = []
        """What stands before every line: indentation of lists, bars of quotes."""
        self.marker: Segment | None = None
        """Takes the place of the last part of the prefix on the next line: a bullet or number."""

    @property
    def width(self) -> int:
        return max(8, self.page.text_width - sum(segment.cell_length for segment in self.prefix))

    def walk(self, tokens: Sequence[Token], style: Style) -> None:
        """Paint a run of sibling blocks."""
        index = 0
        first = True
        while index < len(tokens):
            token = tokens[index]
            end = _closing(tokens, index)
            is_list = token.type in {"bullet_list_open", "ordered_list_open"}
            if not first and (_is_loose(tokens, index) if is_list else not token.hidden):
                self.blank()
            self.block(tokens[index : end + 1], style)
            index, first = end + 1, False

    def block(self, tokens: Sequence[Token], style: Style) -> None:
        """Paint one block: an opening token up to its closing one, or a single token."""
        token, inner = tokens[0], tokens[1:-1]
        match token.type:
            case "paragraph_open":
                self.text(inner[0], style)
            case "heading_open":
                self.text(inner[0], self.styles.headings[min(int(token.tag[1]), 3) - 1])
            case "bullet_list_open" | "ordered_list_open":
                self.items(token, inner, style)
            case "blockquote_open":
                self.nested(inner, Segment("▎ ", self.styles.bar), self.styles.quote)
            case "fence" | "code_block":
                language = clean(token.info.strip().split(" ")[0])
                for row in self.page.code_rows(clean(token.content.rstrip("\n")), language, self.width):
                    self.emit(row.segments, row.cells, row.joint)
            case "table_open":
                rows = paint_table(
                    inner, self.inline, self.width, self.styles, skip_head=self.skip_table_head
                )
                for row in rows:
                    self.emit(row.segments, row.cells, row.joint)
            case "hr":
                self.emit([Segment("─" * self.width, self.styles.rule)], self.width, "\n")
            case _:
                self.text(token, style)

    def items(self, opening: Token, tokens: Sequence[Token], style: Style) -> None:
        """Paint the items of a list."""
        loose = _is_loose([opening, *tokens], 0)
        ordered = opening.type == "ordered_list_open"
        number = int(opening.attrGet("start") or 1) if ordered else 0
        starts = [
            i
            for i, token in enumerate(tokens)
            if token.type == "list_item_open" and token.level == tokens[0].level
        ]
        digits = len(str(number + len(starts) - 1))
        for position, index in enumerate(starts):
            if position and loose:
                self.blank()
            marker = f"{number + position:>{digits}} " if ordered else "• "
            indent = Segment(" " * (len(marker) + 1), style)
            self.marker = Segment(" " + marker, self.styles.marker)
            self.nested(tokens[index + 1 : _closing(tokens, index)], indent, style)
            if self.marker is not None:
                self.emit([], 0, "\n")

    def nested(self, tokens: Sequence[Token], prefix: Segment, style: Style) -> None:
        self.prefix.append(prefix)
        self.walk(tokens, style)
        if self.marker is not None and prefix.text.isspace():
            self.emit([], 0, "\n")
        self.prefix.pop()

    def text(self, token: Token, style: Style) -> None:
        for row in wrap(self.inline(token, style), self.width):
            self.emit(row.segments, row.cells, row.joint)

    def blank(self) -> None:
        self.emit([], 0, "\n")

    def emit(self, segments: list[Segment], cells: int, joint: str) -> None:
        """Add a line behind the current prefix."""
        prefix = self.prefix
        if self.marker is not None:
            prefix = [*prefix[:-1], self.marker]
            self.marker = None
        prefix_cells = sum(segment.cell_length for segment in prefix)
        self.lines.append(self.page.line([*prefix, *segments], cells + prefix_cells, joint))

    def inline(self, token: Token, base: Style) -> list[Span]:
        """Turn the inline tokens of a paragraph, heading or table cell into styled text."""
        spans: list[Span] = []
        stack = [base]
        links: list[tuple[str, int]] = []
        for child in token.children or ():
            style = stack[-1]
            match child.type:
                case "text":
                    spans.append((child.content, style))
                case "text_special":
                    # Maths is shown as it was written: \( and \[ keep their backslash.
                    shown = child.markup if child.content in "()[]" else clean(child.content)
                    spans.append((shown, style))
                case "code_inline":
                    spans.append(
                        (child.content, self.styles.code if style == base else style + self.styles.code)
                    )
                case "softbreak" | "hardbreak":
                    spans.append(("\n", style))
                case "strong_open":
                    stack.append(style + self.styles.bold)
                case "em_open":
                    stack.append(style + self.styles.italic)
                case "s_open":
                    stack.append(style + self.styles.strike)
                case "link_open":
                    links.append((clean(str(child.attrGet("href") or "")), len(spans)))
                    stack.append(style + self.styles.link)
                case "link_close":
                    stack.pop()
                    url, start = links.pop()
                    label = "".join(text for text, _ in spans[start:])
                    if url and label not in url and len(url) <= _LONGEST_SHOWN_URL:
                        spans.append((f" ({url})", self.styles.faint))
                case "image":
                    spans.append((f"[image: {clean(child.content)}]", style + self.styles.faint))
                case name if name.endswith("_close"):
                    stack.pop()
                case _:
                    spans.append((clean(child.content), style))
        return [(text.expandtabs(4) if "\t" in text else text, style) for text, style in spans if text]


def _closing(tokens: Sequence[Token], index: int) -> int:
    """Return the index of the token that closes the one at `index`."""
    opening = tokens[index]
    if opening.nesting != 1:
        return index
    for end in range(index + 1, len(tokens)):
        if tokens[end].nesting == -1 and tokens[end].level == opening.level:
            return end
    return len(tokens) - 1


def _is_loose(tokens: Sequence[Token], index: int) -> bool:
    """A list is loose when a paragraph directly in one of its items is not hidden."""
    level = tokens[index].level + 2
    end = _closing(tokens, index)
    return any(
        token.type == "paragraph_open" and token.level == level and not token.hidden
        for token in tokens[index:end]
    )
