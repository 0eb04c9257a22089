"""Themes: TOML files become Textual themes, and widgets that draw their own lines get a `Palette`.

Owns the file format. Reads files once at start and when asked; runs in the UI thread; never imports widgets.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import Theme

from samovar.chats.chat import color_number

COLOR_NAMES = (
    "ground",
    "side",
    "raised",
    "text",
    "secondary",
    "faint",
    "brass",
    "copper",
    "green",
    "teal",
    "mauve",
    "red",
    "cream",
)
DEFAULT_THEME = "samovar"
_NUM_SESSION_COLORS = range(4, 17)


class Palette(msgspec.Struct, frozen=True):
    """The colours of one theme as Textual writes them: `#rrggbb`, or `ansi_…` for the terminal's own."""

    ground: str
    side: str
    raised: str
    text: str
    secondary: str
    faint: str
    brass: str
    copper: str
    green: str
    teal: str
    mauve: str
    red: str
    cream: str
    session_colors: tuple[str, ...]

    @property
    def track(self) -> str:
        """The colour of what is empty: free cells, the rest of a meter."""
        if not self.ground.startswith("#") or not self.faint.startswith("#"):
            return "ansi_bright_black"
        return Color.parse(self.raised).blend(Color.parse(self.faint), 0.15).hex6

    def color(self, name: str) -> str:
        """Return the colour called `name`; a name that is no colour of ours is taken as a colour itself."""
        return str(getattr(self, name)) if name in COLOR_NAMES else name


class ThemeError(ValueError):
    """A theme file that cannot be used; the message names file, key and what is expected."""


def builtin_folder() -> Path:
    """Return where our own themes lie: inside the installed package, or beside the source tree."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "themes"
    return inside if inside.is_dir() else package.parent.parent / "themes"


def load_themes(user_folder: Path | None = None) -> tuple[dict[str, Theme], list[str]]:
    """Read our themes, then the user's (which may replace ours); return them by name, and what was wrong.

    A file that cannot be used is skipped and gives one sentence in the second value.
    """
    themes: dict[str, Theme] = {}
    problems: list[str] = []
    for folder in (builtin_folder(), user_folder):
        for path in _theme_files(folder):
            try:
                theme = load_theme(path)
            except ThemeError as error:
                problems.append(str(error))
            else:
                themes[theme.name] = theme
    return themes, problems


def load_theme(path: Path) -> Theme:
    """Read one theme file. Raises `ThemeError`."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ThemeError(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ThemeError(f"{path}: not valid TOML ({error}).") from error
    return parse_theme(data, path)


def parse_theme(data: Mapping[str, object], path: Path) -> Theme:
    """Turn the content of a theme file into a theme; `path` is named in errors. Raises `ThemeError`."""
    name = data.get("name", path.stem)
    if not isinstance(name, str) or not name.strip():
        raise ThemeError(f"{path}: `name` must be a non-empty string.")
    flags: dict[str, bool] = {}
    for key, default in (("dark", True), ("ansi", False)):
        flag = data.get(key, default)
        if not isinstance(flag, bool):
            raise ThemeError(f"{path}: `{key}` must be true or false.")
        flags[key] = flag
    table = data.get("colors")
    if not isinstance(table, dict):
        raise ThemeError(f"{path}: a table `[colors]` is expected.")
    colors: dict[str, str] = {}
    for key in COLOR_NAMES:
        if key not in table:
            raise ThemeError(f'{path}: `colors.{key}` is missing; a colour such as "#e0a458" is expected.')
        colors[key] = _checked_color(table[key], f"colors.{key}", path)
    if unknown := sorted(set(table) - set(COLOR_NAMES)):
        raise ThemeError(
            f"{path}: `colors.{unknown[0]}` is not known; expected are {', '.join(COLOR_NAMES)}."
        )
    sessions = data.get("sessions")
    listed = sessions.get("colors") if isinstance(sessions, dict) else None
    if not isinstance(listed, list) or len(listed) not in _NUM_SESSION_COLORS:
        raise ThemeError(f"{path}: `sessions.colors` must be a list of 4 to 16 colours.")
    session_colors = [_checked_color(value, f"sessions.colors[{i}]", path) for i, value in enumerate(listed)]
    return _build(name, colors, session_colors, **flags)


def palette_of(theme: Theme) -> Palette:
    """Return the colours of `theme`; one of Textual's own themes is mapped as well as it goes."""
    variables = theme.variables
    if all(name in variables for name in COLOR_NAMES):
        sessions: list[str] = []
        while (key := f"session-{len(sessions) + 1}") in variables:
            sessions.append(variables[key])
        return Palette(**{name: variables[name] for name in COLOR_NAMES}, session_colors=tuple(sessions))
    made = theme.to_color_system().generate()
    ground = made["background"]
    text = made["foreground"]

    def mixed(factor: float) -> str:
        return text if theme.ansi else Color.parse(ground).blend(Color.parse(text), factor, alpha=1).hex6

    def solid(key: str) -> str:
        return made[key] if made[key].startswith(("#", "ansi_")) else ground

    accents = {
        name: solid(key)
        for name, key in (
            ("brass", "primary"),
            ("copper", "accent"),
            ("green", "success"),
            ("teal", "secondary"),
            ("mauve", "accent"),
            ("red", "error"),
        )
    }
    return Palette(
        ground=ground,
        side=solid("surface"),
        raised=solid("panel"),
        text=text,
        secondary=mixed(0.75),
        faint=mixed(0.6),
        cream=text,
        **accents,
        session_colors=tuple(dict.fromkeys(accents.values())),
    )


def session_color(palette: Palette, session: str) -> str:
    """Return the one colour of a session, by its id."""
    return palette.session_colors[color_number(session) % len(palette.session_colors)]


def rich_style(
    foreground: str | None = None,
    background: str | None = None,
    *,
    bold: bool | None = None,
    italic: bool | None = None,
    underline: bool | None = None,
    strike: bool | None = None,
) -> Style:
    """Make a Rich style from colours as a `Palette` holds them."""
    return Style(
        color=_rich_color(foreground),
        bgcolor=_rich_color(background),
        bold=bold,
        italic=italic,
        underline=underline,
        strike=strike,
    )


def _rich_color(color: str | None) -> str | None:
    return color.removeprefix("ansi_") if color is not None else None


def _theme_files(folder: Path | None) -> Iterator[Path]:
    if folder is not None and folder.is_dir():
        yield from sorted(folder.glob("*.toml"))


def _checked_color(value: object, key: str, path: Path) -> str:
    expected = f'{path}: `{key}` must be a colour such as "#e0a458" or "ansi_yellow"'
    if not isinstance(value, str):
        raise ThemeError(f"{expected}, not {value!r}.")
    try:
        color = Color.parse(value)
    except ColorParseError as error:
        raise ThemeError(f'{expected}, not "{value}".') from error
    if value.startswith("ansi_"):
        return value
    if color.a != 1 or color.auto or color.ansi is not None:
        raise ThemeError(f'{expected} without transparency, not "{value}".')
    return color.hex6.lower()


def _build(name: str, colors: dict[str, str], session_colors: list[str], *, dark: bool, ansi: bool) -> Theme:
    c = colors
    inverse = "ansi_black" if ansi else c["ground"]
    thumb = (
        "ansi_bright_black" if ansi else Color.parse(c["raised"]).blend(Color.parse(c["faint"]), 0.25).hex6
    )
    selection = "ansi_blue" if ansi else Color.parse(c["ground"]).blend(Color.parse(c["teal"]), 0.38).hex6
    selected_text = "ansi_bright_white" if ansi else c["text"]
    variables = dict(colors)
    variables.update({f"session-{i}": color for i, color in enumerate(session_colors, 1)})
    variables.update(
        {
            "text-muted": c["secondary"],
            "text-disabled": c["faint"],
            "foreground-muted": c["secondary"],
            "border": c["brass"],
            "border-blurred": thumb,
            "block-cursor-background": c["brass"],
            "block-cursor-foreground": inverse,
            "block-cursor-text-style": "none",
            "block-cursor-blurred-background": c["raised"],
            "block-cursor-blurred-foreground": c["text"],
            "block-hover-background": c["raised"],
            "input-cursor-background": c["brass"],
            "input-cursor-foreground": inverse,
            "input-selection-background": selection,
            "input-selection-foreground": selected_text,
            "screen-selection-background": selection,
            "screen-selection-foreground": selected_text,
            "scrollbar": thumb,
            "scrollbar-hover": c["faint"],
            "scrollbar-active": c["brass"],
            "scrollbar-background": c["ground"],
            "scrollbar-background-hover": c["ground"],
            "scrollbar-background-active": c["ground"],
            "scrollbar-corner-color": c["ground"],
            "footer-background": c["side"],
            "footer-key-foreground": c["brass"],
            "footer-description-foreground": c["secondary"],
            "button-color-foreground": inverse,
            "link-color": c["teal"],
            "link-background": c["ground"],
        }
    )
    if ansi:
        variables.update({"ansi-background": "ansi_black", "ansi-foreground": "ansi_white"})
    return Theme(
        name=name,
        primary=c["brass"],
        secondary=c["secondary"],
        accent=c["copper"],
        warning=c["brass"],
        error=c["red"],
        success=c["green"],
        foreground=c["text"],
        background=c["ground"],
        surface=c["side"],
        panel=c["raised"],
        boost=c["raised"],
        dark=dark,
        ansi=ansi,
        variables=variables,
    )
