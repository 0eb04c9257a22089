"""Chats as lines of text: the table of `sessions list`, a chat to read, its tree, hits of a search. Pure.

What comes out may hold anything that the chats hold; the command cleans it where a terminal shows it. Titles
and snippets, which stand within our own lines, are always cleaned.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.cells import cell_len, chop_cells, set_cell_size

from samovar.core.chat import Role
from samovar.core.figures import clock_time, count
from samovar.core.units import format_size
from samovar.sessions.lookup import one_line
from samovar.sessions.search import Hit
from samovar.sessions.transfer.document import ChatDocument, MessageDocument
from samovar.sessions.values import MessageState, Session, StoredMessage

_NAMES: Final = {Role.USER: "You", Role.ASSISTANT: "Samovar", Role.SYSTEM: "System"}
_STATES: Final = {
    MessageState.STREAMING: "being written",
    MessageState.STOPPED: "stopped",
    MessageState.CUT: "cut off",
    MessageState.FAILED: "failed",
}
_MAX_TITLE_CELLS: Final = 48
_MIN_TITLE_CELLS: Final = 12
_MAX_INDENT: Final = 20
_OUTLINE_CELLS: Final = 100
_UNFOLDED: Final = 100_000


def table(sessions: Sequence[Session], ids: Mapping[str, str], now: float, width: int | None) -> list[str]:
    """One line a chat below a line of heads, at most `width` cells each; None: nothing is cut."""
    rows = [_row(session, ids[session.id], now) for session in sessions]
    id_cells = max((cell_len(row[0]) for row in rows), default=0)
    time_cells = max((len(row[3]) for row in rows), default=0)
    title_cells = max((cell_len(row[1]) for row in rows), default=0)
    if width is not None:
        beside = id_cells + 2 + 2 + 2 + 8 + 2 + time_cells + 2
        tags = min(24, max((cell_len(row[4]) for row in rows), default=0))
        title_cells = max(_MIN_TITLE_CELLS, min(title_cells, _MAX_TITLE_CELLS, width - beside - tags))
    lines = []
    for short_id, title, num_messages, updated, rest in [("id", "title", "messages", "updated", ""), *rows]:
        shown = title if width is None else cut(title, title_cells)
        shown += " " * (title_cells - cell_len(shown))
        line = (
            f"{short_id + ' ' * (id_cells - cell_len(short_id))}  {shown}  {num_messages:>8}  "
            f"{updated:>{time_cells}}  {rest}"
        ).rstrip()
        lines.append(line if width is None else cut(line, width))
    return lines


def _row(session: Session, short_id: str, now: float) -> tuple[str, str, str, str, str]:
    marks = ["★"] * session.is_favourite + ["archived"] * session.is_archived
    rest = " ".join([*marks, *(f"#{one_line(tag)}" for tag in session.tags)])
    title = one_line(session.title) or "untitled"
    return one_line(short_id), title, count(session.num_messages), clock_time(session.updated_at, now), rest


def cut(text: str, cells: int) -> str:
    """The text in at most so many cells, with an ellipsis where it is cut."""
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, max(0, cells - 1)).rstrip() + "…"


def readable(session: Session, path: Sequence[StoredMessage], now: float) -> Iterator[str]:
    """The shown path, in pieces that end in a line break: headings, and texts as they are."""
    yield f"# {one_line(session.title) or 'untitled'}\n\n"
    others = session.num_messages - len(path)
    facts = [session.id, f"{count(len(path))} messages" if len(path) != 1 else "1 message"]
    if others > 0:
        facts.append(f"{count(others)} more in other branches")
    facts += [f"#{one_line(tag)}" for tag in session.tags]
    yield f"{', '.join(facts)}\n"
    if session.system_prompt:
        yield f"\n## System prompt\n\n{session.system_prompt}\n"
    for message in path:
        heading = [_NAMES[message.role], one_line(message.model), clock_time(message.created_at, now)]
        heading.append(_state(message.state, message.error))
        yield f"\n## {', '.join(filter(None, heading))}\n\n"
        for one in message.attachments:
            tokens = "" if one.num_tokens is None else f", {count(one.num_tokens)} tokens"
            size = format_size(len(one.text.encode()))
            yield f"[{one_line(one.name) or 'pasted text'}: {size}{tokens}]\n\n"
        if message.content:
            yield message.content if message.content.endswith("\n") else f"{message.content}\n"


def outline(document: ChatDocument) -> Iterator[str]:
    """The whole tree, a line a message; what follows a fork is moved in. ● is on the path that is shown."""
    yield f"# {one_line(document.title) or 'untitled'}\n\n"
    below: dict[int | None, list[MessageDocument]] = {}
    for message in document.messages:
        below.setdefault(message.parent, []).append(message)
    shown = path_ids(document)
    waiting = [(message, 0) for message in reversed(below.get(None, []))]
    if len(waiting) > 1:
        waiting = [(message, 1) for message, _ in waiting]
    while waiting:
        message, depth = waiting.pop()
        mark = "●" if message.id in shown else "○"
        text = one_line(message.content[: 4 * _OUTLINE_CELLS]) or "(no text)"
        if state := _state(message.state, message.error):
            text = f"({state}) {text}"
        indent = "  " * min(depth, _MAX_INDENT)
        yield f"{indent}{mark} {_NAMES[message.role]}: {cut(text, _OUTLINE_CELLS)}\n"
        children = below.get(message.id, [])
        deeper = depth + (len(children) > 1)
        waiting += [(child, deeper) for child in reversed(children)]


def path_ids(document: ChatDocument) -> set[int]:
    parents = {message.id: message.parent for message in document.messages}
    shown: set[int] = set()
    here = document.head
    while here is not None:
        shown.add(here)
        here = parents[here]
    return shown


def hit_lines(hit: Hit, short_id: str, now: float, width: int | None, *, marked: bool) -> list[str]:
    """A line that says where, and the snippet, folded to the width if there is one.

    Matches are bold if they are to be `marked`.
    """
    who = "title" if hit.is_title else _NAMES[hit.role] if hit.role is not None else ""
    where = [one_line(hit.title) or "untitled", who, clock_time(hit.created_at, now)]
    head = f"{one_line(short_id)}  {', '.join(filter(None, where))}{'  archived' if hit.is_archived else ''}"
    cells = _UNFOLDED if width is None else max(20, width - 4)
    return [head, *(f"    {line}" for line in _folded(hit, cells, marked=marked))]


def _folded(hit: Hit, width: int, *, marked: bool) -> list[str]:
    """The snippet in lines of so many cells. Matches are switched on and off on each line anew."""
    lines: list[str] = []
    line, used = "", 0
    for part in hit.snippet:
        text = _spaced(part.text)
        while text:
            # A lone modifier has no width of its own, and Rich drops it.
            piece = next(iter(chop_cells(text, width - used)), text) if used < width else ""
            if cell_len(piece) > width - used:
                piece = ""
            line += f"\x1b[1m{piece}\x1b[22m" if marked and part.is_match and piece else piece
            used += cell_len(piece)
            text = text[len(piece) :]
            if text:
                lines.append(line)
                line, used = "", 0
    return [*lines, line] if line else lines


def _spaced(text: str) -> str:
    """Harmless and on one line, with the spaces at its ends, which part words from words."""
    harmless = one_line(text)
    if not harmless:
        return " " if text else ""
    return f"{' ' * text[:1].isspace()}{harmless}{' ' * text[-1:].isspace()}"


def _state(state: MessageState, error: str) -> str:
    return f"{_STATES[state]}: {one_line(error)}".removesuffix(": ") if state in _STATES else ""
