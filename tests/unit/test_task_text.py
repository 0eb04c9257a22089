"""Runs of side tasks in words: their order, and what has been processed of a prompt that is still read."""

from samovar.chats.side_tasks import TaskRun, TaskState
from samovar.core.request import RequestStats, TierTokens
from samovar.tasks.builtin import SUMMARY
from samovar.tui import task_text

STATS = RequestStats(330, TierTokens(context=30))


def run(name: str, state: TaskState, position: int = 0) -> TaskRun:
    return TaskRun(name, SUMMARY, "chat", "Tea", "", 0.0, state=state, position=position, stats=STATS)


def test_what_runs_next_stands_first_among_those_that_wait() -> None:
    newest_first = [
        run("new", TaskState.WAITING),
        run("third", TaskState.WAITING, 3),
        run("first", TaskState.WAITING, 1),
        run("done", TaskState.DONE),
        run("runs", TaskState.RUNNING),
    ]
    assert [one.id for one in task_text.in_order(newest_first)] == ["runs", "first", "third", "new", "done"]


def test_table_and_panel_tell_the_same_of_a_prompt_that_is_read() -> None:
    reading = run("reading", TaskState.RUNNING)
    reading.read_tokens, reading.to_read_tokens = 33, 300
    row = "".join(text for text, _ in task_text.task_row(reading, "Tea", "", 76))
    assert row.split()[-2:] == ["33", "·"]
    assert "30 reused, 33 of 300 processed" in task_text.cost_line(reading, 0.0, 76).plain
    reading.num_tokens = 1
    assert "30 reused, 300 processed" in task_text.cost_line(reading, 0.0, 76).plain
