"""What a chat is apart from its messages: title, system prompt, settings, tags, favourite, archive.

Changed here, in the store and, where it matters there, in the host. Runs in the event loop. Never imports
Textual.
"""

from collections.abc import Iterable

import msgspec

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.shared import Shared
from samovar.core.commands import Pin, Rename
from samovar.core.lint import prompt_warning
from samovar.sessions.encoding import storable
from samovar.sessions.personas import Persona
from samovar.sessions.settings import SessionSettings
from samovar.sessions.tags import tag_of


class ChatProfile(msgspec.Struct, frozen=True):
    """All of a chat's profile, as one value that can be changed and taken over."""

    title: str
    system_prompt: str
    settings: SessionSettings = SessionSettings()
    tags: tuple[str, ...] = ()
    is_favourite: bool = False
    is_archived: bool = False

    @classmethod
    def of(cls, chat: Chat) -> "ChatProfile":
        """What it is now."""
        return cls(
            chat.title, chat.system_prompt, chat.settings, chat.tags, chat.is_favourite, chat.is_archived
        )


class Profile:
    """The profiles of all chats."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def rename(self, chat: Chat, title: str, *, instead_of: str | None = None) -> None:
        """Give a chat another title: here, in the store and in the host's table.

        With `instead_of`, another window that has just replaced that title by one of its own is right.
        """
        title = storable(" ".join(title.split()))
        if not title or title == chat.title:
            return
        chat.title = title
        self._shared.client.send(Rename(chat.id, title))
        self._changed()
        self._shared.keep(
            chat,
            "the title cannot be stored",
            lambda store: store.rename(chat.id, title, instead_of=instead_of),
        )

    def set_system_prompt(self, chat: Chat, text: str) -> str:
        """Set a chat's system prompt, empty for none; it counts from the next message on.

        Returns a warning if the cache will suffer from it, else an empty text.
        """
        text = storable(text)
        chat.system_prompt = text
        self._shared.notify(changes.PathChanged(chat.id))
        what = "the system prompt cannot be stored"
        self._shared.keep(chat, what, lambda store: store.set_system_prompt(chat.id, text))
        return prompt_warning(text)

    def set_settings(self, chat: Chat, settings: SessionSettings) -> None:
        """Set how this chat's replies are made, from the next one on."""
        chat.settings = settings
        self._changed()
        what = "the settings cannot be stored"
        self._shared.keep(chat, what, lambda store: store.set_settings(chat.id, settings))

    def take_persona(self, chat: Chat, persona: Persona) -> str:
        """Give a chat the system prompt and the settings of a persona; returns a warning as above."""
        self.set_settings(chat, persona.settings)
        return self.set_system_prompt(chat, persona.system_prompt)

    def take(self, chat: Chat, before: ChatProfile, after: ChatProfile) -> str:
        """Take over what differs between two profiles; what others have changed meanwhile stays.

        Returns a warning if the cache will suffer from the system prompt.
        """
        if after.title != before.title:
            self.rename(chat, after.title)
        if after.tags != before.tags:
            self.set_tags(chat, after.tags)
        if after.is_favourite != before.is_favourite:
            self.set_favourite(chat, is_favourite=after.is_favourite)
        if after.is_archived != before.is_archived:
            self.set_archived(chat, is_archived=after.is_archived)
        names = SessionSettings.__struct_fields__
        pairs = [(name, getattr(before.settings, name), getattr(after.settings, name)) for name in names]
        changed = {name: new for name, old, new in pairs if new != old}
        if changed:
            self.set_settings(chat, msgspec.structs.replace(chat.settings, **changed))
        if "pin" in changed:
            self._shared.client.send(Pin(chat.id, chat.settings.pin))
        return (
            self.set_system_prompt(chat, after.system_prompt)
            if after.system_prompt != before.system_prompt
            else ""
        )

    def set_tags(self, chat: Chat, tags: Iterable[str]) -> None:
        """Make these the chat's tags; SamovarError for one that is none."""
        chat.tags = tuple(sorted({tag_of(tag) for tag in tags}))
        self._changed()
        stored = chat.tags
        self._shared.keep(chat, "the tags cannot be stored", lambda store: store.set_tags(chat.id, stored))

    def set_favourite(self, chat: Chat, *, is_favourite: bool) -> None:
        """Put a chat among the first ones, or take it from there."""
        chat.is_favourite = is_favourite
        self._changed()
        self._shared.keep(
            chat,
            "the favourite cannot be stored",
            lambda store: store.set_favourite(chat.id, is_favourite=is_favourite),
        )

    def set_archived(self, chat: Chat, *, is_archived: bool) -> None:
        """Put a chat out of the list without deleting it, or back."""
        chat.is_archived = is_archived
        self._changed()
        self._shared.keep(
            chat,
            "the archive cannot be stored",
            lambda store: store.set_archived(chat.id, is_archived=is_archived),
        )

    def all_tags(self) -> list[tuple[str, int]]:
        """Every tag with its number of chats, the most used first."""
        counts: dict[str, int] = {}
        for chat in self._shared.roster.chats.values():
            for tag in chat.tags:
                counts[tag] = counts.get(tag, 0) + 1
        return sorted(counts.items(), key=lambda found: (-found[1], found[0]))

    def _changed(self) -> None:
        self._shared.notify(changes.ChatsChanged())
