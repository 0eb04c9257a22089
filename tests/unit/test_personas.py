"""Settings of a chat, and personas that bring them."""

from pathlib import Path

import pytest

from samovar.config import SamplingConfig
from samovar.core.errors import SamovarError
from samovar.sessions import personas
from samovar.sessions.settings import SessionSettings, checked


def test_a_persona_is_written_and_read(tmp_path: Path) -> None:
    editor = personas.Persona(
        "editor", "a patient editor", "You correct.\n\nKindly.", SessionSettings(persona="editor", seed=7)
    )
    file = personas.save(tmp_path / "personas", editor)
    assert file.stat().st_mode & 0o077 == 0
    assert personas.persona(tmp_path / "personas", "editor") == editor
    assert personas.personas(tmp_path / "personas") == ([editor], [])
    with pytest.raises(SamovarError, match="already"):
        personas.save(tmp_path / "personas", editor)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[[", "no valid TOML"),
        ("colour = 1", 'unknown key "colour"'),
        ("persona = 'x'", 'unknown key "persona"'),
        ("temperature = 99", "temperature must be"),
        ("temperature = 'hot'", "Expected"),
        ("system_prompt = 1", "must be texts"),
        ("stop = ['']", "stop must be"),
    ],
)
def test_a_wrong_file_is_told_and_keeps_no_other_out(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    (tmp_path / "right.toml").write_text("system_prompt = 'Be brief.'")
    found, problems = personas.personas(tmp_path)
    assert [one.name for one in found] == ["right"]
    assert len(problems) == 1
    assert reason in problems[0]
    assert "wrong.toml" in problems[0]
    with pytest.raises(SamovarError, match=r"wrong\.toml"):
        personas.persona(tmp_path, "wrong")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 100, "a\nb"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SamovarError, match="a persona's name"):
        personas.persona(tmp_path, name)


def test_an_unknown_persona_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SamovarError, match="there are none yet"):
        personas.persona(tmp_path, "editor")
    (tmp_path / "coder.toml").write_text("")
    with pytest.raises(SamovarError, match="known are coder"):
        personas.persona(tmp_path, "editor")


def test_settings_follow_the_configuration_where_they_are_not_set() -> None:
    default = SamplingConfig(temperature=0.3, seed=5, max_tokens=100)
    settings = SessionSettings(temperature=1.0)
    assert settings.sampling(default).temperature == 1.0
    assert settings.sampling(default).seed == 5
    assert settings.reply_tokens(default) == 100
    assert SessionSettings(max_tokens=7).reply_tokens(default) == 7


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("temperature", "warm", "a number from 0"),
        ("temperature", "11", "a number from 0"),
        ("max_tokens", "0", "from 1 up"),
        ("pin", "perhaps", '"on" or "off"'),
        ("colour", "red", "known are"),
        ("seed", "-1", "a whole number"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(name: str, text: str, reason: str) -> None:
    with pytest.raises(SamovarError, match=reason):
        SessionSettings().with_text(name, text)


def test_settings_are_set_and_taken_back() -> None:
    settings = SessionSettings().with_text("top_k", "5").with_text("stop", "END").with_text("stop", "\\n")
    assert settings == SessionSettings(top_k=5, stop=("END", "\n"))
    assert settings.changes() == (("top_k", "5"), ("stop", "'END', '\\n'"))
    assert settings.with_text("stop", "-").with_text("top_k", "-") == SessionSettings()


def test_values_of_a_file_are_checked() -> None:
    with pytest.raises(SamovarError, match="temperature must be"):
        checked(SessionSettings(temperature=-1.0))
