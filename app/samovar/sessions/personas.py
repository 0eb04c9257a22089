"""Personas: a named system prompt with settings, one TOML file each, in the user's configuration folder.

# personas/editor.toml
description = "a patient copy editor"
system_prompt = '''
You correct …
'''
temperature = 0.2
"""

import os
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec
import tomli_w

from samovar.core.errors import SamovarError
from samovar.paths import disk_error
from samovar.sessions.settings import SessionSettings, checked

MAX_NAME: Final = 60


class Persona(msgspec.Struct, frozen=True):
    """`settings.persona` is the name of the file without its ending."""

    name: str
    description: str
    system_prompt: str
    settings: SessionSettings


def personas(folder: Path) -> tuple[list[Persona], list[str]]:
    """All personas in the folder by name, and what is wrong with files that are none."""
    found: list[Persona] = []
    problems: list[str] = []
    try:
        files = sorted(file for file in folder.glob("*.toml") if file.is_file())
    except OSError as error:
        return [], [f"{folder} cannot be read ({error.strerror})"]
    for file in files:
        try:
            found.append(_read(file))
        except SamovarError as error:
            problems.append(str(error))
    return found, problems


def persona(folder: Path, name: str) -> Persona:
    """The persona of this name; SamovarError if there is none or its file is wrong."""
    file = _file(folder, name)
    if not file.is_file():
        names = ", ".join(found.name for found in personas(folder)[0])
        known = f"known are {names}" if names else f"there are none yet: put TOML files into {folder}"
        raise SamovarError(f'there is no persona "{name}"; {known}')
    return _read(file)


def save(folder: Path, persona: Persona) -> Path:
    """Write a new persona; SamovarError if one of this name is there, or the file cannot be written."""
    file = _file(folder, persona.name)
    table: dict[str, Any] = {"description": persona.description, "system_prompt": persona.system_prompt}
    table |= {
        key: value
        for key, value in msgspec.to_builtins(persona.settings).items()
        if value is not None and key != "persona"
    }
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
            tomli_w.dump(table, stream, multiline_strings=True)
    except FileExistsError as error:
        raise SamovarError(
            f'there is a persona "{persona.name}" already: edit {file}, or choose another name'
        ) from error
    except OSError as error:
        raise disk_error(error, file) from error
    return file


def _file(folder: Path, name: str) -> Path:
    is_name = name == Path(name).name and not name.startswith(".") and name.isprintable()
    if not name or len(name) > MAX_NAME or not is_name:
        raise SamovarError("a persona's name is a word that can be a file's name")
    return folder / f"{name}.toml"


def _read(file: Path) -> Persona:
    try:
        table = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise SamovarError(f"{file} cannot be read ({(error.strerror or str(error)).lower()})") from error
    except (ValueError, RecursionError) as error:
        raise SamovarError(f"{file} is no valid TOML ({error})") from error
    description, prompt = table.pop("description", ""), table.pop("system_prompt", "")
    if not isinstance(description, str) or not isinstance(prompt, str):
        raise SamovarError(f"{file}: description and system_prompt must be texts in quotes")
    unknown = sorted(set(table) - set(SessionSettings.__struct_fields__) | ({"persona"} & set(table)))
    if unknown:
        known = ", ".join(name for name in SessionSettings.__struct_fields__ if name != "persona")
        known = f"known are description, system_prompt, {known}"
        raise SamovarError(f'{file}: unknown key "{unknown[0]}"; {known}')
    try:
        settings = checked(msgspec.convert({**table, "persona": file.stem}, SessionSettings))
    except (msgspec.ValidationError, SamovarError) as error:
        raise SamovarError(f"{file}: {error}") from error
    return Persona(file.stem, description, prompt, settings)
