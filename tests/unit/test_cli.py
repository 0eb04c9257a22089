"""The command line: what is wrong with it is one sentence, and some commands need no settings at all."""

import io
import os
import sys
from pathlib import Path

import pytest

from samovar import cli


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-tokens", "0"], "max_tokens must be a whole number of tokens from 1 up"),
        (["--max-tokens", "-5"], "max_tokens must be a whole number of tokens from 1 up"),
        (["--seed", "9" * 23], "seed must be a whole number from 0 to"),
        (["--seed", "caf\udce9"], "seed must be a whole number from 0 to"),
        (["--temperature", "nan"], "temperature must be a number from 0"),
    ],
)
def test_sampling_options_are_checked(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ask", *arguments, "hi"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("samovar: ")
    assert said in error


def test_a_model_whose_name_is_not_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.gguf")
    Path(path).write_bytes(b"GGUF")
    monkeypatch.setenv("SAMOVAR_MODEL", path)
    assert cli.main(["ask", "hi"]) == 1
    assert "is not valid UTF-8" in capsys.readouterr().err


def test_a_home_whose_name_is_not_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMOVAR_HOME", "/tmp/caf\udce9")
    assert cli.main(["ask", "hi"]) == 1
    assert "SAMOVAR_HOME is not valid UTF-8" in capsys.readouterr().err


def test_standard_input_may_hold_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b" \n"), encoding="ascii"))
    assert cli.main(["ask"]) == 1
    assert "nothing to ask" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="ascii"))
    assert cli._standard_input() == "caf�"


def test_what_is_given_explicitly_is_insisted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMOVAR_KEEP_ALIVE", "5m")
    monkeypatch.setenv("SAMOVAR_RAM_LIMIT", "")
    args = cli._parser().parse_args(["ask", "--token-limit", "9", "hi"])
    assert cli._insisted(args) == {"token_limit", "keep_alive_s"}
    args = cli._parser().parse_args(["--ram-limit", "1GiB", "chat"])
    assert cli._insisted(args) == {"ram_limit", "keep_alive_s"}


@pytest.mark.parametrize("command", [["stop"], ["cache", "status"], ["cache", "status", "--json"]])
def test_a_running_engine_can_be_stopped_and_looked_at_whatever_the_settings_say(
    command: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMOVAR_MODEL", "/nowhere.gguf")
    assert cli.main(command) == 0
    (home / "config").mkdir(parents=True, exist_ok=True)
    (home / "config" / "config.toml").write_text("context = ")
    assert cli.main(command) == 0
    assert capsys.readouterr().err == ""
