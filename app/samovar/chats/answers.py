"""Replies that are being written: asked for, streamed, stored once a second, ended.

Runs in the event loop; owns every `Reply`. Never imports Textual.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from samovar.chats import changes
from samovar.chats.archive import Archive
from samovar.chats.chat import Chat, Phase, Reply
from samovar.chats.sent import Sender
from samovar.chats.turns import store_end
from samovar.client.interface import Client
from samovar.config import Config
from samovar.core.chat import Role
from samovar.core.commands import Cancel, Submit
from samovar.core.errors import SamovarError
from samovar.core.events import (
    PrefillProgressed,
    RequestFinished,
    RequestQueued,
    RequestStarted,
    TokensGenerated,
)
from samovar.core.request import FinishReason, Request, RequestStats
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import MessageState, Store, StoredMessage

SAVE_EVERY_S: Final = 1.0
CLOSE_WITHIN_S: Final = 0.5
TRY_AGAIN_S: Final = 5.0

ReplyEvent = RequestQueued | RequestStarted | PrefillProgressed | TokensGenerated | RequestFinished

_END_STATES: Final = {
    FinishReason.LENGTH: MessageState.CUT,
    FinishReason.CONTEXT_FULL: MessageState.CUT,
    FinishReason.CANCELLED: MessageState.STOPPED,
    FinishReason.FAILED: MessageState.FAILED,
    FinishReason.HOST_LOST: MessageState.FAILED,
}
_DEFAULT_ERRORS: Final = {
    FinishReason.FAILED: "the engine could not answer",
    FinishReason.HOST_LOST: "the engine stopped and is restarting",
    FinishReason.LENGTH: "cut at max_tokens",
    FinishReason.CONTEXT_FULL: (
        "the context is full: /compact summarizes the oldest messages, /set context_full shift drops them"
    ),
}
_NOT_STORED: Final = "the reply cannot be stored"


class Rooms(Protocol):
    """Who makes room in the context before a request that needs it."""

    def is_needed(self, chat: Chat, path: Sequence[StoredMessage], settings: SessionSettings) -> bool: ...

    async def make_room(self, chat: Chat, settings: SessionSettings) -> None: ...


class Answers:
    """Asks the engine for replies and keeps them, in memory and, with an archive, in the store."""

    def __init__(
        self,
        client: Client,
        archive: Archive | None,
        config: Config,
        notify: Callable[[changes.Change], None],
        clock: Callable[[], float],
        sender: Sender,
    ) -> None:
        self._client = client
        self._archive = archive
        self._config = config
        self._notify = notify
        self._clock = clock
        self._sender = sender
        self._running: dict[str, Chat] = {}  # by request
        self._closing = asyncio.Event()
        self._is_failing = False  # the user has been told that replies cannot be stored
        self.rooms: Rooms | None = None  # None: what does not fit is left out
        self.model = ""  # the name of what answers

    def ask(self, chat: Chat, row: StoredMessage | None, settings: SessionSettings | None = None) -> None:
        """Submit a request for the chat's path, which ends in a message of the user's.

        `row` is the reply's place in the store, None to store nothing; one with a text is gone on with.
        `settings` are others than the chat's, for this reply alone.
        """
        assert chat.path
        assert chat.reply is None
        settings = chat.settings if settings is None else settings
        goes_on = row if row is not None and row.content else None
        parts = [goes_on.content] if goes_on is not None else []
        created_at = self._clock() if row is None else row.created_at
        reply = chat.reply = Reply(uuid.uuid4().hex, row, created_at, goes_on, parts)
        self._running[reply.request_id] = chat
        if self.rooms is not None and self.rooms.is_needed(chat, _asked_path(chat, reply), settings):
            is_known = self._sender.context_tokens is not None
            reply.phase = Phase.SUMMARIZING if is_known else Phase.WAITING
            reply.room = asyncio.create_task(self._ask_with_room(self.rooms, chat, reply, settings))
        else:
            self._submit(chat, reply, settings)
        self._notify(changes.ReplyBegan(chat.id))
        self._notify(changes.ChatsChanged())

    async def _ask_with_room(self, rooms: Rooms, chat: Chat, reply: Reply, settings: SessionSettings) -> None:
        await rooms.make_room(chat, settings)
        reply.room = None
        if chat.reply is reply and not reply.stopping:
            reply.phase = Phase.WAITING
            self._submit(chat, reply, settings)
            self._notify(changes.ReplyProgressed(chat.id))

    def _submit(self, chat: Chat, reply: Reply, settings: SessionSettings) -> None:
        sent = self._sender.sent(chat, _asked_path(chat, reply), settings)
        mode = self._sender.context_full(chat, settings)
        request = Request(
            id=reply.request_id,
            session=chat.id,
            messages=sent.messages,
            title=chat.title,
            sampling=settings.sampling(self._config.sampling),
            max_tokens=settings.reply_tokens(self._config.sampling),
            stop=settings.stop,
            may_shift=mode == "shift",
        )
        self._client.send(Submit(request))
        num_left_out, before = sent.num_left_out, chat.num_left_out
        chat.num_left_out = num_left_out
        if num_left_out > before:  # told once a step; a mark in the chat stays
            is_tried = mode != "shift" and self._sender.may_summarize(chat, settings)
            why = "no summary could be made" if is_tried else "the context is full"
            first = f"the first {num_left_out:,} messages are" if num_left_out > 1 else "the first message is"
            self._notify(changes.Noticed(f"{why}: {first} no longer sent"))

    def stop(self, chat: Chat) -> bool:
        """End the chat's running reply; what has arrived stays. False if none is running."""
        if chat.reply is None:
            return False
        if not chat.reply.stopping:
            chat.reply.stopping = True
            if chat.reply.room is None:
                self._client.send(Cancel(chat.reply.request_id))
            else:
                self._give_up_room(chat, chat.reply)
                return True
            self._notify(changes.ReplyProgressed(chat.id))
        return True

    def _give_up_room(self, chat: Chat, reply: Reply) -> None:
        """The user does not wait for a summary: the engine has not heard of the request yet."""
        assert reply.room is not None
        reply.room.cancel()
        reply.room = None
        self._finish(chat, reply, _unasked(chat, reply))

    def handle(self, event: ReplyEvent) -> Chat | None:
        """Take in what happened to one of our requests; others' are none of our business.

        Returns the chat whose reply has ended with this.
        """
        chat = self._running.get(event.request_id)
        if chat is None or chat.reply is None:
            return None
        reply = chat.reply
        match event:
            case RequestQueued():
                reply.waits = event
                self._notify(changes.ReplyProgressed(chat.id))
            case RequestStarted(stats=stats, thinks=thinks):
                reply.stats = stats
                reply.begin(thinks=thinks)
                reply.phase = Phase.READING
                reply.to_read_tokens = max(0, stats.prompt_tokens - stats.reused.total)
                self._notify(changes.ReplyProgressed(chat.id))
            case PrefillProgressed(done=done, total=total, remaining_ms=remaining_ms):
                reply.phase = Phase.READING
                reply.read_tokens, reply.to_read_tokens = done, total
                reply.remaining_ms = remaining_ms
                self._notify(changes.ReplyProgressed(chat.id))
            case TokensGenerated(text=text, num_tokens=num_tokens):
                reply.phase = Phase.WRITING
                reply.first_token_at = reply.first_token_at or self._clock()
                reply.grow(text, num_tokens, self._clock())
                if reply.save_timer is None:
                    loop = asyncio.get_running_loop()
                    reply.save_timer = loop.call_later(SAVE_EVERY_S, self._save, reply)
                self._notify(changes.ReplyGrew(chat.id, text))
            case RequestFinished():
                self._finish(chat, reply, event)
                return chat
        return None

    async def close(self) -> None:
        """Stop what runs. What the engine does not end within half a second is stored as it stands."""
        for chat in list(self._running.values()):
            self.stop(chat)
        deadline = time.monotonic() + CLOSE_WITHIN_S
        while self._running and time.monotonic() < deadline:  # noqa: ASYNC110 - half a second, once
            await asyncio.sleep(0.01)
        for request_id, chat in list(self._running.items()):
            assert chat.reply is not None
            reply, stats = chat.reply.text, chat.reply.stats or RequestStats()
            self.handle(RequestFinished(request_id, chat.id, FinishReason.CANCELLED, reply, (), "", stats))
        self._closing.set()

    def _finish(self, chat: Chat, reply: Reply, event: RequestFinished) -> None:
        del self._running[reply.request_id]
        chat.reply = None
        if reply.save_timer is not None:
            reply.save_timer.cancel()
        path = chat.path
        assert path
        message = _ended(reply, event, parent=path[-1], model=self.model)
        path.append(message)
        chat.updated_at = self._clock()
        self._store_end(reply, message)
        self._notify(changes.ReplyEnded(chat.id, message))
        self._notify(changes.ChatsChanged())

    # Storing

    def _save(self, reply: Reply) -> None:
        """Store what has arrived so far, so that a power cut costs a second of text."""
        reply.save_timer = None
        if self._archive is not None and reply.row is not None:
            place, text = reply.row.id, reply.text
            stored = self._archive.run(lambda store: store.messages.update_reply(place, text))
            self._archive.spawn(self._is_stored(stored))

    def _store_end(self, reply: Reply, message: StoredMessage) -> None:
        """Store a reply as it ended; where the disk is full, once there is room."""
        if self._archive is None or reply.row is None:
            return

        def work(store: Store) -> None:
            store_end(store, message)

        self._archive.spawn(self._stored_in_the_end(self._archive, work, self._archive.run(work)))

    async def _stored_in_the_end(
        self, archive: Archive, work: Callable[[Store], None], stored: asyncio.Future[None]
    ) -> None:
        while not await self._is_stored(stored):
            is_last = self._closing.is_set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), TRY_AGAIN_S)
            if is_last:
                return
            stored = archive.run(work)

    async def _is_stored(self, stored: asyncio.Future[None]) -> bool:
        """Whether it could be; the user hears it once if not."""
        try:
            await stored
        except SamovarError as error:
            if not self._is_failing:
                self._notify(changes.Noticed(f"{_NOT_STORED}: {error}", is_error=True))
            self._is_failing = True
            return False
        self._is_failing = False
        return True


def _asked_path(chat: Chat, reply: Reply) -> list[StoredMessage]:
    """What the request is about: a reply that is gone on with is its last message."""
    assert chat.path
    return chat.path if reply.goes_on is None else [*chat.path, reply.goes_on]


def _unasked(chat: Chat, reply: Reply) -> RequestFinished:
    stats = RequestStats()
    return RequestFinished(reply.request_id, chat.id, FinishReason.CANCELLED, "", (), "", stats)


def end_of(event: RequestFinished) -> tuple[MessageState, str]:
    """The state in which a reply ends with this event, and the sentence that says why, if there is one."""
    state = _END_STATES.get(event.reason, MessageState.COMPLETE)
    return state, event.error or _DEFAULT_ERRORS.get(event.reason, "")


def _ended(reply: Reply, event: RequestFinished, parent: StoredMessage, model: str) -> StoredMessage:
    """The reply as it ended, with what it goes on from."""
    state, error = end_of(event)
    before = reply.goes_on
    content = event.reply if before is None else before.content + event.reply
    tokens, tokenizer = event.tokens, event.tokenizer
    if before is not None:
        # Ids name a beginning of the text: without those of the first part, the second part's name nothing.
        if event.begun:
            tokens = (*event.begun, *tokens)
        else:
            tokens, tokenizer = before.tokens, before.tokenizer
    if state is MessageState.FAILED and len(reply.text) > len(content):
        # A host that died cannot say what it had sent: what has arrived counts.
        content, tokens, tokenizer = reply.text, (), ""
    row = reply.row
    stats = event.stats
    if before is not None and before.stats is not None and before.stats.thinking_tokens:
        stats = msgspec.structs.replace(
            stats,
            thinking_tokens=before.stats.thinking_tokens + stats.thinking_tokens,
            thinking_ms=before.stats.thinking_ms + stats.thinking_ms,
        )
    return StoredMessage(
        id=row.id if row is not None else 0,
        session_id=parent.session_id,
        parent_id=parent.id,
        role=Role.ASSISTANT,
        content=content,
        created_at=reply.created_at,
        state=state,
        tokens=tokens,
        tokenizer=tokenizer,
        stats=stats,
        error=error,
        model=model,
        place=row.place if row is not None else 0,
        num_siblings=row.num_siblings if row is not None else 1,
    )
