"""Commands typed into the composer: which there are, and what a text means. Pure."""

from typing import Final

import msgspec

from samovar.core.errors import SamovarError


class SlashCommand(msgspec.Struct, frozen=True):
    """One command as typed: its name without the slash, and what followed."""

    name: str
    argument: str = ""


class Usage(msgspec.Struct, frozen=True):
    """How a command is written; `argument` is empty where none is taken."""

    name: str
    argument: str
    help: str
    required: bool = False


USAGES: Final = (
    Usage("new", "", "open a new chat"),
    Usage("rename", "TITLE", "give this chat another title", required=True),
    Usage("delete", "", "delete this chat (/undo brings it back)"),
    Usage("undo", "", "bring back the chat deleted last"),
    Usage("system", "[TEXT]", "show or set this chat's system prompt (/system - removes it)"),
    Usage("retry", "", "answer the last message again, after a stop or a failure"),
    Usage("ram", "SIZE", "limit the cache in RAM: auto, 2GiB, unlimited or off", required=True),
    Usage("tokens", "LIMIT", "limit the tokens kept in RAM: a number, unlimited or off", required=True),
    Usage("disk", "SIZE", "limit the cache on disk: auto, 8GiB or off", required=True),
    Usage("pin", "", "keep this chat's prompt in the cache whatever else comes"),
    Usage("unpin", "", "let this chat's prompt go when room is needed"),
    Usage("evict", "", "take this chat's prompt out of the context and out of RAM"),
    Usage("cache", "", "show or hide the cache panel"),
    Usage("help", "", "show all keys and commands"),
    Usage("quit", "", "leave Samovar"),
)
_BY_NAME: Final = {usage.name: usage for usage in USAGES}


def is_command(text: str) -> bool:
    """Whether the text is meant as a command: a slash and a word, such as `/new` (a path is none)."""
    word = text.split(maxsplit=1)[0] if text.strip() else ""
    return len(word) > 1 and word[0] == "/" and word.count("/") == 1 and text[0] == "/"


def parse(text: str) -> SlashCommand:
    """The command in this text; SamovarError if there is none of that name or its argument is missing."""
    name, _, argument = text.strip().removeprefix("/").partition(" ")
    argument = argument.strip()
    usage = _BY_NAME.get(name.lower())
    if usage is None:
        known = " ".join(f"/{known.name}" for known in USAGES)
        raise SamovarError(
            f"there is no command /{name} (a space before it sends it as text). known: {known}"
        )
    if usage.required and not argument:
        raise SamovarError(f"write /{usage.name} {usage.argument}: {usage.help}")
    if argument and not usage.argument:
        raise SamovarError(f"/{usage.name} takes nothing after it: {usage.help}")
    return SlashCommand(usage.name, argument)


def matching(text: str) -> list[Usage]:
    """The commands that the beginning of a text could still become."""
    word = text.removeprefix("/").split(" ")[0].lower()
    return [usage for usage in USAGES if usage.name.startswith(word)] if text.startswith("/") else []
