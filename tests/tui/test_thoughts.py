"""Replies that think aloud, in the transcript: folded, opened, streamed, copied and found."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.pilot import Pilot

from samovar.core.events import RequestStarted
from samovar.sessions.store import MessageState
from samovar.tui.theme import load_themes, palette_of
from samovar.tui.widgets.transcript import Entry, Transcript
from samovar.tui.widgets.transcript.layout import Layout
from samovar.tui.widgets.transcript.page import Page
from samovar.tui.widgets.transcript.thoughts import THOUGHT
from tests.tui.fake_client import STATS
from tests.tui.support import station
from tests.tui.transcript_app import Chat, bare, shown, until

THINKING = "first way\n\n```python\nx = 1\n```\n\nsecond way\nthat is longer"
REPLY = f"<think>\n{THINKING}\n</think>\n\nThe **answer**.\n\n- one\n- two"
PALETTE = palette_of(load_themes()[0]["samovar"])
LINE = "thought for 4.2 s · 312 tokens"


def talk() -> list[Entry]:
    return [
        Entry("0", "user", "why?"),
        Entry("1", "assistant", REPLY, thought=LINE),
        Entry("2", "user", "and?"),
        Entry("3", "assistant", "plain"),
    ]


def lines_of(chat: Transcript) -> list[str]:
    return [bare(line).strip() for line in shown(chat) if bare(line).strip()]


async def focused(pilot: Pilot[None], entries: list[Entry], current: str = "1") -> Transcript:
    chat = pilot.app.query_one(Transcript)
    chat.load(entries)
    chat.focus()
    chat.select(current, highlight=False)
    await pilot.pause()
    return chat


async def test_thinking_is_one_line_until_it_is_opened_by_key() -> None:
    app = Chat()
    async with app.run_test(size=(80, 40)) as pilot:
        chat = await focused(pilot, talk())
        assert f"▸ {LINE}" in lines_of(chat)
        assert not any("first way" in line or "<think>" in line for line in shown(chat))
        assert any("o thinking" in line for line in shown(chat))
        await pilot.press("o")
        assert f"▾ {LINE}" in lines_of(chat)
        assert "│ first way" in lines_of(chat)
        assert any("x = 1" in line for line in shown(chat))
        assert not any("</think>" in line for line in shown(chat))
        await pilot.press("o")
        assert not any("first way" in line for line in shown(chat))
        chat.select("3", highlight=False)
        await pilot.press("o")
        assert not any("first way" in line for line in shown(chat))


async def test_a_click_on_its_line_opens_and_folds_the_thinking() -> None:
    app = Chat()
    async with app.run_test(size=(80, 40)) as pilot:
        chat = await focused(pilot, talk())
        for is_open in (True, False):
            row = next(y for y, line in enumerate(shown(chat)) if LINE in line)
            await pilot.click(Transcript, offset=(6, row))
            assert any("first way" in line for line in shown(chat)) is is_open


async def test_copying_takes_the_answer_alone() -> None:
    app = Chat()
    async with app.run_test(size=(80, 40)) as pilot:
        await focused(pilot, talk())
        await pilot.press("y")
        await until(pilot, lambda: bool(app.copied))
        assert app.copied == [("The **answer**.\n\n- one\n- two", "reply")]


async def test_while_it_thinks_the_last_line_of_the_thought_is_shown() -> None:
    app = Chat()
    async with app.run_test(size=(80, 40)) as pilot:
        chat = await focused(pilot, [Entry("0", "user", "why?")], "0")
        chat.begin_stream(Entry("1", "assistant", "", state="streaming"))
        chat.update_thought("1", "thinking … 4 s · 120 tokens", thinks=False)
        chat.stream("<think>\nfirst way\nsecond")
        await until(pilot, lambda: any("second" in line for line in shown(chat)))
        assert "▸ thinking … 4 s · 120 tokens" in lines_of(chat)
        assert not any("first way" in line for line in shown(chat))
        await pilot.press("o")
        assert "│ first way" in lines_of(chat)
        chat.stream(" try")
        await until(pilot, lambda: any("second try" in line for line in shown(chat)))
        await pilot.press("o")
        chat.update_thought("1", LINE, thinks=False)
        chat.stream("\n</think>\n\nThe answer")
        await until(pilot, lambda: any("The answer" in line for line in shown(chat)))
        assert f"▸ {LINE}" in lines_of(chat)
        assert not any("second" in line for line in shown(chat))
        chat.end_stream(Entry("1", "assistant", "<think>\nfirst way\n</think>\n\nThe answer", thought=LINE))
        await pilot.pause()
        assert f"▸ {LINE}" in lines_of(chat)


async def test_a_reply_whose_prompt_opened_the_thinking_is_folded_too() -> None:
    app = Chat()
    async with app.run_test(size=(80, 40)) as pilot:
        chat = await focused(pilot, [Entry("0", "assistant", "way\n</think>\n\nanswer", thinks=True)], "0")
        assert lines_of(chat)[1:] == ["▸ thought", "answer"]


@pytest.mark.parametrize("text", ["<think>\n\n</think>\n\nanswer", "answer with <think>no</think> thought"])
async def test_no_line_stands_for_no_thought(text: str) -> None:
    app = Chat()
    async with app.run_test(size=(80, 40)) as pilot:
        chat = await focused(pilot, [Entry("0", "assistant", text)], "0")
        assert not any("▸" in line or "o thinking" in line for line in shown(chat))


@pytest.mark.parametrize(("words", "is_open"), [(["Second"], True), (["answer"], False), ([], False)])
async def test_what_is_found_in_the_thinking_opens_it(words: list[str], is_open: bool) -> None:
    app = Chat()
    async with app.run_test(size=(80, 40)) as pilot:
        chat = await focused(pilot, talk())
        chat.open_thought("1", words)
        await pilot.pause()
        assert any("second way" in line for line in shown(chat)) is is_open


async def test_figures_of_the_thinking_come_with_the_reply(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("why?")
        await here.until_asked(1)
        (request,) = here.client.requests
        here.client.push(RequestStarted(request.id, request.session, STATS, thinks=True))
        here.client.say(request, "one ", "two ")
        await here.until(lambda: here.entries[-1].thought, "figures")
        assert here.entries[-1].thought == "thinking … 0 s · 2 tokens"
        assert here.entries[-1].thinks
        here.client.say(request, "</think>", "answer")
        stats = msgspec.structs.replace(STATS, thinking_tokens=3, thinking_ms=4200.0)
        here.client.finish(request, "one two </think>answer", stats=stats)
        await here.until(lambda: here.entries[-1].state == "complete", "the end")
        assert here.entries[-1].thought == "thought for 4.2 s · 3 tokens"
        await here.until_stored(request.session, MessageState.COMPLETE, "one two </think>answer")


def looks(
    text: str, size: tuple[int, int], snap_compare: Callable[..., bool], *keys: str, state: str = "complete"
) -> bool:
    """A chat with a reply that thinks, as a picture."""
    app = Chat()

    async def before(pilot: Pilot[None]) -> None:
        entries = [
            Entry("0", "user", "Which box do I open to know all three?", (("14:02", "faint"),)),
            Entry("1", "assistant", text, (("14:02 · 412 tokens", "faint"),), state, thought=LINE),
        ]
        chat = await focused(pilot, entries[:1] if state == "streaming" else entries, "0")
        if state == "streaming":
            chat.begin_stream(msgspec.structs.replace(entries[1], text=""))
            chat.update_thought("1", "thinking … 4 s · 120 tokens", thinks=False)
            chat.stream(text)
            await until(pilot, lambda: any("▌" in line[1:] for line in shown(chat)))
        await pilot.press("]", *keys)

    return snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize("size", [(80, 24), (40, 20)], ids=["80", "40"])
def test_folded(size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    assert looks(REPLY, size, snap_compare)


def test_opened(snap_compare: Callable[..., bool]) -> None:
    assert looks(REPLY, (80, 24), snap_compare, "o")


def test_thinking(snap_compare: Callable[..., bool]) -> None:
    text = (
        "<think>\nAll labels are wrong.\n\nSo the box labelled both is not the mixed one: it holds only black"
    )
    assert looks(text, (80, 24), snap_compare, state="streaming")


_pieces = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "\n", "\n\n", "way ", "```\n", "- item\n", "| a |\n|---|\n", "end"]
    ),
    max_size=20,
)


@settings(max_examples=60)
@given(_pieces, st.booleans(), st.lists(st.booleans(), min_size=20, max_size=20))
def test_a_grown_reply_looks_like_one_shown_at_once(
    pieces: list[str], thinks: bool, folds: list[bool]
) -> None:
    entry = Entry("0", "assistant", "", thinks=thinks, thought="thought")
    grown = Layout(Page(PALETTE, 60), [entry])
    is_open, text = False, ""
    for piece, turn in zip(pieces, folds, strict=False):
        text += piece
        grown.grow(0, text)
        if turn:
            is_open = not is_open
            grown.fold(0, THOUGHT, is_open=is_open)
    final = Entry("0", "assistant", text, thinks=thinks, thought="thought")
    grown.replace(0, final)
    at_once = Layout(Page(PALETTE, 60), [final])
    if is_open:
        at_once.fold(0, THOUGHT, is_open=True)
    assert [line.text for line in grown.lines_of_item(0)] == [line.text for line in at_once.lines_of_item(0)]
