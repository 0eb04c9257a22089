"""Files that a message names: `@notes.md`, `@"my notes.md"`, `@~/src/a.py`, `@pasted-1a2b3c4d`.

What is named is read when the message is sent, checked, and travels with it; the name stays in the text.
Reads files; used in the thread that stores messages.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlparse

from samovar.core.errors import SamovarError
from samovar.sessions.attachments import PASTE_DIGITS, digest_of
from samovar.sessions.encoding import storable
from samovar.sessions.values import Attachment, StoredMessage

MAX_FILE_BYTES: Final = 2 * 1024 * 1024
MAX_FILES: Final = 32
PASTE_NAME: Final = "pasted-"

_MENTION: Final = re.compile(r'(?:^|(?<=[\s(\[]))@(?:"([^"\n]+)"|(\S+))')
_TRAILING: Final = ".,;:!?)]}'\""
_ENDINGS: Final = (
    "bash|c|cc|cfg|conf|cpp|cs|css|csv|diff|doc|docx|env|gif|go|h|hpp|htm|html|ini|ipynb|java|jpeg|jpg|js|json"
    "|jsonl|kt|log|lua|md|odt|patch|pdf|php|png|ps1|py|rb|rs|rst|scala|sh|sql|svg|swift|tex|toml|ts|tsv|tsx|txt"
    "|vue|xml|yaml|yml|zip|zsh"
)
# Code has words like @functools.cache, and people are called @bob.smith.
_LOOKS_LIKE_A_FILE: Final = re.compile(rf"^(?:~|\.{{1,2}})?/|.\.(?:{_ENDINGS})$", re.IGNORECASE)


def attached(
    text: str,
    path: Sequence[StoredMessage],
    find_paste: Callable[[str], tuple[str, str] | None],
    had: Sequence[Attachment] = (),
) -> tuple[Attachment, ...]:
    """The files that a text names, each once. `path` are the messages before it.

    `find_paste` gives (digest, text) of a kept paste by the beginning of its digest. Raises SamovarError for
    what looks like a file and cannot be attached; an edited message keeps what it `had` of that name.
    """
    found: dict[str, Attachment] = {}
    for name in mentions(text):
        one = _paste(name, find_paste) if name.startswith(PASTE_NAME) else None
        one = one if one is not None else _file_or_kept(name, had)
        if one is not None:
            found.setdefault(one.path or one.name, one)
    if len(found) > MAX_FILES:
        raise SamovarError(f"a message takes at most {MAX_FILES} files, not {len(found)}")
    before = {(one.name, one.digest) for message in path for one in message.attachments}
    return tuple(
        Attachment(one.name, one.text, one.digest, one.path, repeated=(one.name, one.digest) in before)
        for one in found.values()
    )


def mentions(text: str) -> list[str]:
    """What stands behind an `@` at the beginning of a word, in order."""
    return [quoted or word for quoted, word in _MENTION.findall(text)]


def paste_digits(text: str) -> list[str]:
    """What follows the common part of the names of pasted texts that a text mentions."""
    names = [name.rstrip(_TRAILING) for name in mentions(text) if name.startswith(PASTE_NAME)]
    return [name.removeprefix(PASTE_NAME) for name in names]


def mention_of(name: str) -> str:
    """How a file is named in a message."""
    return f'@"{name}"' if re.search(r"\s", name) or name[-1:] in _TRAILING else f"@{name}"


def read_file(path: Path) -> Attachment:
    """The text file at `path`; SamovarError says why it cannot be attached."""
    shown = os.fsencode(path).decode(errors="replace")
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise SamovarError(f"{shown} is a folder; name the files in it one by one")
        if not stat.S_ISREG(found.st_mode):
            raise SamovarError(f"{shown} is no regular file, so it cannot be attached")
        if found.st_size > MAX_FILE_BYTES:
            raise SamovarError(f"{shown} has {found.st_size:,} bytes, more than the 2 MiB a file may have")
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        if error.errno is not None and isinstance(error, PermissionError):
            raise SamovarError(f"{shown} may not be read; change its rights, or attach a copy") from error
        raise SamovarError(f"{shown} cannot be read ({disk_reason(error)})") from error
    return as_attachment(path.name, _text(content, shown), str(path))


def as_attachment(name: str, text: str, path: str = "") -> Attachment:
    """A text as what a message carries."""
    text = storable(text)
    return Attachment(storable(name), text, digest_of(text), storable(path))


def paste_name(digest: str) -> str:
    """What a pasted text is called in a message."""
    return f"{PASTE_NAME}{digest[:PASTE_DIGITS]}"


def dropped_path(text: str) -> Path | None:
    """The file whose path was pasted or dropped into the terminal, None if the text is none."""
    line = text.strip()
    if not line or "\n" in line or len(line) > 4096:
        return None
    if line.startswith("file://"):
        line = unquote(urlparse(line).path)
    elif len(line) > 1 and line[0] == line[-1] and line[0] in "'\"":
        line = line[1:-1]
    else:
        line = re.sub(r"\\(.)", r"\1", line)
    if not line.startswith(("/", "~/")):
        return None
    try:
        path = Path(line).expanduser()
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def completions(beginning: str, folder: Path, limit: int = 8) -> list[str]:
    """Names of files and folders (with a slash at their end) that go on from what is typed behind an `@`."""
    head, slash, tail = beginning.rpartition("/")
    try:
        base = Path(f"{head}/").expanduser() if slash else Path()
        listed = sorted(_listing(folder / base), key=str.lower)
    except (OSError, ValueError, RuntimeError):
        return []
    is_wanted = [
        entry
        for entry in listed
        if entry.lower().startswith(tail.lower()) and (tail.startswith(".") or not entry.startswith("."))
    ]
    inside = [] if is_wanted else [entry for entry in listed if tail.lower() in entry.lower()]
    return [f"{head}{slash}{entry}" for entry in (*is_wanted, *inside)[:limit]]


def common_start(typed: str, names: Sequence[str]) -> str:
    """What all these names begin with; the first one where that is no more than what is typed."""
    low, high = min(names), max(names)  # what these two share, all between them share
    start = low[
        : next((i for i, pair in enumerate(zip(low, high, strict=False)) if len(set(pair)) > 1), len(low))
    ]
    return start if len(start) > len(typed) else names[0]


def disk_reason(error: OSError) -> str:
    """An error of the system in a few words."""
    return (error.strerror or str(error)).lower()


def _listing(folder: Path) -> Iterable[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name == storable(name) and name.isprintable():
                yield f"{name}/" if entry.is_dir() else name


def _file_or_kept(name: str, had: Sequence[Attachment]) -> Attachment | None:
    try:
        return _file(name)
    except SamovarError:
        named = {Path(name).name, Path(name.rstrip(_TRAILING)).name}
        kept = next((one for one in had if one.name in named and (one.text or not one.repeated)), None)
        if kept is None:
            raise
        return kept


def _file(name: str) -> Attachment | None:
    """The file of this name, None if it is a word like `@everyone`."""
    for candidate in dict.fromkeys((name, name.rstrip(_TRAILING))):
        try:
            path = Path(candidate).expanduser()
            if candidate and path.exists():
                return read_file(Path(os.path.abspath(path)))
        except (OSError, ValueError, RuntimeError):
            continue
    bare = name.rstrip(_TRAILING)
    if _LOOKS_LIKE_A_FILE.search(bare):
        raise SamovarError(f"there is no file {bare} to attach; with a space behind the @ it is sent as text")
    return None


def _paste(name: str, find_paste: Callable[[str], tuple[str, str] | None]) -> Attachment | None:
    bare = name.rstrip(_TRAILING)
    digits = bare.removeprefix(PASTE_NAME)
    kept = find_paste(digits)
    if kept is None and re.fullmatch(f"[0-9a-f]{{{PASTE_DIGITS}}}", digits):
        raise SamovarError(f"the text of @{bare} is not kept any more; paste it again")
    return as_attachment(bare, kept[1]) if kept is not None else None


def _text(content: bytes, shown: str) -> str:
    """The bytes as text; SamovarError for a binary file."""
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig")):
        if content.startswith(mark):
            try:
                return content.decode(encoding)
            except UnicodeDecodeError:
                break
    if b"\0" not in content:
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            reason = f"byte {error.start:,} is not UTF-8"
    else:
        reason = "it holds NUL bytes"
    raise SamovarError(f"{shown} is not a text file ({reason}), so a model cannot read it")
