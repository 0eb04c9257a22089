"""What the engine is at for all chats together, as lines: who runs, who waits and why. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from textual.content import Content

from samovar.core.figures import count, ordinal
from samovar.core.request import RequestKind
from samovar.core.safe_text import clean
from samovar.core.snapshot import ActivePhase, ActiveRequest, CacheSnapshot
from samovar.tui.widgets.parts import fitted, two_sides

MAX_ROWS: Final = 3
FIRST_GOES: Final = "the chat you read goes first"
_STATE_WIDTH: Final = 13


def running_lines(
    snapshot: CacheSnapshot, colors: Mapping[str, str], width: int, max_rows: int = MAX_ROWS
) -> Content:
    """Who runs and waits beside the chat that the user reads; empty while that one is alone.

    Work ahead is left out: it comes and goes with every word, and its counters tell whether it pays.
    """
    active = [one for one in snapshot.active if one.kind is not RequestKind.PREPARE]
    waiting = [one for one in active if one.phase is ActivePhase.QUEUED]
    if len(active) < 2 and not waiting:
        return Content("")
    share = "" if snapshot.others_share is None else f"others get {_percent(snapshot.others_share)}"
    head = f"{len(active) - len(waiting)} run · {len(waiting)} wait"
    lines = [two_sides([("NOW    ", "$secondary"), (head, "$text")], [(share, "$faint")], width)]
    lines += [_row(one, colors, width) for one in _in_order(active)[:max_rows]]
    if len(active) > max_rows:
        lines.append(Content.assemble((f"  and {len(active) - max_rows} more", "$faint")))
    if waiting and any(one.is_first and one.phase is not ActivePhase.QUEUED for one in active):
        who = f"{_who_waits(waiting)}: {FIRST_GOES}"
        lines.append(Content.assemble((who if len(who) <= width else FIRST_GOES, "$faint")))
    return Content("\n").join(lines)


def _in_order(active: Sequence[ActiveRequest]) -> list[ActiveRequest]:
    """The most important ones first: what the user waits for, what runs, then the queue in its order."""
    return sorted(active, key=lambda one: (not one.is_first, one.position))


def _row(one: ActiveRequest, colors: Mapping[str, str], width: int) -> Content:
    title = " ".join(clean(one.title).split()) or "untitled"
    color = "$secondary" if one.kind is RequestKind.SIDE_TASK else "$text"
    return Content.assemble(
        ("■ ", colors.get(one.session, "$faint")),
        (fitted(title, max(4, width - 2 - _STATE_WIDTH)), color),
        (_state(one).rjust(_STATE_WIDTH), "$secondary"),
    )


def _state(one: ActiveRequest) -> str:
    match one.phase:
        case ActivePhase.QUEUED:
            return f"waits, {ordinal(one.position)}"
        case ActivePhase.READING:
            return f"reading {_percent(one.done / max(1, one.total))}"
        case ActivePhase.WRITING:
            return f"{count(one.generated)} written"


def _who_waits(waiting: Sequence[ActiveRequest]) -> str:
    """`2 side tasks wait`, or of all kinds `2 requests wait`."""
    kind = "side task" if all(one.kind is RequestKind.SIDE_TASK for one in waiting) else "request"
    return f"1 {kind} waits" if len(waiting) == 1 else f"{len(waiting)} {kind}s wait"


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"
