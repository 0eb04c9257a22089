"""Commands that mean the same in every front end: done on the shown chat, answered in a sentence.

What needs a screen (search, panels, help) is the front end's own. Runs in the event loop. Never imports
Textual.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from samovar.chats import slash
from samovar.chats.cache_desk import Limit
from samovar.chats.chat import Chat
from samovar.chats.conversation import Conversations
from samovar.chats.roster import Order
from samovar.chats.side_tasks import TaskRun
from samovar.chats.work_ahead import SETTINGS
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.safe_text import clean
from samovar.sessions import personas
from samovar.sessions.settings import KINDS, SessionSettings, allowed
from samovar.sessions.transfer.files import Format, format_of

TASKS: Final = frozenset("title summary keywords suggest aside translate explain task".split())
"""The commands that `CommandDesk.start_task` does."""

ANSWERED: Final = TASKS | frozenset(
    "rename system set persona tag untag star archive sort tagged archived retry continue edit fork undo"
    " compact export import samples ahead pin unpin evict ram tokens disk".split()
)
"""The commands that `CommandDesk.run` does."""


_SIDE_TASKS: Final = {
    True: "side tasks start by themselves in this chat",
    False: "no side task starts by itself in this chat; those you ask for still run",
}


class CommandDesk:
    """`personas_dir` holds the user's personas, None for none."""

    def __init__(self, conversations: Conversations, personas_dir: Path | None = None) -> None:
        self._conversations = conversations
        self.personas_dir = personas_dir

    async def run(self, command: slash.SlashCommand) -> str:
        """Do a command of `ANSWERED`; returns what to tell the user, empty where that shows by itself.

        Raises SamovarError where it cannot be done.
        """
        conversations, chat, text = self._conversations, self._conversations.shown, command.argument
        profile, branches, cache = conversations.profile, conversations.branches, conversations.cache
        match command.name:
            case "rename":
                profile.rename(chat, text)
            case "system":
                return self._system_prompt(chat, text)
            case "set":
                return self._set(chat, text)
            case "persona":
                return self._persona(chat, text)
            case "tag" | "untag":
                return self._tag(chat, text, adds=command.name == "tag")
            case "star":
                profile.set_favourite(chat, is_favourite=not chat.is_favourite)
                return "among the favourites" if chat.is_favourite else "no favourite any more"
            case "archive":
                _stored(chat)
                profile.set_archived(chat, is_archived=not chat.is_archived)
                return "archived; /archived shows these chats" if chat.is_archived else "back in the list"
            case "sort" | "tagged" | "archived":
                return self._arrange(command)
            case "retry":
                _refuse(await branches.retry(chat, _settings_of(chat, text) if text else None))
            case "continue":
                _refuse(await branches.go_on(chat))
            case "edit":
                branches.begin_edit(chat, _message_to_edit(chat, text))
            case "fork":
                _refuse(await branches.fork(chat))
            case "undo":
                return await self._undo(chat)
            case "compact":
                return await conversations.compacting.compact(chat)
            case "export":
                return await self._export(chat, text)
            case "import":
                return await conversations.transfers.take_in([_path(text)])
            case "samples":
                return await conversations.transfers.take_samples()
            case "pin" | "unpin":
                pinned = command.name == "pin"
                cache.pin(chat.id, pinned=pinned)
                profile.set_settings(chat, msgspec.structs.replace(chat.settings, pin=pinned))
            case "ahead":
                return self._work_ahead(text)
            case "evict":
                cache.evict(chat.id)
            case name if name in TASKS:
                self.start_task(command)
            case _:
                cache.set_limit(Limit(command.name), text)
        return ""

    # The profile

    def _system_prompt(self, chat: Chat, text: str) -> str:
        if not text:
            prompt = " ".join(clean(chat.system_prompt).split())
            return f"system prompt: {prompt}" if prompt else "this chat has no system prompt"
        if warning := self._conversations.profile.set_system_prompt(chat, "" if text == "-" else text):
            raise SamovarError(warning)
        return "no system prompt" if text == "-" else "the system prompt counts from the next message on"

    def _set(self, chat: Chat, text: str) -> str:
        if not text:
            changed = ", ".join(f"{name} {value}" for name, value in chat.settings.changes())
            return changed or f"all as configured; can be set: {', '.join(KINDS)}"
        name, _, value = text.partition(" ")
        if not value.strip():
            raise SamovarError(
                f"{name} must be {allowed(name)}: /set {name} VALUE; /set {name} - takes it back"
            )
        settings = chat.settings.with_text(name, value)
        if settings.pin != chat.settings.pin:
            self._conversations.cache.pin(chat.id, pinned=settings.pin)
        self._conversations.profile.set_settings(chat, settings)
        shown = dict(settings.changes()).get(name)
        if name == "side_tasks" and settings.side_tasks is not None:
            return _SIDE_TASKS[settings.side_tasks]
        return (
            f"{name} is as configured"
            if shown is None
            else f"{name} is {clean(shown)} from the next reply on"
        )

    def _persona(self, chat: Chat, name: str) -> str:
        if self.personas_dir is None:
            raise SamovarError("there is no folder for personas")
        if not name:
            found, problems = personas.personas(self.personas_dir)
            if problems:
                raise SamovarError("; ".join(problems))
            if not found:
                return f"no personas yet: put TOML files into {self.personas_dir}"
            return "personas: " + ", ".join(clean(one.name) for one in found)
        persona = personas.persona(self.personas_dir, name)
        if warning := self._conversations.profile.take_persona(chat, persona):
            raise SamovarError(warning)
        return f"{clean(persona.name)} answers from the next message on"

    def _tag(self, chat: Chat, text: str, *, adds: bool) -> str:
        named = [part for part in text.replace(",", " ").split() if part]
        if not named and adds:
            return f"tags: {', '.join(map(clean, chat.tags))}" if chat.tags else "this chat has no tags"
        before = set(chat.tags)
        self._conversations.profile.set_tags(chat, before | set(named) if adds else before - _bare(named))
        return f"tags: {', '.join(map(clean, chat.tags))}" if chat.tags else "no tags"

    def start_task(self, command: slash.SlashCommand) -> TaskRun:
        """Start the side task that a command of `TASKS` asks for; SamovarError where it cannot be."""
        tasks, name, text = self._conversations.tasks, command.name, command.argument
        if name == "task":
            name, _, text = text.partition(" ")
        return tasks.run(self._conversations.shown, tasks.spec(name), text=text)

    def _work_ahead(self, text: str) -> str:
        ahead = self._conversations.work_ahead
        if text and text not in SETTINGS:
            raise SamovarError(f"write /ahead {', '.join(SETTINGS[:-1])} or {SETTINGS[-1]}")
        if text:
            ahead.set(text)
        told = {"auto": "on, but not on battery", "on": "on", "off": "off"}[ahead.setting]
        return f"work ahead is {told}"

    # The list

    def _arrange(self, command: slash.SlashCommand) -> str:
        roster, text = self._conversations.roster, command.argument
        match command.name:
            case "sort":
                try:
                    roster.order = Order(text.lower())
                except ValueError:
                    raise SamovarError(f"sort by {', '.join(order.value for order in Order)}") from None
            case "tagged":
                tag = "" if text in ("", "-") else next(iter(_bare([text])))
                if tag and tag not in (known for known, _ in self._conversations.profile.all_tags()):
                    raise SamovarError(f"no chat has the tag {clean(tag)}")
                roster.tag = tag
            case _:
                roster.with_archived = not roster.with_archived
        self._conversations.arranged()
        if command.name == "tagged":
            return f"only chats tagged {roster.tag}; /tagged - shows all" if roster.tag else "all chats"
        if command.name == "archived":
            return "with archived chats" if roster.with_archived else "without archived chats"
        return f"sorted by {roster.order.value}"

    # In and out

    async def _export(self, chat: Chat, text: str) -> str:
        """`/export`, `/export FILE`, `/export all FOLDER`; the file's ending tells the format."""
        transfers = self._conversations.transfers
        if text == "all" or text.startswith("all "):
            target = text.removeprefix("all").strip()
            chats = sorted(self._conversations.chats.values(), key=lambda chat: chat.created_at)
            return await transfers.export(chats, _path(target or "chats.json"), None)
        form = None if text else Format.MARKDOWN
        if text and _path(text).suffix and not _path(text).is_dir() and format_of(_path(text)) is None:
            raise SamovarError(f"end the name in .md, .json or .toml: /export {clean(text)}.md")
        return await transfers.export([chat], _path(text) if text else None, form)

    # Branches

    async def _undo(self, chat: Chat) -> str:
        if self._conversations.branches.can_undo(chat):
            _refuse(await self._conversations.branches.undo(chat))
            return "the message is back"
        if (back := self._conversations.undo_delete()) is not None:
            return f"“{_short(back)}” is back"
        if self._conversations.tasks.undoable_title(chat):
            return f"the title is “{_short_text(self._conversations.tasks.undo_title(chat))}” again"
        if self._conversations.compacting.undoable(chat) is not None:
            return await self._conversations.compacting.undo(chat)
        _refuse(await self._conversations.branches.undo(chat))
        return "the message is back"


def _message_to_edit(chat: Chat, text: str) -> int:
    """The last message of the user's, or the one with that number (counted from 1, theirs alone)."""
    mine = [message for message in chat.path or () if message.role is Role.USER]
    if not mine:
        raise SamovarError("there is no message of yours to edit yet")
    if not text:
        return mine[-1].id
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= len(mine):
        raise SamovarError(f"your messages here have the numbers 1 to {len(mine)}")
    return mine[int(text) - 1].id


def _settings_of(chat: Chat, text: str) -> SessionSettings:
    """The chat's settings with some changed for one reply: `temperature 1.2 seed 7`."""
    words = text.replace("=", " ").split()
    if len(words) % 2:
        raise SamovarError("write /retry, or /retry temperature 1.2 for this one reply")
    settings = chat.settings
    for name, value in zip(words[::2], words[1::2], strict=True):
        settings = settings.with_text(name, value)
    return settings


def _bare(tags: Iterable[str]) -> set[str]:
    return {tag.lstrip("#").lower() for tag in tags}


def _path(text: str) -> Path:
    """A path as typed: with `~`, perhaps in quotes."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    try:
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        raise SamovarError(f"{clean(text)} is no path ({error})") from error


def _stored(chat: Chat) -> None:
    if not chat.in_store:
        raise SamovarError("there is no message in this chat yet")


def _refuse(reason: str) -> None:
    if reason:
        raise SamovarError(reason)


def _short(chat: Chat) -> str:
    return _short_text(chat.title) or "new chat"


def _short_text(title: str) -> str:
    text = " ".join(clean(title).split())
    return text if len(text) <= 24 else text[:23] + "…"
