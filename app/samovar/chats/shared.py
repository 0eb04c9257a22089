"""What the parts of `Conversations` have in common. Never imports Textual."""

from collections.abc import Callable
from dataclasses import dataclass

from samovar.chats import changes
from samovar.chats.archive import Archive
from samovar.chats.chat import Chat
from samovar.chats.roster import Roster
from samovar.client.interface import Client
from samovar.config import Config
from samovar.sessions.store import Store


@dataclass(slots=True)
class Shared:
    """`notify` is called in the event loop and must not block. `clock` gives seconds since the epoch.

    `num_changes` counts what was changed here of the list and of its chats: what was read before such a
    change is stale.
    """

    client: Client
    archive: Archive
    config: Config
    notify: Callable[[changes.Change], None]
    clock: Callable[[], float]
    roster: Roster
    num_changes: int = 0

    def keep(self, chat: Chat, what: str, work: Callable[[Store], object]) -> None:
        """Store a change of a chat that is in the store; a fresh one brings it along later.

        Where it fails, the user hears that `what` is so.
        """
        self.num_changes += 1
        if chat.in_store:
            self.archive.spawn(self.archive.try_run(what, work))

    def complain(self, text: str) -> None:
        """Tell the user what went wrong."""
        self.notify(changes.Noticed(text, is_error=True))
