"""What of a chat is sent: its messages as a request holds them, those that do not fit summarized or left out.

The one place that knows this, so that a side task, work ahead and the chat's own turn begin with the same
tokens. Pure but for the model's context, which it is told. Never imports Textual.

    whole       system ─ m1 ─ r1 ─ m2 ─ r2 ─ m3 ─ r3 ─ m4
    summarized  system + summary of m1 … r2 ─ m3 ─ r3 ─ m4      the system prompt's tokens stay the same
    left out    system ────────────────────── m3 ─ r3 ─ m4
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from samovar.chats.chat import Chat
from samovar.chats.prompts import joined, prompt_messages
from samovar.chats.window import BYTES_PER_TOKEN, FRAME_TOKENS, num_bytes, size_of, window_start
from samovar.config import Config, ContextFull
from samovar.core.chat import SUMMARY_HEAD, ChatMessage, Role
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import MessageState, StoredMessage
from samovar.sessions.values import Compaction

_MARK: Final = 0.7  # of what is not kept free for a reply: from there on the oldest part is summarized ahead
_MIN_REPLY_TOKENS: Final = 32
_MIN_MEASURED_TOKENS: Final = 64  # from there on a chat's own replies tell how long its tokens are
_LOOKED_AT: Final = 400  # messages at the end of a path, of which each is measured by itself
_LIKELY_TOKENS: Final = 256  # a template of its own may stand around the messages
_RATIOS: Final = (BYTES_PER_TOKEN, 2.0, 1.5, 1.0)


class Sent(msgspec.Struct, frozen=True):
    """The messages of a request; the first `num_left_out` ones that are not summarized are not among them."""

    messages: tuple[ChatMessage, ...]
    num_left_out: int = 0


class LeftOut(msgspec.Struct, frozen=True):
    """Messages that are not sent, and no summary stands for them: `num_messages` up to and with `upto_id`."""

    upto_id: int
    num_messages: int


class Sender:
    """Says what is sent of a chat. `context_tokens` is the size of the loaded model's context, and
    `template_tokens` what its template adds to a prompt (see `ModelInfo`).
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._joined = _Joined()
        self.context_tokens: int | None = None
        self.template_tokens = (0, 0)

    def sent(
        self,
        chat: Chat,
        path: Sequence[StoredMessage] | None = None,
        settings: SessionSettings | None = None,
    ) -> Sent:
        """What a request for this path (the chat's own, if none is given) holds."""
        path = chat.path or () if path is None else path
        messages = self._whole(chat, path)
        mode = self.context_full(chat, settings)
        if not messages or self.context_tokens is None or mode == "stop":
            return Sent(messages)
        if mode == "compact" and not self.needs_room(chat, path, settings):
            return Sent(messages)
        ratio = _bytes_per_token(path)
        if mode == "shift":  # a beginning that moves with every guess is never found in the cache
            ratio = next((step for step in _RATIOS if step <= ratio), _RATIOS[-1])
        room, reply_tokens = self._room(chat, path), self._reply_tokens(chat, settings)
        num_left_out = window_start(messages, room, reply_tokens, ratio)
        if not num_left_out and mode == "compact":  # more has been measured than is guessed here
            guess = sum(size_of(message, ratio) for message in messages)
            too_little = self.size(chat, path) - self._template_size(chat, path) - guess
            num_left_out = window_start(messages, room - max(0, too_little), reply_tokens, ratio)
        return Sent(_without(messages, num_left_out), num_left_out)

    def left_out(self, chat: Chat, path: Sequence[StoredMessage] | None = None) -> LeftOut | None:
        """What the last request for this path (the chat's own) has left out; None for nothing."""
        path = chat.path or () if path is None else path
        asked, num_left_out = self._last(chat, path)
        if not num_left_out:
            return None
        rest = behind(asked, active(asked, chat.compactions))
        place = _first_sent(rest, num_left_out, has_system=bool(self.base_text(chat, asked)))
        return LeftOut(rest[place - 1].id, place)

    def next_size(self, chat: Chat, path: Sequence[StoredMessage], text: str = "") -> int:
        """The tokens that stand before a next message `text`: of what is sent of this path then.

        Where the oldest messages may be summarized first, it is what would be sent without that.
        """
        asked = path
        if not path or path[-1].role is not Role.USER:
            asked = [*path, StoredMessage(0, chat.id, None, Role.USER, text, 0.0, MessageState.COMPLETE)]
        ratio = _bytes_per_token(path)
        own = size_of(ChatMessage(Role.USER, text), ratio) if asked is not path else 0
        before, num_left_out = self._last(chat, path)
        num_before = num_left_out
        if self.context_full(chat) == "shift" or not self.may_summarize(chat):
            num_left_out = self.sent(chat, asked).num_left_out
        if not num_left_out:
            return self.size(chat, asked) - own
        messages = _without(self._whole(chat, asked), num_left_out)
        guess = self._template_size(chat, asked) + sum(size_of(message, ratio) for message in messages) - own
        replies = path[len(before) :]
        stats = replies[-1].stats if replies else None
        if stats is None or not stats.prompt_tokens or num_left_out != num_before:
            return guess
        measured = stats.prompt_tokens + stats.generated_tokens
        return measured if guess // 2 <= measured <= 2 * guess + _LIKELY_TOKENS else guess

    def context_full(self, chat: Chat, settings: SessionSettings | None = None) -> ContextFull:
        """What happens in this chat when it outgrows the context."""
        settings = chat.settings if settings is None else settings
        return settings.context_full or self._config.context_full

    def may_summarize(self, chat: Chat, settings: SessionSettings | None = None) -> bool:
        """Whether the oldest part may be summarized without being asked."""
        settings = chat.settings if settings is None else settings
        return self._config.side_tasks == "on" and settings.side_tasks is not False

    def needs_room(
        self, chat: Chat, path: Sequence[StoredMessage], settings: SessionSettings | None = None
    ) -> bool:
        """Whether a request for all of this path leaves too little of the context for its reply."""
        if self.context_tokens is None:
            return False
        return self.size(chat, path) > self.context_tokens - self._reply_tokens(chat, settings)

    def is_past_mark(self, chat: Chat) -> bool:
        """Whether so much of the context is used that the oldest part should be summarized ahead of time."""
        mark = self.mark(chat)
        return mark is not None and self.size(chat, chat.path or ()) > mark

    def mark(self, chat: Chat) -> int | None:
        """From how many tokens on that is so; None while the context is not known."""
        if self.context_tokens is None:
            return None
        return int(_MARK * (self.context_tokens - self._reply_tokens(chat)))

    def room(self, chat: Chat) -> int | None:
        """The most tokens that a prompt may have to be answered at all; None while that is not known."""
        if self.context_tokens is None:
            return None
        return self.context_tokens - min(_MIN_REPLY_TOKENS, self.context_tokens // 8)

    def size(self, chat: Chat, path: Sequence[StoredMessage]) -> int:
        """The tokens of a whole path, summarized where it is: as measured by its replies, the rest a guess.

        A reply that was asked for with less than that (turns were left out, or summarized since) measures
        too little, which shows: a path only ever grows.
        """
        ratio = _bytes_per_token(path)
        summary = active(path, chat.compactions)
        others = _others(path, chat.compactions, summary)
        rest = behind(path, summary)
        early = rest[:-_LOOKED_AT]
        guess = self.base_size(chat, path) + len(early) * FRAME_TOKENS
        guess += int(sum(len(message.content) for message in early) / ratio)
        sure = 0
        for message in rest[len(early) :]:
            guess += sum(size_of(one, ratio) for one in prompt_messages("", [message]))
            measured = _measured(message, summary, others)
            if measured is not None and (sure + guess) // 2 <= measured <= 2 * guess + _LIKELY_TOKENS:
                sure = guess = measured
        return guess

    def sizes(self, chat: Chat, path: Sequence[StoredMessage]) -> list[int]:
        """The tokens of each message of a path: guesses that add up to what is known of the whole."""
        ratio = _bytes_per_token(path)
        guesses = [sum(size_of(one, ratio) for one in prompt_messages("", [message])) for message in path]
        sent = sum(guesses[len(path) - len(behind(path, active(path, chat.compactions))) :])
        known = self.size(chat, path) - self.base_size(chat, path)
        return [int(guess * known / sent) for guess in guesses] if sent else guesses

    def summarized(
        self, chat: Chat, path: Sequence[StoredMessage], earlier: Compaction | None
    ) -> tuple[ChatMessage, ...]:
        """What is sent of a part of a chat that is to be summarized, behind an earlier summary."""
        system = _with_summary(chat.system_prompt, earlier)
        messages = self._joined.messages(behind(path, earlier))
        return (ChatMessage(Role.SYSTEM, system), *messages) if system else messages

    def size_of_text(self, chat: Chat, text: str) -> int:
        """The tokens of a text as a message of this chat, a guess."""
        return size_of(ChatMessage(Role.USER, text), _bytes_per_token(chat.path or ()))

    def base_size(self, chat: Chat, path: Sequence[StoredMessage]) -> int:
        """The tokens before all messages: the template's own, system prompt and summary; a guess."""
        system = self.base_text(chat, path)
        own = size_of(ChatMessage(Role.SYSTEM, system), _bytes_per_token(path)) if system else 0
        return own + self._template_size(chat, path)

    def base_text(self, chat: Chat, path: Sequence[StoredMessage]) -> str:
        """What stands before all messages: system prompt and summary."""
        return _with_summary(chat.system_prompt, active(path, chat.compactions))

    def _last(self, chat: Chat, path: Sequence[StoredMessage]) -> tuple[Sequence[StoredMessage], int]:
        """What the last request for this path was about, and how many messages it has left out.

        With summaries that is no matter of the path alone: by the figures of its reply, or while these are
        not known by what would be left out of it now.
        """
        reply = chat.reply if path is chat.path else None
        if reply is not None and reply.room is not None:  # it has not been asked for yet
            path, reply = path[:-1] if reply.goes_on is None else path, None
        end = next((end for end in range(len(path), 0, -1) if path[end - 1].role is Role.USER), 0)
        asked, replies = path[:end], path[end:]
        summary = active(asked, chat.compactions)
        if summary != standing(path, chat.compactions):  # it stands for more than that request has left out
            return asked, 0
        sent = self.sent(chat, asked)
        if not sent.num_left_out or self.context_full(chat) == "shift" or not self.may_summarize(chat):
            return asked, sent.num_left_out
        if reply is not None and reply.stats is None:
            return asked, sent.num_left_out
        if reply is not None and reply.stats is not None:
            prompt_tokens = reply.stats.prompt_tokens
        else:
            stats = replies[-1].stats if replies else None
            others = _others(asked, chat.compactions, summary)
            measured = _measured(replies[-1], summary, others) if replies else None
            if measured is None or stats is None:
                return asked, 0
            prompt_tokens = measured - stats.generated_tokens
        ratio = _bytes_per_token(asked)
        guess = self._template_size(chat, asked) + sum(size_of(message, ratio) for message in sent.messages)
        is_whole = 2 * prompt_tokens > guess + self.size(chat, asked)
        return asked, 0 if is_whole else sent.num_left_out

    def _room(self, chat: Chat, path: Sequence[StoredMessage]) -> int:
        """The tokens of the context for messages and reply."""
        assert self.context_tokens is not None
        return max(0, self.context_tokens - self._template_size(chat, path))

    def _template_size(self, chat: Chat, path: Sequence[StoredMessage]) -> int:
        """The tokens of the template's own, besides what is counted as the frame of each message."""
        num_messages = 2 if self.base_text(chat, path) else 1
        return max(0, self.template_tokens[num_messages - 1] - num_messages * FRAME_TOKENS)

    def _whole(self, chat: Chat, path: Sequence[StoredMessage]) -> tuple[ChatMessage, ...]:
        return self.summarized(chat, path, active(path, chat.compactions))

    def _reply_tokens(self, chat: Chat, settings: SessionSettings | None = None) -> int:
        """What is kept free for a reply."""
        assert self.context_tokens is not None
        settings = chat.settings if settings is None else settings
        wanted = settings.reply_tokens(self._config.sampling) or self.context_tokens // 4
        return min(wanted, self.context_tokens // 2)


class _Joined:
    """Messages as they are sent, of the paths asked for last.

    While a message is typed, the same path with another end is asked for again and again: only its end is
    looked at anew, so that the length of a chat is not felt.
    """

    _KEPT: Final = 4
    _END: Final = 8  # messages; what is joined of them may still change

    def __init__(self) -> None:
        self._known: list[tuple[list[StoredMessage], tuple[ChatMessage, ...]]] = []

    def messages(self, path: Sequence[StoredMessage]) -> tuple[ChatMessage, ...]:
        """The messages of a request for this path, without a system prompt."""
        for place, (beginning, messages) in enumerate(self._known):
            # Equal lists of the same objects are compared by their addresses alone.
            if len(beginning) <= len(path) <= len(beginning) + 4 * self._END and beginning == list(
                path[: len(beginning)]
            ):
                self._known.insert(0, self._known.pop(place))
                return joined(messages, path[len(beginning) :])
        beginning = list(path[: -self._END])
        messages = joined((), beginning)
        if len(beginning) > self._END:
            self._known = [(beginning, messages), *self._known[: self._KEPT - 1]]
        return joined(messages, path[len(beginning) :])


def standing(path: Sequence[StoredMessage], compactions: Sequence[Compaction]) -> Compaction | None:
    """The summary that stands for the beginning of a path: the one that reaches furthest, the last made of
    several; None without one.
    """
    ends: dict[int, Compaction] = {}
    for one in compactions:
        if not one.is_undone and (one.upto_id not in ends or ends[one.upto_id].id < one.id):
            ends[one.upto_id] = one
    if not ends:
        return None
    return next((ends[message.id] for message in reversed(path) if message.id in ends), None)


def active(path: Sequence[StoredMessage], compactions: Sequence[Compaction]) -> Compaction | None:
    """The summary that is sent: none for a path that ends where it ends, as nothing would be asked then."""
    return standing(path[:-1], compactions) if compactions else None


def behind(path: Sequence[StoredMessage], summary: Compaction | None) -> Sequence[StoredMessage]:
    """The messages of a path that its summary does not stand for."""
    if summary is None:
        return path
    num_behind = next(i for i, message in enumerate(reversed(path)) if message.id == summary.upto_id)
    return path[len(path) - num_behind :]


def _without(messages: tuple[ChatMessage, ...], num_left_out: int) -> tuple[ChatMessage, ...]:
    """The messages of a request without the first ones behind the system prompt."""
    first = 1 if messages and messages[0].role is Role.SYSTEM else 0
    return (*messages[:first], *messages[first + num_left_out :])


def _first_sent(path: Sequence[StoredMessage], num_left_out: int, *, has_system: bool) -> int:
    """Where in a path sending begins, if so many messages of its request are left out (see `joined`)."""
    if not has_system and path and path[0].role is Role.SYSTEM:  # it is the request's first, and stays
        num_left_out += 1
    before: Role | None = None
    for place, message in enumerate(path):
        if message.role is Role.ASSISTANT and not message.content:
            continue
        if message.role is Role.SYSTEM or message.role is not before:
            if not num_left_out:
                return place
            num_left_out -= 1
        before = message.role
    return len(path)


def _others(
    path: Sequence[StoredMessage], compactions: Sequence[Compaction], summary: Compaction | None
) -> list[Compaction]:
    """The summaries of this path that are not the one that is sent."""
    ends = {one.upto_id for one in compactions if one != summary}
    ids = {message.id for message in path if message.id in ends} if ends else set()
    return [one for one in compactions if one.upto_id in ids and one != summary]


def _with_summary(system_prompt: str, summary: Compaction | None) -> str:
    if summary is None:
        return system_prompt
    return "\n\n".join(filter(None, [system_prompt, f"{SUMMARY_HEAD}\n{summary.summary}"]))


def _measured(message: StoredMessage, summary: Compaction | None, others: Sequence[Compaction]) -> int | None:
    """The tokens up to the end of a reply by its own figures, had it been asked with this summary.

    None where it was asked with another one, or that is not known.
    """
    if message.stats is None or not message.stats.prompt_tokens:
        return None
    if any(one.is_undone == (one.created_at < message.created_at) for one in others):
        return None
    num_tokens = message.stats.prompt_tokens + message.stats.generated_tokens
    if summary is not None and message.created_at <= summary.created_at:
        num_tokens += summary.tokens_after - summary.tokens_before
    return num_tokens


def _bytes_per_token(path: Sequence[StoredMessage]) -> float:
    """How long the tokens of a chat's messages are.

    By what its prompts have grown from turn to turn; else by the tokens of its replies, which may be in
    another language than what the user attaches; else by a guess.
    """
    seen_bytes = seen_tokens = reply_bytes = reply_tokens = pending_bytes = pending = 0
    before: int | None = None
    for message in path[-_LOOKED_AT:]:
        length = num_bytes(message.content)
        length += sum(num_bytes(one.text) for one in message.attachments)
        if message.role is not Role.ASSISTANT:
            pending_bytes += length
            pending += 1
            continue
        reply_bytes += length if message.tokens else 0
        reply_tokens += len(message.tokens)
        stats = message.stats
        if stats is None or not stats.prompt_tokens:
            before = None
        else:
            grown = stats.prompt_tokens - before - FRAME_TOKENS * pending if before is not None else 0
            if 0 < grown <= pending_bytes:  # else turns were left out or summarized in between
                seen_bytes, seen_tokens = seen_bytes + pending_bytes, seen_tokens + grown
            before = stats.prompt_tokens + stats.generated_tokens
        pending_bytes = pending = 0
    if seen_tokens < _MIN_MEASURED_TOKENS:
        seen_bytes, seen_tokens = reply_bytes, reply_tokens
    if seen_tokens < _MIN_MEASURED_TOKENS:
        return BYTES_PER_TOKEN
    return min(6.0, max(1.0, seen_bytes / seen_tokens))
