"""The chats that come with Samovar: where their files lie, what each one shows. Reads files; keeps nothing.

They are TOML as of `transfer`, which is what reads them whole; here only their head is looked at.
"""

import tomllib
from pathlib import Path

import msgspec

from samovar.core.errors import SamovarError


class Sample(msgspec.Struct, frozen=True):
    """One sample chat: its file, its title, and the sentences of its first comment."""

    path: Path
    title: str
    about: str


def sample_folder() -> Path:
    """Return where the sample chats lie: inside the installed package, or beside the source tree."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "sample_sessions"
    return inside if inside.is_dir() else package.parent.parent / "sample_sessions"


def sample_files() -> tuple[Path, ...]:
    """The files of all sample chats by name; none if this installation came without them."""
    return tuple(sorted(sample_folder().glob("*.toml")))


def describe(path: Path) -> Sample:
    """What a sample chat shows. SamovarError if the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        title = tomllib.loads(text).get("title", "")
    except OSError as error:
        raise SamovarError(f"{path}: cannot be read ({error.strerror}); install Samovar again") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SamovarError(f"{path}: not valid TOML ({error}); install Samovar again") from error
    about = text.partition("\n")[0]
    return Sample(path, str(title) or path.stem, about.removeprefix("#").strip() if about[:1] == "#" else "")
