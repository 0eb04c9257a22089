"""Stored messages as the transcript shows them: headings with their cost, notes under failed ones. Pure."""

from collections.abc import Sequence

from samovar.chats.chat import Chat, Phase, Reply
from samovar.chats.compaction import sizes_in_words
from samovar.chats.sent import LeftOut, standing
from samovar.core.chat import Role
from samovar.core.figures import clock_time, count, duration, rate
from samovar.core.request import RequestStats
from samovar.sessions.values import Attachment, Compaction, MessageState, StoredMessage
from samovar.tui.widgets.transcript import LEFT_OUT, SUMMARY, AttachmentLine, Entry

Meta = tuple[tuple[str, str], ...]


def chat_entries(chat: Chat, now: float, left_out: LeftOut | None = None) -> list[Entry]:
    """All that is to be seen of a chat, but for a reply that is still being written."""
    entries = []
    if chat.system_prompt:
        entries.append(Entry("system", "system", chat.system_prompt))
    summary = standing(chat.path or (), chat.compactions)
    for message in chat.path or ():
        entries += message_entries(message, now)
        if summary is not None and message.id == summary.upto_id:
            entries.append(summary_entry(chat, summary))
        if left_out is not None and message.id == left_out.upto_id:
            entries.append(left_out_entry(left_out))
    return entries


def left_out_entry(left_out: LeftOut) -> Entry:
    """The mark under the last message that is no longer sent: from here on they are."""
    number = left_out.num_messages
    text = "the message above is" if number == 1 else f"the {number:,} messages above are"
    return Entry(LEFT_OUT, LEFT_OUT, "", ((f"{text} no longer sent", "faint"),))


def summary_entry(chat: Chat, summary: Compaction) -> Entry:
    """The mark under the last message that is summarized; what is sent in their place can be unfolded."""
    text = summary.summary
    line = AttachmentLine("what is sent of them", summary.tokens_after, len(text.encode()), False, text)
    meta = ((sizes_in_words(chat, summary), "faint"),)
    return Entry(f"{SUMMARY} {summary.id}", SUMMARY, "", meta, attachments=(line,))


def message_entries(message: StoredMessage, now: float) -> list[Entry]:
    """One message, and under one that failed or was cut what to do about it."""
    is_elsewhere = message.state is MessageState.STREAMING  # in another window; ours is shown from memory
    entry = Entry(
        id=str(message.id),
        role=message.role.value,
        text=message.content,
        meta=message_meta(message, now),
        state="complete" if is_elsewhere else message.state.value,
        place=message.place,
        num_siblings=message.num_siblings,
        attachments=tuple([_line_of(attachment) for attachment in message.attachments]),
        thinks=message.stats is not None and message.stats.thinking_tokens > 0,
        thought=_thought(message.stats),
    )
    match message.state:
        case MessageState.FAILED:
            note = f"{_sentence(message.error) or 'the reply failed'} · ctrl+r answers again"
        case MessageState.CUT:
            note = f"{_sentence(message.error) or 'cut at max_tokens'} · /continue goes on"
        case _:
            return [entry]
    return [entry, Entry(f"{entry.id} note", "note", note, state=entry.state)]


def reply_entry(reply: Reply, now: float) -> Entry:
    """A reply that is being written, with what has arrived of it."""
    meta, row = reply_meta(reply, now), reply.row
    place, num_siblings = (row.place, row.num_siblings) if row is not None else (0, 1)
    return Entry(
        reply_id(reply),
        Role.ASSISTANT.value,
        reply.text,
        meta,
        "streaming",
        place=place,
        num_siblings=num_siblings,
        thinks=reply.thinks,
        thought=reply_thought(reply),
    )


def reply_thought(reply: Reply) -> str:
    """`thinking … 4 s · 120 tokens`, and once it answers `thought for 4.2 s · 312 tokens`."""
    if not reply.thinking_tokens:
        return ""
    if reply.is_thinking:
        return f"thinking … {reply.thinking_ms / 1000:.0f} s · {_tokens(reply.thinking_tokens)}"
    return _thought_for(reply.thinking_ms, reply.thinking_tokens)


def reply_id(reply: Reply) -> str:
    """The id of a running reply's entry: the one that it keeps once it has ended."""
    return str(reply.row.id if reply.row is not None else 0)


def message_meta(message: StoredMessage, now: float) -> Meta:
    """What stands behind the heading of a message: time, and for replies size, speed and cost."""
    parts: list[Sequence[tuple[str, str]]] = [[(clock_time(message.created_at, now), "faint")]]
    if message.role is Role.ASSISTANT:
        stats = message.stats
        if stats is not None and stats.generated_tokens:
            parts.append([(f"{count(stats.generated_tokens)} tokens", "faint")])
            if stats.tokens_per_second:
                parts.append([(f"{rate(stats.tokens_per_second)} tok/s", "faint")])
        if stats is not None:
            parts.append(_cost(stats))
        if message.state is MessageState.STREAMING:
            parts.append([("being written in another window", "brass")])
    return _joined(parts)


def reply_meta(reply: Reply, now: float) -> Meta:
    """The heading of a running reply; the figures of what was reused are known from its start on."""
    parts: list[Sequence[tuple[str, str]]] = [[(clock_time(reply.created_at, now), "faint")]]
    if reply.stats is not None:
        parts.append(_cost(reply.stats, is_read=reply.phase is Phase.WRITING))
    return _joined(parts)


def _line_of(attachment: Attachment) -> AttachmentLine:
    text = attachment.text
    num_bytes = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    return AttachmentLine(attachment.name, attachment.num_tokens, num_bytes, attachment.repeated, text)


def _thought(stats: RequestStats | None) -> str:
    if stats is None or not stats.thinking_tokens:
        return ""
    return _thought_for(stats.thinking_ms, stats.thinking_tokens)


def _thought_for(ms: float, num_tokens: int) -> str:
    return f"thought for {duration(ms)} · {_tokens(num_tokens)}"


def _tokens(number: int) -> str:
    return f"{count(number)} token{'' if number == 1 else 's'}"


def _sentence(text: str) -> str:
    return text.rstrip(".")


def _cost(stats: RequestStats, *, is_read: bool = True) -> Sequence[tuple[str, str]]:
    """`3,888 reused, 24 processed`; `24 to process` until all is read; `· 96 ahead` of the reused."""
    if not stats.prompt_tokens:
        return []
    processed = stats.processed_tokens or stats.prompt_tokens - stats.reused.total
    cost = [(f"{count(processed)} {'processed' if is_read else 'to process'}", "faint")]
    if stats.ahead_tokens:
        cost += [(" · ", "faint"), (f"{count(stats.ahead_tokens)} ahead", "green")]
    return (
        [(f"{count(stats.reused.total)} reused", "green"), (", ", "faint"), *cost]
        if stats.reused.total
        else cost
    )


def _joined(parts: Sequence[Sequence[tuple[str, str]]]) -> Meta:
    """All parts with a faint dot between them."""
    joined: list[tuple[str, str]] = []
    for part in parts:
        if part:
            joined += [(" · ", "faint")] if joined else []
            joined += part
    return tuple(joined)
