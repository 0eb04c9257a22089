"""Side tasks by keys: run, read, inserted, run again, discarded, over a fake client."""

from pathlib import Path

from samovar.chats.side_tasks import TaskState
from samovar.core.commands import Cancel
from samovar.core.request import FinishReason, Request
from samovar.tui.screens.answer_panel import AnswerPanel
from samovar.tui.screens.ask_line import AskLine
from samovar.tui.screens.picker import Chooser
from samovar.tui.screens.tasks import TasksScreen
from samovar.tui.screens.workstation import Workstation
from samovar.tui.widgets.growing_text import GrowingText
from tests.tui.support import Station, station


async def ask(here: Station, command: str) -> Request:
    """Run a side task in the latest chat by its command; returns its request."""
    await here.pilot.press("alt+2")
    await here.until(lambda: here.app.conversations.shown.path, "the chat is read")
    num_before = len(here.client.side_requests)
    await here.send(command)
    await here.until(lambda: len(here.client.side_requests) > num_before, "asked")
    return here.client.side_requests[-1]


async def until_screen(here: Station, kind: type[object]) -> None:
    await here.until(lambda: isinstance(here.app.screen, kind), kind.__name__)


def read(here: Station) -> str:
    """The text that the screen on top shows of a task."""
    return "".join(entry.text for entry in here.app.screen.query_one(GrowingText).entries)


async def test_an_aside_opens_over_the_chat_and_goes_on_when_it_is_closed(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        aside = await ask(here, "/aside what is it about?")
        await until_screen(here, AnswerPanel)
        here.client.begin(aside)
        here.client.say(aside, "It is about ")
        tasks = here.app.conversations.tasks
        await here.until(lambda: tasks.runs[0].text == "It is about ", "the beginning")
        await here.pilot.press("escape")
        await until_screen(here, Workstation)
        assert not here.client.of(Cancel)
        here.client.finish(aside, "It is about **one** thing.")
        await here.until(lambda: tasks.runs[0].state is TaskState.DONE, "it went on")
        assert [entry.text for entry in here.entries] == ["question 1", "answer 1"], "the chat is as it was"
        await here.pilot.press("f8")
        await until_screen(here, TasksScreen)
        await here.until(lambda: "one** thing" in read(here), "its answer is there")
        await here.pilot.press("i")
        await until_screen(here, Workstation)
        assert here.text == "It is about **one** thing."


async def test_a_suggested_reply_goes_into_the_composer_and_is_not_sent(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        request = await ask(here, "/suggest")
        here.client.finish(request, '{"replies": ["Go on.", "Why?", "Thank you."]}')
        await here.until(lambda: "2. Why?" in read(here), "all are listed")
        await here.pilot.press("tab", "2")
        await until_screen(here, Workstation)
        assert here.text == "Why?"
        assert not here.client.requests


async def test_what_is_typed_while_an_answer_opens_goes_on_into_the_composer(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.app.conversations.shown.path, "the chat is read")
        here.press_at_once(*"/summary", "enter", *"nicx", "backspace", "e")
        await until_screen(here, AnswerPanel)
        await here.until(lambda: here.text == "nice", here.text)
        await here.pilot.press("x")
        assert here.text == "nicex"
        assert not here.client.of(Cancel)
        await here.pilot.press("tab", "x")
        assert here.client.of(Cancel)
        assert here.text == "nicex"
        await here.pilot.press("tab", "t", "enter")
        await until_screen(here, Workstation)
        await here.until(lambda: here.client.requests, "sent")
        assert here.client.requests[0].messages[-1].content == "nicext"


async def test_a_panel_that_a_key_has_opened_takes_keys_at_once(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.app.conversations.shown.path, "the chat is read")
        await here.pilot.press("tab", "w")
        await until_screen(here, AnswerPanel)
        await here.pilot.press("x")
        assert here.client.of(Cancel)
        await here.until(lambda: "esc closes" in str(here.app.screen.query_one("#answer-keys").render()))
        assert "inserts" not in str(here.app.screen.query_one("#answer-keys").render())


async def test_a_task_is_stopped_run_again_and_discarded_from_the_list(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        first = await ask(here, "/summary")
        tasks = here.app.conversations.tasks
        await until_screen(here, AnswerPanel)
        await here.pilot.press("f8")
        await until_screen(here, TasksScreen)
        await here.pilot.press("x")
        assert [cancel.request_id for cancel in here.client.of(Cancel)] == [first.id]
        assert tasks.runs[0].state is TaskState.CANCELLED
        await here.pilot.press("r")
        await here.until(lambda: len(here.client.side_requests) == 2, "asked again")
        again = here.client.side_requests[-1]
        here.client.finish(again, "", FinishReason.FAILED, error="The context is too small for this.")
        await here.until(lambda: "too small" in read(here), "says why")
        await here.pilot.press("d", "d")
        await here.until(lambda: not tasks.runs, "all are gone")


async def test_a_task_is_chosen_by_its_letters_and_asks_for_what_it_needs(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.app.conversations.shown.path, "the chat is read")
        await here.pilot.press("f8", "n")
        await until_screen(here, Chooser)
        await here.pilot.press(*"trans", "enter")
        await until_screen(here, AskLine)
        await here.pilot.press(*"Dutch", "enter")
        await here.until(lambda: here.client.side_requests, "asked")
        assert "Dutch" in here.client.side_requests[0].messages[-1].content
        await until_screen(here, AnswerPanel)


async def test_files_that_are_wrong_are_told_with_their_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.toml").write_text('prompt = "x"\ncolor = "red"')
    (folder / "title.toml").write_text('when = "never"')
    async with station(tmp_path, chats=1, size=(80, 24), tasks_dir=folder) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.app.conversations.shown.path, "the chat is read")
        await here.send("/task one")
        await here.until(lambda: 'one.toml: unknown key "color"' in here.error, here.error)
        await here.send("/title")
        await here.until(lambda: "title is switched off in" in here.error, here.error)
        await here.pilot.press("f8")
        await until_screen(here, TasksScreen)
        told = str(here.app.screen.query_one("#tasks-problems").render())
        assert "one.toml: unknown key" in told
        assert "two.toml: unknown key" in told


async def test_a_key_on_a_message_explains_that_message(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("alt+2")
        await here.until(lambda: here.app.conversations.shown.path, "the chat is read")
        await here.pilot.press("tab", "left_square_bracket", "w")
        await here.until(lambda: here.client.side_requests, "asked")
        assert here.app.conversations.tasks.runs[0].asked == "question 1"


async def test_a_click_in_the_sidebar_opens_that_task(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1, size=(120, 48)) as here:
        await ask(here, "/summary")
        await here.pilot.press("escape")
        await ask(here, "/explain")
        await here.pilot.press("escape")
        await until_screen(here, Workstation)
        lines = here.screen.query_one("#task-lines")
        await here.until(lambda: lines.size.height == 4, "heading and two runs")
        await here.pilot.click(lines, offset=(5, 3))
        await until_screen(here, TasksScreen)
        await here.until(lambda: "summary" in str(here.app.screen.query_one("#task-heading").render()))
