"""Chats of other programs. Each fixture is written from the source that its section names."""

import json
import sqlite3
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.attachments import digest_of
from samovar.sessions.settings import SessionSettings
from samovar.sessions.transfer import markdown, reading, samovar_json, samovar_toml
from samovar.sessions.transfer.document import ChatDocument, MessageDocument
from samovar.sessions.transfer.importing import open_file
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.values import MessageState

Imported = tuple[list[ChatDocument], tuple[str, ...]]


def imported(path: Path) -> Imported:
    """The chats of the file and what was noted, each of them one that our own formats hold too."""
    with open_file(path) as file:
        documents = [reading.accepted(document) for document in file.chats()]
        assert 0 <= file.done_bytes <= file.total_bytes
        return documents, file.notes.lines()


def import_json(folder: Path, value: object) -> Imported:
    path = folder / "file"
    path.write_text(json.dumps(value))
    return imported(path)


def import_lines(folder: Path, *lines: object) -> Imported:
    path = folder / "file"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return imported(path)


def one(result: Imported) -> ChatDocument:
    documents, _ = result
    assert len(documents) == 1
    return documents[0]


def tree(document: ChatDocument) -> list[tuple[int, int | None, str, str]]:
    return [(each.id, each.parent, each.role.value, each.content) for each in document.messages]


def said(document: ChatDocument) -> list[tuple[str, str]]:
    return [(each.role.value, each.content) for each in document.messages]


# --- ChatGPT: pionxzh/chatgpt-exporter `src/api.ts` (ApiConversation, ConversationNodeMessage),
# --- mitkury/chatgpt-export-parser `docs/chatgpt-data-export-format.md`


def node(
    key: str, parent: str | None, children: Sequence[str] = (), message: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {"id": key, "parent": parent, "children": list(children), "message": message}


def message(
    role: str, *parts: object, kind: str = "text", metadata: Mapping[str, Any] | None = None, **more: object
) -> dict[str, Any]:
    content: dict[str, Any] = {"content_type": kind}
    if parts:
        content["parts"] = list(parts)
    content.update({name: more.pop(name) for name in list(more) if name in _CONTENT_FIELDS})
    return {
        "id": "m",
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": 1700000000.25,
        "update_time": None,
        "content": content,
        "status": "finished_successfully",
        "end_turn": None,
        "weight": 1.0,
        "metadata": dict(metadata or {}),
        "recipient": "all",
        **more,
    }


_CONTENT_FIELDS = {
    "text",
    "language",
    "thoughts",
    "content",
    "user_profile",
    "user_instructions",
    "result",
    "title",
    "url",
    "model_set_context",
}


def conversation(*nodes: Mapping[str, Any], current: str | None = None, **more: object) -> dict[str, Any]:
    return {
        "title": "Tea",
        "create_time": 1700000000.0,
        "update_time": 1700000100.5,
        "mapping": {each["id"]: each for each in nodes},
        "moderation_results": [],
        "current_node": current or nodes[-1]["id"],
        "plugin_ids": None,
        "conversation_id": "68f0",
        "conversation_template_id": None,
        "gizmo_id": None,
        "is_archived": False,
        "safe_urls": [],
        "id": "68f0",
        **more,
    }


EDITED = conversation(
    node("root", None, ["sys"]),
    node("sys", "root", ["q2", "q1"], message("system", "", weight=0)),
    node("q1", "sys", ["a1", "a2"], message("user", "Which tea?")),
    node("a2", "q1", [], message("assistant", "Oolong.", metadata={"model_slug": "gpt-4o"})),
    node("a1", "q1", [], message("assistant", "Green.", metadata={"model_slug": "gpt-4"})),
    node("q2", "sys", [], message("user", "Which coffee?")),
    current="a1",
)


def test_chatgpt_branches_are_kept_and_empty_nodes_are_not(tmp_path: Path) -> None:
    documents, notes = import_json(tmp_path, [EDITED])
    document = documents[0]
    assert tree(document) == [
        (1, None, "user", "Which coffee?"),
        (2, None, "user", "Which tea?"),
        (3, 2, "assistant", "Green."),
        (4, 2, "assistant", "Oolong."),
    ]
    assert document.head == 3
    assert [each.model for each in document.messages] == ["", "", "gpt-4", "gpt-4o"]
    assert document.title == "Tea"
    assert (document.created_at, document.updated_at) == (1700000000.0, 1700000100.5)
    assert document.messages[0].created_at == 1700000000.25
    assert document.source == "chatgpt 68f0"
    assert notes == ()


def test_chatgpt_fields_without_a_place_are_kept_under_their_names(tmp_path: Path) -> None:
    document = one(
        import_json(
            tmp_path,
            [
                conversation(
                    node("q", None, [], message("user", "Hi", metadata={"request_id": "r1"})),
                    gizmo_id="g-1",
                    brand_new={"deep": [1, 2.5, None]},
                )
            ],
        )
    )
    assert document.extra["gizmo_id"] == "g-1"
    assert document.extra["brand_new"] == {"deep": [1, 2.5, None]}
    extra = document.messages[0].extra
    assert extra["metadata"] == {"request_id": "r1"}
    assert extra["status"] == "finished_successfully"


def test_chatgpt_head_is_the_nearest_message_shown(tmp_path: Path) -> None:
    nodes = [
        node("q", None, ["hidden"], message("user", "Hi")),
        node("hidden", "q", [], message("system", "", weight=0)),
    ]
    assert one(import_json(tmp_path, [conversation(*nodes)])).head == 1


def test_chatgpt_custom_instructions_are_the_system_prompt(tmp_path: Path) -> None:
    data = {"about_user_message": "I brew tea.", "about_model_message": "Be brief."}
    context = message(
        "user",
        kind="user_editable_context",
        user_profile="The user provided…: I brew tea.",
        user_instructions="…: Be brief.",
        metadata={"is_user_system_message": True, "user_context_message_data": data},
    )
    documents, notes = import_json(
        tmp_path,
        [conversation(node("c", None, ["q"], context), node("q", "c", [], message("user", "Hi")))],
    )
    assert documents[0].system_prompt == "I brew tea.\n\nBe brief."
    assert tree(documents[0]) == [(1, None, "user", "Hi")]
    assert documents[0].extra["user_editable_context"][0]["user_instructions"] == "…: Be brief."
    assert notes == ("custom instructions became the system prompt",)


def test_chatgpt_reasoning_stands_before_its_reply(tmp_path: Path) -> None:
    thoughts = message(
        "assistant",
        kind="thoughts",
        thoughts=[{"summary": "Choosing", "content": "Green or black", "chunks": [], "finished": True}],
    )
    document = one(
        import_json(
            tmp_path,
            [
                conversation(
                    node("q", None, ["t"], message("user", "Which?")),
                    node("t", "q", ["r"], thoughts),
                    node(
                        "r",
                        "t",
                        ["a"],
                        message("assistant", kind="reasoning_recap", content="Thought for 5s"),
                    ),
                    node("a", "r", [], message("assistant", "Green.")),
                    current="t",
                )
            ],
        )
    )
    assert said(document) == [
        ("user", "Which?"),
        ("assistant", "<think>\nChoosing\n\nGreen or black\n</think>\n\nGreen."),
    ]
    assert document.head == 1
    assert document.messages[1].extra["thoughts"][1]["content"]["content"] == "Thought for 5s"


def test_chatgpt_reasoning_that_was_stopped_is_a_message(tmp_path: Path) -> None:
    thoughts = message("assistant", kind="thoughts", thoughts=[{"summary": "", "content": "Hm"}])
    nodes = [node("q", None, ["t"], message("user", "Which?")), node("t", "q", [], thoughts)]
    document = one(import_json(tmp_path, [conversation(*nodes)]))
    assert said(document)[1] == ("assistant", "<think>\nHm\n</think>\n\n")
    assert document.head == 2


def test_chatgpt_what_is_no_text_becomes_one(tmp_path: Path) -> None:
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1", "width": 5}
    voice = {"content_type": "real_time_user_audio_video_asset_pointer", "frames_asset_pointers": []}
    heard = {"content_type": "audio_transcription", "text": "a red cup", "direction": "in"}
    tool = message("tool", kind="execution_output", text="42")
    tool["author"] = {"role": "tool", "name": "python", "metadata": {}}
    files = {"attachments": [{"id": "file-1", "name": "cup.png"}]}
    nodes = [
        node(
            "q",
            None,
            ["c"],
            message("user", image, "See", voice, heard, kind="multimodal_text", metadata=files),
        ),
        node("c", "q", ["o"], message("assistant", kind="code", language="python", text="a = `x`\n```\n6*7")),
        node("o", "c", ["w"], tool),
        node(
            "w", "o", ["n"], message("tool", kind="tether_quote", title="Tea", url="http://t", text="leaves")
        ),
        node("n", "w", [], message("assistant", kind="super_widget")),
    ]
    documents, notes = import_json(tmp_path, [conversation(*nodes)])
    document = documents[0]
    assert said(document) == [
        ("user", "[image: cup.png]\nSee\n[audio and video]\na red cup"),
        ("assistant", "````python\na = `x`\n```\n6*7\n````"),
        ("user", "```\n42\n```"),
        ("user", "[quote: Tea http://t]\n\nleaves"),
        ("assistant", "[super_widget]"),
    ]
    assert document.messages[0].extra["content"]["parts"][0] == image
    assert document.messages[2].extra["role"] == "tool"
    assert document.messages[2].extra["author"] == {"name": "python"}
    assert set(notes) == {
        "messages of tools are kept as yours, with their role noted (2 times)",
        "images, audio and other files are left out, their names are kept (2 times)",
        "content of kinds that Samovar does not know is left out of the text and kept beside it",
    }


@pytest.mark.parametrize(
    ("status", "finish", "state"),
    [
        ("finished_successfully", "stop", MessageState.COMPLETE),
        ("finished_successfully", "max_tokens", MessageState.CUT),
        ("finished_partial_completion", "interrupted", MessageState.STOPPED),
        ("in_progress", None, MessageState.STOPPED),
    ],
)
def test_chatgpt_replies_that_were_cut_off_say_so(
    tmp_path: Path, status: str, finish: str | None, state: MessageState
) -> None:
    metadata = {"finish_details": {"type": finish}} if finish else {}
    reply = message("assistant", "Gre", metadata=metadata, status=status)
    assert one(import_json(tmp_path, [conversation(node("a", None, [], reply))])).messages[0].state is state


def test_chatgpt_nodes_that_only_their_parent_names_are_found(tmp_path: Path) -> None:
    documents, notes = import_json(
        tmp_path,
        [
            conversation(
                node("q", None, ["a"], message("user", "Hi")),
                node("a", None, [], message("assistant", "Hello")),
            )
        ],
    )
    assert tree(documents[0]) == [(1, None, "user", "Hi"), (2, 1, "assistant", "Hello")]
    assert notes == ("messages that name no predecessor follow the one that lists them",)


def test_chatgpt_missing_parents_begin_branches(tmp_path: Path) -> None:
    documents, notes = import_json(
        tmp_path,
        [
            conversation(
                node("q", None, [], message("user", "Hi")),
                node("a", "gone", [], message("assistant", "Hello")),
            )
        ],
    )
    assert tree(documents[0]) == [(1, None, "user", "Hi"), (2, None, "assistant", "Hello")]
    assert notes == ("messages whose predecessor is missing begin a branch of their own",)


def test_chatgpt_single_conversations_and_flags(tmp_path: Path) -> None:
    single = conversation(node("q", None, [], message("user", "Hi")), is_archived=True, is_starred=True)
    document = one(import_json(tmp_path, single))
    assert (document.is_archived, document.is_favourite) == (True, True)


def test_chatgpt_zip_has_its_conversations_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "export"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("chat.html", "<html>")
        for number in range(2):
            part = [conversation(node("q", None, [], message("user", f"Hi {number}")))]
            archive.writestr(f"export/conversations-00{number}.json", json.dumps(part))
    with open_file(path) as file:
        assert file.format_name == "ChatGPT, zip"
        assert [said(each) for each in file.chats()] == [[("user", "Hi 0")], [("user", "Hi 1")]]
        assert file.done_bytes == file.total_bytes > 0


# --- llama.cpp's web interface: ggml-org/llama.cpp, `tools/ui/src/lib/types/database.d.ts` and
# --- `tools/ui/src/lib/services/conversation-transfer.service.ts`, before that under `tools/server/webui/`

LLAMA_CONV: dict[str, object] = {
    "id": "c1",
    "name": "Tea",
    "lastModified": 1765279699684,
    "currNode": "m3",
    "pinned": True,
}


def llama(key: str, parent: str | None, role: str, content: str, **more: object) -> dict[str, Any]:
    return {
        "id": key,
        "convId": "c1",
        "type": "text",
        "timestamp": 1765275434078,
        "role": role,
        "content": content,
        "parent": parent,
        "children": [],
        **more,
    }


LLAMA_MESSAGES = [
    llama("m0", None, "system", "", type="root"),
    llama("m1", "m0", "system", "Be brief.", type="system"),
    llama("m2", "m1", "user", "Which tea?", extra=[{"type": "TEXT", "name": "tea.txt", "content": "green"}]),
    llama("m3", "m2", "assistant", "Green.", model="qwen", reasoningContent="Hm", timings={"prompt_n": 5}),
    llama("m4", "m2", "assistant", "Black.", model="gemma"),
]


@pytest.mark.parametrize("is_list", [True, False])
def test_llama_web_json(tmp_path: Path, is_list: bool) -> None:
    exported = {"conv": LLAMA_CONV, "messages": LLAMA_MESSAGES}
    documents, notes = import_json(tmp_path, [exported] if is_list else exported)
    document = documents[0]
    assert tree(document) == [
        (1, None, "user", "Which tea?"),
        (2, 1, "assistant", "<think>\nHm\n</think>\n\nGreen."),
        (3, 1, "assistant", "Black."),
    ]
    assert (document.title, document.system_prompt, document.head) == ("Tea", "Be brief.", 2)
    assert (document.created_at, document.updated_at) == (1765275434.078, 1765279699.684)
    assert document.source == "llama.cpp c1"
    assert document.extra["pinned"] is True
    attachment = document.messages[0].attachments[0]
    assert (attachment.name, attachment.text, attachment.digest) == ("tea.txt", "green", digest_of("green"))
    assert document.messages[1].extra["timings"] == {"prompt_n": 5}
    assert notes == ()


def test_llama_web_jsonl_has_sessions_one_after_the_other(tmp_path: Path) -> None:
    call = [{"id": "t1", "type": "function", "function": {"name": "search", "arguments": '{"q": "tea"}'}}]
    lines = [
        {"harness": "llama.app", "type": "session", **LLAMA_CONV},
        *({"message": each, "type": "message"} for each in LLAMA_MESSAGES),
        {
            "harness": "llama.app",
            "type": "session",
            "id": "c2",
            "name": "Cups",
            "lastModified": 0,
            "currNode": "b",
        },
        {"type": "message", "message": llama("a", None, "assistant", "Looking", toolCalls=call)},
        {"type": "message", "message": llama("b", "a", "tool", "blue", toolCallId="t1")},
        {"type": "later", "x": 1},
    ]
    documents, notes = import_lines(tmp_path, *lines)
    assert [each.title for each in documents] == ["Tea", "Cups"]
    assert len(documents[0].messages) == 3
    assert said(documents[1]) == [
        ("assistant", 'Looking\n\n[tool call: search({"q": "tea"})]'),
        ("user", "blue"),
    ]
    assert documents[1].messages[0].extra["toolCalls"] == call
    assert documents[1].messages[1].extra == {"id": "b", "toolCallId": "t1", "role": "tool"}
    assert documents[1].head == 2
    assert notes == (
        "lines that are neither session nor message are left out",
        "tool calls are kept as text",
        "messages of tools are kept as yours, with their role noted",
    )


def test_llama_web_zip(tmp_path: Path) -> None:
    path = tmp_path / "export"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "ignored")
        archive.writestr(
            "a.jsonl",
            json.dumps({"type": "session", "harness": "llama.app", **LLAMA_CONV})
            + "\n"
            + json.dumps({"type": "message", "message": llama("m", None, "user", "Hi")}),
        )
    assert said(one(imported(path))) == [("user", "Hi")]


def test_llama_web_path_without_its_root(tmp_path: Path) -> None:
    """The page exports what it shows: `downloadConversation` took `activeMessages`, which have no root."""
    documents, notes = import_json(tmp_path, {"conv": LLAMA_CONV, "messages": LLAMA_MESSAGES[2:4]})
    assert [each.parent for each in documents[0].messages] == [None, 1]
    assert notes == ()


def test_llama_web_first_page(tmp_path: Path) -> None:
    """`LSConversation` in `tools/server/webui/src/utils/storage.ts`: ids of messages are times."""
    document = one(
        import_json(
            tmp_path,
            {
                "id": "conv-1738000000000",
                "lastModified": 1738000005000,
                "messages": [
                    {"id": 1738000000000, "role": "user", "content": "Hi"},
                    {
                        "id": 1738000001000,
                        "role": "assistant",
                        "content": "Hello",
                        "timings": {"prompt_n": 1},
                    },
                ],
            },
        )
    )
    assert tree(document) == [(1, None, "user", "Hi"), (2, 1, "assistant", "Hello")]
    assert [each.created_at for each in document.messages] == [1738000000.0, 1738000001.0]


def test_llama_web_files_and_numbered_ids(tmp_path: Path) -> None:
    """`Message` in `tools/server/webui/src/utils/types.ts`: numbers as ids, -1 as the root's parent."""
    extra = [
        {"type": "imageFile", "name": "cup.png", "base64Url": "data:image/png;base64," + "A" * 400_000},
        {"type": "context", "content": "pasted"},
    ]
    root = {
        "id": 5,
        "convId": "conv-1",
        "type": "root",
        "timestamp": 5,
        "role": "system",
        "content": "",
        "parent": -1,
    }
    asked = {
        "id": 6,
        "convId": "conv-1",
        "type": "text",
        "role": "user",
        "content": "See",
        "parent": 5,
        "extra": extra,
    }
    documents, notes = import_json(
        tmp_path,
        {"conv": {"id": "conv-1", "lastModified": 7, "currNode": 6, "name": "x"}, "messages": [root, asked]},
    )
    message = documents[0].messages[0]
    assert message.content == "See\n\n[image: cup.png]"
    assert message.attachments[0].text == "pasted"
    assert message.extra["extra"][0]["base64Url"] == "[left out: 391 KiB]"
    assert notes == (
        "images, audio and other files are left out, their names are kept",
        "large data beside messages is left out",
    )


# --- OpenAI-style messages: openai/openai-openapi, `ChatCompletionRequestMessage` and what it refers to,
# --- `FineTuneChatRequestInput`

WEATHER = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
}


def test_openai_request_with_every_kind_of_message(tmp_path: Path) -> None:
    documents, notes = import_json(
        tmp_path,
        {
            "model": "gpt-4o",
            "temperature": 0.2,
            "tools": [{"type": "function"}],
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {
                    "role": "user",
                    "name": "Ada",
                    "content": [
                        {"type": "text", "text": "See"},
                        {"type": "image_url", "image_url": {"url": "https://x/cup.png", "detail": "low"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:…"}},
                    ],
                },
                {"role": "assistant", "content": None, "tool_calls": [WEATHER], "weight": 0},
                {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
                {"role": "assistant", "content": "Rain.", "reasoning_content": "Oslo", "refusal": None},
                {"role": "assistant", "content": None, "refusal": "No."},
                {"role": "critic", "content": "Good."},
            ],
        },
    )
    document = documents[0]
    assert document.system_prompt == "Be brief."
    assert document.extra["system_message"] == {"role": "developer"}
    assert said(document) == [
        ("user", "See\n[image: https://x/cup.png]\n[audio: wav]\n[file: a.pdf]"),
        ("assistant", '[tool call: weather({"city": "Oslo"})]'),
        ("user", "rain"),
        ("assistant", "<think>\nOslo\n</think>\n\nRain."),
        ("assistant", "No."),
        ("user", "Good."),
    ]
    assert [each.parent for each in document.messages] == [None, 1, 2, 3, 4, 5]
    assert document.messages[0].extra["name"] == "Ada"
    assert document.messages[0].extra["content"][1]["image_url"]["detail"] == "low"
    assert document.messages[1].extra == {"tool_calls": [WEATHER], "weight": 0}
    assert document.messages[2].extra == {"tool_call_id": "call_1", "role": "tool"}
    assert document.messages[3].model == "gpt-4o"
    assert document.messages[5].extra == {"role": "critic"}
    assert document.extra["temperature"] == 0.2
    assert notes == (
        "images, audio and other files are left out, their names are kept (3 times)",
        "tool calls are kept as text",
        "messages of tools are kept as yours, with their role noted",
        "messages of roles that Samovar does not have are kept as yours",
    )


HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
BYE = [{"role": "user", "content": "Bye"}]


@pytest.mark.parametrize(
    "value", [HI, [HI], {"messages": HI}, [{"messages": HI}]], ids=["bare", "list of", "object", "objects"]
)
def test_openai_shapes(tmp_path: Path, value: object) -> None:
    assert tree(one(import_json(tmp_path, value))) == [(1, None, "user", "Hi"), (2, 1, "assistant", "Hello")]


@pytest.mark.parametrize(
    ("lines", "num_chats"),
    [
        ([{"messages": HI, "split": "train"}, {"messages": BYE}], 2),
        ([HI, BYE], 2),
        (HI, 1),
        ([{"messages": HI}], 1),
    ],
    ids=["conversations", "lists", "messages", "one conversation"],
)
def test_openai_lines(tmp_path: Path, lines: list[object], num_chats: int) -> None:
    documents, _ = import_lines(tmp_path, *lines)
    assert len(documents) == num_chats
    assert said(documents[0]) == [("user", "Hi"), ("assistant", "Hello")]


def test_openai_title_time_and_system_messages_further_down(tmp_path: Path) -> None:
    document = one(
        import_json(
            tmp_path,
            {
                "title": "Tea\n",
                "created_at": "2023-11-14T22:13:20Z",
                "id": "x1",
                "messages": [*HI, {"role": "system", "content": "Now in French."}],
            },
        )
    )
    assert (document.title, document.created_at, document.source) == (
        "Tea",
        1700000000.0,
        "openai-messages x1",
    )
    assert document.system_prompt == ""
    assert said(document)[2] == ("system", "Now in French.")


# --- llm: simonw/llm, `llm/migrations.py` and the schema in `docs/logging.md`

LLM_RESPONSES = """
CREATE TABLE "conversations" ("id" TEXT PRIMARY KEY, "name" TEXT, "model" TEXT);
CREATE TABLE "schemas" ("id" TEXT PRIMARY KEY, "content" TEXT);
CREATE TABLE "responses" (
  "id" TEXT PRIMARY KEY, "model" TEXT, "prompt" TEXT, "system" TEXT, "prompt_json" TEXT, "options_json" TEXT,
  "response" TEXT, "response_json" TEXT, "conversation_id" TEXT REFERENCES "conversations"("id"),
  "duration_ms" INTEGER, "datetime_utc" TEXT, "input_tokens" INTEGER, "output_tokens" INTEGER,
  "token_details" TEXT, "schema_id" TEXT REFERENCES "schemas"("id"), "resolved_model" TEXT, "reasoning" TEXT);
CREATE VIRTUAL TABLE "responses_fts" USING FTS5 ("prompt", "response", content="responses");
CREATE TABLE "attachments" ("id" TEXT PRIMARY KEY, "type" TEXT, "path" TEXT, "url" TEXT, "content" BLOB);
CREATE TABLE "prompt_attachments" (
  "response_id" TEXT, "attachment_id" TEXT, "order" INTEGER, PRIMARY KEY ("response_id", "attachment_id"));
CREATE TABLE "fragments" (
  "id" INTEGER PRIMARY KEY, "hash" TEXT, "content" TEXT, "datetime_utc" TEXT, "source" TEXT);
CREATE TABLE "prompt_fragments" (
  "response_id" TEXT, "fragment_id" INTEGER, "order" INTEGER,
  PRIMARY KEY ("response_id", "fragment_id", "order"));
CREATE TABLE "system_fragments" (
  "response_id" TEXT, "fragment_id" INTEGER, "order" INTEGER,
  PRIMARY KEY ("response_id", "fragment_id", "order"));
CREATE TABLE "tools" (
  "id" INTEGER PRIMARY KEY, "hash" TEXT, "name" TEXT, "description" TEXT, "input_schema" TEXT, "plugin" TEXT);
CREATE TABLE "tool_responses" ("tool_id" INTEGER, "response_id" TEXT, PRIMARY KEY ("tool_id", "response_id"));
CREATE TABLE "tool_calls" (
  "id" INTEGER PRIMARY KEY, "response_id" TEXT, "tool_id" INTEGER, "name" TEXT, "arguments" TEXT,
  "tool_call_id" TEXT);
CREATE TABLE "tool_results" (
  "id" INTEGER PRIMARY KEY, "response_id" TEXT, "tool_id" INTEGER, "name" TEXT, "output" TEXT,
  "tool_call_id" TEXT, "instance_id" INTEGER, "exception" TEXT);
"""
LLM_THREADS = """
CREATE TABLE "messages" (
  "hash" TEXT PRIMARY KEY, "parent_hash" TEXT REFERENCES "messages"("hash"), "role" TEXT,
  "provider_metadata" TEXT);
CREATE TABLE "parts" (
  "id" INTEGER PRIMARY KEY, "message_hash" TEXT REFERENCES "messages"("hash"), "position" INTEGER,
  "type" TEXT, "tool_name" TEXT, "text" TEXT, "payload" TEXT);
CREATE TABLE "threads" (
  "id" TEXT PRIMARY KEY, "name" TEXT, "tip_message_hash" TEXT REFERENCES "messages"("hash"),
  "forked_from" TEXT REFERENCES "threads"("id"), "datetime_utc" TEXT);
CREATE TABLE "turns" (
  "id" TEXT PRIMARY KEY, "thread_id" TEXT REFERENCES "threads"("id"), "parent_message_hash" TEXT,
  "tip_message_hash" TEXT, "model" TEXT, "resolved_model" TEXT, "options_json" TEXT, "schema_id" TEXT,
  "input_tokens" INTEGER, "output_tokens" INTEGER, "token_details" TEXT, "duration_ms" INTEGER,
  "datetime_utc" TEXT, "response_json" TEXT);
CREATE VIEW "message_tree" AS SELECT hash FROM messages;
"""


def database(path: Path, schema: str, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(schema)
    for table, values in rows.items():
        for row in values:
            names = ", ".join(f'"{name}"' for name in row)
            marks = ", ".join("?" * len(row))
            connection.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', tuple(row.values()))
    connection.commit()
    connection.close()
    return path


def response(key: str, **values: object) -> dict[str, object]:
    return {
        "id": key,
        "model": "gpt-4o-mini",
        "prompt": "",
        "response": "",
        "conversation_id": "c1",
        "datetime_utc": "2024-05-01T10:00:00.000000",
        "options_json": "{}",
        **values,
    }


def test_llm_responses(tmp_path: Path) -> None:
    path = database(
        tmp_path / "logs.db",
        LLM_RESPONSES,
        {
            "conversations": [{"id": "c1", "name": "Tea", "model": "gpt-4o-mini"}],
            "schemas": [{"id": "s1", "content": '{"type": "object"}'}],
            "responses": [
                response("r1", prompt="Which?", system="Be brief.", response="Green.", reasoning="Hm"),
                response(
                    "r2",
                    prompt="And the cup?",
                    system="Be long.",
                    response='{"cup": "blue"}',
                    options_json='{"temperature": 0.5}',
                    response_json='{"id": "chatcmpl"}',
                    schema_id="s1",
                    datetime_utc="2024-05-01T10:01:00+00:00",
                ),
                response("r3", response="", prompt="Weather?"),
                response("r4", response="Rain."),
            ],
            "attachments": [{"id": "a1", "type": "image/png", "path": "/tmp/cup.png", "content": b"\x89PNG"}],
            "prompt_attachments": [{"response_id": "r2", "attachment_id": "a1", "order": 0}],
            "fragments": [
                {"id": 1, "hash": "h1", "content": "Chapter 1", "source": "book.txt"},
                {"id": 2, "hash": "h2", "content": "Chapter 2"},
            ],
            "prompt_fragments": [
                {"response_id": "r1", "fragment_id": 2, "order": 1},
                {"response_id": "r1", "fragment_id": 1, "order": 0},
            ],
            "tool_responses": [{"tool_id": 1, "response_id": "r3"}],
            "tool_calls": [{"response_id": "r3", "name": "weather", "arguments": '{"city": "Oslo"}'}],
            "tool_results": [{"response_id": "r4", "name": "weather", "output": "rain"}],
        },
    )
    documents, notes = imported(path)
    document = documents[0]
    assert (document.title, document.system_prompt, document.source) == ("Tea", "Be brief.", "llm c1")
    assert (document.created_at, document.updated_at) == (1714557600.0, 1714557660.0)
    assert said(document) == [
        ("user", "Chapter 1\nChapter 2\nWhich?"),
        ("assistant", "<think>\nHm\n</think>\n\nGreen."),
        ("system", "Be long."),
        ("user", "And the cup?\n\n[image: /tmp/cup.png]"),
        ("assistant", '{"cup": "blue"}'),
        ("user", "Weather?"),
        ("assistant", '[tool call: weather({"city": "Oslo"})]'),
        ("user", "[tool result: weather]\nrain"),
        ("assistant", "Rain."),
    ]
    assert document.messages[0].extra == {"fragments": ["book.txt", "h2"]}
    assert document.messages[4].extra["options_json"] == {"temperature": 0.5}
    assert document.messages[4].extra["schema"] == {"type": "object"}
    assert document.messages[1].model == "gpt-4o-mini"
    assert document.messages[7].extra["role"] == "tool"
    assert notes == (
        "raw requests and replies (response_json) are left out, their texts are kept",
        "images, audio and other files are left out, their names are kept",
        "what tools were offered is left out",
        "tool calls are kept as text",
        "messages of tools are kept as yours, with their role noted",
    )


PELICAN = [
    {"hash": "b2:1", "role": "user"},
    {"hash": "b2:2", "parent_hash": "b2:1", "role": "assistant"},
    {"hash": "b2:3", "parent_hash": "b2:2", "role": "user"},
    {"hash": "b2:4", "parent_hash": "b2:3", "role": "assistant"},
    {"hash": "b2:5", "parent_hash": "b2:2", "role": "user"},
    {"hash": "b2:6", "parent_hash": "b2:5", "role": "assistant"},
]


def pelican_parts() -> list[dict[str, object]]:
    texts = ["A name?", "Percy.", None, "Wallace.", "Another?", "Pete."]
    parts: list[dict[str, object]] = [
        {"message_hash": f"b2:{number}", "position": 0, "type": "text", "text": text}
        for number, text in enumerate(texts, 1)
    ]
    parts[2]["payload"] = json.dumps({"text_ref": [{"fragment": 1}, {"literal": "\nAnd a walrus?"}]})
    parts[3]["position"] = 1
    parts.append({"message_hash": "b2:4", "position": 0, "type": "reasoning", "text": "W"})
    call = json.dumps({"name": "look", "arguments": {"q": "w"}, "tool_call_id": "t"})
    parts.append(
        {"message_hash": "b2:4", "position": 2, "type": "tool_call", "tool_name": "look", "payload": call}
    )
    return parts


def turn(key: str, thread: str, given: str, tip: str, minute: int) -> dict[str, object]:
    return {
        "id": key,
        "thread_id": thread,
        "parent_message_hash": given,
        "tip_message_hash": tip,
        "model": "scripted",
        "datetime_utc": f"2026-01-01T00:0{minute}:00+00:00",
        "duration_ms": 7,
    }


def test_llm_threads_share_messages(tmp_path: Path) -> None:
    """The example of `docs/logging.md`, with a branch that was left behind and a fork."""
    path = database(
        tmp_path / "logs.db",
        LLM_RESPONSES + LLM_THREADS,
        {
            "conversations": [{"id": "t1", "name": "old name"}],
            "responses": [response("r0", conversation_id="t1", prompt="A name?", response="Percy.")],
            "fragments": [{"id": 1, "content": "Odobenus"}],
            "messages": PELICAN,
            "parts": pelican_parts(),
            "threads": [
                {
                    "id": "t1",
                    "name": "Pelican",
                    "tip_message_hash": "b2:6",
                    "datetime_utc": "2026-01-01T00:00:00",
                },
                {"id": "t2", "name": "Fork", "tip_message_hash": "b2:2", "forked_from": "t1"},
            ],
            "turns": [
                turn("n1", "t1", "b2:1", "b2:2", 1),
                turn("n2", "t1", "b2:3", "b2:4", 2),
                turn("n3", "t1", "b2:5", "b2:6", 3),
            ],
        },
    )
    documents, notes = imported(path)
    pelican, fork = documents
    walrus = "<think>\nW\n</think>\n\nWallace.\n\n" + '[tool call: look({"q":"w"})]'
    assert tree(pelican) == [
        (1, None, "user", "A name?"),
        (2, 1, "assistant", "Percy."),
        (3, 2, "user", "Odobenus\nAnd a walrus?"),
        (4, 3, "assistant", walrus),
        (5, 2, "user", "Another?"),
        (6, 5, "assistant", "Pete."),
    ]
    assert pelican.head == 6
    assert [each.model for each in pelican.messages] == ["", "scripted", "", "scripted", "", "scripted"]
    assert [each.created_at for each in pelican.messages] == [
        1767225660.0,
        1767225660.0,
        1767225720.0,
        1767225720.0,
        1767225780.0,
        1767225780.0,
    ]
    assert pelican.messages[3].extra["parts"] == [
        {"type": "tool_call", "name": "look", "arguments": {"q": "w"}, "tool_call_id": "t"}
    ]
    assert pelican.messages[5].extra["duration_ms"] == 7
    assert tree(fork) == [(1, None, "user", "A name?"), (2, 1, "assistant", "Percy.")]
    assert fork.extra == {"forked_from": "t1"}
    assert notes == (
        "conversations that llm keeps in both its old and its new tables come once",
        "tool calls are kept as text",
    )


@pytest.mark.parametrize("table", ["log", "logs"])
def test_llm_oldest_tables(tmp_path: Path, table: str) -> None:
    """`m001_initial` and `m007_finish_logs_table`: `chat_id` is the id of the chat's first row."""
    time_name = "timestamp" if table == "log" else "datetime_utc"
    path = database(
        tmp_path / "log.db",
        f'CREATE TABLE "{table}" ("id" INTEGER PRIMARY KEY, "model" TEXT, "prompt" TEXT, "system" TEXT, '
        f'"response" TEXT, "chat_id" INTEGER, "{time_name}" TEXT)',
        {
            table: [
                {
                    "id": 1,
                    "model": "m",
                    "prompt": "Hi",
                    "response": "Hello",
                    time_name: "2023-05-01 10:00:00",
                },
                {"id": 2, "model": "m", "prompt": "Tea?", "system": "Brief", "response": "Green"},
                {"id": 3, "model": "m", "prompt": "Bye", "response": "Ciao", "chat_id": 1},
            ]
        },
    )
    documents, _ = imported(path)
    assert [said(each) for each in documents] == [
        [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Ciao")],
        [("user", "Tea?"), ("assistant", "Green")],
    ]
    assert documents[1].system_prompt == "Brief"
    assert documents[0].messages[0].created_at == 1682935200.0


# --- oterm: ggozad/oterm, `src/oterm/store/store.py` at 0.15.0, at 0.12.0 and `oterm/store/setup.py` at 0.2.0

OTERM = """
CREATE TABLE "chat" (
  "id" INTEGER, "name" TEXT, "model" TEXT NOT NULL, "system" TEXT, "provider" TEXT DEFAULT "ollama",
  "parameters" TEXT DEFAULT "{}", "tools" TEXT DEFAULT "[]", "thinking" BOOLEAN DEFAULT 0,
  PRIMARY KEY("id" AUTOINCREMENT));
CREATE TABLE "message" (
  "id" INTEGER, "chat_id" INTEGER NOT NULL, "author" TEXT NOT NULL, "text" TEXT NOT NULL,
  "images" TEXT DEFAULT "[]", PRIMARY KEY("id" AUTOINCREMENT),
  FOREIGN KEY("chat_id") REFERENCES "chat"("id") ON DELETE CASCADE);
PRAGMA user_version = 4864;
"""
OTERM_OLD = """
CREATE TABLE "chat" (
  "id" INTEGER, "name" TEXT, "model" TEXT NOT NULL, "context" TEXT NOT NULL, "system" TEXT, "format" TEXT,
  PRIMARY KEY("id" AUTOINCREMENT));
CREATE TABLE "message" ("chat_id" INTEGER NOT NULL, "author" TEXT NOT NULL, "text" TEXT NOT NULL);
"""


def test_oterm(tmp_path: Path) -> None:
    path = database(
        tmp_path / "store.db",
        OTERM,
        {
            "chat": [
                {
                    "id": 1,
                    "name": "Tea",
                    "model": "llama3.2",
                    "system": "Be brief.",
                    "parameters": '{"temperature": 0.3, "max_tokens": 50, "stop": ["END"], "mirostat": 1,'
                    ' "top_p": 7}',
                },
                {"id": 2, "name": "Empty", "model": "m"},
            ],
            "message": [
                {"id": 1, "chat_id": 1, "author": "user", "text": "See", "images": '["AAAA"]'},
                {"id": 2, "chat_id": 1, "author": "assistant", "text": "A cup."},
                {"id": 3, "chat_id": 9, "author": "user", "text": "lost"},
            ],
        },
    )
    documents, notes = imported(path)
    tea, empty = documents
    assert (tea.title, tea.system_prompt, tea.source) == ("Tea", "Be brief.", "oterm 1")
    assert tea.settings == SessionSettings(temperature=0.3, max_tokens=50, stop=("END",))
    assert tea.extra["parameters"]["mirostat"] == 1
    assert tea.extra["provider"] == "ollama"
    assert tree(tea) == [(1, None, "user", "See\n\n[image: AAAA]"), (2, 1, "assistant", "A cup.")]
    assert tea.messages[0].extra["images"] == ["AAAA"]
    assert tea.messages[1].model == "llama3.2"
    assert (empty.messages, empty.head) == ((), None)
    assert notes == (
        "images, audio and other files are left out, their names are kept",
        "settings that Samovar does not allow are kept beside the chat",
        "messages of chats that are gone are left out",
    )


def test_oterm_before_0_5(tmp_path: Path) -> None:
    path = database(
        tmp_path / "store.db",
        OTERM_OLD,
        {
            "chat": [{"id": 1, "name": "Tea", "model": "llama2", "context": "[1, 2]", "format": "json"}],
            "message": [
                {"chat_id": 1, "author": "me", "text": "Hi"},
                {"chat_id": 1, "author": "ollama", "text": "Hello"},
            ],
        },
    )
    document = one(imported(path))
    assert said(document) == [("user", "Hi"), ("assistant", "Hello")]
    assert document.extra["context"] == "[1, 2]"


# --- What holds for all of them

OWN = ChatDocument(
    title="Tea",
    messages=(
        MessageDocument(id=1, role=Role.USER, content="Hi"),
        MessageDocument(id=2, parent=1, role=Role.ASSISTANT, content="Hello"),
    ),
    head=2,
)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (samovar_json.write([OWN]), "Samovar JSON"),
        (samovar_toml.write(OWN), "Samovar TOML"),
        (markdown.write(OWN).encode(), "Samovar Markdown"),
    ],
)
def test_our_own_formats_are_recognized(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with open_file(path) as file:
        assert file.format_name == name
        assert [said(each) for each in file.chats()] == [[("user", "Hi"), ("assistant", "Hello")]]


@pytest.mark.parametrize(
    "value",
    [
        [EDITED],
        {"conv": LLAMA_CONV, "messages": LLAMA_MESSAGES},
        {"messages": [*HI, {"role": "x", "content": "y"}]},
    ],
    ids=["chatgpt", "llama.cpp", "openai"],
)
def test_what_was_imported_survives_our_own_json_and_toml(tmp_path: Path, value: object) -> None:
    document = one(import_json(tmp_path, value))
    assert list(samovar_json.read(samovar_json.write([document]), Notes())) == [document]
    again = samovar_toml.read(samovar_toml.write(document), Notes())
    assert tree(again) == tree(document)
    assert (again.head, again.system_prompt) == (document.head, document.system_prompt)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (1700000000, 1700000000.0),
        (1700000000.25, 1700000000.25),
        (1700000000250, 1700000000.25),
        (1700000000250000, 1700000000.25),
        ("1700000000", 1700000000.0),
        ("2023-11-14T22:13:20", 1700000000.0),
        ("2023-11-14T23:13:20+01:00", 1700000000.0),
        (None, None),
        (0, None),
    ],
)
def test_times_in_every_unit(tmp_path: Path, given: object, seconds: float | None) -> None:
    documents, notes = import_json(tmp_path, {"messages": HI, "created": given})
    assert documents[0].created_at == seconds
    assert notes == ()


@pytest.mark.parametrize("given", [-1, 1e300, True, "soon", [], "0001-01-01T00:00:00+14:00", 10**40, "nan"])
def test_times_that_are_none_are_noted(tmp_path: Path, given: object) -> None:
    documents, notes = import_json(tmp_path, {"messages": HI, "created": given})
    assert documents[0].created_at is None
    assert notes == ("times that make no sense are left out",)


def test_lone_surrogates_become_a_replacement_character_and_pairs_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(
        r'[{"role": "user", "content": "a\ud83d b\ud83d\ude00 c\\ud83d\ude00 \ude00 \\\ud800 \u0000'
        r' \\\\ud800"}]'
    )
    documents, notes = imported(path)
    assert (
        documents[0].messages[0].content == "a\ufffd b\U0001f600 c\\ud83d\ufffd \ufffd \\\ufffd \0 \\\\ud800"
    )
    assert notes == ("half characters (lone surrogates) became � (4 times)",)
    assert "ud83d b" in path.read_text()


def test_a_chain_of_100_000_messages(tmp_path: Path) -> None:
    num = 100_000
    messages = [llama(f"m{n}", f"m{n - 1}" if n else None, "user", str(n)) for n in reversed(range(num))]
    conv = {"id": "c1", "currNode": f"m{num - 1}"}
    document = one(import_json(tmp_path, {"conv": conv, "messages": messages}))
    assert [each.parent for each in document.messages] == [None, *range(1, num)]
    assert document.head == num


def test_progress_grows_with_each_chat(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(json.dumps([{"messages": HI}] * 10))
    with open_file(path) as file:
        done = [file.done_bytes for _ in file.chats()]
        assert done == sorted(set(done))
        assert file.done_bytes == file.total_bytes == path.stat().st_size


def test_a_database_in_wal_mode_is_read_whole_and_stays_as_it_is(tmp_path: Path) -> None:
    path = database(tmp_path / "store.db", OTERM, {"chat": [{"id": 1, "name": "Tea", "model": "m"}]})
    with_changes = sqlite3.connect(path)
    with_changes.execute("PRAGMA journal_mode = WAL")
    with_changes.execute("INSERT INTO message (chat_id, author, text) VALUES (1, 'user', 'new')")
    with_changes.commit()
    try:
        before = {
            each.name: each.read_bytes() for each in tmp_path.iterdir() if not each.name.endswith("-shm")
        }
        assert said(one(imported(path))) == [("user", "new")]
        after = {
            each.name: each.read_bytes() for each in tmp_path.iterdir() if not each.name.endswith("-shm")
        }
        assert before == after
    finally:
        with_changes.close()
    assert said(one(imported(path))) == [("user", "new")]
    assert [each.name for each in tmp_path.iterdir()] == ["store.db"]


def test_a_database_that_another_program_locks_is_read_as_a_copy(tmp_path: Path) -> None:
    path = database(tmp_path / "store.db", OTERM, {"chat": [{"id": 1, "name": "Tea", "model": "m"}]})
    locking = sqlite3.connect(path, isolation_level=None)
    locking.execute("BEGIN EXCLUSIVE")
    try:
        assert one(imported(path)).title == "Tea"
    finally:
        locking.close()


def test_a_database_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = database(tmp_path / "store.db", OTERM, {"chat": [{"id": 1, "name": "Tea", "model": "m"}]})
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert one(imported(path)).title == "Tea"
    finally:
        tmp_path.chmod(0o700)


def test_unknown_json_says_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(SamovarError, match=r"Cannot import .*known are Samovar's own JSON.*ChatGPT.*oterm"):
        import_json(tmp_path, {"chats": []})
