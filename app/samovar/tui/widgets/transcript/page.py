"""The page that lines are painted on: its width, margins and styles. Pure."""

from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip

from samovar.tui.theme import Palette, rich_style
from samovar.tui.widgets.transcript.highlight import highlight
from samovar.tui.widgets.transcript.wrap import Row, fold

MAX_TEXT_WIDTH = 100
_CODE_PAD = 2


class Line(NamedTuple):
    """One finished line, as wide as the widget.

    Textual's `Strip` brings seven caches, so it is made when a line is drawn, not kept with it.
    """

    segments: list[Segment]
    cells: int
    left: int
    """How many characters at the left are margin and not text."""
    end: int
    """Where the text ends, in characters of the strip."""
    joint: str
    """What stood in the text between this line and the next one: a line break, a space, nothing."""

    @property
    def text(self) -> str:
        """All characters of the line, with its margins."""
        return "".join([segment.text for segment in self.segments])

    @property
    def strip(self) -> Strip:
        """The line as Textual draws it."""
        return Strip(self.segments, self.cells)


class Styles:
    """The styles of a palette, made once."""

    def __init__(self, palette: Palette) -> None:
        p = palette
        self.text = rich_style(p.text, p.ground)
        self.secondary = rich_style(p.secondary, p.ground)
        self.faint = rich_style(p.faint, p.ground)
        self.code = rich_style(p.teal if p.raised == p.ground else p.text, p.raised)
        self.quote = rich_style(p.secondary, p.ground, italic=True)
        self.bar = rich_style(p.copper, p.ground)
        self.marker = rich_style(p.copper, p.ground)
        is_true_color = p.ground.startswith("#") and p.faint.startswith("#")
        rule = Color.parse(p.ground).blend(Color.parse(p.faint), 0.5).hex6 if is_true_color else p.faint
        self.rule = rich_style(rule, p.ground)
        self.headings = (
            rich_style(p.brass, p.ground, bold=True),
            rich_style(p.text, p.ground, bold=True),
            rich_style(p.secondary, p.ground, bold=True),
        )
        self.table_head = rich_style(p.secondary, p.ground, bold=True)
        self.bold, self.italic, self.strike = Style(bold=True), Style(italic=True), Style(strike=True)
        self.link = rich_style(p.teal, underline=True)
        self.cursor = rich_style(p.brass, p.ground)
        self.raised = rich_style(p.text, p.raised)
        self.names = {
            name: rich_style(p.color(name), p.ground)
            for name in ("text", "faint", "secondary", "green", "brass", "teal", "red")
        }
        self.role_you = rich_style(p.teal, p.ground, bold=True)
        self.role_samovar = rich_style(p.brass, p.ground, bold=True)
        self.role_system = rich_style(p.secondary, p.ground, bold=True)
        self.highlight = {
            "text": self.raised,
            "keyword": rich_style(p.copper, p.raised),
            "name": rich_style(p.brass, p.raised),
            "string": rich_style(p.green, p.raised),
            "number": rich_style(p.mauve, p.raised),
            "comment": rich_style(p.faint, p.raised, italic=True),
            "builtin": rich_style(p.teal, p.raised),
            "operator": rich_style(p.secondary, p.raised),
        }


class Page:
    """Makes lines of one width in one palette."""

    def __init__(self, palette: Palette, width: int) -> None:
        self.palette = palette
        self.styles = Styles(palette)
        self.width = max(10, width)
        self.margin = 3 if width >= 90 else 2 if width >= 40 else 1
        self.text_width = min(MAX_TEXT_WIDTH, self.width - 2 * self.margin)
        self.blank_line = Line([Segment(" " * self.width, self.styles.text)], self.width, 0, 0, "\n")

    def line(self, segments: list[Segment], cells: int, joint: str = "\n", left: int = 0) -> Line:
        """Put text between the margins; `left` is how many of its characters are decoration."""
        segments = [Segment(" " * self.margin, self.styles.text), *segments]
        end = sum([len(segment.text) for segment in segments])
        if (spare := self.width - self.margin - cells) > 0:
            segments.append(Segment(" " * spare, self.styles.text))
        return Line(segments, self.margin + cells + max(0, spare), self.margin + left, end, joint)

    def blank(self) -> Line:
        """Return an empty line."""
        return self.blank_line

    def code_rows(self, code: str, language: str, width: int) -> list[Row]:
        """Return highlighted code on the raised ground, each row `width` cells wide."""
        rows: list[Row] = []
        raised, names = self.styles.raised, self.styles.highlight
        pad = Segment(" " * _CODE_PAD, raised)
        inner = width - 2 * _CODE_PAD
        for pieces in highlight(code.expandtabs(4), language):
            for row in fold([(text, names[name]) for text, name in pieces], inner):
                filler = Segment(" " * (inner - row.cells + _CODE_PAD), raised)
                rows.append(Row([pad, *row.segments, filler], width, row.joint))
        return rows

    def code_line(self, row: Row) -> Line:
        """Make a line of a row of code; its padding is no text."""
        line = self.line(row.segments, row.cells, row.joint, left=_CODE_PAD)
        return line._replace(end=line.end - len(row.segments[-1].text))

    def code_pad(self) -> Line:
        """Return the empty raised line above and below code."""
        line = self.line([Segment(" " * self.text_width, self.styles.raised)], self.text_width)
        return line._replace(end=0, left=0)
