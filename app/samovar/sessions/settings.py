"""Settings of one chat; what is not set follows the configuration. Values only."""

from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta

from samovar.config import ContextFull, SamplingConfig
from samovar.core.chat import Sampling
from samovar.core.errors import SamovarError

MAX_STOPS: Final = 16
_SAMPLING: Final = get_type_hints(SamplingConfig, include_extras=True)


class SessionSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """None and empty ones follow the configuration. `context_full` says what happens when the chat outgrows
    the context: its oldest turns are summarized, or left out, or it stops. `stop` are texts that end a reply;
    `pin` keeps the chat's prompt in the cache; `persona` names the file that prompt and settings came from.
    """

    persona: str = ""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    context_full: Literal["compact", "shift", "stop"] | None = None
    stop: tuple[str, ...] = ()
    pin: bool = False
    side_tasks: bool | None = None

    def sampling(self, default: SamplingConfig) -> Sampling:
        """How replies of this chat are sampled."""
        chosen = {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(default, **chosen).sampling()

    def reply_tokens(self, default: SamplingConfig) -> int | None:
        """The most tokens a reply may have; None for no limit."""
        return self.max_tokens if self.max_tokens is not None else default.max_tokens

    def with_text(self, name: str, text: str) -> "SessionSettings":
        """These settings with one of them as typed; `-` takes it back. SamovarError says what is allowed."""
        if name not in KINDS:
            raise SamovarError(f'there is no setting "{name}"; known are {", ".join(KINDS)}')
        if text.strip() == "-":
            return msgspec.structs.replace(self, **{name: getattr(SessionSettings(), name)})
        if name == "stop":
            return checked(msgspec.structs.replace(self, stop=(*self.stop, _unescaped(text))))
        return msgspec.structs.replace(self, **{name: _converted(name, text, strict=False)})

    def changes(self) -> tuple[tuple[str, str], ...]:
        """What is set, as (name, value in words)."""
        shown: list[tuple[str, str]] = []
        for name in KINDS:
            value = getattr(self, name)
            if value != getattr(SessionSettings(), name):
                shown.append((name, ", ".join(map(repr, value)) if name == "stop" else _word(value)))
        return tuple(shown)


_Switch = Annotated[bool | None, Meta(description='"on" or "off"')]
KINDS: Final[dict[str, Any]] = {
    **_SAMPLING,
    "context_full": ContextFull,
    "stop": Annotated[tuple[str, ...], Meta(description="a text that ends the reply")],
    "pin": _Switch,
    "side_tasks": _Switch,
}
"""What can be set, with the type that carries what is allowed."""


def checked(settings: SessionSettings) -> SessionSettings:
    """The same settings; SamovarError if a value is not allowed (they may come from a file)."""
    for name in (*_SAMPLING, "context_full"):
        value = getattr(settings, name)
        if value is not None:
            _converted(name, value, strict=True)
    if len(settings.stop) > MAX_STOPS or not all(settings.stop):
        raise SamovarError(f"stop must be at most {MAX_STOPS} texts that are not empty")
    return settings


def allowed_values(name: str) -> str:
    """What one of `KINDS` may be, in words."""
    meta = next(item for item in KINDS[name].__metadata__ if item.description)
    return str(meta.description)


def _converted(name: str, value: object, *, strict: bool) -> Any:  # noqa: ANN401 - a setting's own type
    kind = KINDS[name]
    if kind is _Switch and isinstance(value, str):
        value = {"on": True, "off": False}.get(value.strip().lower(), value)
        strict = True
    try:
        return msgspec.convert(value, kind, strict=strict)
    except (msgspec.ValidationError, OverflowError) as error:
        raise SamovarError(f"{name} must be {allowed_values(name)}, not {str(value)[:60]}") from error


def _word(value: object) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _unescaped(text: str) -> str:
    """A typed text with `\\n` and `\\t` as the characters they stand for."""
    return text.replace("\\n", "\n").replace("\\t", "\t")
