"""Side tasks of this front end: started, followed, ended; their results until they are discarded.

Runs in the event loop and owns every `TaskRun`. Never imports Textual.
"""

import enum
from dataclasses import dataclass

from samovar.core.request import RequestStats
from samovar.tasks.spec import TaskSpec


class TaskState(enum.Enum):
    """How far a side task is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class TaskRun:
    """One run of a task. `text` is what has been generated so far, `result` what came of it in the end.

    `id` is that of its request; `position` and `estimate_ms` are of waiting. Times: seconds since the epoch.
    """

    id: str
    spec: TaskSpec
    session: str
    chat_title: str
    asked: str  # what the user typed, or the beginning of the message that it is about
    started_at: float
    state: TaskState = TaskState.WAITING
    text: str = ""
    result: str = ""
    error: str = ""
    stats: RequestStats | None = None
    position: int = 0
    estimate_ms: float | None = None
    ended_at: float | None = None
