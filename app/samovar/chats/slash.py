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
    Usage(
        "undo",
        "",
        "bring back what was deleted last, or a title that a task has replaced; take back a summary",
    ),
    Usage("system", "[TEXT]", "show or set this chat's system prompt (/system - removes it)"),
    Usage("persona", "[NAME]", "give this chat a persona's system prompt and settings; alone: lists them"),
    Usage("set", "[NAME VALUE]", "set temperature, max_tokens, stop, … for this chat (- takes it back)"),
    Usage("edit", "[N]", "edit your last message, or your message number N, as another version"),
    Usage("retry", "[NAME VALUE]", "answer the last message again, also with another temperature or seed"),
    Usage(
        "compare",
        "[N] [TEXT]",
        "answer the last message, or a new text, N times side by side, also /compare temperature 0.2 1.0;"
        " keep one",
    ),
    Usage("continue", "", "go on with a reply that was cut or stopped"),
    Usage("compact", "", "summarize the oldest messages now; they stay readable (/undo takes it back)"),
    Usage("fork", "", "a new chat that begins as this one does"),
    Usage("tag", "[TAG …]", "tag this chat; alone: its tags"),
    Usage("untag", "TAG …", "take tags off this chat", required=True),
    Usage("star", "", "put this chat among the favourites, or take it from there"),
    Usage("archive", "", "put this chat out of the list without deleting it, or back"),
    Usage("sort", "ORDER", "sort the chats: recent, created, title or length", required=True),
    Usage("tagged", "[TAG]", "list the chats with this tag alone; without one, all"),
    Usage("archived", "", "list archived chats too, or not"),
    Usage("export", "[FILE]", "write this chat to a file (.md, .json, .toml); /export all FOLDER: all"),
    Usage(
        "import",
        "FILE",
        "take in chats: ours, ChatGPT's, llm's, llama.cpp's, oterm's, …",
        required=True,
    ),
    Usage("samples", "", "take in the example chats that come with Samovar"),
    Usage("title", "", "let the model give this chat a title"),
    Usage("summary", "", "sum up this chat"),
    Usage("keywords", "", "let the model find tags for this chat"),
    Usage("suggest", "", "suggest what you could write next"),
    Usage("aside", "QUESTION", "ask about this chat without changing it", required=True),
    Usage("translate", "[LANGUAGE]", "translate the last reply, into English if none is named"),
    Usage("explain", "", "explain the last reply"),
    Usage("task", "NAME [INPUT]", "run a side task, also one of your own", required=True),
    Usage("tasks", "", "side tasks: what runs, what came of them, which there are"),
    Usage("search", "[WORDS]", "search in all chats"),
    Usage("ram", "SIZE", "limit the cache in RAM: auto, 2GiB, unlimited or off", required=True),
    Usage("tokens", "LIMIT", "limit the tokens kept in RAM: a number, unlimited or off", required=True),
    Usage("disk", "SIZE", "limit the cache on disk: auto, 8GiB or off", required=True),
    Usage("pin", "", "keep this chat's prompt in the cache whatever else comes"),
    Usage("unpin", "", "let this chat's prompt go when room is needed"),
    Usage("evict", "", "take this chat's prompt out of the context and out of RAM"),
    Usage("ahead", "[on|off|auto]", "process what you type before you send it, or not, until you quit"),
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
