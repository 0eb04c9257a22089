"""Side tasks: the user's files, how prompts are written, what answers mean."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.core.chat import ChatMessage, Role
from samovar.core.errors import SamovarError
from samovar.core.request import RequestKind
from samovar.sessions.store import MessageState, StoredMessage
from samovar.tasks import answer
from samovar.tasks.answer import MAX_TITLE, json_texts, meaning, tags_of, title_of
from samovar.tasks.builtin import ASIDE, BUILTIN, KEYWORDS, SUGGEST, SUMMARY, TITLE, TRANSLATE
from samovar.tasks.prompt import Filling, about, checked_prompt, instruction, side_request
from samovar.tasks.spec import Output, Scope, TaskSpec, When
from samovar.tasks.user import TaskShelf

# The user's files


def shelf(folder: Path, **files: str) -> TaskShelf:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return TaskShelf(folder)


def found(shelf: TaskShelf, name: str) -> TaskSpec:
    return next(spec for spec in shelf.specs() if spec.name == name)


def test_a_file_becomes_a_task_behind_the_built_in_ones(tmp_path: Path) -> None:
    tasks = shelf(
        tmp_path,
        minutes="""
            prompt = "Minutes of “$title” for $input, at $$5."
            help = "minutes of this chat"
            output = "composer"
            when = "every reply"
            max_tokens = 40
            timeout = "1m30s"
            temperature = 1
            needs_input = "AUDIENCE"
            default_input = "everybody"
            [schema]
            type = "object"
        """,
        verse="""
            name = "a-verse"
            prompt = "Say $subject in verse."
            scope = "message"
            grammar = "root ::= [a-z]+"
        """,
    )
    assert [spec.name for spec in tasks.specs()] == [*(spec.name for spec in BUILTIN), "a-verse", "minutes"]
    assert tasks.problems == ()
    assert found(tasks, "minutes") == TaskSpec(
        "minutes",
        "Minutes of “$title” for $input, at $$5.",
        help="minutes of this chat",
        output=Output.COMPOSER,
        when=When.EVERY_REPLY,
        max_tokens=40,
        timeout_s=90.0,
        temperature=1.0,
        json_schema='{"type": "object"}',
        needs_input="AUDIENCE",
        default_input="everybody",
        is_builtin=False,
    )
    assert found(tasks, "a-verse").scope is Scope.MESSAGE


def test_a_file_replaces_changes_or_turns_off_the_built_in_task_of_its_name(tmp_path: Path) -> None:
    tasks = shelf(
        tmp_path,
        title='when = "asked"',
        summary='prompt = "Sum up in one word."\nmax_tokens = 4',
        suggest='when = "never"',
    )
    names = [spec.name for spec in tasks.specs()]
    assert names == [spec.name for spec in BUILTIN if spec.name != "suggest"]
    assert found(tasks, "title").when is When.ASKED
    assert found(tasks, "title").prompt == TITLE.prompt
    assert found(tasks, "summary") == TaskSpec(
        "summary", "Sum up in one word.", max_tokens=4, is_builtin=False
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[[", "no valid TOML"),
        ("help = 'x'", "there is no prompt"),
        ("prompt = ''", "prompt must say what to do"),
        ("prompt = 1", "prompt must be a text in quotes, not 1"),
        ("prompt = 'a $word'", "$word, which stands for nothing; known are $input, $message"),
        ("prompt = 'costs 5 $'", "write $$ for a dollar sign"),
        (f"prompt = '{'x' * 9000}'", "at most 8,192 bytes"),
        ("prompt = '$subject'", 'scope = "message"'),
        ("prompt = 'x'\nneeds_input = 'WORD'", "with $input where it goes"),
        ("prompt = 'x'\nname = 'Two words'", "name must be a word of small letters"),
        ("promt = 'x'", 'unknown key "promt"; did you mean "prompt"?'),
        ("prompt = 'x'\ncolour = 1", 'unknown key "colour"; known are name, prompt'),
        (
            "prompt = 'x'\noutput = 'file'",
            'output must be "panel", "title", "tags" or "composer", not "file"',
        ),
        ("prompt = 'x'\nwhen = 'now'", 'when must be "asked", "first reply", "every reply" or "never"'),
        ("prompt = 'x'\nscope = 'all'", 'scope must be "chat" or "message"'),
        ("prompt = 'x'\nmax_tokens = 0", "max_tokens must be a whole number of tokens from 1 up, not 0"),
        ("prompt = 'x'\nmax_tokens = true", "max_tokens must be a whole number"),
        ("prompt = 'x'\ntimeout = 'soon'", 'timeout must be a duration from "1s" up'),
        ("prompt = 'x'\ntimeout = '-1'", 'timeout must be a duration from "1s" up'),
        ("prompt = 'x'\ntemperature = 99", "temperature must be a number from 0 (greedy) to 10"),
        ("prompt = 'x'\nschema = '{'", "schema must be a JSON schema"),
        ("prompt = 'x'\nschema = '[1]'", "schema must be a JSON schema"),
        ("prompt = 'x'\n[schema]\nsince = 2024-01-01", "schema must be a JSON schema"),
        ("prompt = 'x'\nschema = '{}'\ngrammar = 'root ::= \"x\"'", "cannot both be given"),
    ],
)
def test_a_wrong_file_is_told_and_keeps_no_other_out(tmp_path: Path, text: str, reason: str) -> None:
    tasks = shelf(tmp_path, wrong=text, right="prompt = 'Be brief.'")
    assert [spec.name for spec in tasks.specs()][len(BUILTIN) :] == ["right"]
    (problem,) = tasks.problems
    assert reason in problem
    assert problem.startswith("wrong.toml")
    assert len(problem) < 300


def test_files_that_are_no_text_and_folders_that_are_none_are_told(tmp_path: Path) -> None:
    tasks = shelf(tmp_path, large=f"prompt = 'x' # {'x' * 70_000}")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe.toml")
    assert len(tasks.specs()) == len(BUILTIN)
    assert len(tasks.problems) == 4
    assert not TaskShelf(tmp_path / "nowhere").specs()[len(BUILTIN) :]
    no_folder = TaskShelf(tmp_path / "bytes.toml")
    no_folder.specs()
    assert len(no_folder.problems) == 1


def test_files_are_read_anew_when_they_change_come_and_go(tmp_path: Path) -> None:
    tasks = shelf(tmp_path, one="prompt = 'first'")
    assert found(tasks, "one").prompt == "first"
    (tmp_path / "one.toml").write_text("prompt = 'the second'")
    assert found(tasks, "one").prompt == "the second"
    (tmp_path / "one.toml").write_text("prompt =")
    assert "one" not in [spec.name for spec in tasks.specs()]
    assert len(tasks.problems) == 1
    (tmp_path / "one.toml").unlink()
    tasks.specs()
    assert not tasks.problems


def test_two_files_of_one_name_are_told(tmp_path: Path) -> None:
    tasks = shelf(tmp_path, a="name = 'c'\nprompt = 'of a'", b="name = 'c'\nprompt = 'of b'")
    assert found(tasks, "c").prompt == "of a"
    assert tasks.problems == ('b.toml: the name "c" is that of a.toml too',)


def test_a_task_that_a_file_is_about_and_that_is_not_there_says_why(tmp_path: Path) -> None:
    tasks = shelf(
        tmp_path, title='when = "never"', wrong='prompt = "x"\ncolor = "red"', summary="max_tokens = 0"
    )
    tasks.specs()
    assert tasks.missing["title"] == f"title is switched off in {tmp_path / 'title.toml'}"
    assert tasks.missing["wrong"].startswith('wrong.toml: unknown key "color"; known are')
    assert "summary" not in tasks.missing, "the built-in one is there"


# Prompts


def message(number: int, role: Role, text: str) -> StoredMessage:
    return StoredMessage(number, "s", number - 1 or None, role, text, 0.0, MessageState.COMPLETE)


PATH = [
    message(1, Role.USER, "one"),
    message(2, Role.ASSISTANT, "two"),
    message(3, Role.USER, "three"),
    message(4, Role.ASSISTANT, "four"),
]


def test_what_the_model_has_just_read_is_named_and_older_messages_are_quoted() -> None:
    assert about(PATH, PATH[3]) == "your last reply"
    assert about(PATH, PATH[2]) == "my previous message"
    assert "two" in about(PATH, PATH[1])
    assert "later" in about(PATH, message(5, Role.USER, "later"))


def test_a_template_is_filled_once() -> None:
    filling = Filling("$title and $$", "m", "s", "t")
    spec = TaskSpec("x", "$input, ${message}s, $subject, $title, $$1")
    assert instruction(spec, filling) == "$title and $$, ms, s, t, $1"


def test_a_request_is_the_chat_and_one_message_and_keeps_nothing() -> None:
    sent = (ChatMessage(Role.USER, "hello"), ChatMessage(Role.ASSISTANT, "hi", (1, 2), "tok"))
    request = side_request(TITLE, sent, Filling(), session="s", chat_title="t", urgent=True)
    assert request.messages == (*sent, ChatMessage(Role.USER, TITLE.prompt))
    assert (request.kind, request.session, request.title) == (RequestKind.SIDE_TASK, "s", "t")
    assert request.urgent
    assert not request.store
    assert request.max_tokens == TITLE.max_tokens
    assert json.loads(request.json_schema)["required"] == ["title"]


def test_built_in_tasks_are_valid() -> None:
    for spec in BUILTIN:
        assert checked_prompt(spec.prompt)
        assert spec.is_builtin
        assert not spec.json_schema or json.loads(spec.json_schema)["type"] == "object"
    assert [spec.name for spec in BUILTIN if spec.when is not When.ASKED] == ["title"]


# Answers


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('{"title": "Tea in Kyoto"}', "Tea in Kyoto"),
        ('```json\n{"title": "Tea in Kyoto"}\n```', "Tea in Kyoto"),
        ("Tea in Kyoto", "Tea in Kyoto"),
        ('Title: "Tea in Kyoto."', "Tea in Kyoto"),
        ("**Chat title:** Tea in Kyoto", "Tea in Kyoto"),
        ("\n\n“Tea\tin  Kyoto”\nIt is about tea.", "Tea in Kyoto"),
        ('{"title": "Tea\\n\\u001b[31m in Kyoto"}', "Tea [31m in Kyoto"),
        ('{"title": "Tea in \\ud800Kyoto"}', "Tea in \ufffdKyoto"),
        ("", ""),
        ("...", ""),
        ('{"title": ""}', ""),
        ("{}", ""),
        ('{"title": null}', ""),
    ],
)
def test_a_title_is_found_in_whatever_a_model_writes(text: str, title: str) -> None:
    assert meaning(TITLE, text) == ((title,) if title else ())


def test_a_long_title_is_cut_between_words() -> None:
    title = title_of("word " * 40)
    assert len(title) <= MAX_TITLE
    assert title.endswith("word…")
    assert len(title_of("x" * 500)) == MAX_TITLE


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('{"tags": ["Tea", "#kyoto", "green tea"]}', ("tea", "kyoto", "green tea")),
        ('{"tags": ["tea", "tea", "", 3, null, {"tag": "x"}]}', ("tea", "3", "x")),
        ('{"tags": ["tea", "kyo', ("tea",)),
        ('{"tags": ["tea", "kyoto"', ("tea", "kyoto")),
        ('{"tags": ["tea",', ("tea",)),
        ('{"tags": [', ()),
        ('{"ta', ()),
        ("tea, Kyoto; gardens.\n- moss", ("tea", "kyoto", "gardens", "moss")),
        ("The chat is about tea and about gardens in Japan", ()),
        ("---", ()),
        ("x" * 200, ()),
    ],
)
def test_tags_are_found_in_whatever_a_model_writes(text: str, tags: tuple[str, ...]) -> None:
    assert meaning(KEYWORDS, text) == tags


def test_no_more_tags_than_anybody_reads() -> None:
    assert len(tags_of(f"tag{number}" for number in range(100))) == answer.MAX_TAGS


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ('{"replies": ["a", " b ", "c", "d"]}', ("a", "b", "c")),
        ('{"replies": ["\\ud800"]}', ("\ufffd",)),
        ('{"replies": ["a, [b]", "say \\"c\\"', ("a, [b]",)),
        ("I would ask why.", ("I would ask why.",)),
        ("", ()),
    ],
)
def test_suggestions_are_three_at_most(text: str, texts: tuple[str, ...]) -> None:
    assert meaning(SUGGEST, text) == texts


def test_other_answers_stay_as_they_are() -> None:
    assert meaning(SUMMARY, "  A list:\n- [x] {y}\n") == ("A list:\n- [x] {y}",)
    assert meaning(ASIDE, '{"a": 1}') == ('{"a": 1}',)
    listed = TaskSpec("x", "y", json_schema="{}")
    assert meaning(listed, '{"steps": ["one", "two"]}') == ("one\ntwo",)
    assert meaning(TRANSLATE, "\n ") == ()


@given(st.text(), st.sampled_from(BUILTIN))
def test_nothing_that_a_model_writes_is_an_error(text: str, spec: TaskSpec) -> None:
    for part in meaning(spec, text):
        assert part.strip()
        part.encode()


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1), st.data())
def test_a_cut_list_keeps_the_items_that_were_complete(items: list[str], data: st.DataObject) -> None:
    text = json.dumps({"items": items})
    cut = text[: data.draw(st.integers(len('{"items": ['), len(text)))]
    kept = json_texts(cut)
    assert kept is not None
    assert list(kept) == items[: len(kept)]
    assert len(kept) >= min(len(items), cut.count('", "'))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, '{"a": "' + "\\" * 9999])
def test_an_answer_of_brackets_alone_means_nothing_or_little(text: str) -> None:
    assert not tags_of(json_texts(text) or ())


def test_a_wrong_template_is_refused() -> None:
    with pytest.raises(SamovarError, match="stands for nothing"):
        checked_prompt("${what}")
