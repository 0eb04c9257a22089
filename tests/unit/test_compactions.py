"""Summaries in the store: what they stand for, and what becomes of them with it."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions import backup
from samovar.sessions.database import open_database
from samovar.sessions.store import Store, StoredMessage
from samovar.sessions.values import Compaction
from tests.unit.chats_support import is_sound, make_file, overwrite, rows

USER, ASSISTANT = Role.USER, Role.ASSISTANT
SUMMARIES = "SELECT id, session_id, upto_id, summary FROM compactions ORDER BY id"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    ticks = itertools.count(1000)
    with contextlib.closing(Store.open(file, clock=lambda: float(next(ticks)))) as opened:
        yield opened


def chat(store: Store, *texts: str) -> list[StoredMessage]:
    """A chat of these messages, user and assistant in turn."""
    session = store.create_session("trip")
    return [
        store.messages.add(session.id, (USER, ASSISTANT)[place % 2], text) for place, text in enumerate(texts)
    ]


def summarized(store: Store, upto: StoredMessage, text: str = "They talked.") -> Compaction:
    return store.compactions.add(upto.id, text, num_messages=2, tokens_before=300, tokens_after=20, model="m")


def test_a_summary_is_kept_and_can_be_undone_and_done_again(store: Store, file: Path) -> None:
    messages = chat(store, "a", "b", "c", "d")
    revision = store.session(messages[0].session_id).revision
    made = summarized(store, messages[1], "half \ud800 a pair")
    assert made.summary == "half � a pair"
    assert store.compactions.of(made.session_id) == (made,)
    store.compactions.set_undone(made.id, is_undone=True)
    assert [one.is_undone for one in store.compactions.of(made.session_id)] == [True]
    store.compactions.set_undone(made.id, is_undone=False)
    assert store.session(made.session_id).revision == revision + 3, "other windows hear of it"
    store.close()
    with contextlib.closing(Store.open(file)) as again:
        assert again.compactions.of(made.session_id) == (made,)


def test_what_has_been_deleted_cannot_be_summarized(store: Store) -> None:
    messages = chat(store, "a", "b", "c", "d")
    store.messages.delete_branch(messages[1].id)
    with pytest.raises(SamovarError, match="deleted meanwhile"):
        summarized(store, messages[1])
    store.delete(messages[0].session_id)
    with pytest.raises(SamovarError, match="deleted meanwhile"):
        summarized(store, messages[0])
    assert store.compactions.of(messages[0].session_id) == ()


def test_a_fork_has_the_summaries_of_its_path(store: Store) -> None:
    messages = chat(store, "a", "b", "c", "d", "e", "f")
    early = summarized(store, messages[1], "early")
    summarized(store, messages[3], "late")
    store.compactions.set_undone(early.id, is_undone=True)
    fork = store.fork(messages[0].session_id, messages[2].id, "fork")
    (copy,) = store.compactions.of(fork.id)
    assert (copy.summary, copy.upto_id, copy.is_undone) == ("early", store.path(fork.id)[1].id, True)
    assert copy.tokens_before == 300
    assert len(store.compactions.of(messages[0].session_id)) == 2


def test_a_summary_goes_for_good_with_its_message(file: Path) -> None:
    now = 1000.0
    with contextlib.closing(Store.open(file, clock=lambda: now)) as store:
        messages = chat(store, "a", "b", "c", "d")
        kept, gone = summarized(store, messages[1]), summarized(store, messages[3])
        store.messages.delete_branch(messages[2].id)
        assert len(store.compactions.of(kept.session_id)) == 2, "the branch may come back"
        now += 31 * 86_400
        store.purge()
        assert store.compactions.of(kept.session_id) == (kept,)
        assert gone.id != kept.id
        store.delete(kept.session_id)
        now += 31 * 86_400
        store.purge()
    assert rows(file, SUMMARIES) == []
    assert is_sound(file)


def test_an_older_file_gets_the_table_after_a_copy(file: Path) -> None:
    make_file(file, 5, version=2)
    before = rows(file)
    with contextlib.closing(Store.open(file)) as store:
        session = store.sessions()[0]
        made = summarized(store, store.path(session.id)[1])
        assert store.compactions.of(session.id) == (made,)
    assert rows(file) == before
    (copy,) = (file.parent / "backups").iterdir()
    assert copy.name.startswith("chats-v2-")
    assert is_sound(file)


def test_a_repair_keeps_summaries_and_drops_those_of_lost_messages(file: Path) -> None:
    make_file(file, 20)
    before = rows(file, SUMMARIES)
    assert len(before) == 20
    overwrite(file, 0, bytes(16))
    with contextlib.closing(open_database(file)) as database:
        assert database.repaired is not None
    after = rows(file, SUMMARIES)
    assert set(after) <= set(before)
    assert is_sound(file)


def test_a_repair_takes_summaries_from_the_backup(file: Path) -> None:
    make_file(file, 20)
    before = rows(file, SUMMARIES)
    backup.daily(file, 1_795_000_000.0)
    overwrite(file, 0, bytes(100))
    with contextlib.closing(open_database(file)) as database:
        assert database.repaired is not None
    assert rows(file, SUMMARIES) == before
    assert is_sound(file)
