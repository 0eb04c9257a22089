"""Themes: ours are readable and complete, bad files are explained and skipped."""

from pathlib import Path

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

from samovar.tui.theme import builtin_folder, load_themes, palette_of, session_color

THEMES, PROBLEMS = load_themes()
TRUE_COLOR = [theme for theme in THEMES.values() if not theme.ansi]
GROUNDS = ("ground", "side", "raised")


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(color: str) -> float:
        channels = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in Color.parse(color).normalized
        ]
        return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_our_themes_load() -> None:
    assert PROBLEMS == []
    assert {"samovar", "samovar-light", "ansi"} <= set(THEMES)


@pytest.mark.parametrize("theme", TRUE_COLOR, ids=lambda theme: theme.name)
def test_text_is_readable_on_every_ground(theme: Theme) -> None:
    palette = palette_of(theme)
    for text in ("text", "secondary", "faint"):
        for ground in GROUNDS:
            assert contrast(palette.color(text), palette.color(ground)) >= 4.5, (text, ground)
    for accent in ("brass", "copper", "green", "teal", "mauve", "red"):
        for ground in GROUNDS:
            assert contrast(palette.color(accent), palette.color(ground)) >= 4.5, (accent, ground)


@pytest.mark.parametrize("theme", THEMES.values(), ids=lambda theme: theme.name)
def test_session_colors_are_distinct_and_stable(theme: Theme) -> None:
    palette = palette_of(theme)
    assert len(set(palette.session_colors)) == len(palette.session_colors) >= 8
    assert {session_color(palette, f"session {n}") for n in range(99)} == set(palette.session_colors)


@pytest.mark.parametrize("theme", BUILTIN_THEMES.values(), ids=lambda theme: theme.name)
def test_themes_of_textual_have_a_palette(theme: Theme) -> None:
    assert palette_of(theme).session_colors


@pytest.mark.parametrize(
    ("change", "key", "expected"),
    [
        (('brass = "#e0a458"', ""), "colors.brass", "missing"),
        (('"#8f8276"', '"no colour"'), "colors.faint", "must be a colour"),
        (('"#8f8276"', '"#8f827680"'), "colors.faint", "without transparency"),
        (('"#8f8276"', "12"), "colors.faint", "must be a colour"),
        (("dark = true", "dark = 1"), "dark", "true or false"),
        (("[colors]", "[colours]"), "[colors]", "table"),
        (("[colors]", '[colors]\nblue = "#0000ff"'), "colors.blue", "not known"),
        (("[sessions]", "[other]"), "sessions.colors", "4 to 16"),
        (("[colors]", "[colors"), "TOML", "not valid"),
    ],
)
def test_a_bad_theme_is_skipped_with_one_sentence(
    tmp_path: Path, change: tuple[str, str], key: str, expected: str
) -> None:
    text = (builtin_folder() / "samovar.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace(*change).replace('name = "samovar"', 'name = "mine"'))
    themes, problems = load_themes(tmp_path)
    assert "mine" not in themes
    assert "samovar" in themes
    [problem] = problems
    assert "mine.toml" in problem
    assert key in problem
    assert expected in problem
    assert "\n" not in problem


def test_the_users_theme_replaces_ours(tmp_path: Path) -> None:
    text = (builtin_folder() / "samovar.toml").read_text()
    (tmp_path / "samovar.toml").write_text(text.replace("#e0a458", "#e0b468"))
    themes, problems = load_themes(tmp_path)
    assert problems == []
    assert palette_of(themes["samovar"]).brass == "#e0b468"
