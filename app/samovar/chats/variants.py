"""What `/compare` asks for: how many answers, how they differ, to which text. Pure but for persona files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from samovar.chats.chat import Chat
from samovar.config import SamplingConfig
from samovar.core.errors import SamovarError
from samovar.sessions import personas
from samovar.sessions.settings import SessionSettings

MIN_ANSWERS: Final = 2
MAX_ANSWERS: Final = 6
DEFAULT_ANSWERS: Final = 3
AS_THE_CHAT: Final = "-"  # among personas: the chat's own system prompt


class Variant(msgspec.Struct, frozen=True):
    """One of the answers: `label` says what is special about it, such as `temperature 1.2`."""

    label: str
    settings: SessionSettings
    system_prompt: str


class Wish(msgspec.Struct, frozen=True):
    """The answers wanted, to a new `text` or, where that is empty, to the last message again.

    `shares_all` is False where system prompts differ: only what is common is processed once then.
    """

    variants: tuple[Variant, ...]
    text: str = ""
    shares_all: bool = True


def wish_of(
    argument: str, chat: Chat, default: SamplingConfig, personas_dir: Path | None, first_seed: int
) -> Wish:
    """What a user has written behind `/compare`.

    Answers that differ by nothing else have the seeds from `first_seed` on. SamovarError says what can be
    written instead.
    """
    head, rest = _word(argument)
    match head:
        case "seed" | "temperature":
            return _with_values(head, rest, chat, default)
        case "persona":
            return _with_personas(rest, chat, personas_dir)
        case number if number.isascii() and number.isdigit():
            count = int(number[:4])
            if not MIN_ANSWERS <= count <= MAX_ANSWERS:
                raise SamovarError(f"{MIN_ANSWERS} to {MAX_ANSWERS} answers can be compared, not {count}")
        case _:
            count, rest = DEFAULT_ANSWERS, argument.strip()
    _refuse_greedy(chat.settings, default)
    seeds = [str(first_seed + number) for number in range(count)]
    return Wish(_variants("seed", seeds, chat), rest)


def _with_values(name: str, rest: str, chat: Chat, default: SamplingConfig) -> Wish:
    values: list[str] = []
    word, after = _word(rest)
    while _is_number(word):
        values.append(word)
        rest = after
        word, after = _word(rest)
    if not MIN_ANSWERS <= len(values) <= MAX_ANSWERS:
        raise SamovarError(
            f"name {MIN_ANSWERS} to {MAX_ANSWERS} values, such as /compare temperature 0.2 0.7 1.2;"
            f" to ask about “{name}”: /compare {DEFAULT_ANSWERS} {name} …"
        )
    if name == "seed":
        _refuse_greedy(chat.settings, default)
    return Wish(_variants(name, values, chat), rest)


def _with_personas(rest: str, chat: Chat, folder: Path | None) -> Wish:
    if folder is None:
        raise SamovarError("there is no folder for personas")
    known = {persona.name: persona for persona in personas.personas(folder)[0]}
    variants: list[Variant] = []
    word, after = _word(rest)
    while word in known or word == AS_THE_CHAT:
        persona = known.get(word)
        variants.append(
            Variant("the chat as it is", chat.settings, chat.system_prompt)
            if persona is None
            else Variant(f"persona {word}", persona.settings, persona.system_prompt)
        )
        rest = after
        word, after = _word(rest)
    if not MIN_ANSWERS <= len(variants) <= MAX_ANSWERS:
        names = f"known are {', '.join(known)}" if known else f"there are none yet in {folder}"
        raise SamovarError(
            f"name {MIN_ANSWERS} to {MAX_ANSWERS} personas, - for the chat as it is; {names};"
            f" to ask about “persona”: /compare {DEFAULT_ANSWERS} persona …"
        )
    prompts = {variant.system_prompt for variant in variants}
    return Wish(tuple(variants), rest, shares_all=len(prompts) == 1)


def _variants(name: str, values: Sequence[str], chat: Chat) -> tuple[Variant, ...]:
    return tuple(
        Variant(f"{name} {value}", chat.settings.with_text(name, value), chat.system_prompt)
        for value in values
    )


def _refuse_greedy(settings: SessionSettings, default: SamplingConfig) -> None:
    if settings.sampling(default).temperature == 0:
        raise SamovarError(
            "with temperature 0 every seed gives the same answer: /compare temperature 0.2 0.7 1.2"
        )


def _word(text: str) -> tuple[str, str]:
    """The first word, and what follows it."""
    parts = text.strip().split(maxsplit=1)
    return (parts[0], parts[1] if len(parts) > 1 else "") if parts else ("", "")


def _is_number(word: str) -> bool:
    return word.isascii() and word.replace(".", "", 1).isdigit()
