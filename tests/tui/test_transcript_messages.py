"""The transcript as the place where messages are worked on: the current one, its keys, versions and files."""

import pytest
from textual.pilot import Pilot
from textual.selection import SELECT_ALL

from samovar.tui.widgets.transcript import LEFT_OUT, SUMMARY, AttachmentLine, Entry, Transcript
from tests.tui.transcript_app import REPLY, Chat, bare, conversation, shown, until

LONG = "a line of a long message\n" * 60


def talk(num_entries: int, text: str = "one line") -> list[Entry]:
    """Messages of one line each; a note under every fourth."""
    entries = list[Entry]()
    for number in range(num_entries):
        role = "assistant" if number % 2 else "user"
        entries.append(Entry(str(number), role, f"{text} {number}", (("14:02", "faint"),)))
        if number % 4 == 3:
            entries.append(Entry(f"{number} note", "note", "the reply failed", state="failed"))
    return entries


def marked(chat: Transcript) -> list[str]:
    """The shown lines that have the bar."""
    return [bare(line).strip() for line in shown(chat) if line.startswith("▌")]


def row_of(chat: Transcript, text: str) -> int:
    return next(y for y, line in enumerate(shown(chat)) if text in line)


def column_of(chat: Transcript, text: str) -> tuple[int, int]:
    row = row_of(chat, text)
    return shown(chat)[row].index(text), row


async def in_focus(pilot: Pilot[None], entries: list[Entry]) -> Transcript:
    chat = pilot.app.query_one(Transcript)
    chat.load(entries)
    chat.focus()
    await pilot.pause()
    return chat


# The current message


async def test_without_the_focus_no_message_is_the_current_one() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        app.set_focus(None)
        await pilot.pause()
        app.chat.load(talk(4))
        await pilot.pause()
        assert app.chat.current is None
        assert marked(app.chat) == []
        app.chat.focus()
        await pilot.pause()
        assert app.chat.current == "3"
        assert marked(app.chat) == ["samovar  14:02", "one line 3"]
        app.set_focus(None)
        await pilot.pause()
        assert marked(app.chat) == []
        assert not any("e edit" in line for line in shown(app.chat))


async def test_brackets_go_from_message_to_message_and_past_notes() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, talk(40))
        seen = []
        for _ in range(45):
            seen.append(chat.current)
            assert marked(chat)[1] == f"one line {chat.current}"
            await pilot.press("left_square_bracket")
        assert seen == [str(n) for n in range(39, -1, -1)] + ["0"] * 5
        assert chat.scroll_offset.y == 0
        for _ in range(45):
            await pilot.press("right_square_bracket")
        assert chat.current == "39"
        assert chat.following


async def test_back_from_within_a_long_message_is_its_beginning() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, [*talk(2), Entry("long", "user", LONG)])
        assert chat.current == "long"
        assert "you" not in "".join(shown(chat))
        await pilot.press("left_square_bracket")
        assert (chat.current, bare(shown(chat)[0]).strip()) == ("long", "you")
        await pilot.press("left_square_bracket")
        assert chat.current == "1"
        await pilot.press("right_square_bracket")
        assert (chat.current, bare(shown(chat)[0]).strip()) == ("long", "you")


async def test_home_and_end_go_to_the_first_and_the_last_message() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, talk(40))
        await pilot.press("home")
        assert (chat.current, chat.scroll_offset.y, chat.following) == ("0", 0, False)
        await pilot.press("end")
        assert (chat.current, chat.scroll_offset.y, chat.following) == ("39", chat.max_scroll_y, True)


async def test_the_current_message_follows_what_is_in_view() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, talk(100))
        await pilot.press("up")
        assert chat.current == "99"
        for key in ("pageup", "pageup", "pageup", "pagedown", "up", "up", "down"):
            await pilot.press(key)
            assert marked(chat)
        await pilot.press("pageup")
        assert bare(shown(chat)[row_of(chat, "▌") + 1]).strip() == f"one line {chat.current}"
        above = int(chat.current or -1)
        chat.scroll_to(y=0)
        await pilot.pause()
        assert int(chat.current or -1) < above
        # It left at the bottom, so it is the last of those in view.
        assert row_of(chat, f"one line {chat.current}") >= 20


async def test_a_click_makes_a_message_the_current_one() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        app.set_focus(None)
        await pilot.pause()
        app.chat.load(talk(5))
        await pilot.pause()
        await pilot.click(app.chat, offset=(6, row_of(app.chat, "one line 1")))
        assert app.chat.current == "1"
        assert app.focused is app.chat
        await pilot.click(app.chat, offset=(6, row_of(app.chat, "the reply failed")))
        assert app.chat.current == "3"


async def test_the_current_message_goes_along_with_the_end() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, talk(3))
        chat.append(Entry("new", "user", "new question"))
        assert chat.current == "new"
        chat.begin_stream(Entry("live", "assistant", "", (), "streaming"))
        assert chat.current == "live"
        chat.end_stream(Entry("stored", "assistant", "done"))
        assert chat.current == "stored"
        await pilot.press("left_square_bracket")
        chat.append(Entry("newer", "user", "newer question"))
        assert chat.current == "new"
        app.set_focus(None)
        await pilot.pause()
        assert chat.current == "new"


async def test_its_heading_shows_what_keys_do_where_there_is_room() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        costs = (("14:02 · 212 tokens · 76 tok/s · 3,888 reused, 24 processed", "faint"),)
        entries = [
            Entry("1", "user", "question"),
            Entry("2", "assistant", "cut", (("14:02", "faint"),), "cut"),
            Entry("3", "assistant", "answer", costs),
        ]
        chat = await in_focus(pilot, entries)
        assert marked(chat)[0].startswith("samovar  14:02")
        assert "fork" not in shown(chat)[row_of(chat, "3,888")]
        await pilot.press("left_square_bracket")
        heading = shown(chat)[row_of(chat, "cut · 14:02")]
        assert heading.endswith("g go on · e edit · r again · f fork · d delete")
        assert len(heading) == 78
        await pilot.press("left_square_bracket")
        assert [line for line in shown(chat) if "fork" in line] == [
            "▌ you" + "e edit · r again · f fork · d delete".rjust(73)
        ]
        found = chat.get_selection(SELECT_ALL)
        assert found is not None
        assert "e edit" not in found[0]


# What is wanted


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("e", ("edit", "2")),
        ("r", ("again", "2")),
        ("f", ("fork", "2")),
        ("d", ("delete", "2")),
        ("g", ("continue", "2")),
        ("u", ("undo",)),
    ],
)
async def test_keys_post_what_is_wanted_with_the_current_message(key: str, wanted: tuple[str, ...]) -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await in_focus(pilot, talk(6))
        await pilot.press(*["left_square_bracket"] * 3, key)
        assert app.wanted == [wanted]


async def test_an_empty_chat_has_nothing_to_work_on_but_a_delete_to_undo() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, [])
        await pilot.press(*"erfdgoyc", "left", "right", "left_square_bracket", "home", "end", "u")
        assert app.wanted == [("undo",)]
        assert (chat.current, app.copied) == (None, [])


async def test_copying_takes_the_current_message_as_it_was_written() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, [Entry("1", "user", "*question*"), Entry("2", "assistant", REPLY)])
        app.set_focus(None)
        await pilot.pause()
        chat.load([*chat.entries, Entry("3", "user", "bye")])
        await pilot.pause()
        chat.action_copy()
        chat.focus()
        await pilot.pause()
        await pilot.press("y", "home", "y")
        assert app.copied == [(REPLY, "reply"), ("bye", "message"), ("*question*", "message")]


async def test_what_has_arrived_of_a_reply_can_be_copied() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, talk(2))
        chat.begin_stream(Entry("live", "assistant", "", (), "streaming"))
        chat.stream("half of ")
        await until(pilot, lambda: any("half of" in line for line in shown(chat)))
        await pilot.press("y")
        assert app.copied == [("half of ", "reply")]


# Versions


def versions(place: int, num_siblings: int) -> list[Entry]:
    return [
        Entry("1", "user", "question"),
        Entry(f"2.{place}", "assistant", f"answer {place}", place=place, num_siblings=num_siblings),
        Entry("3", "user", "and"),
    ]


async def test_arrows_go_through_the_versions_as_far_as_there_are_any() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, versions(1, 3))
        await pilot.press("left", "left_square_bracket", "left", "right")
        assert app.wanted == [("sibling", "2.1", "-1"), ("sibling", "2.1", "1")]
        assert "samovar  ‹ 2/3 ›" in shown(chat)[4]
        chat.load(versions(2, 3), stay=True)
        app.wanted.clear()
        await pilot.press("right", "left")
        assert app.wanted == [("sibling", "2.2", "-1")]
        assert not any("1/1" in line for line in shown(chat))


async def test_a_click_on_an_arrow_wants_that_version() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, versions(1, 3))
        for arrow in "‹›":
            await pilot.click(chat, offset=column_of(chat, arrow))
        await pilot.click(chat, offset=column_of(chat, "samovar"))
        assert app.wanted == [("sibling", "2.1", "-1"), ("sibling", "2.1", "1")]
        assert chat.current == "2.1"


async def test_another_version_takes_the_place_of_the_one_before() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        entries = [*talk(60), *versions(0, 2), *talk(60, "after")]
        chat = await in_focus(pilot, entries)
        assert chat.select("2.0", highlight=False)
        before = row_of(chat, "answer 0")
        other = [*talk(60), *versions(1, 2)]
        chat.load(other, stay=True)
        await pilot.pause()
        assert (chat.current, chat.entries) == ("2.1", other)
        assert row_of(chat, "answer 1") >= before
        chat.load(entries, stay=True)
        await pilot.pause()
        assert chat.current == "2.0"


async def test_a_change_elsewhere_moves_nothing() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, conversation(60))
        await pilot.press("pageup", "pageup", "left_square_bracket")
        before, current = shown(chat), chat.current
        chat.load([*conversation(60), Entry("more", "user", "from another window")], stay=True)
        await pilot.pause()
        assert (shown(chat), chat.current) == (before, current)


# Files


FILE = AttachmentLine(
    "notes.md", 1234, 5000, False, "# first\n" + "".join(f"line {n}\n" for n in range(1433))
)


async def test_files_are_one_line_until_they_are_unfolded() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        files = (FILE, AttachmentLine("data.csv", None, 12_288, True, "a,b\n1,2\n"))
        chat = await in_focus(pilot, [Entry("1", "user", "read this", attachments=files), *talk(2)])
        await pilot.press("home")
        lines = [line[1:].strip() for line in shown(chat)]
        assert lines[2:5] == [
            "▸ notes.md · 1,234 tokens",
            "▸ data.csv · 12 KiB · already in the chat",
            "read this",
        ]
        await pilot.click(chat, offset=(5, 3))
        lines = [line[1:].strip() for line in shown(chat)]
        assert lines[2:8] == [
            "▸ notes.md · 1,234 tokens",
            "▾ data.csv · 12 KiB · already in the chat",
            "a,b",
            "1,2",
            "",
            "read this",
        ]
        await pilot.press("o")
        assert "▸ data.csv" in shown(chat)[3]
        await pilot.press("o")
        assert "▾ notes.md" in shown(chat)[2]
        chat.scroll_to(y=190)
        await pilot.pause()
        assert any("… 1,234 more lines" in line for line in shown(chat))
        assert any(line.strip(" ▌") == "line 198" for line in shown(chat))
        assert not any("line 199" in line for line in shown(chat))
        chat.load(chat.entries, stay=True)
        await pilot.pause()
        assert any("… 1,234 more lines" in line for line in shown(chat))
        chat.load(chat.entries)
        await pilot.pause()
        assert "▸ notes.md" in shown(chat)[2]


async def test_a_huge_file_in_one_line_is_shown_in_part() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        file = AttachmentLine("x" * 500, 1, 1_000_000, False, "y" * 1_000_000)
        chat = await in_focus(pilot, [Entry("1", "user", "read this", attachments=(file,))])
        await pilot.press("o", "home")
        assert shown(chat)[2].endswith("xxx… · 1 token")
        assert len(shown(chat)[2]) == 78
        await pilot.press("end")
        assert any("… 960,000 more characters" in line for line in shown(chat))


async def test_the_text_of_a_summary_comes_into_view_with_its_mark() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        text = AttachmentLine("what is sent of them", 9, 90, False, "one\ntwo\nlast of it")
        mark = Entry("summary 1", SUMMARY, "", attachments=(text,))
        chat = await in_focus(pilot, [*talk(12), mark, *talk(12, "later")])
        assert chat.select("summary 1")
        await pilot.pause()
        chat.scroll_to(y=chat.scroll_y - 24 + row_of(chat, "what is sent of them") + 1)
        await pilot.pause()
        assert row_of(chat, "what is sent of them") == 23
        await pilot.press("o")
        assert row_of(chat, "last of it") <= 23
        await pilot.press("o")
        assert not any("last of it" in line for line in shown(chat))


async def test_the_mark_of_what_is_no_longer_sent_is_no_message() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        told = (("the 2 messages above are no longer sent", "faint"),)
        first, second, third = talk(3)
        chat = await in_focus(pilot, [first, second, Entry(LEFT_OUT, LEFT_OUT, "", told), third])
        assert "left out  the 2 messages above are no longer sent" in shown(chat)[7]
        assert chat.current == "2"
        await pilot.press("left_square_bracket")
        assert chat.current == "1"


async def test_hostile_files_are_drawn_cleaned() -> None:
    app = Chat()
    dirty = "a\x1b]52;c;aGFjaw==\x07\x1b[31m\u202eb\x00\x9b2J\r\n[bold]c[/bold]\t\ud800\n"
    async with app.run_test(size=(80, 24)) as pilot:
        file = AttachmentLine(dirty, None, 10, False, dirty)
        chat = await in_focus(pilot, [Entry("1", "user", dirty, attachments=(file,))])
        await pilot.press("o", "y")
        await until(pilot, lambda: len(app.copied) == 1)
        text = "\n".join(shown(chat))
        assert text.count("[bold]c[/bold]") == 3
        assert text.count("␛") == 6
        forbidden = {"\x1b", "\x07", "\x9b", "\x00", "\r", "\t", "\u202e", "\ud800"}
        assert not set(text) & forbidden
        assert not set(app.copied[0][0]) & (forbidden - {"\t"})
        assert all(len(line) <= 80 for line in shown(chat))


# Going to a message


@pytest.mark.parametrize("target", [0, 1, 5000, 9999])
async def test_a_message_of_a_long_chat_can_be_gone_to(target: int) -> None:
    app = Chat()
    async with app.run_test(size=(100, 30)) as pilot:
        app.set_focus(None)
        await pilot.pause()
        app.chat.load(conversation(10_000))
        await pilot.pause()
        assert app.chat.select(str(target))
        assert app.chat.current == str(target)
        assert app.chat.following is (target == 9999)
        expected = f"question {target}?" if target % 2 == 0 else "Some bold words, code and a link"
        assert marked(app.chat)[1].startswith(expected)
        lit = [segment.style for segment in app.chat.render_line(row_of(app.chat, marked(app.chat)[1]))]
        await until(pilot, lambda: not marked(app.chat))
        plain = [segment.style for segment in app.chat.render_line(row_of(app.chat, expected))]
        assert lit[-1] != plain[-1]
        assert app.chat.current == str(target)


async def test_a_message_can_be_gone_to_before_there_is_anything_to_see() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chat.display = False
        await pilot.pause()
        app.chat.load(talk(1000))
        assert app.chat.select("500")
        assert app.chat.current == "500"
        assert not app.chat.select("gone")
        app.chat.display = True
        await until(pilot, lambda: marked(app.chat) == ["you  14:02", "one line 500"])
        assert not app.chat.following
        app.chat.load(talk(1000))
        await pilot.pause()
        assert app.chat.following


async def test_a_note_stands_for_the_message_above_it() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, talk(100))
        assert chat.select("7 note")
        assert chat.current == "7"
        before = shown(chat)
        assert chat.select("7")
        assert shown(chat) == before


# Replies that grow and that go on


async def test_the_current_message_stays_in_view_while_a_reply_grows() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, talk(3))
        chat.begin_stream(Entry("live", "assistant", "", (), "streaming"))
        await pilot.press("left_square_bracket", "left_square_bracket")
        assert chat.current == "1"
        chat.stream("line\n\n" * 40)
        await until(pilot, lambda: chat.max_scroll_y > 20)
        assert chat.following
        assert (chat.current, len(marked(chat))) == ("live", 24)
        await pilot.resize_terminal(60, 10)
        await until(pilot, lambda: len(marked(chat)) == 10)


async def test_a_cut_reply_goes_on_where_it_stands() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        cut = Entry("2", "assistant", "one two", (), "cut")
        chat = await in_focus(
            pilot, [Entry("1", "user", "count"), cut, Entry("2 note", "note", "cut · g goes on")]
        )
        assert shown(chat)[4].startswith("▌ samovar  cut")
        await pilot.press("g")
        assert app.wanted == [("continue", "2")]
        chat.begin_stream(Entry("2", "assistant", "one two", (), "streaming"))
        chat.stream(" three")
        await until(pilot, lambda: any("one two three" in line for line in shown(chat)))
        assert [entry.id for entry in chat.entries] == ["1", "2"]
        chat.end_stream(Entry("2", "assistant", "one two three"))
        assert [entry.text for entry in chat.entries] == ["count", "one two three"]


async def test_a_message_can_change_while_another_one_grows() -> None:
    app = Chat()
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await in_focus(pilot, talk(2))
        chat.begin_stream(Entry("live", "assistant", "", (), "streaming"))
        chat.replace(Entry("0", "user", "another text"))
        chat.replace(Entry("gone", "user", "nowhere"))
        chat.replace(Entry("live", "assistant", "stored in part"))
        chat.stream("still growing")
        await until(pilot, lambda: any("still growing" in line for line in shown(chat)))
        assert [entry.text for entry in chat.entries] == ["another text", "one line 1", ""]
        assert not any("stored in part" in line for line in shown(chat))
