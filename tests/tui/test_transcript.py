"""The chat view: streaming, following, scrolling, selection, hostile text."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from textual.geometry import Offset
from textual.selection import SELECT_ALL, Selection

from samovar.tui.theme import load_themes, palette_of
from samovar.tui.widgets.transcript import Entry
from samovar.tui.widgets.transcript.layout import Layout
from samovar.tui.widgets.transcript.page import Page
from samovar.tui.widgets.transcript.selecting import key_of
from tests.tui.transcript_app import REPLY, Chat, bare, conversation, shown, until

PALETTE = palette_of(load_themes()[0]["samovar"])


def all_lines(layout: Layout) -> list[str]:
    return [line.strip.text for index in range(len(layout.entries)) for line in layout.lines_of_item(index)]


def all_strips(layout: Layout) -> list[object]:
    return [list(line.strip) for index in range(len(layout.entries)) for line in layout.lines_of_item(index)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 40), max_size=60), st.sampled_from([24, 60, 130]))
def test_a_streamed_reply_ends_like_a_loaded_one(steps: list[int], width: int) -> None:
    page = Page(PALETTE, width)
    streamed = Layout(page, [Entry("1", "assistant", "", (), "streaming")])
    streamed.settle_end(10)
    pos = 0
    for step in steps:
        pos += step
        streamed.grow(0, REPLY[:pos])
    # While it grows it shows what a loaded text of that length would, but for the cursor.
    loaded = Layout(page, [Entry("1", "assistant", REPLY[:pos])])
    if steps and REPLY[:pos].strip():

        def without_cursor(layout: Layout) -> list[str]:
            return [line.replace("▌", " ").rstrip() for line in all_lines(layout)]

        assert without_cursor(streamed) == without_cursor(loaded)
    final = Entry("1", "assistant", REPLY, (("14:02", "faint"),))
    streamed.replace(0, final)
    loaded = Layout(page, [final])
    assert all_strips(streamed) == all_strips(loaded)
    assert streamed.height == loaded.height == len(all_lines(loaded))


@pytest.mark.parametrize("width", [10, 24, 41, 80, 200])
@pytest.mark.parametrize(
    "text",
    [
        REPLY,
        "日本語" * 50,
        "👩\u200d👩\u200d👧" * 40,
        "e\u0301" * 200,
        "x" * 500,
        "```\n" + "日本" * 90 + "\n```",
        "|" + "h|" * 30 + "\n|" + "-|" * 30 + "\n|" + "cell|" * 30,
        ">" * 60 + " deep",
        "- " * 30 + "deep",
        "שלום " * 40,
    ],
)
def test_every_line_is_as_wide_as_the_page(text: str, width: int) -> None:
    page = Page(PALETTE, width)
    layout = Layout(page, [Entry("1", "assistant", text, (("a very long meta text " * 9, "faint"),))])
    for line in layout.lines_of_item(0):
        assert line.strip.cell_length == sum(segment.cell_length for segment in line.strip)
        assert line.strip.adjust_cell_length(width).cell_length == width
        if width > 40:
            assert line.strip.cell_length == width


@pytest.mark.asyncio
async def test_streaming_through_the_widget() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chat.load(conversation(6))
        app.chat.begin_stream(Entry("x", "assistant", "", (("streaming", "faint"),), "streaming"))
        for start in range(0, len(REPLY), 7):
            app.chat.stream(REPLY[start : start + 7])
        app.chat.stream("the end\r")
        app.chat.stream("\n")
        await until(pilot, lambda: any("the end" in line for line in shown(app.chat)))
        assert any("▌" in bare(line) for line in shown(app.chat))
        final = Entry("x", "assistant", REPLY + "the end", (("14:02", "faint"),))
        app.chat.end_stream(final)
        await pilot.pause()
        streamed = shown(app.chat)
        app.chat.load([*conversation(6), final])
        await pilot.pause()
        assert shown(app.chat) == streamed
        assert not any("▌" in bare(line) for line in streamed)


@pytest.mark.asyncio
async def test_following_stops_when_the_user_scrolls_up() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chat.load(conversation(20))
        app.chat.focus()
        await pilot.pause()
        assert app.chat.following
        assert app.chat.scroll_offset.y == app.chat.max_scroll_y
        await pilot.press("up", "up", "up")
        assert not app.chat.following
        before = shown(app.chat)
        app.chat.begin_stream(Entry("x", "assistant", "", (), "streaming"))
        app.chat.stream("word " * 200)
        await until(pilot, lambda: app.chat.max_scroll_y > app.chat.scroll_offset.y + 10)
        assert shown(app.chat) == before
        assert not app.chat.following
        await pilot.press("end")
        assert app.chat.following
        app.chat.stream("more " * 200 + "last")
        await until(pilot, lambda: any("last" in line for line in shown(app.chat)))
        assert app.chat.scroll_offset.y == app.chat.max_scroll_y


@pytest.mark.asyncio
async def test_resize_keeps_the_top_line() -> None:
    app = Chat()
    async with app.run_test(size=(100, 30)) as pilot:
        app.chat.load([Entry(str(n), "user", f"message {n} " + "word " * 40) for n in range(200)])
        await pilot.pause()
        app.chat.focus()
        await pilot.press("pageup", "pageup", "pageup", "left_square_bracket")
        await pilot.pause()
        top = next(line for line in shown(app.chat) if "message" in line).split("word")[0].strip("▌ ")
        for size in ((60, 20), (140, 40), (100, 30)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            now = next(line for line in shown(app.chat) if "message" in line).split("word")[0].strip("▌ ")
            assert now == top
            assert not app.chat.following
        app.chat.following = True
        await pilot.resize_terminal(50, 20)
        await pilot.pause()
        assert app.chat.scroll_offset.y == app.chat.max_scroll_y


@pytest.mark.asyncio
async def test_measuring_in_the_background_moves_nothing() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chat.load(conversation(150))
        app.chat.focus()
        await pilot.press("pageup", "up")
        before = shown(app.chat)
        layout = app.chat._layout_of_chat
        assert layout is not None
        await until(pilot, lambda: all(layout.is_exact(n) for n in range(150)))
        await until(pilot, lambda: app.chat.virtual_size.height == layout.height)
        assert shown(app.chat) == before
        await pilot.press("home")
        assert "you" in shown(app.chat)[1]
        assert "question 0?" in shown(app.chat)[2]


@pytest.mark.asyncio
async def test_scrolling_up_shows_every_line_once() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chat.load(conversation(60))
        app.chat.focus()
        await pilot.pause()
        for _ in range(150):
            before = [bare(line) for line in shown(app.chat)]
            if app.chat.scroll_offset.y == 0:
                break
            await pilot.press("up")
            assert [bare(line) for line in shown(app.chat)][1:] == before[:-1]


@pytest.mark.asyncio
async def test_ten_thousand_messages_open_at_the_end() -> None:
    app = Chat()
    entries = conversation(10_000)
    async with app.run_test(size=(120, 40)) as pilot:
        started = time.perf_counter()
        app.chat.load(entries)
        await pilot.pause()
        elapsed = time.perf_counter() - started
        assert any("done" in line for line in shown(app.chat))
        assert elapsed < 1.5, "the goal is 0.3 s; the rest is for a busy machine"


@pytest.mark.asyncio
async def test_selection_is_the_rendered_text() -> None:
    app = Chat()
    async with app.run_test(size=(60, 60)) as pilot:
        app.chat.load([Entry("1", "user", "one two three " * 8), Entry("2", "assistant", REPLY)])
        await pilot.pause()
        found = app.chat.get_selection(SELECT_ALL)
        assert found is not None
        assert ("one two three " * 8).strip() in found[0]
        assert "def f(x: int) -> int:\n    return x  # same\n" in found[0]
        lines = shown(app.chat)
        row = next(y for y, line in enumerate(lines) if "def f(x" in line)
        column = lines[row].index("def f")
        await pilot.mouse_down(app.chat, offset=(column, row))
        await pilot.hover(app.chat, offset=(column + 30, row + 1))
        await pilot.mouse_up(app.chat, offset=(column + 30, row + 1))
        await pilot.pause()
        assert app.screen.get_selected_text() == "def f(x: int) -> int:\n    return x  # same"
        layout = app.chat._layout_of_chat
        assert layout is not None
        wide = next(y for y, line in enumerate(lines) if "日本語" in line)
        key = key_of(layout, wide + app.chat.scroll_offset.y)
        start = layout.line(wide + app.chat.scroll_offset.y)
        assert start is not None
        column = start.strip.text.index("日")
        chosen = app.chat.get_selection(Selection(Offset(column, key), Offset(column + 2, key)))
        assert chosen == ("日本", "\n")


@pytest.mark.asyncio
async def test_keys_copy_and_jump() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chat.load(
            [
                Entry("1", "user", "```sh\nls\n```"),
                Entry("2", "assistant", REPLY),
                Entry("3", "assistant", "1. x\n   ```c\n   int a;\n   ```\n"),
                Entry("4", "user", "bye"),
            ]
        )
        app.chat.focus()
        await pilot.press("c", "y", "left_square_bracket", "y")
        reply = "1. x\n   ```c\n   int a;\n   ```\n"
        assert app.copied == [("int a;", "c code"), ("bye", "message"), (reply, "reply")]
        await pilot.press("home", "c")
        assert app.copied[-1][1] == "python code" or app.copied[-1] == ("ls", "sh code")
        await pilot.press("right_square_bracket")
        assert app.chat.current == "2"
        await pilot.press("left_square_bracket")
        assert "you" in "".join(shown(app.chat)[:2])
        row = next(y for y, line in enumerate(shown(app.chat)) if "sh · c copies" in line)
        await pilot.click(app.chat, offset=(4, row))
        assert app.copied[-1] == ("ls", "sh code")


@pytest.mark.asyncio
async def test_hostile_text_is_harmless() -> None:
    app = Chat()
    dirty = "\x1b]52;c;aGFjaw==\x07 \x1b[31m[bold]no markup[/bold] \u202eevil &#x202e; &#27; <b>x</b> \x9b2J"
    async with app.run_test(size=(100, 30)) as pilot:
        app.chat.load(
            [
                Entry("1", "user", dirty, ((dirty, "faint"),)),
                Entry("2", "assistant", f"{dirty}\n```{dirty}\n{dirty}"),
            ]
        )
        app.chat.begin_stream(Entry("3", "assistant", ""))
        app.chat.stream(dirty)
        app.chat.set_live_note(dirty)
        await until(pilot, lambda: "".join(shown(app.chat)).count("evil") >= 4)
        text = "".join(shown(app.chat))
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert "[bold]no markup[/bold]" in text
        assert "<b>x</b>" in text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "text",
    ["x" * 1_000_000, "```python\n" + "print('hello')  # line\n" * 50_000, "*[" * 50_000],
    ids=["one line", "code", "openings"],
)
async def test_huge_text_does_not_freeze(text: str) -> None:
    app = Chat()
    async with app.run_test(size=(100, 30)) as pilot:
        started = time.perf_counter()
        app.chat.load([Entry("1", "assistant", text)])
        app.chat.focus()
        await pilot.press("pageup", "home", "end")
        app.chat.begin_stream(Entry("2", "assistant", ""))
        app.chat.stream("end")
        await until(pilot, lambda: "end" in shown(app.chat)[-1])
        assert time.perf_counter() - started < 5


@pytest.mark.asyncio
async def test_themes_notes_and_meta() -> None:
    app = Chat()
    async with app.run_test(size=(100, 30)) as pilot:
        app.set_focus(None)
        app.chat.load(
            [Entry("1", "user", "hi", (("14:02", "faint"),)), Entry("2", "assistant", "yes", (), "failed")]
        )
        app.chat.set_live_note("reading 1,204 of 3,912 tokens")
        await pilot.pause()
        assert "reading 1,204 of 3,912 tokens" in shown(app.chat)[6]
        assert bare(shown(app.chat)[4]).strip() == "samovar  failed"
        app.chat.set_live_note(None)
        app.chat.update_meta("1", (("14:03", "faint"),))
        await pilot.pause()
        assert shown(app.chat)[1].strip() == "you  14:03"
        assert not any("reading" in line for line in shown(app.chat))
        dark = list(app.chat.render_line(1))[1].style
        app.theme = "samovar-light"
        await until(pilot, lambda: list(app.chat.render_line(1))[1].style != dark)
        app.theme = "ansi"
        await pilot.pause()
        assert shown(app.chat)[1].strip() == "you  14:03"
