"""Colours code: Pygments tokens become names of our own, which the renderer gives colours.

Pygments is imported on the first code block, since it takes a noticeable part of the time to the first paint.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pygments.lexer import Lexer  # type: ignore[import-untyped]  # Pygments has no types of its own

Piece = tuple[str, str]
"""Text and the name of its style: "keyword", "name", "string", "number", "comment", "builtin", "operator",
"text".
"""


class _TokenType(Protocol):
    parent: "_TokenType | None"


_STYLES = {
    "Token": "text",
    "Keyword": "keyword",
    "Keyword.Constant": "number",
    "Keyword.Type": "builtin",
    "Name.Function": "name",
    "Name.Class": "name",
    "Name.Tag": "keyword",
    "Name.Attribute": "name",
    "Name.Builtin": "builtin",
    "Name.Decorator": "builtin",
    "Name.Exception": "builtin",
    "Name.Builtin.Pseudo": "builtin",
    "Name.Constant": "number",
    "Name.Variable": "text",
    "Literal.String": "string",
    "Literal.Number": "number",
    "Literal.String.Escape": "number",
    "Literal.String.Interpol": "number",
    "Literal.String.Doc": "comment",
    "Comment": "comment",
    "Comment.Preproc": "builtin",
    "Operator": "operator",
    "Operator.Word": "keyword",
    "Punctuation": "operator",
    "Generic.Heading": "name",
    "Generic.Subheading": "name",
    "Generic.Deleted": "keyword",
    "Generic.Inserted": "string",
    "Generic.Emph": "text",
    "Generic.Output": "comment",
    "Generic.Prompt": "operator",
}


def highlight(code: str, language: str) -> list[list[Piece]]:
    """Return the lines of `code` in pieces; an unknown language gives plain text."""
    lexer = _lexer(language) if language else None
    if lexer is None:
        return [[(line, "text")] if line else [] for line in code.split("\n")]
    lines: list[list[Piece]] = [[]]
    for _, token, text in lexer.get_tokens_unprocessed(code):
        style = _style(token)
        first, *rest = text.split("\n")
        if first:
            _add(lines[-1], first, style)
        lines += [[(line, style)] if line else [] for line in rest]
    return lines


def _add(line: list[Piece], text: str, style: str) -> None:
    if line and line[-1][1] == style:
        line[-1] = (line[-1][0] + text, style)
    else:
        line.append((text, style))


@lru_cache(maxsize=64)
def _lexer(language: str) -> "Lexer | None":
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]  # as above
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]  # as above

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@lru_cache(maxsize=512)
def _style(token: _TokenType | None) -> str:
    """Return the style of a Pygments token type, or of its nearest ancestor that has one."""
    while token is not None:
        name = str(token)
        style = _STYLES.get(name.removeprefix("Token."))
        if style is not None:
            return style
        token = token.parent
    return "text"
