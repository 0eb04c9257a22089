"""Files that a message names: which are read, what is refused, and what is left as text."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.chats import mentions
from samovar.chats.prompts import prompt_text
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.attachments import digest_of
from samovar.sessions.store import MessageState, StoredMessage
from samovar.sessions.values import Attachment


def no_paste(_: str) -> None:
    return None


def names(text: str) -> list[str]:
    return [one.name for one in mentions.attached(text, [], no_paste)]


def message(*attachments: Attachment, content: str = "hello") -> StoredMessage:
    return StoredMessage(
        1, "s", None, Role.USER, content, 0.0, MessageState.COMPLETE, attachments=attachments
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notes.md").write_text("The kettle is red.\n")
    (tmp_path / "my notes.md").write_text("The cup is blue.")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("read @notes.md", ["notes.md"]),
        ("@notes.md, please", ["notes.md"]),
        ("(see @notes.md)", ["notes.md"]),
        ('look at @"my notes.md" now', ["my notes.md"]),
        ("@./src/a.py and @src/a.py are one", ["a.py"]),
        ("@~/notes.md", ["notes.md"]),
        ("hello @everyone", []),
        ("mail me@notes.md", []),
        ("a @ b", []),
        ("@someone/something", []),
        ("@functools.cache\ndef f(): ...", []),
        ("ask @bob.smith", []),
        ("", []),
    ],
)
def test_what_is_named_is_attached(folder: Path, text: str, found: list[str]) -> None:
    assert names(text) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("@missing.md", "there is no file missing.md"),
        ("@src/", "is a folder"),
        ("@./src", "is a folder"),
    ],
)
def test_what_looks_like_a_file_and_is_none_is_refused(folder: Path, text: str, reason: str) -> None:
    with pytest.raises(SamovarError, match=reason):
        names(text)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\x89PNG\r\n\0\0", "NUL bytes"), (b"caf\xe9 au lait", "byte 3 is not UTF-8")],
)
def test_a_file_that_is_no_text_is_refused(folder: Path, content: bytes, reason: str) -> None:
    (folder / "odd.bin").write_bytes(content)
    with pytest.raises(SamovarError, match=reason):
        names("@odd.bin")


def test_a_file_that_is_too_large_is_refused(folder: Path) -> None:
    (folder / "large.txt").write_bytes(b"x" * (mentions.MAX_FILE_BYTES + 1))
    with pytest.raises(SamovarError, match="more than the 2 MiB"):
        names("@large.txt")


def test_too_many_files_are_refused(folder: Path) -> None:
    for number in range(mentions.MAX_FILES + 1):
        (folder / f"{number}.txt").write_text("x")
    text = " ".join(f"@{number}.txt" for number in range(mentions.MAX_FILES + 1))
    with pytest.raises(SamovarError, match="at most 32 files"):
        names(text)


def test_a_file_with_a_mark_of_its_encoding_is_read(folder: Path) -> None:
    (folder / "wide.txt").write_bytes("größer".encode("utf-16"))
    (folder / "marked.txt").write_bytes(b"\xef\xbb\xbfplain")
    found = mentions.attached("@wide.txt @marked.txt", [], no_paste)
    assert [one.text for one in found] == ["größer", "plain"]


def test_a_file_that_stands_above_unchanged_is_only_named(folder: Path) -> None:
    (first,) = mentions.attached("@notes.md", [], no_paste)
    (again,) = mentions.attached("@notes.md", [message(first)], no_paste)
    assert again.repeated
    assert "kettle" not in prompt_text(message(again))
    (folder / "notes.md").write_text("The kettle is green.\n")
    (changed,) = mentions.attached("@notes.md", [message(first)], no_paste)
    assert not changed.repeated
    assert "green" in prompt_text(message(changed))


def test_files_stand_before_the_text_of_the_message(folder: Path) -> None:
    files = mentions.attached('@notes.md @"my notes.md"', [], no_paste)
    assert prompt_text(message(*files)) == (
        '<file name="notes.md">\nThe kettle is red.\n</file>\n\n'
        '<file name="my notes.md">\nThe cup is blue.\n</file>\n\nhello'
    )


def test_a_kept_paste_is_found_by_its_name_and_a_lost_one_is_told() -> None:
    text = "pasted lines\n" * 50
    name = mentions.paste_name(digest_of(text))

    def find(prefix: str) -> tuple[str, str] | None:
        return (digest_of(text), text) if digest_of(text).startswith(prefix) else None

    (paste,) = mentions.attached(f"see @{name}.", [], find)
    assert (paste.name, paste.text) == (name, text)
    with pytest.raises(SamovarError, match="paste it again"):
        mentions.attached(f"see @{name}", [], no_paste)
    assert mentions.attached("@pasted-nothing", [], no_paste) == ()


@given(st.text(max_size=80))
def test_whatever_is_typed_is_a_text_or_a_sentence(text: str) -> None:
    with contextlib.suppress(SamovarError):
        assert all(one.text is not None for one in mentions.attached(text, [], no_paste))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("no", ["notes.md"]),
        ("", ["my notes.md", "notes.md", "src/"]),
        ("src/", ["src/a.py"]),
        ("otes", ["my notes.md", "notes.md"]),
        ("nothing", []),
        ("missing/", []),
        ("~/n", ["~/notes.md"]),
        ("\0", []),
    ],
)
def test_completions(folder: Path, typed: str, offered: list[str]) -> None:
    assert mentions.completions(typed, folder) == offered


@pytest.mark.parametrize(
    ("pasted", "is_file"),
    [
        ("{}/notes.md", True),
        ("'{}/my notes.md'", True),
        ("{}/my\\ notes.md", True),
        ("file://{}/my%20notes.md", True),
        ("{}/missing.md", False),
        ("{}", False),
        ("notes.md", False),
        ("{}/notes.md\nand more", False),
        ("", False),
    ],
)
def test_a_pasted_path(folder: Path, pasted: str, is_file: bool) -> None:
    assert (mentions.dropped_path(pasted.format(folder)) is not None) == is_file
