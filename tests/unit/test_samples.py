"""The chats that come with Samovar: they load, they show what they promise, and nothing in them surprises."""

import ast
import re
import textwrap
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.lint import prompt_warning
from samovar.core.safe_text import clean
from samovar.sessions.samples import describe, sample_files, sample_folder
from samovar.sessions.settings import checked
from samovar.sessions.transfer import samovar_json, samovar_toml
from samovar.sessions.transfer.document import ChatDocument, MessageDocument, check
from samovar.sessions.transfer.notes import Notes

FILES = sample_files()
ROOT = Path(__file__).resolve().parents[2]
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def chat(path: Path) -> ChatDocument:
    return samovar_toml.read(path.read_bytes(), Notes())


def sample(name: str) -> ChatDocument:
    return chat(sample_folder() / f"{name}.toml")


def shown(document: ChatDocument) -> list[MessageDocument]:
    """The messages from the first one down to the head."""
    by_id = {message.id: message for message in document.messages}
    at = document.head
    path: list[MessageDocument] = []
    while at is not None:
        path.append(by_id[at])
        at = by_id[at].parent
    return path[::-1]


def texts(document: ChatDocument) -> Iterator[str]:
    yield document.title
    yield document.system_prompt
    yield from document.tags
    for message in document.messages:
        yield message.content
        for attachment in message.attachments:
            yield attachment.name
            yield attachment.text


def test_there_are_samples_for_all_that_samovar_is_for() -> None:
    names = {path.stem for path in FILES}
    assert len(names) >= 8
    assert {"code-review", "questions-on-a-document", "side-tasks", "many-scripts", "reasoning"} <= names
    assert sum(name.startswith("role-") for name in names) == 3


def test_samples_go_into_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["sample_sessions"] == "samovar/sample_sessions"


@each_file
def test_a_sample_is_a_tree_with_nothing_unknown(path: Path) -> None:
    notes = Notes()
    document = samovar_toml.read(path.read_bytes(), notes)
    assert check(document).messages
    assert checked(document.settings) == document.settings
    assert notes.lines() == ()
    assert not document.extra
    assert not any(message.extra for message in document.messages)


@each_file
def test_a_sample_survives_both_lossless_formats(path: Path) -> None:
    document = chat(path)
    assert samovar_toml.read(samovar_toml.write(document), Notes()) == document
    assert [*samovar_json.read(samovar_json.write([document]), Notes())] == [document]


@each_file
def test_roles_take_turns_and_a_reply_ends_the_shown_path(path: Path) -> None:
    messages = shown(chat(path))
    turns = [(Role.USER, Role.ASSISTANT)[index % 2] for index in range(len(messages))]
    assert [message.role for message in messages] == turns
    assert messages[-1].role is Role.ASSISTANT


@each_file
def test_a_sample_is_described_by_its_title_and_first_comment(path: Path) -> None:
    described = describe(path)
    assert described.path == path
    assert described.title == chat(path).title != ""
    assert described.about.endswith(".")
    assert not described.about.startswith("#")


@each_file
def test_texts_are_drawn_as_they_are(path: Path) -> None:
    for text in texts(chat(path)):
        assert clean(text) == text
        assert text == text.strip()
        odd = {c for c in text if unicodedata.category(c) == "Cc"} - {"\n", "\t"}
        assert not odd


@each_file
def test_nothing_in_a_system_prompt_changes_by_itself(path: Path) -> None:
    assert prompt_warning(chat(path).system_prompt) == ""


@each_file
def test_python_in_a_sample_is_python(path: Path) -> None:
    for message in chat(path).messages:
        for block in re.findall(r"```python\n(.*?)```", message.content, flags=re.DOTALL):
            ast.parse(textwrap.dedent(block))


def test_the_forks_of_the_role_share_their_beginning_and_nothing_else() -> None:
    forks = [chat(path) for path in FILES if path.stem.startswith("role-")]
    assert len({fork.system_prompt for fork in forks}) == 1
    assert len(forks[0].system_prompt.split()) >= 600
    for index in (0, 1):
        assert len({fork.messages[index].content for fork in forks}) == 1
    for index in (2, 3):
        assert len({fork.messages[index].content for fork in forks}) == len(forks)


def test_the_review_is_long_and_has_an_edited_question() -> None:
    document = sample("code-review")
    path = shown(document)
    assert 12_000 < sum(len(message.content) for message in path) < 20_000  # 3,500 to 5,000 tokens of code
    children = [message for message in document.messages if message.parent == 4]
    assert [message.role for message in children] == [Role.USER, Role.USER]
    assert children[1] in path
    assert children[0] not in path


def test_the_tree_has_an_edited_question_and_three_replies_to_one() -> None:
    document = sample("tree-of-edits")
    replies = [message.id for message in document.messages if message.parent == 5]
    assert replies == [6, 7, 8]
    assert [message.id for message in shown(document)] == [1, 2, 5, 7, 9, 10]
    assert all(message.created_at is not None for message in document.messages)


def test_what_is_quoted_from_the_document_stands_in_it() -> None:
    document = sample("questions-on-a-document")
    ((attachment,),) = [message.attachments for message in document.messages if message.attachments]
    for message in document.messages:
        if message.role is Role.ASSISTANT:
            quotes = re.findall(r"^> (.+)$", message.content, flags=re.MULTILINE)
            quotes += re.findall(r'"([^"]+?)\.?"', message.content)
            assert quotes
            for quote in quotes:
                assert quote in attachment.text


def test_every_reply_of_the_reasoning_sample_thinks_first() -> None:
    replies = [message.content for message in sample("reasoning").messages if message.role is Role.ASSISTANT]
    for reply in replies:
        thought, end, answer = reply.partition("\n</think>\n\n")
        assert thought.startswith("<think>\n")
        assert end
        assert answer
    assert any(reply.startswith("<think>\n\n</think>") for reply in replies)


def test_the_scripts_are_those_it_promises() -> None:
    text = "".join(texts(sample("many-scripts")))
    names = {unicodedata.name(c, "?").split()[0] for c in text}
    wanted = "ARABIC HEBREW HIRAGANA KATAKANA CJK HANGUL DEVANAGARI THAI GREEK CYRILLIC COMBINING BOX EMOJI"
    assert set(wanted.split()) <= names
    assert "\u200d" in text
    assert any(0x1F1E6 <= ord(c) <= 0x1F1FF for c in text)
    assert unicodedata.normalize("NFC", text) != text


@pytest.mark.parametrize("content", [None, b"title = ", b"\xff"], ids=["missing", "broken", "binary"])
def test_a_sample_that_cannot_be_read_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SamovarError, match="install Samovar again"):
        describe(path)


def test_without_a_title_or_comment_the_file_name_has_to_do(tmp_path: Path) -> None:
    path = tmp_path / "two-boats.toml"
    path.write_text('format = "samovar-chat"\n')
    assert (describe(path).title, describe(path).about) == ("two-boats", "")
