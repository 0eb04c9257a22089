"""The user's side tasks: one TOML file each, in the configuration folder. Read anew when a file changes.

# tasks/minutes.toml
help = "minutes of this chat"
prompt = "Write the minutes of our conversation as a list."
max_tokens = 400

Without a `prompt`, a file changes the built-in task whose name it bears; `when = "never"` turns that off.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta

from samovar.core.errors import SamovarError
from samovar.core.units import parse_duration
from samovar.tasks.builtin import BUILTIN
from samovar.tasks.prompt import checked_prompt, variables
from samovar.tasks.spec import Output, Scope, TaskSpec, When

MAX_FILE_BYTES: Final = 65536

_Text = Annotated[str, Meta(description="a text in quotes")]


class _Keys(msgspec.Struct, frozen=True):
    """What a file may say, with the words that say what is allowed."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9][a-z0-9_-]{0,39}\Z",
            description="a word of small letters, digits, - and _, 40 at most",
        ),
    ]
    prompt: _Text
    help: _Text
    output: Annotated[
        Literal["panel", "title", "tags", "composer"],
        Meta(description='"panel", "title", "tags" or "composer"'),
    ]
    when: Annotated[
        Literal["asked", "first reply", "every reply", "never"],
        Meta(description='"asked", "first reply", "every reply" or "never"'),
    ]
    scope: Annotated[Literal["chat", "message"], Meta(description='"chat" or "message"')]
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1, description="a whole number of tokens from 1 up")]
    timeout: Annotated[str | int, Meta(description='a duration from "1s" up, such as "90s" or "5m"')]
    temperature: Annotated[float, Meta(ge=0.0, le=10.0, description="a number from 0 (greedy) to 10")]
    schema: Annotated[
        str | dict[str, Any],
        Meta(description="a JSON schema, as a table or as a text that holds a JSON object"),
    ]
    grammar: Annotated[str, Meta(description="a GBNF grammar in quotes")]
    needs_input: Annotated[str, Meta(description='what the user has to type, in a word, such as "LANGUAGE"')]
    default_input: _Text


_KEYS: Final = get_type_hints(_Keys, include_extras=True)


class TaskShelf:
    """All tasks there are: built-in ones, and the user's in `folder` (None for none)."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.problems: tuple[str, ...] = ()
        self.missing: dict[str, str] = {}
        """Why a task cannot be run that a file here is about: it is wrong, or turns the task off; by name."""
        self._read: dict[Path, tuple[tuple[int, int], TaskSpec | SamovarError]] = {}

    def specs(self) -> tuple[TaskSpec, ...]:
        """The tasks that are not turned off, built-in ones first, then the user's by name.

        A file that is wrong keeps no other out: `problems` holds a sentence for each, which begins with the
        file's name, without its folder.
        """
        specs = {spec.name: spec for spec in BUILTIN}
        problems: list[str] = []
        origins: dict[str, Path] = {}
        self.missing = {}
        for file, found in self._files(problems):
            if isinstance(found, SamovarError):
                problems.append(str(found).replace(f"{file.parent}{os.sep}", ""))
                self.missing[file.stem.lower()] = problems[-1]
            elif found.name in origins:
                problems.append(
                    f'{file.name}: the name "{found.name}" is that of {origins[found.name].name} too'
                )
            else:
                origins[found.name] = file
                specs[found.name] = found
                if found.when is When.NEVER:
                    self.missing[found.name] = f"{found.name} is switched off in {file}"
        self.missing = {
            name: why
            for name, why in self.missing.items()
            if name not in specs or specs[name].when is When.NEVER
        }
        self.problems = tuple(problems)
        num_builtin = len(BUILTIN)
        ordered = [
            *list(specs.values())[:num_builtin],
            *sorted(list(specs.values())[num_builtin:], key=_name),
        ]
        return tuple(spec for spec in ordered if spec.when is not When.NEVER)

    def _files(self, problems: list[str]) -> list[tuple[Path, TaskSpec | SamovarError]]:
        """Each file with its task, or with what is wrong; read anew where it has changed."""
        if self.folder is None:
            return []
        read: dict[Path, tuple[tuple[int, int], TaskSpec | SamovarError]] = {}
        try:
            files = sorted(file for file in self.folder.iterdir() if file.suffix == ".toml")
        except FileNotFoundError:
            files = []
        except OSError as error:
            problems.append(f"{self.folder} cannot be read ({(error.strerror or str(error)).lower()})")
            files = []
        for file in files:
            try:
                status = file.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                known = self._read.get(file)
                read[file] = known if known is not None and known[0] == stamp else (stamp, read_task(file))
            except FileNotFoundError:
                continue  # it has just been deleted
            except OSError as error:
                problems.append(f"{file} cannot be read ({(error.strerror or str(error)).lower()})")
            except SamovarError as error:
                read[file] = (stamp, error)
        self._read = read
        return [(file, found) for file, (_, found) in read.items()]


def read_task(file: Path) -> TaskSpec:
    """The task in a file; SamovarError names the file, the key and what is allowed.

    Raises OSError if the file cannot be read.
    """
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:  # a pipe has to hold up nobody
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise SamovarError(f"{file} is too large for a side task ({MAX_FILE_BYTES:,} bytes at most)")
    try:
        table = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, or a number without end
        raise SamovarError(f"{file} is no valid TOML ({error})") from error
    try:
        return _spec(file.stem, table)
    except SamovarError as error:
        raise SamovarError(f"{file}: {error}") from error


def _spec(stem: str, table: Mapping[str, Any]) -> TaskSpec:
    for key in table:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"known are {', '.join(_KEYS)}"
            raise SamovarError(f'unknown key "{key}"; {hint}')
    values = {key: _checked(key, value) for key, value in table.items()}
    name = values.pop("name", None) or _checked("name", stem.lower())
    base = next((spec for spec in BUILTIN if spec.name == name), None)
    if "prompt" in values:
        checked_prompt(values["prompt"])
        base = TaskSpec(name, values["prompt"])
    elif base is None and values.get("when") == "never":
        base = TaskSpec(name, "turned off")
    elif base is None:
        raise SamovarError("there is no prompt: it says what the model is to do")
    spec = msgspec.structs.replace(base, is_builtin=False, **_fields(values))
    if spec.json_schema and spec.grammar:
        raise SamovarError("schema and grammar cannot both be given: leave one out")
    used = variables(spec.prompt)
    if spec.needs_input and "input" not in used:
        raise SamovarError("needs_input is given, so prompt must say with $input where it goes")
    if spec.scope is Scope.CHAT and used & {"message", "subject"}:
        raise SamovarError('prompt is about a message, so there must be scope = "message"')
    return spec


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec that checked values are."""
    fields: dict[str, Any] = {}
    for key, value in values.items():
        match key:
            case "output":
                fields[key] = Output(value)
            case "when":
                fields[key] = When(value)
            case "scope":
                fields[key] = Scope(value)
            case "timeout":
                fields["timeout_s"] = parse_duration(str(value))
            case "schema":
                fields["json_schema"] = value if isinstance(value, str) else json.dumps(value)
            case _:
                fields[key] = value
    return fields


def _checked(key: str, value: object) -> Any:  # noqa: ANN401 - a key's own type
    """The value as its key's type; SamovarError says what the key allows."""
    try:
        result = msgspec.convert(value, _KEYS[key])
        if key == "timeout" and parse_duration(str(result)) < 1:
            raise SamovarError("too short")
        if key == "schema" and not isinstance(_schema(result), dict):
            raise SamovarError("no object")
    except (msgspec.ValidationError, SamovarError, ValueError, TypeError, RecursionError) as error:
        meta = next(item for item in _KEYS[key].__metadata__ if item.description)
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        shown = shown if len(shown) <= 60 else shown[:59] + "…"
        raise SamovarError(f"{key} must be {meta.description}, not {shown}") from error
    return result


def _schema(value: str | dict[str, Any]) -> object:
    """The schema as JSON has it; ValueError or TypeError (a TOML date, say) where it cannot be JSON."""
    found: object = json.loads(value if isinstance(value, str) else json.dumps(value, allow_nan=False))
    return found


def _name(spec: TaskSpec) -> str:
    return spec.name
