"""`samovar sessions …`: what is printed, where it goes, and what the exit code says."""

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from samovar import cli
from samovar.commands import chat_text
from samovar.commands.sessions import Sessions
from samovar.core import commands, events
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.sessions.lookup import ChatName, look_up, short_ids
from samovar.sessions.samples import sample_files
from samovar.sessions.search import Hit
from samovar.sessions.snippet import Part
from samovar.sessions.store import Store
from samovar.sessions.values import Session
from tests.unit.document_trees import chain, texts
from tests.unit.fake_host import Exchange

EVIL = "evil\x1b[2J\x1b]52;c;aGk=\x07 \u202etitle"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """The store of this home, open all the time, as a window's is."""
    with contextlib.closing(Store.open(home / "data" / "chats.db")) as opened:
        yield opened


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one action; gives exit code, standard output and standard error."""

    def run_action(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["sessions", *arguments])
        return code, *capsys.readouterr()

    return run_action


Run = Callable[..., tuple[int, str, str]]


def as_json(done: tuple[int, str, str]) -> dict[str, Any]:
    assert done[0] == 0, done[2]
    found = json.loads(done[1])
    assert isinstance(found, dict)
    return found


class Typed(io.StringIO):
    """Standard input at a terminal."""

    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch, typed: str = "", columns: int = 60) -> None:
    monkeypatch.setattr(sys, "stdin", Typed(typed))
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)


def three_chats(store: Store) -> list[str]:
    return store.exchange.take_in(
        [
            chain("q", "a", title="茶 about tea", updated_at=3e9, created_at=1.0, tags=("food",)),
            chain("q", title="Trip to Kyoto", updated_at=2e9, created_at=3.0, is_favourite=True),
            chain("q", "a", "b", title="about rust", updated_at=1e9, created_at=2.0, is_archived=True),
        ]
    )


# list


def test_a_new_home_has_no_chats(run: Run) -> None:
    code, out, err = run("list")
    assert (code, out) == (0, "")
    assert "no chats yet" in err
    assert as_json(run("list", "--json")) == {"chats": [], "num_more": 0}


def test_list_aligns_wide_characters_and_marks(run: Run, store: Store) -> None:
    ids = three_chats(store)
    code, out, err = run("list")
    assert code == 0
    head, tea, trip = out.splitlines()
    assert head.split() == ["id", "title", "messages", "updated"]
    assert tea.startswith(ids[0][:8])
    assert tea.endswith("#food")
    assert trip.endswith("★")
    ends = {cell_len(line[: line.index(count) + 1]) for line, count in ((tea, " 2 "), (trip, " 1 "))}
    assert len(ends) == 1, "the numbers stand below one another"
    assert "1 chat in the archive" in err


def test_list_json_filters_sorts_and_limits(run: Run, store: Store) -> None:
    tea, trip, rust = three_chats(store)

    def listed(*arguments: str) -> list[str]:
        return [chat["id"] for chat in as_json(run("list", "--json", *arguments))["chats"]]

    assert listed() == [tea, trip]
    assert listed("--archived") == [rust]
    assert listed("--tag", "#Food") == [tea]
    assert listed("--tag", "nothing") == []
    assert listed("--sort", "created") == [trip, tea]
    assert listed("--sort", "title") == [trip, tea]
    assert listed("--sort", "length") == [tea, trip]
    assert listed("--limit", "1") == [tea]
    (chat,) = as_json(run("list", "--json", "--limit", "1"))["chats"]
    assert chat == {
        "id": tea, "title": "茶 about tea", "messages": 2, "created_at": 1.0, "updated_at": 3e9,
        "tags": ["food"], "is_favourite": False, "is_archived": False,
    }  # fmt: skip
    assert as_json(run("list", "--json", "--limit", "1"))["num_more"] == 1


def test_lines_are_cut_to_the_terminal_and_whole_elsewhere(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = "茶" * 80 + EVIL
    store.exchange.take_in([chain(title=title, tags=("a" * 50, "b" * 50)), chain(title="Tea", tags=("c",))])
    _, out, _ = run("list")
    assert clean(title) in out
    assert "b" * 50 in out
    where = {cell_len(line.partition("#")[0]) for line in out.splitlines()[1:]}
    assert len(where) == 1, "the tags stand below one another"
    at_terminal(monkeypatch, columns=60)
    _, out, _ = run("list")
    assert max(cell_len(line) for line in out.splitlines()) <= 60
    assert "…" in out
    assert out == clean(out)


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, max_size=2), st.integers(40, 200))
def test_no_title_and_no_tag_breaks_the_table(titles: list[str], tags: list[str], width: int) -> None:
    sessions = [
        Session(f"{n}" * 32, title, "", 1.0, 1.0, None, n, tags=tuple(tags)) for n, title in enumerate(titles)
    ]
    ids = short_ids([session.id for session in sessions])
    lines = chat_text.table(sessions, ids, 2.0, width)
    assert len(lines) == len(titles) + 1
    for line in lines:
        assert cell_len(line) <= width
        assert line == clean(line)
        assert "\n" not in line


def test_ids_are_as_long_as_they_must_be() -> None:
    assert short_ids([]) == {}
    assert short_ids(["0123456789"]) == {"0123456789": "01234567"}
    assert short_ids(["0123456789", "0123456798", "abc"]) == {
        "0123456789": "012345678", "0123456798": "012345679", "abc": "abc"
    }  # fmt: skip


# Which chat is meant

NAMES = [
    ChatName("cafe0000000000000000000000000001", "Trip to Kyoto"),
    ChatName("cafe0000000000000000000000000002", "trip to Rome"),
    ChatName("beef0000000000000000000000000003", "Trip"),
    ChatName("beef0000000000000000000000000004", "Café in Paris"),
    ChatName("dada0000000000000000000000000005", "Cafeteria"),
    ChatName("dada0000000000000000000000000006", "two\nlines \x1b[31m"),
    ChatName("feed0000000000000000000000000007", ""),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("cafe0000000000000000000000000002", 2),
        ("feed", 7),
        ("Trip", 3),
        ("trip", 3),
        ("TRIP TO K", 1),
        ("trip to r", 2),
        ("café", 4),
        ("two lines", 6),
        ("two\nlines \x1b[31m", 6),
        ("fee", None),
        ("Kyoto", None),
        ("", None),
        (" ", None),
    ],
)
def test_a_chat_is_found_by_id_title_or_beginning(wanted: str, found: int | None) -> None:
    name = look_up(NAMES, wanted)
    assert (None if name is None else int(name.id[-1])) == found


@pytest.mark.parametrize(
    ("wanted", "numbers"), [("trip to", (1, 2)), ("beef0000", (3, 4)), ("cafe", (1, 2, 5))]
)
def test_what_may_be_several_is_told_with_their_ids(wanted: str, numbers: tuple[int, ...]) -> None:
    with pytest.raises(SamovarError) as refused:
        look_up(NAMES, wanted)
    said = str(refused.value)
    assert f"any of {len(numbers)} chats" in said
    for number in range(1, 8):
        assert (f"  {NAMES[number - 1].id}  " in said) is (number in numbers)


def test_an_equal_title_is_not_guessed(run: Run, store: Store) -> None:
    store.exchange.take_in([chain(title="Tea"), chain(title="Tea")])
    code, _, err = run("delete", "Tea", "--yes")
    assert code == 1
    assert "any of 2 chats" in err
    assert len(store.sessions()) == 2


@pytest.mark.parametrize("action", ["show", "export", "delete", "restore"])
def test_a_chat_that_is_not_there_is_one_sentence(run: Run, store: Store, action: str) -> None:
    code, out, err = run(action, EVIL)
    assert (code, out) == (1, "")
    assert err.startswith("samovar: There is no ")
    assert err.strip() == clean(err.strip())


# show


def test_show_prints_the_shown_path_as_it_is_stored(run: Run, store: Store) -> None:
    session = store.create_session("Teas", system_prompt="Be brief.")
    first = store.messages.add(session.id, Role.USER, "**Which** tea?\n\n- green\n- black")
    store.messages.add(session.id, Role.ASSISTANT, "left \x1b[31mout")
    store.messages.add(session.id, Role.ASSISTANT, "Green \x1b[31mtea.", parent_id=first.id)
    code, out, err = run("show", "teas")
    assert (code, err) == (0, "")
    assert out.startswith("# Teas\n")
    assert "2 messages, 1 more in other branches" in out
    assert "## System prompt\n\nBe brief.\n" in out
    assert "\n\n**Which** tea?\n\n- green\n- black\n\n## Samovar, " in out
    assert out.endswith("\n\nGreen \x1b[31mtea.\n"), "a pipe gets what is stored"
    assert "left" not in out


def test_a_terminal_gets_nothing_raw(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.exchange.take_in([chain(EVIL, EVIL, title=EVIL, system_prompt=EVIL, tags=(EVIL,))])
    at_terminal(monkeypatch)
    for arguments in (
        ["list"], ["show", "evil"], ["show", "evil", "--all-branches"], ["search", "evil"],
        ["export", "evil"], ["export", "evil", "--format", "json"], ["export", "evil", "--format", "toml"],
    ):  # fmt: skip
        _, out, err = run(*arguments)
        shown = (out + err).replace("\x1b[1m", "").replace("\x1b[22m", "")
        assert shown == clean(shown)
        assert "evil" in shown


def test_show_all_branches_is_an_outline(run: Run, store: Store) -> None:
    session = store.create_session("Teas")
    first = store.messages.add(session.id, Role.USER, "one\ntwo")
    for reply in ("a", "b"):
        told = store.messages.add(session.id, Role.ASSISTANT, reply, parent_id=first.id)
        store.messages.add(session.id, Role.USER, f"after {reply}", parent_id=told.id)
    _, out, _ = run("show", "teas", "--all-branches")
    assert out == (
        "# Teas\n\n● You: one two\n  ○ Samovar: a\n  ○ You: after a\n  ● Samovar: b\n  ● You: after b\n"
    )
    whole = as_json(run("show", "teas", "--json", "--all-branches"))
    assert [message["content"] for message in whole["messages"]] == [
        "one\ntwo",
        "a",
        "after a",
        "b",
        "after b",
    ]
    shown = as_json(run("show", "teas", "--json"))
    assert [message["content"] for message in shown["messages"]] == ["one\ntwo", "b", "after b"]
    assert (shown["id"], shown["title"], shown["head"]) == (session.id, "Teas", 5)


def test_an_empty_chat_can_be_shown(run: Run, store: Store) -> None:
    session = store.create_session()
    assert "untitled" in run("show", session.id)[1]
    assert as_json(run("show", session.id, "--json"))["messages"] == []
    assert run("show", session.id, "--all-branches")[0] == 0


# search


def test_search_finds_messages_and_says_where(run: Run, store: Store) -> None:
    (session_id,) = store.exchange.take_in([chain("Where is the samovar?", "In the kitchen.", title="Tea")])
    code, out, err = run("search", "kitchen")
    assert (code, err) == (0, "")
    head, snippet = out.splitlines()
    assert head.startswith(f"{session_id[:8]}  Tea, Samovar, ")
    assert snippet == "    In the kitchen."
    (hit,) = as_json(run("search", "kitchen", "role:assistant", "--json"))["hits"]
    assert hit["session_id"] == session_id
    assert [part for part in hit["snippet"] if part["is_match"]] == [{"text": "kitchen", "is_match": True}]
    assert run("search", "nowhere")[0] == 0
    assert "Nothing was found" in run("search", "nowhere")[2]
    assert run("search", "samovar", "--", "-kitchen")[1].count("\n") == 2
    assert "before: takes" in run("search", "kitchen", "before:whenever")[2]


def test_matches_are_bold_in_a_terminal_that_has_colours(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.exchange.take_in([chain("In the kitchen.")])
    assert "\x1b" not in run("search", "kitchen")[1]
    at_terminal(monkeypatch)
    assert "\x1b[1mkitchen\x1b[22m" in run("search", "kitchen")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("search", "kitchen")[1]


@given(st.lists(st.tuples(texts, st.booleans()), max_size=6), texts, st.integers(24, 120), st.booleans())
@example([("\U0001f3fb", False)], "", 24, False)
def test_hits_fold_to_the_width(parts: list[tuple[str, bool]], title: str, width: int, marked: bool) -> None:
    snippet = tuple(Part(text, is_match) for text, is_match in parts)
    hit = Hit("abc", title, 1, Role.USER, 1.0, "", snippet)
    _, *lines = chat_text.hit_lines(hit, "abc", 2.0, width, marked=marked)
    for line in lines:
        plain = line.replace("\x1b[1m", "").replace("\x1b[22m", "")
        assert plain == clean(plain)
        assert cell_len(plain) <= width
        assert line.count("\x1b[1m") == line.count("\x1b[22m")
    letters = "".join("".join(lines).replace("\x1b[1m", "").replace("\x1b[22m", "").split())
    assert letters == "".join("".join(clean(text) for text, _ in parts).split())


# export and import


@pytest.mark.parametrize("form", ["json", "toml", "md"])
def test_export_to_standard_output_is_the_file(run: Run, store: Store, tmp_path: Path, form: str) -> None:
    store.exchange.take_in([chain("q", "ä\x1b[0m 茶", title="Tea")])
    code, out, err = run("export", "tea", "--format", form)
    assert (code, err) == (0, "")
    assert run("export", "tea", "--format", form, "-o", "-")[1] == out
    code, told, _ = run("export", "tea", "-o", str(tmp_path / f"tea.{form}"))
    assert code == 0
    assert "“Tea” (2 messages, " in told
    assert (tmp_path / f"tea.{form}").read_text() == out


def test_export_of_several_chats_needs_a_place(run: Run, store: Store, tmp_path: Path) -> None:
    three_chats(store)
    code, out, err = run("export", "--all")
    assert (code, out) == (1, "")
    assert "folder" in err
    assert len(json.loads(run("export", "--all", "--format", "json")[1])["chats"]) == 3
    told = as_json(run("export", "--all", "-o", str(tmp_path / "out"), "--json"))
    assert len(told["files"]) == 3
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert run("export", "trip", "-o", f"{tmp_path}/one/")[0] == 0
    assert (tmp_path / "one" / "Trip to Kyoto.md").is_file()
    assert "3 chats" in run("export", "--all", "-o", str(tmp_path / "all.json"))[1]


@pytest.mark.parametrize("arguments", [[], ["--all", "trip"], ["trip", "--json"]])
def test_export_says_what_is_missing(run: Run, store: Store, arguments: list[str]) -> None:
    three_chats(store)
    code, out, err = run("export", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("samovar: ")


def test_export_does_not_overwrite(run: Run, store: Store, tmp_path: Path) -> None:
    three_chats(store)
    (tmp_path / "mine.md").write_text("mine")
    code, _, err = run("export", "trip", "-o", str(tmp_path / "mine.md"))
    assert code == 1
    assert "--overwrite" in err
    assert (tmp_path / "mine.md").read_text() == "mine"
    assert run("export", "trip", "-o", str(tmp_path / "mine.md"), "--overwrite")[0] == 0
    assert (tmp_path / "mine.md").read_text() != "mine"


def test_export_tells_what_is_left_out(run: Run, store: Store, tmp_path: Path) -> None:
    session = store.create_session("Teas")
    for text in ("one", "two"):
        store.messages.add(session.id, Role.USER, text, parent_id=None)
    assert "1 message of other branches left out" in run("export", "teas", "-o", str(tmp_path / "a.md"))[2]
    assert run("export", "teas", "-o", str(tmp_path / "a.json"))[2] == ""


def test_import_takes_in_what_it_can_and_says_the_rest(run: Run, store: Store, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(
        '{"format": "samovar", "version": 1, "strange": 1,'
        ' "chats": [{"title": "Tea", "messages": [{"id": 1, "role": "user", "content": "q"}]}]}'
    )
    bad.write_text('{"format": "samovar", "chats": [{"messages": [{}]}]}')
    code, out, err = run("import", str(bad), str(good))
    assert code == 1
    assert out.splitlines()[0] == f"{good}: 1 chat, 1 message (Samovar JSON)"
    assert "strange" in out, "what was not taken over is told"
    assert err.startswith("samovar: ")
    assert "bad.json" in err
    assert [session.title for session in store.sessions()] == ["Tea"]
    report = as_json(run("import", str(good), "--json"))
    (file,) = report["files"]
    assert store.session(file["session_ids"][0]).title == "Tea"
    assert len(store.sessions()) == 2, "an imported chat is a new one"


def test_import_shows_its_progress_in_a_terminal_alone(
    run: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_chats(store)
    run("export", "--all", "-o", str(tmp_path / "all.json"))
    assert run("import", str(tmp_path / "all.json"))[2] == ""
    at_terminal(monkeypatch)
    _, _, err = run("import", str(tmp_path / "all.json"))
    assert "all.json: 0 %, 0 chats" in err
    assert err.endswith("\r\x1b[K")


def test_samples_come_in_once_they_are_asked_for(run: Run, store: Store) -> None:
    code, _, err = run("import", "--samples")
    assert (code, err) == (0, "")
    assert len(store.sessions()) == len(sample_files())
    assert run("import")[0] == 1


def test_a_folder_without_chats_is_exit_code_1(run: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    code, _, err = run("import", str(tmp_path / "in"))
    assert code == 1
    assert "nothing in it" in err


# delete and restore


def test_delete_asks_and_restore_brings_back(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _, trip, _ = three_chats(store)
    at_terminal(monkeypatch, typed="n\ny\n")
    code, out, err = run("delete", "trip")
    assert (code, out) == (1, "")
    assert "Delete “Trip to Kyoto”?" in err
    assert len(store.sessions()) == 3
    code, out, _ = run("delete", "trip")
    assert code == 0
    assert f"restore {trip[:8]}" in out
    assert len(store.sessions()) == 2
    assert run("show", "trip")[0] == 1
    assert f"{trip[:8]}  “Trip to Kyoto”" in run("restore")[1]
    assert run("restore", trip[:8])[0] == 0
    assert len(store.sessions()) == 3
    assert run("restore")[1] == "No chat is deleted.\n"


def test_without_a_terminal_delete_wants_yes(run: Run, store: Store) -> None:
    tea, trip, _ = three_chats(store)
    code, _, err = run("delete", "trip")
    assert code == 1
    assert "--yes" in err
    code, _, err = run("delete", "trip", "nothing", "--yes")
    assert code == 1
    assert len(store.sessions()) == 3, "all or none"
    gone = as_json(run("delete", "trip", trip[:8], "茶", "--yes", "--json"))
    assert [name["id"] for name in gone["deleted"]] == [trip, tea]
    assert [name["id"] for name in as_json(run("restore", "--json"))["deleted"]] == [tea, trip]
    back = as_json(run("restore", "trip", "--json"))
    assert back == {"restored": [{"id": trip, "title": "Trip to Kyoto"}]}


def test_an_import_that_has_not_ended_is_no_deleted_chat(run: Run, store: Store) -> None:
    seen: list[dict[str, Any]] = []

    def look(_: int) -> None:
        seen.append(as_json(run("restore", "--json")))

    store.exchange.take_in([chain(title="half")], look)
    assert seen == [{"deleted": []}]


async def test_a_running_engine_lets_go_of_deleted_chats(store: Store) -> None:
    _, trip, _ = three_chats(store)
    with TemporaryDirectory(prefix="samovar-sessions-") as folder:
        exchange = Exchange(Path(folder) / "host.sock")
        await exchange.open()
        async with asyncio.timeout(30):
            sessions = Sessions(store, Path(folder), as_json=False)
            deleting = asyncio.create_task(asyncio.to_thread(sessions.delete, ["trip"], is_sure=True))
            call = await exchange.welcomed()
            assert await call.hear(commands.Forget) == commands.Forget(trip)
            await call.hear(commands.ListRequests)
            call.say(events.RequestsListed(()))
            assert await deleting == 0
        exchange.shut()


def test_everything_works_on_what_another_window_has_open(run: Run, store: Store) -> None:
    session = store.create_session("Open here")
    store.messages.add_turn(session.id, "still being answered")
    assert "still being answered" in run("show", "open")[1]
    exported = json.loads(run("export", "open", "--format", "json")[1])
    assert exported["chats"][0]["messages"][1]["state"] == "stopped"
    version = store.outside_version()
    assert run("delete", "open", "--yes")[0] == 0
    assert store.outside_version() != version, "the window sees it"
    assert msgspec.json.encode(store.sessions()) == b"[]"
