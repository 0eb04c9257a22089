"""Commands as scripts use them: their JSON, their exit codes, one clear sentence for what goes wrong."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from samovar.sessions.store import MessageState, Store
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.model

ASK_FIELDS = {
    "session", "reply", "finish_reason", "prompt_tokens", "reused_tokens", "processed_tokens",
    "generated_tokens", "restore_ms", "first_token_ms", "tokens_per_second", "mismatch",
    "thinking", "thinking_tokens", "thinking_ms",
}  # fmt: skip
STATUS_FIELDS = {
    "context", "host", "disk", "reused_tokens_total", "processed_tokens_total", "hit_ratio", "evictions",
    "prompts",
}  # fmt: skip


def samovar(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one command in this test's home."""
    return subprocess.run(
        [sys.executable, "-m", "samovar", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def as_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_asking_on_in_a_chat_reuses_it(home: Path) -> None:
    first = as_json(samovar("ask", "--json", "-s", "teas", "Name a tea."))
    second = as_json(samovar("ask", "--json", "-s", "teas", "-", stdin="Name another one.\n"))
    assert set(first) == set(second) == ASK_FIELDS
    assert second["session"] == first["session"]
    assert second["reused_tokens"] == {
        "context": 0,
        "host": first["prompt_tokens"] + first["generated_tokens"] - 1,
        "disk": 0,
    }
    assert second["reused_tokens"]["host"] + second["processed_tokens"] == second["prompt_tokens"]

    status = as_json(samovar("cache", "status", "--json"))
    assert set(status) >= STATUS_FIELDS
    assert {"used_tokens", "total_tokens"} <= set(status["context"])
    assert {"bytes", "limit_bytes", "tokens", "blocks"} <= set(status["host"])
    assert [row["title"] for row in status["prompts"]] == ["teas"]
    assert "teas" in samovar("cache", "status").stdout

    assert "stopped" in samovar("stop").stdout
    assert as_json(samovar("cache", "status", "--json"))["prompts"] == []


def test_a_chat_comes_back_warm_from_disk_and_its_cache_is_kept_in_order(home: Path) -> None:
    first = as_json(samovar("ask", "--json", "-s", "teas", "Name a tea. " * 60))
    assert "stopped" in samovar("stop").stdout
    listed = as_json(samovar("cache", "list", "--json"))
    assert [row["title"] for row in listed["prompts"]] == ["teas"], "without an engine"
    (num_blocks,) = (model["blocks"] for model in listed["models"])
    assert num_blocks > 1
    assert as_json(samovar("cache", "status", "--json"))["disk"]["blocks"] == num_blocks
    assert f"in {num_blocks} blocks" in samovar("cache", "status").stdout
    checked = as_json(samovar("cache", "verify", "--json"))
    assert (checked["files"], checked["bad"], checked["orphans"]) == (num_blocks, 0, 0)
    assert checked["bytes"] > 0

    second = as_json(samovar("ask", "--json", "-s", "teas", "Name another one."))
    reused = second["reused_tokens"]
    assert reused["disk"] == first["prompt_tokens"] + first["generated_tokens"] - 1
    assert second["processed_tokens"] <= 30
    assert as_json(samovar("cache", "pin", "teas", "--json"))
    refused = samovar("cache", "evict", "teas")
    assert refused.returncode == 1
    assert "pinned" in refused.stderr
    assert as_json(samovar("cache", "unpin", "teas", "--json"))
    assert as_json(samovar("cache", "evict", "teas", "--everywhere", "--json"))
    assert as_json(samovar("cache", "status", "--json"))["host"]["blocks"] == 0

    samovar("ask", "-s", "coffees", "Name a coffee.")
    samovar("stop")
    victim = next(iter(sorted(home.joinpath("cache", "kv", "blocks").rglob("*.kv"))))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    bad = samovar("cache", "verify", "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["bad"] == 1


def test_a_plan_is_the_same_with_and_without_an_engine(home: Path) -> None:
    arguments = ["cache", "plan", "--json", "--chats", "3", "--tokens", "1000", "--shared", "200"]
    without = as_json(samovar(*arguments))
    assert "No engine" in samovar("cache", "status").stdout, "a plan starts none"
    assert without["needs"]["bytes_per_token"] == 22.5 * 1024
    assert without["seen_bytes_per_token"] is None
    as_json(samovar("ask", "--json", "Name a tea."))
    beside = as_json(samovar(*arguments))
    seen = beside.pop("seen_bytes_per_token")
    assert seen >= 22.5 * 1024, "pages are not filled to the end"
    del without["seen_bytes_per_token"]
    assert beside == without
    assert "22.5 KiB a token" in samovar("cache", "plan").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask", "--model", "/nowhere.gguf", "hi"], "no model file"),
        (["ask", "--model", __file__, "hi"], "not a GGUF model"),
        (["ask", "--ram-limit", "banana", "hi"], "ram_limit must be"),
        (["ask", "--context", "16000000", "hi"], "KiB a token"),
        (["ask", "--kv-type-v", "q8_0", "--flash-attn", "off", "hi"], "needs flash attention"),
        (["cache", "plan", "--chats", "0"], "at least one chat"),
        (["cache", "plan", "--model", "/nowhere.gguf"], "no model file"),
        (["cache", "plan", "--model", __file__], "not a GGUF model"),
        (["ask", "   "], "nothing to ask"),
        (["ask", "hello " * 4000], "tokens and the context only"),
        ([], "needs a terminal"),
        (["chat"], "needs a terminal"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(
    home: Path, arguments: list[str], said: str
) -> None:
    done = samovar(*arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert done.stderr.startswith("samovar: ")
    assert len(done.stderr.strip().splitlines()) == 1, "no traceback, no second line"


def test_a_home_that_cannot_be_written_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMOVAR_HOME", "/proc/nowhere")
    done = samovar("ask", "hi")
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert "/proc/nowhere" in done.stderr


def test_bytes_that_are_no_text_are_asked_as_far_as_they_go(home: Path) -> None:
    command = [sys.executable, "-m", "samovar", "ask", "--max-tokens", "4"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for arguments, stdin in (([b"caf\xe9"], b""), (["-s", b"t\xe9a", "--system", b"\xe9"], b"caf\xe9")):
        done = subprocess.run(
            [*command, *arguments], input=stdin, env=env, capture_output=True, timeout=120, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.strip()
    with contextlib.closing(Store.open(home / "data" / "chats.db")) as store:
        (session,) = store.sessions()
        assert (session.title, session.system_prompt) == ("t�a", "�")
        assert store.path(session.id)[0].content == "caf�"


def test_ctrl_c_stores_what_was_shown(home: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "samovar",
        "ask",
        "-s",
        "x",
        "--max-tokens",
        "1900",
        "Count to a million.",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        shown = process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        shown += process.stdout.read()
        assert process.stderr.read() == b""
        assert process.wait(60) == 130
    with contextlib.closing(Store.open(home / "data" / "chats.db")) as store:
        reply = store.path(store.sessions()[0].id)[-1]
    assert reply.state is MessageState.STOPPED
    assert reply.content.encode().startswith(shown.rstrip(b"\n"))


def test_line_mode_answers_and_remembers(home: Path) -> None:
    terminal = Terminal("chat", home=home)
    try:
        terminal.wait_for("/help")
        terminal.send("Name a colour.\r")
        terminal.wait_for("first token")
        terminal.send("/chats\r")
        terminal.wait_for("1  Name a colour.")
        terminal.send("/nonsense\r")
        terminal.wait_for("there is no command /nonsense")
        terminal.send("\x04")
        assert terminal.wait_for_exit() == 0
    finally:
        terminal.close()
    asked = as_json(samovar("ask", "--json", "-s", "Name a colour.", "And another."))
    assert asked["reused_tokens"]["host"] > 0
