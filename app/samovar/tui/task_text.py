"""Runs of side tasks in words: a line of the sidebar, a row of the table, what came of one. Pure."""

from collections.abc import Sequence
from typing import Final

from rich.cells import set_cell_size
from textual.content import Content

from samovar.chats.side_tasks import TaskRun, TaskState
from samovar.core.figures import clock_time, count, duration
from samovar.core.safe_text import clean
from samovar.tasks.spec import Output, TaskSpec
from samovar.tui import progress
from samovar.tui.widgets.parts import Part, fitted, two_sides
from samovar.tui.widgets.prompt_rows import Column
from samovar.tui.widgets.session_list import shown_title

_GLYPHS: Final[dict[TaskState, Part]] = {
    TaskState.WAITING: (progress.WAITING, "$faint"),
    TaskState.RUNNING: (progress.RUNNING, "$brass"),
    TaskState.DONE: (progress.DONE, "$green"),
    TaskState.FAILED: (progress.FAILED, "$red"),
    TaskState.CANCELLED: (progress.FAILED, "$secondary"),
}
_STATE, _REUSED, _PROCESSED, _TIME = (
    Column("state", 19),
    Column("reused", 8),
    Column("processed", 11),
    Column("time", 7),
)
_COLUMNS: Final[tuple[Column, ...]] = (_STATE, _REUSED, _PROCESSED, _TIME)
_NAME_WIDTH: Final = 14
_MIN_TITLE, _MAX_TITLE = 10, 34
_MIN_SAID: Final = 24
_GAP: Final = 3


def in_order(runs: Sequence[TaskRun]) -> list[TaskRun]:
    """What runs, then what waits, the next one first, then what has ended; `runs` are given with the newest
    first.
    """

    def place(run: TaskRun) -> tuple[int, int]:
        if run.state is TaskState.WAITING:
            return 1, run.position or len(runs)  # no place is known of one that has just been asked for
        return (0 if run.is_open else 2), 0

    return sorted(runs, key=place)


def name_of(run: TaskRun) -> str:
    """The task's name on one line."""
    return " ".join(clean(run.spec.name).split())


def state_words(run: TaskRun) -> str:
    """How far it is: `reading 62 %`, `120 tokens`, `2nd · ~8 s`, `done`, `failed`, `stopped`."""
    match run.state:
        case TaskState.WAITING:
            return progress.queue_words(run.position, run.estimate_ms)
        case TaskState.RUNNING if run.num_tokens:
            return progress.tokens(run.num_tokens)
        case TaskState.RUNNING if run.to_read_tokens:
            return f"reading {round(100 * run.read_tokens / run.to_read_tokens)} %"
        case TaskState.RUNNING:
            return "reading"
        case TaskState.CANCELLED:
            return "stopped"
        case _:
            return str(run.state.value)


def _read(run: TaskRun) -> int | None:
    """Tokens processed so far of a prompt that is still being read; None once it is."""
    return run.read_tokens if run.state is TaskState.RUNNING and not run.num_tokens else None


def time_words(run: TaskRun) -> str:
    """How long it took, empty while it has not ended."""
    return "" if run.ended_at is None else duration(max(0.0, 1000 * (run.ended_at - run.started_at)))


def sidebar_line(run: TaskRun, color: str, width: int) -> Content:
    """`✓ title   0.4 s` in `width` cells; the name in the colour of its chat."""
    words = time_words(run) if run.state is TaskState.DONE else state_words(run)
    name = fitted(name_of(run), max(4, width - 3 - len(words)))
    glyph, glyph_color = _GLYPHS[run.state]
    aside = "$red" if run.state is TaskState.FAILED else "$faint"
    return two_sides([(f"{glyph} ", glyph_color), (name.rstrip(), color)], [(words, aside)], width)


# The table


def task_head(width: int) -> list[Part]:
    """The line above the table."""
    columns, room, said = _rooms(width)
    figures = "".join(column.head.rjust(column.width) for column in columns[1:])
    return [
        ("  task".ljust(_NAME_WIDTH), "$secondary"),
        (set_cell_size("chat", room), "$faint"),
        (_STATE.head.ljust(_STATE.width), "$faint"),
        (figures, "$faint"),
        (f"{' ' * _GAP}{'result' if said else ''}", "$faint"),
    ]


def task_row(run: TaskRun, title: str, color: str, width: int) -> list[Part]:
    """One run: task, chat, state, what its prompt cost, how long it took."""
    columns, room, said = _rooms(width)
    glyph, glyph_color = _GLYPHS[run.state]
    stats = run.stats
    reused = stats.reused.total if stats is not None else 0
    read = _read(run)
    processed = 0 if stats is None else progress.to_process(stats) if read is None else read
    figures: dict[Column, Part] = {
        _REUSED: (count(reused) if reused else "·", "$green" if reused else "$faint"),
        _PROCESSED: (count(processed) if processed else "·", "$text" if processed else "$faint"),
        _TIME: (time_words(run) or "·", "$faint"),
    }
    return [
        (f"{glyph} ", glyph_color),
        (fitted(name_of(run), _NAME_WIDTH - 3) + " ", "$text"),
        (fitted(shown_title(title), room - 2) + "  ", color),
        (fitted(state_words(run), _STATE.width), "$secondary"),
        *((figures[c][0].rjust(c.width), figures[c][1]) for c in columns[1:]),
        (" " * _GAP + fitted(_said(run), said) if said else "", "$faint"),
    ]


def _said(run: TaskRun) -> str:
    """On one line, what came of it, else what was asked."""
    return " ".join(clean(run.error or run.result or run.asked).split())


def _rooms(width: int) -> tuple[Sequence[Column], int, int]:
    """The columns that fit, the state among them; cells of the chat's title, and of what came of a run."""
    columns = _COLUMNS
    while len(columns) > 1 and width - _NAME_WIDTH - sum(c.width for c in columns) < _MIN_TITLE:
        columns = columns[:-1]
    room = max(_MIN_TITLE, width - _NAME_WIDTH - sum(column.width for column in columns))
    said = room - _MAX_TITLE - _GAP
    return (columns, _MAX_TITLE, said) if said >= _MIN_SAID else (columns, room, 0)


# One run


def heading(run: TaskRun, title: str, color: str, width: int) -> Content:
    """`aside   Parser refactor   what is a block?`."""
    asked = " ".join(clean(run.asked).split())
    parts: list[Part] = [(name_of(run), "bold $brass"), (f"   {shown_title(title)}", color)]
    parts += [(f"   {asked}", "$secondary")] if asked else []
    return Content.assemble(*parts).truncate(width, ellipsis=True)


def cost_line(run: TaskRun, now: float, width: int) -> Content:
    """What it is at, or when it ended and what it cost."""
    glyph, color = _GLYPHS[run.state]
    parts: list[Part] = [(f"{glyph} {state_words(run)}", color)]
    if run.ended_at is not None:
        parts.append((f" · {clock_time(run.ended_at, now)} · {time_words(run)}", "$faint"))
    if run.stats is not None and run.stats.generated_tokens:
        parts.append((f" · {progress.tokens(run.stats.generated_tokens)}", "$faint"))
    if run.stats is not None and (cost := progress.cost_parts(run.stats, _read(run))):
        parts += [(" · ", "$faint"), *cost]
    if run.note:
        parts.append((f" · {clean(run.note)}", "$brass"))
    if run.did:
        parts.append((f" · {clean(run.did)}", "$faint"))
    return Content.assemble(*parts).truncate(width, ellipsis=True)


def shown_text(run: TaskRun) -> str:
    """What there is to read: the result, or what has come of it so far; suggestions with their numbers."""
    if run.spec.output is Output.COMPOSER and run.results:
        return "\n".join(f"{place}. {one}" for place, one in enumerate(run.results, 1))
    if run.result:
        return run.result
    # Half a JSON text is nothing to read.
    return "" if run.spec.json_schema or run.spec.grammar else run.text


def taken_text(run: TaskRun) -> str:
    """What copying and inserting take."""
    return run.result or shown_text(run)


def calls(spec: TaskSpec) -> str:
    """How a task is written in the composer: `/aside QUESTION`, `/task haiku`."""
    name = f"/{spec.name}" if spec.is_builtin else f"/task {spec.name}"
    return f"{name} {spec.needs_input}".rstrip()
