"""What Samovar writes it reads again, and no file of anybody's makes it fail in another way than in words."""

import collections
import itertools
import mmap
import tomllib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.request import RequestStats, TierTokens
from samovar.sessions.attachments import digest_of
from samovar.sessions.settings import SessionSettings
from samovar.sessions.transfer import markdown, reading, samovar_json, samovar_toml
from samovar.sessions.transfer.document import ChatDocument, MessageDocument
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.values import Attachment, MessageState
from tests.unit.document_trees import NASTY_TEXTS, assert_same, chain, documents, texts

NOW_S = 1_795_328_613.0  # 2026-11-22 06:23:33 UTC

BRANCHED = ChatDocument(
    title="Trip to Kyoto",
    system_prompt="Answer briefly.\nCite what you know.",
    created_at=NOW_S,
    updated_at=NOW_S + 0.1234567,
    settings=SessionSettings(temperature=0.5, stop=("\n\n", "END"), pin=True),
    tags=("japan", "travel"),
    is_favourite=True,
    head=3,
    messages=(
        MessageDocument(id=1, role=Role.USER, content="When?\nMarch?", created_at=NOW_S + 0.25),
        MessageDocument(id=2, parent=1, role=Role.ASSISTANT, content="April.", model="a"),
        MessageDocument(
            id=3,
            parent=1,
            role=Role.ASSISTANT,
            content="March, for the plums.",
            state=MessageState.CUT,
            model="SmolLM2",
            tokens=(1, 2, 2**32 - 1),
            tokenizer="t",
            stats=RequestStats(prompt_tokens=9, reused=TierTokens(context=4)),
            extra={"rating": 5, "seen": None, "origin": {"page": 1}},
        ),
        MessageDocument(
            id=4,
            parent=2,
            role=Role.USER,
            content="And this?",
            attachments=(
                Attachment("plan.md", "```\nx\n```\n", digest_of("```\nx\n```\n"), "/tmp/plan.md", 7),
            ),
        ),
    ),
    source="llm 12",
    extra={"folder": "trips"},
)


def read_json(data: bytes, notes: Notes | None = None) -> list[ChatDocument]:
    return list(samovar_json.read(data, notes or Notes()))


def read_toml(text: str | bytes, notes: Notes | None = None) -> ChatDocument:
    return samovar_toml.read(text if isinstance(text, bytes) else text.encode(), notes or Notes())


def read_markdown(text: str | bytes, notes: Notes | None = None) -> ChatDocument:
    return markdown.read(text if isinstance(text, bytes) else text.encode(), notes or Notes())


def shown(document: ChatDocument) -> list[MessageDocument]:
    """What Markdown keeps: the path to the head as a chain, without what only machines read."""
    by_id = {message.id: message for message in document.messages}
    path: list[MessageDocument] = []
    number = document.head
    while number is not None:
        path.insert(0, by_id[number])
        number = by_id[number].parent
    return [
        msgspec.structs.replace(
            message, id=place, parent=place - 1 or None, tokens=(), tokenizer="", stats=None, extra={}
        )
        for place, message in enumerate(path, start=1)
    ]


# ---- round trips


@given(st.lists(documents(), max_size=3))
def test_json_gives_back_every_tree(chats: list[ChatDocument]) -> None:
    data = samovar_json.write(chats)
    assert samovar_json.matches(data)
    notes = Notes()
    got = read_json(data, notes)
    assert len(got) == len(chats)
    for one, other in zip(got, chats, strict=True):
        assert_same(one, other)
    assert notes.lines() == ()
    msgspec.json.decode(data)


@given(documents())
def test_toml_gives_back_every_tree(document: ChatDocument) -> None:
    data = samovar_toml.write(document)
    assert samovar_toml.matches(data)
    notes = Notes()
    assert_same(read_toml(data, notes), document)
    assert notes.lines() == ()


@given(documents())
def test_markdown_gives_back_the_shown_path(document: ChatDocument) -> None:
    text = markdown.write(document)
    assert markdown.matches(text.encode())
    notes = Notes()
    got = read_markdown(text, notes)
    assert list(got.messages) == shown(document)
    assert (got.title, got.system_prompt, got.tags) == (document.title, document.system_prompt, document.tags)
    assert (got.created_at, got.updated_at) == (document.created_at, document.updated_at)
    left_out = len(document.messages) - len(got.messages)
    assert bool(notes.lines()) == (left_out > 0)


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_no_text_is_changed_wherever_it_stands(text: str) -> None:
    attachment = Attachment(text, text, digest_of(text), text)
    message = MessageDocument(
        id=1, role=Role.USER, content=text, model=text, error=text, attachments=(attachment, attachment)
    )
    document = ChatDocument(title=text, system_prompt=text, head=1, messages=(message,))
    full = msgspec.structs.replace(
        document,
        source=text,
        extra={text: text},
        messages=(msgspec.structs.replace(message, extra={text: text}),),
    )
    assert read_json(samovar_json.write([full])) == [full]
    assert read_toml(samovar_toml.write(full)) == full
    assert read_markdown(markdown.write(document)) == document


@given(st.lists(texts, min_size=1, max_size=3))
def test_what_is_exported_again_is_the_same_file(contents: list[str]) -> None:
    document = chain(*contents, title=contents[0])
    data = samovar_toml.write(document)
    assert samovar_toml.write(read_toml(data)) == data
    data = samovar_json.write([document])
    assert samovar_json.write(read_json(data)) == data
    text = markdown.write(document)
    assert markdown.write(read_markdown(text)) == text


# ---- JSON


def test_json_is_indented_and_keeps_token_ids_on_one_line() -> None:
    text = samovar_json.write([BRANCHED, chain("a")]).decode()
    assert text.startswith(
        '{\n  "format": "samovar",\n  "version": 1,\n  "chats": [\n    {\n      "title": "Trip'
    )
    assert '\n          "tokens": [1, 2, 4294967295]\n' in text
    assert text.endswith("]\n}\n")
    assert read_json(samovar_json.write([])) == []
    assert read_json(samovar_json.write([ChatDocument()])) == [ChatDocument()]


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("content", "num_chats"),
    [
        (samovar_json.write([chain("x" * MIB)] * 24), 24),
        (b'{"format": "samovar", "chats": [' + b"1," * (MIB // 4) + b"1]}", None),
        (b'{"format": "samovar", "chats": [{"messages": [' + b"1," * (MIB // 4) + b"1]}]}", None),
        (b'{"format": "samovar", "chats": [{"title": "' + b'\\"' * MIB, None),
        (b'{"format": "samovar", "chats": [' + b"[" * MIB, None),
    ],
    ids=[
        "large chats",
        "many numbers for chats",
        "many numbers for messages",
        "escapes without end",
        "brackets without end",
    ],
)
def test_reading_json_takes_the_memory_of_a_chat_not_of_the_file(
    tmp_path: Path, content: bytes, num_chats: int | None
) -> None:
    file = tmp_path / "big.json"
    file.write_bytes(content)
    tracemalloc.start()
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            assert samovar_json.matches(data)
            if num_chats is None:
                with pytest.raises(SamovarError):
                    collections.deque(samovar_json.read(data, Notes()), maxlen=0)
            else:
                assert sum(1 for _ in samovar_json.read(data, Notes())) == num_chats
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


def test_a_json_value_that_would_take_all_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samovar_json, "_MAX_VALUE_BYTES", 1000)
    for chat in (chain("x" * 1000), chain("x", title="x" * 1000)):
        with pytest.raises(SamovarError, match=r"chat 1.* not read"):
            read_json(samovar_json.write([chat]))
    monkeypatch.setattr(samovar_json, "_MAX_CHAT_BYTES", 1000)
    with pytest.raises(SamovarError, match="chat 1 has more"):
        read_json(samovar_json.write([chain(*("x" * 100 for _ in range(10)))]))


def test_a_fault_in_a_later_chat_is_found_when_it_is_reached_and_the_file_can_be_closed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "chats.json"
    file.write_bytes(
        samovar_json.write([chain("a"), BRANCHED]).replace(b'"role": "assistant"', b'"role": "tool"')
    )
    got: list[ChatDocument] = []
    with (
        file.open("rb") as stream,
        pytest.raises(SamovarError, match='chat 2, message 2: role must be "system", "user" or "assistant"'),
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        got.extend(samovar_json.read(data, Notes()))
    assert got == [chain("a")]


def test_unknown_json_is_kept_or_reported() -> None:
    data = b"""{"format": "samovar", "version": 1, "made_by": "me", "chats": [{
        "colour": "red", "extra": {"shape": null}, "settings": {"temperature": 1, "mood": "good"},
        "messages": [{"id": 1, "role": "user", "content": "a", "mark": [1, "x"],
            "attachments": [{"name": "n", "text": "t", "digest": "that of another text", "owner": 1}],
            "stats": {"prompt_tokens": 3, "watts": 5}}]}]}"""
    notes = Notes()
    (chat,) = read_json(data, notes)
    assert chat.extra == {"colour": "red", "shape": None, "settings": {"mood": "good"}}
    assert chat.settings == SessionSettings(temperature=1.0)
    assert chat.messages[0].extra == {"mark": [1, "x"]}
    assert chat.messages[0].attachments[0].digest == digest_of("t"), "no text goes by another one's name"
    assert chat.messages[0].stats == RequestStats(prompt_tokens=3)
    told = "\n".join(notes.lines())
    assert all(name in told for name in ("made_by", "mood", "owner", "watts"))


def test_json_with_sorted_names_or_a_byte_order_mark_is_known() -> None:
    data = samovar_json.write([chain("x" * 10_000)])
    ordered = msgspec.json.encode(msgspec.json.decode(data), order="sorted")
    assert samovar_json.matches(ordered)
    assert read_json(ordered) == read_json(data)
    marked = b"\xef\xbb\xbf" + data
    assert samovar_json.matches(marked)
    assert read_json(marked) == read_json(data)
    assert not samovar_json.matches(b'[{"role": "user", "content": "{\\"format\\": \\"samovar\\"}"}]')
    assert not samovar_json.matches(b"")


# ---- TOML


def test_a_chat_written_by_hand_needs_a_title_and_messages_only() -> None:
    text = '''
title = "Tea"
[[messages]]
role = "user"
content = "How long?"
[[messages]]
role = "assistant"
content = """
Three minutes.
No more."""
'''
    assert samovar_toml.matches(text.encode())
    assert read_toml(text) == chain("How long?", "Three minutes.\nNo more.", title="Tea")
    assert read_toml("﻿" + text.replace("\n", "\r\n")) == read_toml(text), "saved by an editor of Windows"


def test_toml_is_laid_out_to_be_edited() -> None:
    messages = (
        MessageDocument(id=1, role=Role.USER, content='print("\\n")\nsaid it\'s "fine"', created_at=NOW_S),
        MessageDocument(id=2, parent=1, role=Role.ASSISTANT, content="It's.", model="m", extra={"rating": 5}),
    )
    document = ChatDocument(
        title='A "title"', created_at=NOW_S + 0.5, tags=("a",), is_favourite=True, head=2, messages=messages
    )
    assert samovar_toml.write(document).decode() == (
        'format = "samovar-chat"\n'
        "version = 1\n"
        "title = 'A \"title\"'\n"
        "created_at = 2026-11-22T06:23:33.500000Z\n"
        'tags = [\n    "a",\n]\n'
        "favourite = true\n"
        "\n[[messages]]\n"
        'role = "user"\n'
        "created_at = 2026-11-22T06:23:33Z\n"
        "content = '''\nprint(\"\\n\")\nsaid it's \"fine\"'''\n"
        "\n[[messages]]\n"
        'role = "assistant"\n'
        'model = "m"\n'
        'content = "It\'s."\n'
        "rating = 5\n"
    )


def test_line_ends_of_windows_stay_on_their_lines() -> None:
    text = samovar_toml.write(chain('one\r\ntwo \\ """\r\n')).decode()
    assert 'content = """\none\\r\ntwo \\\\ \\"""\\r\n"""\n' in text


def test_controls_of_direction_are_seen_in_the_file() -> None:
    text = samovar_toml.write(chain("a\u202eb\x9bc\u2028")).decode()
    assert 'content = "a\\u202Eb\\u009Bc\\u2028"' in text


def test_only_messages_that_others_name_carry_an_id() -> None:
    text = samovar_toml.write(BRANCHED).decode()
    assert [line for line in text.splitlines() if line.startswith(("id", "parent", "head"))] == [
        "head = 3",
        "id = 1",
        "id = 2",
        "id = 3",
        "parent = 1",
        "parent = 2",
    ]
    assert "id = " not in samovar_toml.write(chain("a", "b", "c")).decode()


def test_a_message_put_in_by_hand_moves_no_branch() -> None:
    text = samovar_toml.write(BRANCHED).decode()
    added = text.replace(
        "\n[[messages]]\nid = 2\n", '\n[[messages]]\nrole = "user"\ncontent = "new"\n\n[[messages]]\nid = 2\n'
    )
    by_content = {message.content: message for message in read_toml(added).messages}
    assert by_content["new"].parent == by_content["When?\nMarch?"].id
    assert by_content["April."].parent == by_content["new"].id
    assert by_content["March, for the plums."].parent == by_content["When?\nMarch?"].id
    assert by_content["And this?"].parent == by_content["April."].id


@pytest.mark.parametrize(
    ("written", "expected_s"),
    [
        ("2026-11-22T06:23:33Z", NOW_S),
        ("2026-11-22 07:23:33.5+01:00", NOW_S + 0.5),
        ("2026-11-22T06:23:33", NOW_S),
        ("2026-11-22", NOW_S - 6 * 3600 - 23 * 60 - 33),
        ("1795328613", NOW_S),
        ("1795328613.1234567", 1795328613.1234567),
    ],
)
def test_times_may_be_dates_or_seconds(written: str, expected_s: float) -> None:
    assert (
        read_toml(f'created_at = {written}\n[[messages]]\nrole = "user"\ncontent = ""').created_at
        == expected_s
    )


def test_what_is_unknown_in_toml_comes_back_on_writing() -> None:
    text = """
mood = "calm"
made = 2026-11-22
[[messages]]
role = "user"
content = "a"
rating = [1, 2]
mixed = [1, "b"]
[messages.origin]
page = 3
[messages.origin.inner]
deep = true
[[messages.links]]
url = "a long one, so that it does not fit on a line with all the others"
title = "and another long one, so that it does not"
[settings]
temprature = 0.1
"""
    notes = Notes()
    chat = read_toml(text, notes)
    assert chat.extra == {"mood": "calm", "made": "2026-11-22", "settings": {"temprature": 0.1}}
    assert any("temprature" in line for line in notes.lines())
    assert any("dates" in line for line in notes.lines())
    again = samovar_toml.write(chat)
    assert_same(read_toml(again), chat)
    table = tomllib.loads(again.decode())
    assert table["mood"] == "calm"
    assert table["messages"][0]["origin"] == {"page": 3, "inner": {"deep": True}}
    assert table["messages"][0]["rating"] == [1, 2]
    assert msgspec.json.decode(table["messages"][0]["extra"]) == {"mixed": [1, "b"]}


# ---- Markdown


def test_markdown_reads_well_and_says_what_it_leaves_out() -> None:
    text = markdown.write(BRANCHED)
    lines = [line for line in text.splitlines() if line and not line.startswith("<!--")]
    assert lines == [
        "# Trip to Kyoto",
        "Tags: japan, travel",
        "*2 messages of other branches are not in this file; an export as JSON or TOML holds all.*",
        "## System prompt",
        "> Answer briefly.",
        "> Cite what you know.",
        "## User, 2026-11-22 06:23 UTC",
        "When?",
        "March?",
        "## Assistant, SmolLM2, cut off",
        "March, for the plums.",
    ]
    assert "branches" not in markdown.write(chain("a", "b"))


def test_an_attachment_stands_in_a_fence_longer_than_any_within() -> None:
    text = markdown.write(msgspec.structs.replace(BRANCHED, head=4))
    assert "### Attachment: plan.md\n\n````md\n```\nx\n```\n\n````\n" in text


def test_a_repeated_attachment_is_only_named() -> None:
    one = Attachment("a.txt", "the text", digest_of("the text"), "/a.txt")
    again = msgspec.structs.replace(one, repeated=True)
    messages = tuple(
        msgspec.structs.replace(message, attachments=(item,))
        for message, item in zip(chain("x", "y").messages, (one, again), strict=True)
    )
    document = chain("x", "y", messages=messages)
    text = markdown.write(document)
    assert text.count("the text") == 1
    assert read_markdown(text) == document


@pytest.mark.parametrize("nasty", NASTY_TEXTS)
def test_no_text_hides_what_follows_it(nasty: str) -> None:
    attachment = Attachment(nasty, nasty, digest_of(nasty))
    document = chain(nasty, "the end", title=nasty, system_prompt=nasty, tags=("t",))
    first = msgspec.structs.replace(
        document.messages[0], model=nasty, error=nasty, state=MessageState.FAILED, attachments=(attachment,)
    )
    text = markdown.write(msgspec.structs.replace(document, messages=(first, document.messages[1])))
    tokens = MarkdownIt("commonmark").parse(text)
    marks = [
        token.content.split()[2]
        for token in tokens
        if token.type == "html_block" and "<!-- samovar: " in token.content
    ]
    assert marks == ["chat", *(["system"] if nasty else []), "message", "attachment", "message", "end"]
    headings = [
        after.content
        for token, after in itertools.pairwise(tokens)
        if token.type == "heading_open" and token.level == 0
    ]
    assert headings[-1] == "Assistant"
    assert any(heading.startswith("User") for heading in headings)


def test_markdown_of_others_is_refused_with_what_is_known() -> None:
    with pytest.raises(SamovarError, match=r"not written by Samovar.*Markdown, JSON and TOML"):
        read_markdown("# Notes\n\nhello\n")


def test_markdown_saved_with_line_ends_of_windows_is_read() -> None:
    document = chain("a\nb", "c", title="t")
    assert read_markdown(markdown.write(document).replace("\n", "\r\n")) == document
    notes = Notes()
    assert read_markdown(markdown.write(document) + "\nmy remark\n", notes) == document
    assert any("below the last line" in line for line in notes.lines())


# ---- files that are at fault


def shortened(value: str | bytes) -> str:
    return repr(value[:60])


MESSAGE = '[[messages]]\nrole = "user"\ncontent = "a"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = \n", "line 1, column 9"),
        ('title = "a', "not valid TOML"),
        (MESSAGE + "seed = " + "9" * 5000, "too many digits"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deep"),
        (MESSAGE + "a = " + "[" * 100 + "]" * 100, "nested deeper than 64"),
        ('title = "a"', "no .*messages"),
        ('format = "other"', "format must be"),
        ('format = "samovar-chat"\nversion = 2', "newer Samovar"),
        ("messages = 3", "messages: there must be a list here"),
        ("messages = [3]", "messages: there must be named values here"),
        ('[[messages]]\ncontent = "a"', "message 1: .*role"),
        ('[[messages]]\nrole = "user"', "message 1: .*content"),
        ('[[messages]]\nrole = "tool"\ncontent = "a"', 'message 1: role must be "system"'),
        ('[[messages]]\nrole = "user"\ncontent = 3', "message 1: .*content"),
        (MESSAGE + 'state = "streaming"', "streaming"),
        (MESSAGE + 'state = "odd"', "state must be"),
        (MESSAGE + 'id = "one"', "message 1: id must be a whole number"),
        (MESSAGE + "id = -1", "id must be a whole number"),
        (MESSAGE + f"id = {2**63}", "an id must be"),
        (MESSAGE + "id = 2\n" + MESSAGE + "id = 2", "two messages have the id 2"),
        (MESSAGE + "parent = 7", "message 1 follows 7"),
        (MESSAGE + "parent = 1", "message 1 follows 1"),
        ("head = 9\n" + MESSAGE, "head is 9"),
        ("head = true\n" + MESSAGE, "head must be"),
        ('created_at = "today"\n' + MESSAGE, "2026-11-22T09:15:00Z"),
        ("created_at = inf\n" + MESSAGE, "no time"),
        ("created_at = nan\n" + MESSAGE, "no time"),
        ("created_at = 1e300\n" + MESSAGE, "no time"),
        ("created_at = 9" + "0" * 400 + "\n" + MESSAGE, "created_at"),
        (MESSAGE + "created_at = 07:30:00", "message 1: a time"),
        (MESSAGE + 'tokens = "%%%"', "base64"),
        (MESSAGE + 'tokens = "AAA="', "cut off"),
        (MESSAGE + "tokens = [-1]", "tokens must be"),
        (MESSAGE + 'stats = "[1]"', "message 1, stats"),
        (MESSAGE + 'stats = "{"', "message 1, stats"),
        (MESSAGE + "extra = 3", "named values"),
        (MESSAGE + "attachments = 3", "message 1: there must be a list"),
        (MESSAGE + 'attachments = [{name = "a"}]', "an attachment must have a text"),
        (MESSAGE + 'attachments = [{name = 1, text = "a"}]', "name"),
        (MESSAGE + "[settings]\ntemperature = 99", "temperature must be"),
        (MESSAGE + '[settings]\npin = "yes"', "pin"),
        (MESSAGE + "settings = 3", "messages"),
        ("settings = 3\n" + MESSAGE, "named values"),
        ("tags = [1]\n" + MESSAGE, "tags"),
        ("title = 3\n" + MESSAGE, "title"),
    ],
    ids=shortened,
)
def test_a_faulty_toml_file_is_refused_in_words(text: str, said: str) -> None:
    if text.endswith("settings = 3") and text.startswith("[["):
        assert read_toml(text).messages[0].extra == {"settings": 3}
        return
    with pytest.raises(SamovarError, match=said) as caught:
        read_toml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 330


def test_text_that_is_not_utf8_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SamovarError, match="line 2, byte 10: not UTF-8"):
        read_toml(b'title = "a"\n# comment\xff\n')
    monkeypatch.setattr(reading, "MAX_TEXT_BYTES", 10)
    for read in (samovar_toml.read, markdown.read):
        with pytest.raises(SamovarError, match="as JSON instead"):
            read(b" " * 11, Notes())


def envelope(chat: str) -> bytes:
    return b'{"format": "samovar", "version": 1, "chats": [' + chat.encode("utf-8", "surrogatepass") + b"]}"


def chat_with(message: str) -> bytes:
    return envelope('{"messages": [{"id": 1, "role": "user", "content": "a", ' + message + "}]}")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "there must be an object"),
        (b" ", "there must be an object"),
        (b'{"format": "samovar", "version": 1,', "ends too early"),
        (b'{"format": "samovar", "chats": [{"title": "', "ends too early"),
        (b'{"format": "samovar", "chats": [{"title": "\\', "ends too early"),
        (b'{"format": "samovar",\n "version": ?}', "line 2, byte 13: not valid JSON"),
        (b'{"format": "samovar", "chats": [}]', "ends too early|not valid JSON"),
        (b'{"format": "samovar", "chats" []}', "line 1, byte 2[34]: not valid JSON: a name in quotes"),
        (b'{"format": "samovar", , "chats": []}', "line 1, byte 2[34]: not valid JSON: a name in quotes"),
        (b'{"format": "samovar", "chats": [,]}', "chat 1: there must be an object"),
        (b'{"format": "samovar", "chats": [{},]}', "chat 2: there must be an object"),
        (b'{"format": "samovar", "chats": [{"a": 1 2}]}', "line 1, byte 42: not valid JSON"),
        (b'{"format": "samovar", "chats": [{"a": }]}', "line 1, byte 39: not valid JSON"),
        (b'{"format": "samovar", "chats": [{} {}]}', "line 1, byte 36: not valid JSON"),
        (b"[]", "there must be an object"),
        (b"3", "there must be an object"),
        (b"{}", "no export of Samovar"),
        (b'{"format": 3}', "no export of Samovar"),
        (b'{"format": "samovar", "version": 2, "chats": []}', "newer Samovar"),
        (b'{"format": "samovar", "version": true, "chats": []}', "newer Samovar"),
        (b'{"format": "samovar", "chats": {}}', "chats: there must be a list"),
        (b'{"format": "samovar", "chats": []} tail', "line 1, byte 36: not valid JSON"),
        (b'{"format": "samovar", "chats": []} {"chats": []}', "line 1, byte 36: not valid JSON"),
        (b'{"format": "samovar", "chats": []]', "line 1, byte 34: not valid JSON"),
        (envelope("3"), "chat 1: there must be an object"),
        (envelope('{"messages": 3}'), "chat 1, messages: there must be a list"),
        (envelope('{"messages": [3]}'), "message 1: there must be named values"),
        (envelope('{"messages": [{}]}'), "message 1: .*(id|role|content)"),
        (envelope('{"title": "\ud800"}'), "chat 1, title: not UTF-8"),
        (envelope('{"\ud800": 1}'), "chat 1: not UTF-8"),
        (envelope('{"title": "\\ud800 lone"}'), "line 1, byte 64: not valid JSON"),
        (envelope('{"title": null}'), "title"),
        (envelope('{"extra": [1]}'), "named values"),
        (envelope('{"a": 1, "extra": {"a": 2}}'), '"a" stands both'),
        (envelope('{"created_at": 1e999}'), "created_at: Number out of range"),
        (envelope('{"created_at": 1e300}'), "no time"),
        (envelope('{"a": ' + "9" * 5000 + "}"), "out of range"),
        (envelope('{"a": ' + "[" * 100 + "]" * 100 + "}"), "deeper than 64"),
        (envelope('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"), "nested too deep"),
        (envelope('{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}"), "nested too deep"),
        (envelope("[" * 100_000), "nested too deep"),
        (b'{"format": "samovar", "chats": [], "chats": [{}]}', 'the name "chats" is one too many'),
        (envelope('{"head": 4}'), "head is 4"),
        (envelope('{"settings": {"top_p": 7}}'), "top_p must be"),
        (envelope('{"settings": {"stop": [""]}}'), "stop must be"),
        (envelope('{"messages": [{"id": 0, "role": "user", "content": ""}]}'), "from 1 up"),
        (envelope('{"messages": [{"id": 1.5, "role": "user", "content": ""}]}'), "`id`"),
        (chat_with('"tokens": [4294967296]'), "tokens must be"),
        (chat_with('"tokens": "AAAA"'), "tokens"),
        (chat_with('"parent": 1'), "message 1 follows 1"),
        (chat_with('"state": "streaming"'), "streaming"),
        (chat_with('"attachments": [{}]'), "must have a text"),
        (chat_with('"attachments": [3]'), "named values"),
        (chat_with('"stats": {"reused": 3}'), "reused"),
        (chat_with('"role": "\\u001b[31m\\u202e' + "x" * 1000 + '"'), "role must be"),
        (chat_with('"model": 3'), "model"),
    ],
    ids=shortened,
)
def test_a_faulty_json_file_is_refused_in_words(data: bytes, said: str) -> None:
    with pytest.raises(SamovarError, match=said) as caught:
        read_json(data)
    assert len(str(caught.value)) < 330
    assert str(caught.value).isprintable()


GOOD = markdown.write(chain("a", "b"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("<!-- samovar: end {} -->\n", ""), "ends too early"),
        (GOOD.replace('{"version": 1}', '{"version": 2}'), "newer Samovar"),
        (GOOD.replace('{"version": 1}', '{"version"}'), "ends too early|line 1"),
        (GOOD.replace("## User\n\n", ""), "line 4: a heading"),
        (GOOD.replace("a\n\n", "a\n"), "line 4: a heading"),
        (GOOD.replace('"user"', '"tool"'), "message 1: role must be"),
        (GOOD.replace('{"role": "user"}', "{}"), "message 1: .*role"),
        (GOOD.replace("samovar: message", "samovar: poem"), "line 4: a part of the kind poem"),
        (GOOD.replace("samovar: message", "samovar: attachment"), "line 4: a part of the kind attachment"),
        (GOOD.replace("samovar: message", "samovar: end"), "line 4: a part of the kind end"),
        (GOOD.replace('"assistant"}', '"assistant", "created_at": "x"}'), "message 2: .*created_at"),
    ],
)
def test_a_faulty_markdown_file_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(SamovarError, match=said):
        read_markdown(text)


def test_marks_made_by_hand_do_no_harm() -> None:
    text = GOOD.replace(
        '"assistant"}', '"assistant", "attachments": 5, "id": 9, "mood": "good", "closed": 7}'
    )
    message = read_markdown(text).messages[1]
    assert (message.id, message.content) == (2, "b")
    assert message.extra == {"attachments": 5, "id": 9, "mood": "good"}


Read: TypeAlias = Callable[[bytes], Any]
Write: TypeAlias = Callable[[Any], object]


def write_markdown(document: ChatDocument) -> bytes:
    return markdown.write(msgspec.structs.replace(document, head=4)).encode()


@pytest.mark.parametrize(
    ("whole", "read", "write"),
    [
        (samovar_json.write([BRANCHED, BRANCHED]), read_json, samovar_json.write),
        (samovar_toml.write(BRANCHED), read_toml, samovar_toml.write),
        (write_markdown(BRANCHED), read_markdown, markdown.write),
    ],
    ids=["json", "toml", "markdown"],
)
class TestDamaged:
    """A file that was cut off or changed at random is read or refused, and what is read can be written."""

    def test_cut_off(self, whole: bytes, read: Read, write: Write) -> None:
        is_read = [is_readable(whole[:length], read, write) for length in range(len(whole) - 2)]
        if read is not read_toml:  # TOML says nowhere that it is complete
            assert not any(is_read)

    @given(data=st.data())
    @settings(max_examples=300)
    def test_changed(self, whole: bytes, read: Read, write: Write, data: st.DataObject) -> None:
        damaged = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        is_readable(bytes(damaged), read, write)


def is_readable(data: bytes, read: Read, write: Write) -> bool:
    """Whether the file can be read; what can be read can be written again."""
    try:
        got = read(data)
    except SamovarError as error:
        said = str(error)
    else:
        write(got)
        return True
    assert said.isprintable()
    return False
