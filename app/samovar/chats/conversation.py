"""The chats of this front end: their list, what is sent in them, and what the host's events mean for them.

Runs in the event loop and owns every `Chat`. Branches of a chat are `branches`', messages that wait
`outbox`'s, what is processed before it is sent `work_ahead`'s, what it is apart from its messages
`profile`'s, its drafts `draft_keeper`'s, what others change `watch`'s; disk work goes to `archive`, replies
to `answers`, the cache to `cache_desk`; the screen hears of all of it as `changes`. Never imports Textual.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from samovar.chats import cache_words, changes
from samovar.chats.answers import Answers
from samovar.chats.archive import Archive
from samovar.chats.branches import Branches
from samovar.chats.cache_desk import CacheDesk
from samovar.chats.chat import Chat
from samovar.chats.compaction import Compacting, TaskEvent
from samovar.chats.compare import Comparisons
from samovar.chats.draft_keeper import DraftKeeper
from samovar.chats.file_counts import FileCounts
from samovar.chats.finder import Finder
from samovar.chats.host_state import HostPhase, HostState
from samovar.chats.meter import Meter
from samovar.chats.outbox import Outbox
from samovar.chats.profile import Profile
from samovar.chats.roster import Roster
from samovar.chats.sending import Sending
from samovar.chats.sent import Sender
from samovar.chats.shared import Shared
from samovar.chats.side_tasks import SideTasks
from samovar.chats.token_counts import TokenCounts
from samovar.chats.transfers import Transfers
from samovar.chats.upkeep import Upkeep
from samovar.chats.watch import Watch
from samovar.chats.work_ahead import WorkAhead
from samovar.client.interface import Client
from samovar.config import Config, SamplingConfig
from samovar.core.commands import Focus, Forget, Pin
from samovar.core.errors import SamovarError
from samovar.core.events import (
    Event,
    HostReady,
    ModelInfo,
    PrefillProgressed,
    RequestFinished,
    RequestQueued,
    RequestStarted,
    SwapFinished,
    TokensCounted,
    TokensGenerated,
    Welcome,
)
from samovar.core.lint import prompt_warning
from samovar.core.snapshot import CacheSnapshot
from samovar.sessions.store import Session, Store, StoredMessage

OPENED_WITHIN_S: Final = 5.0
"""How long after a chat has been opened its way back into the context is still news."""


class Conversations:
    """All chats of this front end. `notify` is called in the event loop and must not block."""

    def __init__(
        self,
        client: Client,
        store: Store,
        config: Config,
        notify: Callable[[changes.Change], None],
        clock: Callable[[], float] = time.time,
        tasks_dir: Path | None = None,
    ) -> None:
        """`tasks_dir` may hold side tasks of the user's own."""
        self._client = client
        self._config = config
        self._notify = notify
        self._clock = clock
        self._archive = Archive(store, lambda text: self._tell(changes.Noticed(text, is_error=True)))
        self.sender = Sender(config)
        self._answers = Answers(client, self._archive, config, self._tell, clock, self.sender)
        self.roster = Roster(Chat.fresh(config.system_prompt, clock()))
        self._shared = Shared(client, self._archive, config, self._tell, clock, self.roster)
        self._watch = Watch(self._shared)
        self._is_loaded = False
        self._opened_at = 0.0  # seconds since the epoch: when the user has gone to the shown chat
        self.host = HostState()
        self.cache = CacheDesk(client, self._tell)
        self.finder = Finder(store.file)
        self.upkeep = Upkeep(self._shared, store)
        self.transfers = Transfers(self._shared, store.file)
        self.profile = Profile(self._shared)
        self.tasks = SideTasks(self._shared, self.sender, self.profile, lambda: self.host, tasks_dir)
        self.drafts = DraftKeeper(self._shared)
        self._file_counts = FileCounts(self._shared)
        self._counts = TokenCounts(client)
        self.meter = Meter(self._shared, self.sender, self._counts, lambda: self.host)
        self.compacting = self._answers.rooms = Compacting(
            self._shared,
            self.sender,
            lambda: self.host,
            self.tasks.adopt,
            lambda chat: self.work_ahead.prepare(chat),
        )
        self._sending = Sending(self._shared, self._answers, self.profile, self._file_counts, self._watch)
        self.branches = Branches(self._shared, self._sending.answer, self._appear, self.drafts.keep)
        self.work_ahead = WorkAhead(self._shared, self.sender, lambda: self.host, lambda: self.cache.snapshot)
        self.outbox = Outbox(self._shared, self._send_new, self.drafts.keep)
        self.comparisons = Comparisons(
            self._shared,
            self.sender,
            self._sending,
            self._file_counts,
            lambda: self._answers.model,
            self._answered,
            self.drafts.keep,
        )

    @property
    def chats(self) -> dict[str, Chat]:
        """All chats by id."""
        return self.roster.chats

    @property
    def shown(self) -> Chat:
        """The chat that the user looks at."""
        return self.roster.shown

    @property
    def snapshot(self) -> CacheSnapshot:
        """The last picture of the cache."""
        return self.cache.snapshot

    @property
    def archive(self) -> Archive:
        """The store, for what reads or writes it besides chatting."""
        return self._archive

    @property
    def sampling(self) -> SamplingConfig:
        """How replies are sampled in chats that do not say otherwise."""
        return self._config.sampling

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the loaded model, and about the system prompt of new chats, for who starts."""
        warning = prompt_warning(self._config.system_prompt)
        return (*(self.host.model.notes if self.host.model else ()), *((warning,) if warning else ()))

    @property
    def is_first_run(self) -> bool:
        """Whether the store has been read, and holds no chat."""
        return self._is_loaded and not any(chat.in_store for chat in self.chats.values())

    # The list

    async def load(self) -> None:
        """Read the list of chats from the store, after settling what a killed program left half done."""
        found = await self._archive.try_run("the chats cannot be read", _recover_and_list)
        if found is not None:
            self._watch.begin(found.version, found.sessions)
            self.drafts.bring_back(found.drafts)
            self._is_loaded = True
            if found.problem:
                self._shared.complain(f"what the last program left cannot be settled: {found.problem}")
        self._tell(changes.ChatsChanged())
        self._archive.spawn(self.upkeep.run())

    def ordered(self) -> list[Chat]:
        """The chats in the order of the list."""
        return self.roster.listed()

    def arranged(self) -> None:
        """The list is sorted or filtered otherwise."""
        self._tell(changes.ChatsChanged())

    def new(self) -> Chat:
        """Show a fresh chat; an empty one that is there already will do."""
        chat = next((chat for chat in self.chats.values() if not chat.in_store and not chat.sending), None)
        if chat is None:
            chat = Chat.fresh(self._config.system_prompt, self._clock(), self.roster.new_id())
            self.chats[chat.id] = chat
            self._tell(changes.ChatsChanged())
        self.show(chat.id)
        return chat

    def show(self, session: str) -> None:
        """Make this chat the current one.

        `PathChanged` follows if its messages have to be read, or others have written in it.
        """
        if session not in self.chats:
            self._shared.complain("this chat has been deleted in another window")
            return
        self.roster.shown = chat = self.chats[session]
        self._opened_at = self._clock()
        self._focus(chat)
        self._tell(changes.ChatShown(session))
        self._archive.spawn(self._watch.look(chat))

    async def show_found(self, session: str, message_id: int | None) -> str:
        """Show a chat that a search has found, with the branch that the message is on; else say why not."""
        if session not in self.chats:
            return "this chat has been deleted"
        self.roster.shown = chat = self.chats[session]
        self._opened_at = self._clock()
        self._focus(chat)
        self._tell(changes.ChatShown(session))
        await self._watch.look(chat)
        return "" if message_id is None else await self.branches.show(chat, message_id)

    def prefetch(self, session: str) -> None:
        """The user may open this chat next: what lies on disk of it comes to RAM, or is processed."""
        if session in self.chats and session != self.shown.id and self.host.phase is HostPhase.READY:
            self.cache.prefetch(session)
            self.work_ahead.rested(session)

    def delete(self, session: str) -> Chat:
        """Take a chat from the list; `undo_delete` brings it back. Its neighbour is shown in its place."""
        order = self.ordered()
        chat = self.chats.pop(session)
        place = order.index(chat) if chat in order else 0
        self._answers.stop(chat)
        self.comparisons.drop(session)
        self.tasks.deleted(chat)
        self.outbox.pause(chat, "the chat was deleted")
        self.compacting.stop(chat)
        if chat.in_store or chat.has_unsent:
            self.roster.deleted.append(chat)
            self._shared.keep(chat, "the chat is still in the store", lambda store: store.delete(session))
        self.drafts.forget(chat)
        if self.shown is chat:
            rest = [other for other in order if other is not chat]
            if rest:
                self.show(rest[min(place, len(rest) - 1)].id)
            else:
                self.new()
        self._tell(changes.ChatsChanged())
        return chat

    def undo_delete(self) -> Chat | None:
        """Bring back the chat that was deleted last, and show it."""
        if not self.roster.deleted:
            return None
        chat = self.roster.deleted.pop()
        self.chats[chat.id] = chat
        self._shared.keep(chat, "the chat is still deleted", lambda store: store.restore(chat.id))
        self.drafts.keep(chat)
        self._tell(changes.ChatsChanged())
        self.show(chat.id)
        return chat

    def forget_deleted(self, session: str) -> None:
        """Let go of a deleted chat's cache, unless the chat is back."""
        if any(chat.id == session for chat in self.roster.deleted):
            self._client.send(Forget(session))

    # Sending

    def refusal(self, chat: Chat) -> str:
        """Why nothing can be sent in this chat at once; empty if it can."""
        if chat.reply is not None:
            return "the reply is still being written: esc stops it, your text stays here"
        return "the last message is still being stored" if chat.sending else ""

    async def send(self, chat: Chat, text: str) -> None:
        """Store a message, then ask for its reply. If it cannot be stored: `SendFailed`, nothing is sent.

        While a message of the chat is being edited, the text becomes another version of that one.
        """
        assert not self.refusal(chat)
        if chat.editing is None:
            problem = await self._send_new(chat, text)
        else:
            problem = await self._send_edit(chat, chat.editing, text)
        if problem:
            self._tell(changes.SendFailed(chat.id, text, problem))

    async def _send_new(self, chat: Chat, text: str) -> str:
        """Store a message and ask for its reply; returns why it cannot be, if it cannot."""
        with self._on_its_way(chat, text):
            return await self._too_long(chat, text) or await self._sending.send(chat, text)

    async def _send_edit(self, chat: Chat, edited: StoredMessage, text: str) -> str:
        """Store another version of a message, also where the user leaves the edit meanwhile."""
        with self._on_its_way(chat, text):
            return await self._too_long(chat, text) or await self.branches.send_edit(chat, edited, text)

    @contextlib.contextmanager
    def _on_its_way(self, chat: Chat, text: str) -> Iterator[None]:
        """A crash meanwhile does not cost the text, which has left the composer."""
        chat.on_its_way = text
        try:
            yield
        finally:
            chat.on_its_way = ""
            self.drafts.keep(chat)

    async def _too_long(self, chat: Chat, text: str) -> str:
        """Why this text does not fit the context, if it does not. Meanwhile nothing else is sent."""
        chat.sending = True
        try:
            return await self.meter.refusal(chat, text)
        finally:
            chat.sending = False

    def can_queue(self, chat: Chat) -> bool:
        """Whether what is sent now waits for the reply before it; an edit never does."""
        return chat.is_busy and chat.editing is None

    def stop(self, chat: Chat) -> bool:
        """End the chat's running reply; what has arrived stays. False if none is running."""
        return self._answers.stop(chat)

    # Events

    def handle(self, event: Event) -> None:
        """Take in one event of the host's."""
        if isinstance(event, HostReady | Welcome) and event.model is not None:
            self._answers.model, self.sender.context_tokens = event.model.name, event.model.context_tokens
            self.sender.template_tokens = event.model.template_tokens
        host = self.host.after(event)
        if host is not self.host:
            self.host = host
            self.compacting.host_changed()
            self._tell(changes.HostChanged())
        match event:
            case (
                RequestQueued()
                | RequestStarted()
                | PrefillProgressed()
                | TokensGenerated()
                | RequestFinished()
            ):
                self._follow(event)
            case HostReady() | Welcome(model=ModelInfo()):
                self._focus(self.shown)
            case SwapFinished(session, into_context=True) if session == self.shown.id and event.num_tokens:
                if self._clock() - self._opened_at <= OPENED_WITHIN_S and not self.shown.is_busy:
                    self._tell(changes.CameBack(cache_words.swapped(event)))
            case TokensCounted():
                if not self._counts.handle(event):
                    self._file_counts.handle(event)
            case _:
                self.cache.handle(event)

    async def close(self) -> None:
        """Stop what runs, let go of deleted chats, and wait until everything is on disk."""
        self.transfers.stop()
        self.upkeep.stop()
        self.tasks.close()
        self.outbox.close()
        self.work_ahead.close()
        await self._watch.close()
        self.meter.close()
        self.compacting.close()
        self.comparisons.close()
        await self._answers.close()
        self.drafts.flush()
        for chat in self.roster.deleted:
            self._client.send(Forget(chat.id))
        await self.finder.close()
        await self._archive.close()

    # Inside

    def _tell(self, change: changes.Change) -> None:
        """The screen hears it first, then what follows from it is done."""
        self._notify(change)
        self.outbox.hear(change)
        self.work_ahead.hear(change)

    def _follow(self, event: TaskEvent) -> None:
        """Take in what happened to a request, whoever of these has asked for it."""
        if self.tasks.handle(event) or self.comparisons.handle(event):
            return
        if isinstance(event, RequestFinished):
            self.work_ahead.handle(event)
        if self.compacting.handle(event):
            return
        ended = self._answers.handle(event)
        if ended is not None:
            self._answered(ended)

    def _answered(self, chat: Chat) -> None:
        """A chat has got a reply: what runs by itself then begins."""
        self.tasks.ended(chat)
        self.compacting.ended(chat)

    def _focus(self, chat: Chat) -> None:
        """Tell the host what the user looks at, and that it stays in the cache if the user wants so."""
        self._client.send(Focus(chat.id))
        if chat.settings.pin:
            self._client.send(Pin(chat.id, True))

    def _appear(self, session: Session) -> None:
        """Show a chat that has just been stored, such as a fork."""
        self._shared.num_changes += 1
        self.roster.take([session])
        self._tell(changes.ChatsChanged())
        self.show(session.id)


class _Found(msgspec.Struct, frozen=True):
    """What the store held at the start. `problem` is why not all could be settled (a full disk)."""

    version: int
    sessions: list[Session]
    drafts: dict[str, str]
    problem: str


def _recover_and_list(store: Store) -> _Found:
    drafts: dict[str, str] = {}
    problem = ""
    if not store.read_only:
        try:
            store.messages.recover()
            drafts = store.drafts.adopt()
        except SamovarError as error:
            problem = str(error)
    version = store.outside_version()
    return _Found(version, store.sessions(), drafts, problem)
