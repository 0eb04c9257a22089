"""What the keys of the list and the screens about one chat do: stars, tags, order, settings, the switcher.

Between the widgets, which only say what is wanted, and `Conversations`, which does it. UI thread.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Final

from samovar.chats.chat import Chat
from samovar.chats.command_desk import CommandDesk
from samovar.chats.conversation import Conversations
from samovar.chats.profile import ChatProfile
from samovar.chats.roster import Order
from samovar.core.figures import count
from samovar.sessions import personas
from samovar.tui.chat_finder import Findable
from samovar.tui.rows import row_maker
from samovar.tui.screens.chat_settings import ChatSettings, Personas, ShownChat
from samovar.tui.screens.picker import Choice, Chooser
from samovar.tui.screens.switcher import SearchWanted, Switcher
from samovar.tui.widgets.session_list import Wish, tag_words
from samovar.tui.widgets.sidebar import Sidebar

NOTE_S: Final = 6.0
_ORDERS: Final = tuple(Order)


class ListDesk:
    """Works on the chats that it is told; `say` shows a short line in the chat."""

    def __init__(
        self,
        conversations: Conversations,
        desk: CommandDesk,
        sidebar: Sidebar,
        say: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._conversations = conversations
        self._desk = desk
        self._sidebar = sidebar
        self._say = say
        self._clock = clock

    # The list

    def carry_out(self, wish: Wish, session: str) -> None:
        """Do what a key in the list asks for; `session` is the chat at the cursor, where it is about one."""
        roster, chat = self._conversations.roster, self._conversations.chats.get(session)
        match wish:
            case Wish.ORDER:
                roster.order = _ORDERS[(_ORDERS.index(roster.order) + 1) % len(_ORDERS)]
                self._conversations.arranged()
            case Wish.ARCHIVED:
                roster.with_archived = not roster.with_archived
                self._conversations.arranged()
            case Wish.TAG_FILTER:
                self._choose_tag()
            case Wish.STAR if chat is not None:
                self._conversations.profile.set_favourite(chat, is_favourite=not chat.is_favourite)
            case Wish.ARCHIVE if chat is not None:
                self._archive(chat)
            case Wish.TAGS if chat is not None:
                self._sidebar.edit_tags(session, chat.tags)
            case _:
                pass

    def filter_titles(self, words: str) -> None:
        """List the titles with these words alone; all of them for none."""
        self._conversations.roster.words = words
        self._conversations.arranged()

    def _archive(self, chat: Chat) -> None:
        if not chat.in_store:
            self._note("there is no message\nin this chat yet")
            return
        self._conversations.profile.set_archived(chat, is_archived=not chat.is_archived)
        self._note("archived\nA lists archived ones too" if chat.is_archived else "back in the list")

    def _choose_tag(self) -> None:
        tags = self._conversations.profile.all_tags()
        if not tags:
            self._note("no chat has a tag yet\nt tags one")
            return
        num_chats = sum(chat.in_store for chat in self._conversations.chats.values())
        choices = [Choice("all chats", count(num_chats))]
        choices += [Choice(tag_words([tag]), count(number)) for tag, number in tags]

        def chosen(place: int | None) -> None:
            if place is not None:
                self._conversations.roster.tag = tags[place - 1][0] if place else ""
                self._conversations.arranged()

        self._sidebar.app.push_screen(Chooser("list one tag", "letters of a tag", choices), chosen)

    def _note(self, text: str) -> None:
        self._sidebar.set_note(text)
        self._sidebar.set_timer(NOTE_S, lambda: self._sidebar.end_note(text))

    # Screens

    def open_settings(self, chat: Chat) -> None:
        """Let the user change the settings of a chat."""
        before = ChatProfile.of(chat)
        shown = ShownChat(before, chat.in_store, len(chat.path or ()), chat.num_tokens)

        def taken(after: ChatProfile | None) -> None:
            if after is not None:
                self._say(self._conversations.profile.take(chat, before, after) or "saved")

        screen = ChatSettings(shown, self._conversations.sampling, self._personas())
        self._sidebar.app.push_screen(screen, taken)

    def _personas(self) -> Personas:
        folder = self._desk.personas_dir
        if folder is None:
            return Personas()
        found, problems = personas.personas(folder)
        return Personas(found, problems, lambda persona: personas.save(folder, persona))

    def open_switcher(self, show: Callable[[str], None], search: Callable[[str], object]) -> None:
        """Let the user go to another chat, or search for what was typed."""
        shown, chats = self._conversations.shown, self._conversations.chats
        others = [chat for chat in chats.values() if chat.in_store and chat is not shown]
        others.sort(key=attrgetter("updated_at"), reverse=True)
        findable = [Findable(chat.id, chat.title, chat.tags) for chat in others]

        def chosen(found: str | SearchWanted | None) -> None:
            if isinstance(found, SearchWanted):
                search(found.text)
            elif found in chats:
                show(found)

        row_of = row_maker(chats, self._conversations.snapshot)
        self._sidebar.app.push_screen(Switcher(findable, row_of, self._clock), chosen)
