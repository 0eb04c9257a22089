"""Chats to files and back: nothing is lost, nothing is overwritten, nothing comes in by halves."""

import contextlib
import itertools
import os
import resource
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.sessions import exchange
from samovar.sessions.store import Store
from samovar.sessions.transfer.document import ChatDocument
from samovar.sessions.transfer.file_names import file_stem
from samovar.sessions.transfer.files import (
    Format,
    ImportProgress,
    export_chat,
    export_pieces,
    export_to,
    import_files,
)
from tests.unit.document_trees import assert_same, chain, documents, texts

NOW = 1_795_000_000.0
# The store is emptied by no example, it only grows: the same one serves all.
ALL_EXAMPLES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.open(tmp_path / "data" / "chats.db", clock=lambda: NOW)) as opened:
        yield opened


def stored(store: Store, *chats: ChatDocument) -> list[str]:
    return store.exchange.take_in(chats)


def as_stored(document: ChatDocument) -> ChatDocument:
    """What the store makes of a document: ids from 1 on, no time left open, the last message shown."""
    numbers = {message.id: number for number, message in enumerate(document.messages, start=1)}
    times = [message.created_at for message in document.messages if message.created_at is not None]
    created = document.created_at if document.created_at is not None else min(times, default=NOW)
    updated = document.updated_at if document.updated_at is not None else max(times, default=created)
    messages = tuple(
        msgspec.structs.replace(
            message,
            id=numbers[message.id],
            parent=None if message.parent is None else numbers[message.parent],
            created_at=created if message.created_at is None else message.created_at,
        )
        for message in document.messages
    )
    return msgspec.structs.replace(
        document,
        created_at=created,
        updated_at=updated,
        messages=messages,
        compactions=tuple(
            msgspec.structs.replace(
                one,
                upto=numbers[one.upto],
                created_at=created if one.created_at is None else one.created_at,
            )
            for one in document.compactions
        ),
        head=len(messages) or None if document.head is None else numbers[document.head],
    )


# Round trips


@ALL_EXAMPLES
@given(st.lists(documents(), min_size=1, max_size=3))
def test_the_store_gives_back_what_it_took_in(store: Store, given_chats: list[ChatDocument]) -> None:
    ids = store.exchange.take_in(given_chats)
    for session_id, document in zip(ids, given_chats, strict=True):
        assert_same(store.exchange.document(session_id), as_stored(document))


@ALL_EXAMPLES
@given(document=documents(), form=st.sampled_from([Format.JSON, Format.TOML]))
def test_a_chat_that_went_through_a_file_is_the_same_and_another_one(
    store: Store, tmp_path: Path, document: ChatDocument, form: Format
) -> None:
    (session_id,) = stored(store, document)
    file = tmp_path / f"chat.{form.value}"
    export_to(store, [session_id], file, overwrite=True)
    report = import_files(store, [file])
    assert report.num_failed == 0, report.files
    (copy,) = report.files[0].session_ids
    assert copy != session_id
    assert report.files[0].num_messages == len(document.messages)
    assert_same(store.exchange.document(copy), store.exchange.document(session_id))


def test_all_chats_in_one_file(store: Store, tmp_path: Path) -> None:
    ids = stored(store, *(chain(f"q{n}", f"a{n}", title=f"chat {n}", created_at=1.0) for n in range(5)))
    done: list[int] = []
    (file,) = export_to(store, ids, tmp_path / "all.json", progress=done.append)
    assert (file.titles, file.num_messages) == (tuple(f"chat {n}" for n in range(5)), 10)
    assert file.num_bytes == (tmp_path / "all.json").stat().st_size
    assert done == [1, 2, 3, 4, 5]
    assert (tmp_path / "all.json").read_bytes() == b"".join(export_pieces(store, ids, Format.JSON))
    (copies,) = (found.session_ids for found in import_files(store, [tmp_path / "all.json"]).files)
    for session_id, copy in zip(ids, copies, strict=True):
        assert_same(store.exchange.document(copy), store.exchange.document(session_id))


# Out


@pytest.mark.parametrize(
    ("name", "given_form", "found"),
    [
        ("chat.toml", None, Format.TOML),
        ("chat.JSON", None, Format.JSON),
        ("chat.md", None, Format.MARKDOWN),
        ("chat", None, Format.MARKDOWN),
        ("chat.txt", Format.TOML, Format.TOML),
        ("chat.json", Format.MARKDOWN, Format.MARKDOWN),
    ],
)
def test_the_ending_tells_the_format_unless_it_is_given(
    store: Store, tmp_path: Path, name: str, given_form: Format | None, found: Format
) -> None:
    (session_id,) = stored(store, chain("q", "a", title="chat"))
    export_to(store, [session_id], tmp_path / name, given_form)
    expected = export_chat(store.exchange.document(session_id), found)
    assert (tmp_path / name).read_bytes() == expected


def test_an_export_is_private_and_leaves_nothing_beside_it(store: Store, tmp_path: Path) -> None:
    (session_id,) = stored(store, chain("q", "a"))
    folder = tmp_path / "out"
    folder.mkdir()
    export_to(store, [session_id], folder / "chat.md")
    assert [path.name for path in folder.iterdir()] == ["chat.md"]
    assert stat.S_IMODE((folder / "chat.md").stat().st_mode) == 0o600


@pytest.mark.parametrize("form", Format)
def test_a_file_that_is_there_stays_unless_it_may_be_overwritten(
    store: Store, tmp_path: Path, form: Format
) -> None:
    (session_id,) = stored(store, chain("q", "a"))
    file, link = tmp_path / f"mine.{form.value}", tmp_path / f"link.{form.value}"
    file.write_text("mine")
    link.symlink_to(file)
    for path in (file, link):
        with pytest.raises(SamovarError, match="is there already"):
            export_to(store, [session_id], path)
    assert file.read_text() == "mine"
    export_to(store, [session_id], link, overwrite=True)
    assert link.is_symlink()
    assert file.read_bytes() == export_chat(store.exchange.document(session_id), form)


def test_a_dangling_link_is_not_written_through(store: Store, tmp_path: Path) -> None:
    (session_id,) = stored(store, chain("q", "a"))
    link = tmp_path / "chat.md"
    link.symlink_to(tmp_path / "elsewhere.md")
    with pytest.raises(SamovarError, match="is there already"):
        export_to(store, [session_id], link)
    assert not (tmp_path / "elsewhere.md").exists()


def test_several_chats_go_to_a_folder_under_names_of_their_own(store: Store, tmp_path: Path) -> None:
    titles = ["Tea", "tea", "../tea", "", "..", "Tea (2)", "a/b\\c\nd"]
    ids = stored(store, *(chain(title, title=title) for title in titles))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "TEA.md").write_text("mine")
    files = export_to(store, ids, folder)
    assert [Path(file.path).name for file in files] == [
        *("Tea (2).md", "tea (3).md", "tea (4).md", "untitled chat.md", "untitled chat (2).md"),
        *("Tea (2) (2).md", "a b c d.md"),
    ]
    assert len(list(folder.iterdir())) == len(titles) + 1
    assert (folder / "TEA.md").read_text() == "mine"
    again = export_to(store, ids, folder, overwrite=True)
    assert len({file.path for file in again}) == len(titles)


def test_a_folder_is_made_where_its_parent_is(store: Store, tmp_path: Path) -> None:
    ids = stored(store, chain("one", title="one"), chain("two", title="two"))
    files = export_to(store, ids, tmp_path / "new", Format.TOML)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["one.toml", "two.toml"]
    assert len(files) == 2
    export_to(store, ids[:1], tmp_path / "single", is_folder=True)
    assert [path.name for path in (tmp_path / "single").iterdir()] == ["one.md"]
    with pytest.raises(SamovarError, match="There is no folder"):
        export_to(store, ids, tmp_path / "far" / "away")


def test_without_a_target_it_is_the_current_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (session_id,) = stored(store, chain("q", title="Trip: Kyoto?"))
    monkeypatch.chdir(tmp_path)
    export_to(store, [session_id])
    assert (tmp_path / "Trip Kyoto.md").is_file()


def test_markdown_says_what_it_leaves_out(store: Store, tmp_path: Path) -> None:
    document = chain("q", "a", "b")
    edited = msgspec.structs.replace(document.messages[2], id=4, parent=1, content="c")
    (session_id,) = stored(store, msgspec.structs.replace(document, messages=(*document.messages, edited)))
    for name, num_messages, num_left_out in (("chat.md", 3, 1), ("chat.json", 4, 0), ("chat.toml", 4, 0)):
        (file,) = export_to(store, [session_id], tmp_path / name)
        assert (file.num_messages, file.num_left_out) == (num_messages, num_left_out)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere/chat.md", "There is no folder"),
        ("file/chat.md", "a file is where a folder should be"),
        ("x" * 300 + ".md", "too long"),
        ("/proc/chat.md", "Cannot write"),
        ("/dev/full", "The disk is full"),
    ],
)
def test_what_cannot_be_written_is_said(store: Store, tmp_path: Path, place: str, said: str) -> None:
    (session_id,) = stored(store, chain("q", "a"))
    (tmp_path / "file").write_text("")
    with pytest.raises(SamovarError, match=said):
        export_to(store, [session_id], tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file"]


def test_a_disk_that_is_full_half_way_leaves_what_was_there(store: Store, tmp_path: Path) -> None:
    (session_id,) = stored(store, chain("long " * 20_000))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "chat.json").write_text("the old one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # what is longer fails as on a full disk
    try:
        with pytest.raises(SamovarError, match="The disk is full"):
            export_to(store, [session_id], folder / "chat.json", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("chat.json", "the old one")]


@given(st.one_of(texts, st.text(max_size=300)))
def test_any_title_makes_a_file_name(title: str) -> None:
    name = f"{file_stem(title)}.md"
    assert name == clean(name)
    assert "/" not in name
    assert "\n" not in name
    assert name[0] not in ".-~ "
    assert name != ".md"
    assert len(name.encode()) <= 200


# In


def test_an_import_is_all_or_nothing_and_does_not_keep_others_out(store: Store, tmp_path: Path) -> None:
    good, bad, worse = (tmp_path / name for name in ("good.json", "bad.json", "worse.toml"))
    ids = stored(store, chain("q", "a", title="one"), chain("q", title="two"))
    export_to(store, ids, good)
    content = good.read_bytes()
    last = content.rindex(b'"role": "user"')
    bad.write_bytes(content[:last] + b'"role": "nobody"' + content[last + len(b'"role": "user"') :])
    worse.write_bytes(b'format = "samovar-chat"\n[[messages]]\nrole = ')
    report = import_files(store, [bad, good, worse, tmp_path / "none.json"])
    assert [bool(file.error) for file in report.files] == [True, False, True, True]
    assert report.num_failed == 3
    for file in (report.files[0], report.files[2], report.files[3]):
        assert Path(file.path).name in file.error
        assert file.session_ids == ()
    assert sorted(session.title for session in store.sessions()) == ["one", "one", "two", "two"]
    assert store.names(deleted=True) == []


def test_of_a_folder_the_files_of_chats_come_in_and_the_others_are_told(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    ids = stored(store, chain("q", title="one"), chain("q", title="two"))
    export_to(store, ids, folder, Format.TOML)
    (folder / "notes.txt").write_text("no chat")
    (folder / ".hidden.toml").write_bytes((folder / "one.toml").read_bytes())
    (folder / "sub" / "deep.toml").write_bytes((folder / "one.toml").read_bytes())
    report = import_files(store, [folder])
    assert [Path(file.path).name for file in report.files] == ["one.toml", "two.toml"]
    assert report.num_failed == 0
    assert [Path(file.path).name for file in report.ignored] == ["notes.txt"]
    assert "notes.txt" in report.ignored[0].error
    assert len(store.sessions()) == 4


def test_progress_tells_file_bytes_and_chats(store: Store, tmp_path: Path) -> None:
    ids = stored(store, *(chain("q " * 100, "a", title=f"{n}") for n in range(20)))
    for name in ("one.json", "two.json"):
        export_to(store, ids, tmp_path / name)
    steps: list[ImportProgress] = []
    import_files(store, [tmp_path / "one.json", tmp_path / "two.json"], steps.append)
    assert [(step.number, step.num_files) for step in steps] == sorted((step.number, 2) for step in steps)
    for number in (1, 2):
        own = [step for step in steps if step.number == number]
        assert own[0].num_chats == 0
        assert own[-1].num_chats == 20
        assert own[-1].total_bytes == (tmp_path / "one.json").stat().st_size
        assert all(a.done_bytes <= b.done_bytes for a, b in itertools.pairwise(own))


def test_what_progress_raises_ends_the_import_and_nothing_of_it_stays(store: Store, tmp_path: Path) -> None:
    export_to(store, stored(store, chain("q", title="one")), tmp_path / "one.json")

    def stop(step: ImportProgress) -> None:
        if step.num_chats:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_files(store, [tmp_path / "one.json"], stop)
    assert len(store.sessions()) == 1
    assert len(store.names(deleted=True)) == 0
    assert store.search("q").num_more + len(store.search("q").hits) == 1


def test_others_write_while_an_import_reads(store: Store) -> None:
    """A source that waits for another writer would never go on if the import held the lock."""
    with contextlib.closing(Store.open(store.file)) as other:

        def slow() -> Iterator[ChatDocument]:
            for number in range(5):
                other.create_session(f"typed meanwhile {number}")
                yield chain("q", title=f"imported {number}")

        ids = store.exchange.take_in(slow())
        assert len(ids) == 5
        assert len(other.sessions()) == 10


def test_others_write_while_a_large_chat_comes_in(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chat is written in as many transactions as it takes; the lock is free in the pauses between them."""
    with contextlib.closing(Store.open(store.file)) as other:
        typed: list[str] = []

        def pause(_: float) -> None:
            typed.append(other.create_session("typed meanwhile").id)

        monkeypatch.setattr(exchange, "_BATCH_S", 0.0)
        monkeypatch.setattr(time, "sleep", pause)
        document = chain(*"abcdef", title="large", created_at=1.0)
        (session_id,) = store.exchange.take_in([document])
        assert len(typed) >= len(document.messages)
        assert_same(other.exchange.document(session_id), as_stored(document))


def test_an_import_is_not_seen_before_its_end(store: Store) -> None:
    with contextlib.closing(Store.open(store.file)) as other:
        seen: list[tuple[int, int, int]] = []

        def look(_: int) -> None:
            num_hits = len(other.search("findable").hits)
            seen.append((len(other.sessions()), len(other.names(deleted=True)), num_hits))

        store.exchange.take_in([chain("findable", title="a chat")], look)
        assert set(seen) == {(0, 0, 0)}
        assert (len(other.sessions()), len(other.search("findable").hits)) == (1, 1)


def test_a_pipe_is_written_to_as_it_is(store: Store, tmp_path: Path) -> None:
    (session_id,) = stored(store, chain("q", "a"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        export_to(store, [session_id], pipe, Format.JSON)
        assert os.read(reader, 1 << 16) == export_chat(store.exchange.document(session_id), Format.JSON)
    finally:
        os.close(reader)
