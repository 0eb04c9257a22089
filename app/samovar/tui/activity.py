"""What is going on in the shown chat, in a few words for the composer's foot. Pure."""

from typing import Final

from textual.content import Content

from samovar.chats.chat import Chat, Phase, Reply
from samovar.chats.host_state import HostPhase, HostState
from samovar.core.events import RequestQueued, WaitReason
from samovar.core.figures import count, duration, ordinal, rate

_REASONS: Final = {
    WaitReason.ROOM: "there is no room in the context yet",
    WaitReason.FOCUS: "the chat you read goes first",
    WaitReason.PREFIX: "the same beginning is being processed",
    WaitReason.DISK: "its beginning comes from the disk",
}


def activity(host: HostState, chat: Chat, notice: str, lasting: str, now: float) -> Content:
    """The most important thing at this moment; `notice` is of the last seconds, `lasting` stays."""
    if host.phase is HostPhase.FAILED and not notice:
        return Content.assemble((host.doing, "$red"))
    if chat.reply is not None:
        if host.doing:
            return Content.assemble((f"{host.doing} · the reply begins then", "$brass"))
        return Content.assemble((_reply_activity(chat.reply, now), "$brass"))
    if chat.editing is not None:
        return Content.assemble(("editing · enter makes another version · esc leaves it", "$teal"))
    if notice:
        return Content.assemble((notice, "$secondary"))
    return (
        Content.assemble((host.doing, "$brass")) if host.doing else Content.assemble((lasting, "$secondary"))
    )


def _waiting(queued: RequestQueued | None) -> str:
    """`waiting: 2nd in the queue, about 8 s · the same beginning is being processed`."""
    if queued is None:
        return "waiting for its turn"
    place = f"{ordinal(queued.position)} in the queue" if queued.num_waiting > 1 else "next"
    left = "" if queued.estimate_ms is None else f", about {duration(max(1000.0, queued.estimate_ms))}"
    return f"waiting: {place}{left} · {_REASONS[queued.reason]}"


def _reply_activity(reply: Reply, now: float) -> str:
    if reply.stopping:
        return "stopping"
    if reply.phase is Phase.SUMMARIZING:
        return "summarizing the oldest messages"
    if reply.phase is Phase.WAITING:
        return _waiting(reply.waits)
    if reply.phase is Phase.READING:
        total = count(reply.to_read_tokens)
        left = "" if reply.remaining_ms is None else f" · about {duration(max(1000.0, reply.remaining_ms))}"
        return f"reading {count(reply.read_tokens).rjust(len(total))} of {total} tokens{left}"
    seconds = now - (reply.first_token_at or now)
    speed = f" · {rate(reply.num_tokens / seconds).rjust(3)} tok/s" if seconds >= 1 else ""
    noun = "token " if reply.num_tokens == 1 else "tokens"  # as wide, so that nothing jumps
    return f"answering · {count(reply.num_tokens).rjust(3)} {noun}{speed}"
