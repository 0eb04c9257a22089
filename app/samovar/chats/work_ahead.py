"""Work ahead: prompts processed before anybody asks for them, while the user reads, types and chooses.

    a draft is typed            its beginning, behind the chat as it will be sent
    a chat is shown, read,      the chat, and the beginning of the next message
    gets a system prompt
    a reply has ended           the end of its turn
    the list's cursor rests     that chat, if nothing is cached of it and the engine has nothing else to do

What is prepared is built exactly as sending builds it (`Sender`, `mentions.attached`), so that it is a
beginning of what will be sent. The engine gives way to everything else; here it is decided what is worth a
try, and one is enough at a time. Runs in the event loop; files are read in a thread. Never imports Textual.
"""

import asyncio
import dataclasses
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from samovar.chats import changes, slash
from samovar.chats.ahead_policy import DEBOUNCE_S, AheadPolicy, Beginning, whole_words
from samovar.chats.chat import Chat
from samovar.chats.host_state import HostPhase, HostState
from samovar.chats.mentions import PASTE_NAME, attached, mentions, paste_digits
from samovar.chats.sent import Sender
from samovar.chats.shared import Shared
from samovar.core.chat import ChatMessage, Role
from samovar.core.commands import Cancel, Submit
from samovar.core.errors import SamovarError
from samovar.core.events import RequestFinished
from samovar.core.request import FinishReason, Request, RequestKind
from samovar.core.snapshot import CacheSnapshot
from samovar.sessions.encoding import storable
from samovar.sessions.store import MessageState, StoredMessage
from samovar.sessions.values import Attachment

POWER_EVERY_S: Final = 30.0
SETTINGS: Final = ("auto", "on", "off")
_HALF_MENTION: Final = re.compile(r'(?:^|(?<=[\s(\[]))@("[^"\n]*|[^\s"]*)$')

Messages = tuple[ChatMessage, ...]


def is_on_battery() -> bool:
    """Whether the machine runs on its battery now; False where that cannot be told. Reads files."""
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError):  # a system that psutil knows no battery of
        return False
    return battery is not None and battery.power_plugged is False


class WorkAhead:
    """Sends `PREPARE` requests, at most one at a time but for chats that have just been answered.

    `host` and `picture` tell the present state of the engine.
    """

    def __init__(
        self,
        shared: Shared,
        sender: Sender,
        host: Callable[[], HostState],
        picture: Callable[[], CacheSnapshot],
        on_battery: Callable[[], bool] = is_on_battery,
    ) -> None:
        self._shared = shared
        self._sender = sender
        self._host = host
        self._picture = picture
        self._power = _Power(on_battery)
        self._policy = AheadPolicy()  # of the shown chat's draft
        self._timer: asyncio.TimerHandle | None = None
        self._pending: dict[str, str] = {}  # sessions by request
        self._asked: dict[
            str, tuple[Messages, bool]
        ] = {}  # prepared last, and whether as complete, by session
        self._is_closed = False
        self.setting: str = shared.config.work_ahead

    def set(self, setting: str) -> None:
        """Switch for this run: one of `SETTINGS`."""
        self.setting = setting
        if setting == "off":
            self._stop_timer()
            for request_id in self._pending:
                self._shared.client.send(Cancel(request_id))
        else:
            self._soon(self._shared.roster.shown)

    # What happens

    def typed(self, chat: Chat) -> None:
        """The draft of a chat is another one."""
        if chat is self._shared.roster.shown:
            self._wait(chat, self._policy.typed(chat.draft, _now()))

    def rested(self, session: str) -> None:
        """The cursor of the list rests on a chat: the user may open it next."""
        chat, picture = self._shared.roster.chats.get(session), self._picture()
        if chat is None or chat is self._shared.roster.shown or picture.num_running or picture.num_waiting:
            return
        if not self._is_cached(chat):
            self._shared.archive.spawn(self._prepare(chat, Beginning(""), wakes=False))

    def prepare(self, chat: Chat) -> None:
        """Process what the next request of this chat will begin with: the chat, and its draft so far."""
        text = "" if slash.is_command(chat.draft) else whole_words(chat.draft)
        if chat is self._shared.roster.shown:
            self._policy.begin(text)
            self._wait(chat, self._policy.typed(chat.draft, _now()))
        self._shared.archive.spawn(self._prepare(chat, Beginning(text), wakes=False))

    def hear(self, change: changes.Change) -> None:
        """Take in what has happened to the chats, or to the host."""
        shown = self._shared.roster.shown
        match change:
            case changes.ChatShown() | changes.HostChanged():
                self._soon(shown)
            case changes.PathChanged(session) if session == shown.id:
                self._soon(shown)
            case changes.DraftChanged(session) if session == shown.id:
                self.typed(shown)
            case changes.MessageAdded(session) if session == shown.id:
                self._policy.begin()
                self._stop_timer()
            case changes.ReplyEnded(session, message) if message.state is not MessageState.FAILED:
                chat = self._shared.roster.chats.get(session)
                if chat is not None and not chat.queued:
                    self.prepare(chat)
            case _:
                pass

    def handle(self, event: RequestFinished) -> None:
        """Take in the end of a request: of one of ours, or of another one, which has changed its chat."""
        session = self._pending.pop(event.request_id, None)
        if session is None or event.reason not in (FinishReason.STOP, FinishReason.FAILED):
            self._asked.pop(event.session, None)

    def close(self) -> None:
        """Prepare nothing more."""
        self._is_closed = True
        self._stop_timer()

    # When

    def _soon(self, chat: Chat) -> None:
        """Prepare a chat if it stays the shown one for a moment."""
        self._policy.begin()
        self._stop_timer()
        if self.setting != "off" and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(DEBOUNCE_S, self._prepare_shown, chat)

    def _prepare_shown(self, chat: Chat) -> None:
        self._timer = None
        if chat is self._shared.roster.shown and (chat.draft or not self._is_cached(chat)):
            self.prepare(chat)

    def _wait(self, chat: Chat, due: float | None) -> None:
        self._stop_timer()
        if due is not None and self.setting != "off" and not self._is_closed:
            self._timer = asyncio.get_running_loop().call_at(due, self._ask_policy, chat, due)

    def _ask_policy(self, chat: Chat, due: float) -> None:
        self._timer = None
        if chat is not self._shared.roster.shown:
            return
        beginning = self._policy.due(max(due, _now()))
        if beginning is not None:
            self._shared.archive.spawn(self._prepare(chat, beginning, wakes=True))
        self._wait(chat, self._policy.next_due())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_cached(self, chat: Chat) -> bool:
        """Whether all of a chat can be served from the cache, as far as the picture tells."""
        return any(row.session == chat.id and row.tier is not None for row in self._picture().prompts)

    def _may(self, chat: Chat, *, wakes: bool) -> bool:
        """Whether work ahead is possible and wanted now; only who types wakes a model that sleeps."""
        if self._is_closed or self.setting == "off" or chat.is_busy:
            return False
        if chat.id not in self._shared.roster.chats or self._host().phase is not HostPhase.READY:
            return False
        return wakes or not self._picture().asleep

    # What

    async def _prepare(self, chat: Chat, beginning: Beginning, *, wakes: bool) -> None:
        """Ask for this beginning of the chat's next message, unless it has been asked for."""
        if not self._may(chat, wakes=wakes):
            return
        if self.setting == "auto" and await self._power.is_on_battery():
            return
        draft, path, text = chat.draft, chat.path, beginning.text
        messages = await self._messages(chat, text)
        is_stale = chat.path is not path or (bool(text) and chat.draft[: len(text)] != draft[: len(text)])
        if messages is None or is_stale or not self._may(chat, wakes=wakes):
            return
        is_complete = beginning.complete and chat.draft == text
        if self._asked.get(chat.id) != (messages, is_complete) and self._is_next(chat):
            self._asked[chat.id] = messages, is_complete
            request = Request(
                id=uuid.uuid4().hex,
                session=chat.id,
                messages=messages,
                kind=RequestKind.PREPARE,
                title=chat.title,
                may_shift=self._sender.context_full(chat) == "shift",
                complete=is_complete,
            )
            self._pending[request.id] = chat.id
            self._shared.client.send(Submit(request))

    def _is_next(self, chat: Chat) -> bool:
        """Whether this chat's turn has come: what is prepared of the others gives way to the shown one."""
        shown = self._shared.roster.shown
        others = {request: session for request, session in self._pending.items() if session != chat.id}
        if chat is not shown and shown.id in others.values():
            return False
        for request_id in others:
            self._shared.client.send(Cancel(request_id))
        return True

    async def _messages(self, chat: Chat, text: str) -> Messages | None:
        """What a request would hold if the draft went on from `text`; None if nothing can be said yet."""
        path, compactions = chat.path, chat.compactions
        if path is None:
            found = await self._shared.archive.try_run(
                "the chat cannot be read", lambda store: (store.path(chat.id), store.compactions.of(chat.id))
            )
            path, compactions = (None, ()) if found is None else found
        if path is None or any(message.state is MessageState.STREAMING for message in path):
            return None
        had: tuple[Attachment, ...] = ()
        if chat.editing is not None:
            if chat.editing.role is not Role.USER or chat.editing not in path:
                return None
            path, had = path[: path.index(chat.editing)], chat.editing.attachments
        files: tuple[Attachment, ...] | None = ()
        if text and mentions(chat.draft):
            files = await self._files(chat.draft, path, had)
        if files is None or not (text or path or chat.system_prompt):
            return None
        draft = StoredMessage(
            0, chat.id, None, Role.USER, storable(text), 0.0, MessageState.COMPLETE, attachments=files
        )
        asker = dataclasses.replace(chat, compactions=compactions)
        return self._sender.sent(asker, [*path, draft]).messages

    async def _files(
        self, draft: str, path: Sequence[StoredMessage], had: tuple[Attachment, ...]
    ) -> tuple[Attachment, ...] | None:
        """The files that a draft names, which stand before its text; None while one is being named."""
        pastes: dict[str, tuple[str, str] | None] = {}
        if PASTE_NAME in draft:
            digits = paste_digits(draft)
            found = await self._shared.archive.try_run(
                "a pasted text cannot be read",
                lambda store: {name: store.paste(name) for name in digits},
            )
            pastes = found or {}

        def read() -> tuple[Attachment, ...] | None:
            half = _HALF_MENTION.search(draft)
            if half is not None and not half[1].startswith(PASTE_NAME) and not _is_file(half[1]):
                return None
            try:
                return attached(draft, path, pastes.get, had)
            except SamovarError:
                return None

        return await asyncio.to_thread(read)


class _Power:
    """Whether the machine runs on battery, asked now and then, in a thread."""

    def __init__(self, on_battery: Callable[[], bool]) -> None:
        self._on_battery = on_battery
        self._known: tuple[float, bool] | None = None

    async def is_on_battery(self) -> bool:
        if self._known is None or _now() - self._known[0] >= POWER_EVERY_S:
            self._known = (_now(), await asyncio.to_thread(self._on_battery))
        return self._known[1]


def _is_file(name: str) -> bool:
    try:
        return bool(name) and Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def _now() -> float:
    return asyncio.get_running_loop().time()
