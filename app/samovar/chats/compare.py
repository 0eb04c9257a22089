"""The same prompt answered several times, side by side, and those answers kept that the user chooses.

All requests are submitted together, so that the engine processes what they have in common once. Until an
answer is kept nothing is stored and the chat is as it was; a new text that is answered is kept like one on
its way, and is the draft again once all answers are discarded. Runs in the event loop and owns every
`Comparison`. Never imports Textual.
"""

import dataclasses
import enum
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from samovar.chats import changes
from samovar.chats.answers import end_of
from samovar.chats.chat import Chat, auto_title
from samovar.chats.file_counts import FileCounts
from samovar.chats.mentions import attached
from samovar.chats.profile import ChatProfile
from samovar.chats.sending import Sending
from samovar.chats.sent import Sender
from samovar.chats.shared import Shared
from samovar.chats.turns import create_chat, store_end
from samovar.chats.variants import Variant, Wish, wish_of
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
from samovar.core.reasoning import answer_of
from samovar.core.request import Request, RequestKind, RequestStats
from samovar.sessions.encoding import storable
from samovar.sessions.store import MessageState, Session, Store, StoredMessage

CompareEvent = RequestQueued | RequestStarted | PrefillProgressed | TokensGenerated | RequestFinished

_MAX_SEED: Final = 1000
_NEW_MESSAGE_ID: Final = 0


class AnswerPhase(enum.Enum):
    """How far an answer is."""

    WAITING = "waiting"
    READING = "reading"
    WRITING = "writing"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Answer:
    """One of the answers. `message` is the reply it would be, once it has ended.

    `position` and `estimate_ms` are of waiting. `stats` are known in part from the start on.
    """

    request_id: str
    variant: Variant
    phase: AnswerPhase = AnswerPhase.WAITING
    parts: list[str] = field(default_factory=list)
    position: int = 0
    estimate_ms: float | None = None
    read_tokens: int = 0
    to_read_tokens: int = 0
    num_tokens: int = 0
    stats: RequestStats | None = None
    stopping: bool = False
    thinks: bool = False  # its prompt has opened the thinking
    message: StoredMessage | None = None

    @property
    def text(self) -> str:
        """All that has arrived."""
        if self.message is not None:
            return self.message.content
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""


@dataclass(slots=True, eq=False)
class Comparison:
    """Answers to one message of a chat. `path` ends in it; its id is 0 while it is not stored."""

    chat: Chat
    wish: Wish
    path: tuple[StoredMessage, ...]
    answers: tuple[Answer, ...]
    num_left_out: int = 0  # of the first messages, for which the context has no room

    @property
    def asked(self) -> StoredMessage:
        """The message that is answered."""
        return self.path[-1]

    @property
    def is_running(self) -> bool:
        """Whether an answer has not ended."""
        return any(answer.message is None for answer in self.answers)


class _Kept(msgspec.Struct, frozen=True):
    session: Session
    path: list[StoredMessage]


class Comparisons:
    """The comparisons under way, one a chat at most.

    `model` names what answers, `kept` hears of chats that have got a reply in this way, `keep_draft` of those
    whose unsent texts have changed.
    """

    def __init__(
        self,
        shared: Shared,
        sender: Sender,
        sending: Sending,
        file_counts: FileCounts,
        model: Callable[[], str],
        kept: Callable[[Chat], None],
        keep_draft: Callable[[Chat], None],
    ) -> None:
        self._shared = shared
        self._sender = sender
        self._sending = sending
        self._file_counts = file_counts
        self._model = model
        self._kept = kept
        self._keep_draft = keep_draft
        self._open: dict[str, Comparison] = {}  # by chat
        self._running: dict[str, tuple[Comparison, int]] = {}  # by request: which answer

    def wish(self, chat: Chat, argument: str, personas_dir: Path | None) -> Wish:
        """What is written behind `/compare`, for this chat; SamovarError says what can be written."""
        seed = chat.settings.seed
        first_seed = random.randrange(1, _MAX_SEED) if seed is None else seed
        return wish_of(argument, chat, self._shared.config.sampling, personas_dir, first_seed)

    def refusal(self, chat: Chat, *, has_text: bool) -> str:
        """Why nothing can be compared in this chat right now; empty if it can."""
        if chat.id in self._open:
            return "answers are being compared in this chat already"
        if busy := _busy(chat):
            return busy
        if chat.path is None:
            return "this chat is still being read: try again in a moment"
        if not has_text and not any(message.role is Role.USER for message in chat.path):
            return "there is no message to answer yet: /compare 3 and your question"
        return ""

    async def begin(self, chat: Chat, wish: Wish) -> Comparison:
        """Ask for all answers at once.

        Raises SamovarError where that is refused, or for a file that cannot be attached.
        """
        if refusal := self.refusal(chat, has_text=bool(wish.text)):
            raise SamovarError(refusal)
        assert chat.path is not None
        if wish.text:
            path = (*chat.path, await self._new_message(chat, wish.text))
            if refusal := self.refusal(chat, has_text=True):
                raise SamovarError(refusal)
        else:
            last = max(place for place, message in enumerate(chat.path) if message.role is Role.USER)
            path = tuple(chat.path[: last + 1])
        requests = [self._request(chat, path, variant) for variant in wish.variants]
        pairs = zip(requests, wish.variants, strict=True)
        answers = tuple(Answer(request.id, variant) for request, variant in pairs)
        comparison = self._open[chat.id] = Comparison(
            chat, wish, path, answers, self._sender.sent(chat, path).num_left_out
        )
        if wish.text:
            chat.on_its_way = storable(wish.text)
            self._keep_draft(chat)
        for place, request in enumerate(requests):
            self._running[request.id] = (comparison, place)
        for request in requests:
            self._shared.client.send(Submit(request))
        return comparison

    def of(self, session: str) -> Comparison | None:
        """What is compared in this chat and has been neither kept nor discarded."""
        return self._open.get(session)

    def stop(self, comparison: Comparison) -> bool:
        """End the answers that are still written; what has arrived stays. False if none is."""
        was_running = False
        for answer in comparison.answers:
            if answer.message is None:
                was_running = True
                if not answer.stopping:
                    answer.stopping = True
                    self._shared.client.send(Cancel(answer.request_id))
        if was_running:
            self._changed(comparison)
        return was_running

    def discard(self, comparison: Comparison) -> None:
        """Let go of all answers; the chat is as it was, a new text its draft."""
        if self._open.get(comparison.chat.id) is not comparison:
            return
        self._end(comparison)
        chat = comparison.chat
        if text := storable(comparison.wish.text):
            if chat.editing is None:
                chat.draft = "\n".join(filter(None, [text, chat.draft]))
                self._shared.notify(changes.DraftChanged(chat.id))
            else:
                chat.set_aside = "\n".join(filter(None, [text, chat.set_aside]))
            self._keep_draft(chat)

    def drop(self, session: str) -> None:
        """Discard what is compared in a chat that is being deleted."""
        if (comparison := self._open.get(session)) is not None:
            self.discard(comparison)

    async def keep(self, comparison: Comparison, place: int) -> str:
        """Make one answer the chat's reply, and end the comparison; else say why not."""
        return await self._keep(comparison, [place], place)

    async def keep_all(self, comparison: Comparison, shown: int) -> str:
        """Make every answer with a text a version of the reply, this one shown; else say why not."""
        if comparison.is_running:
            return "some answers are still being written: esc stops them"
        places = [place for place, answer in enumerate(comparison.answers) if answer.text]
        if not places:
            return "no answer has brought a text to keep"
        return await self._keep(comparison, places, shown if shown in places else places[0])

    def handle(self, event: CompareEvent) -> bool:
        """Take in what happened to one of our requests; False if it is none of ours."""
        comparison, place = self._running.get(event.request_id, (None, 0))
        if comparison is None:
            return False
        answer = comparison.answers[place]
        match event:
            case RequestQueued(position=position, estimate_ms=estimate_ms):
                answer.position, answer.estimate_ms = position, estimate_ms
            case RequestStarted(stats=stats, thinks=thinks):
                answer.phase, answer.stats, answer.thinks = AnswerPhase.READING, stats, thinks
                answer.to_read_tokens = max(0, stats.prompt_tokens - stats.reused.total)
            case PrefillProgressed(done=done, total=total):
                answer.phase = AnswerPhase.READING
                answer.read_tokens, answer.to_read_tokens = done, total
            case TokensGenerated(text=text, num_tokens=num_tokens):
                answer.phase = AnswerPhase.WRITING
                answer.num_tokens += num_tokens
                answer.parts.append(text)
                self._shared.notify(changes.ComparisonGrew(comparison.chat.id, place, text))
                return True
            case RequestFinished():
                del self._running[event.request_id]
                answer.message = self._ended(comparison, answer, event)
                answer.phase, answer.stats = AnswerPhase.ENDED, event.stats
        self._changed(comparison)
        return True

    def close(self) -> None:
        """Discard all that is under way."""
        for comparison in list(self._open.values()):
            self.discard(comparison)

    # Inside

    def _end(self, comparison: Comparison) -> None:
        self.stop(comparison)
        del self._open[comparison.chat.id]
        for answer in comparison.answers:
            self._running.pop(answer.request_id, None)
        if comparison.wish.text:
            comparison.chat.on_its_way = ""
        self._changed(comparison)

    async def _new_message(self, chat: Chat, text: str) -> StoredMessage:
        """The message that will be stored if an answer to it is kept, with the files it names."""
        text, path = storable(text), tuple(chat.path or ())
        files = await self._shared.archive.run(lambda store: attached(text, path, store.paste))
        return StoredMessage(
            id=_NEW_MESSAGE_ID,
            session_id=chat.id,
            parent_id=path[-1].id if path else None,
            role=Role.USER,
            content=text,
            created_at=self._shared.clock(),
            state=MessageState.COMPLETE,
            attachments=files,
        )

    def _request(self, chat: Chat, path: Sequence[StoredMessage], variant: Variant) -> Request:
        settings, sampling = variant.settings, self._shared.config.sampling
        asker = dataclasses.replace(chat, system_prompt=variant.system_prompt)
        return Request(
            id=uuid.uuid4().hex,
            session=chat.id,
            messages=self._sender.sent(asker, path, settings).messages,
            kind=RequestKind.SIDE_TASK,
            title=chat.title,
            sampling=settings.sampling(sampling),
            max_tokens=settings.reply_tokens(sampling),
            stop=settings.stop,
            store=False,
            urgent=True,
        )

    def _ended(self, comparison: Comparison, answer: Answer, event: RequestFinished) -> StoredMessage:
        """The reply that an answer would be."""
        state, error = end_of(event)
        content, tokens, tokenizer = event.reply, event.tokens, event.tokenizer
        if state is MessageState.FAILED and len(answer.text) > len(content):
            # A host that died cannot say what it had sent: what has arrived counts.
            content, tokens, tokenizer = answer.text, (), ""
        if state is MessageState.COMPLETE and content and not answer_of(content, thinks=answer.thinks):
            state, error = MessageState.FAILED, "the model only thought about it, and gave no answer"
        return StoredMessage(
            id=0,
            session_id=comparison.chat.id,
            parent_id=comparison.asked.id,
            role=Role.ASSISTANT,
            content=content,
            created_at=self._shared.clock(),
            state=state,
            tokens=tokens,
            tokenizer=tokenizer,
            stats=event.stats,
            error=error,
            model=self._model(),
        )

    async def _keep(self, comparison: Comparison, places: Sequence[int], shown: int) -> str:
        chat, shared = comparison.chat, self._shared
        if self._open.get(chat.id) is not comparison:
            return "this comparison is over"
        replies = [message for place in places if (message := comparison.answers[place].message) is not None]
        if len(replies) < len(places):
            return "this answer is still being written: esc stops it, then it can be kept"
        if not all(reply.content for reply in replies):
            return "this answer has brought no text to keep"
        if chat.id not in shared.roster.chats:
            return "this chat has been deleted; c copies an answer"
        if busy := _busy(chat):
            return busy
        is_new, sent_as = not chat.in_store, ChatProfile.of(chat)
        ended = frozenset(m.id for m in chat.path or () if m.state is not MessageState.STREAMING)

        def work(store: Store) -> _Kept:
            with store.transaction():
                if is_new:
                    create_chat(store, chat.id, sent_as)
                return _store_kept(store, comparison.asked, replies, places.index(shown), ended)

        chat.sending = True
        shared.num_changes += 1
        num_changes = shared.num_changes
        try:
            kept = await shared.archive.run(work)
        except SamovarError as error:
            return str(error)
        finally:
            chat.sending = False
        chat.in_store = True
        if num_changes == shared.num_changes:
            chat.take(kept.session)
        else:
            self._sending.take_stored(chat, kept.session, sent_as, is_new=is_new)
        chat.path, chat.updated_at = kept.path, shared.clock()
        if self._open.get(chat.id) is comparison:
            self._end(comparison)
        if comparison.wish.text:
            self._keep_draft(chat)
            self._file_counts.count(chat, kept.path[-2])
        shared.notify(changes.PathChanged(chat.id))
        shared.notify(changes.ChatsChanged())
        self._kept(chat)
        return ""

    def _changed(self, comparison: Comparison) -> None:
        self._shared.notify(changes.ComparisonChanged(comparison.chat.id))


def _busy(chat: Chat) -> str:
    if chat.reply is not None:
        return "the reply is still being written: esc stops it"
    return "the last message is still being stored" if chat.sending else ""


def _store_kept(
    store: Store,
    asked: StoredMessage,
    replies: Sequence[StoredMessage],
    shown: int,
    ended: frozenset[int],
) -> _Kept:
    """Within a transaction: store replies below the message they answer, which is stored too if it is new.

    What others have written below it meanwhile stays, as another version. `ended` are replies known to have
    ended, whatever the store could take of that.
    """
    chat_id, messages = asked.session_id, store.messages
    before = store.path(chat_id)
    if any(message.state is MessageState.STREAMING and message.id not in ended for message in before):
        raise SamovarError("the reply is being written in another window")
    asked_id = asked.id
    if asked_id == _NEW_MESSAGE_ID:
        added = messages.add(
            chat_id, Role.USER, asked.content, parent_id=asked.parent_id, attachments=asked.attachments
        )
        asked_id = added.id
        if not store.session(chat_id).title:
            store.rename(chat_id, auto_title(asked.content))
    ids: list[int] = []
    for reply in replies:
        row = messages.add_reply(chat_id, asked_id, store.session(chat_id).head_id)
        assert row is not None, "the head was read in the same transaction"
        store_end(store, msgspec.structs.replace(reply, id=row.id))
        ids.append(row.id)
    for message in before:
        if message.parent_id == asked_id and not message.content:
            messages.delete_branch(message.id)  # a reply that brought nothing is no version to go back to
    messages.show(chat_id, ids[shown])
    return _Kept(store.session(chat_id), store.path(chat_id))
