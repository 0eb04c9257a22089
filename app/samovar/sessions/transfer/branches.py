"""Messages of another program, joined into a tree of ours. Pure; never recurses, however long a chat is."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.sessions.transfer.document import MessageDocument
from samovar.sessions.transfer.foreign import checked_text, shown, with_reasoning
from samovar.sessions.transfer.notes import Notes
from samovar.sessions.values import Attachment, MessageState

MAX_MESSAGES: Final = 1_000_000


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message under the file's own id. `parent` is the id of the one before it.

    One that is `hidden` is no message of ours (an empty root): what follows it follows what it follows.
    A `thought` is the reasoning before a reply, which other programs keep as a message of its own.
    """

    key: str
    parent: str | None
    role: Role = Role.SYSTEM
    content: str = ""
    created_at: float | None = None
    state: MessageState = MessageState.COMPLETE
    model: str = ""
    attachments: tuple[Attachment, ...] = ()
    extra: dict[str, Any] = {}
    hidden: bool = False
    thought: bool = False


class Grown(msgspec.Struct, frozen=True):
    """The tree. A system message that all others follow is the prompt; `system_extra` was beside it."""

    messages: tuple[MessageDocument, ...]
    head: int | None
    system_prompt: str
    system_extra: dict[str, Any]


class _Place(msgspec.Struct, frozen=True):
    """A message on its way into the tree: below `after`, with thoughts that wait for their reply."""

    draft: Draft
    after: str | None
    waiting: tuple[Draft, ...]


def grow(drafts: Iterable[Draft], head: str | None, notes: Notes) -> Grown:
    """The drafts as a tree whose chats end in `head` (or what is shown of it, or the last message).

    Siblings keep their order. A parent that is missing is noted, an id twice or a message that is its own
    ancestor is a SamovarError.
    """
    nodes = _by_key(drafts)
    below = _children(nodes, notes)
    placed: list[tuple[Draft, str | None]] = []
    stands_for: dict[str, str | None] = {}
    stack = [_Place(root, None, ()) for root in reversed(below.get(None, []))]
    while stack:
        place = stack.pop()
        draft, after, waiting = place.draft, place.after, place.waiting
        children = below.get(draft.key, [])
        if draft.thought and _waits(children):
            waiting = (*waiting, draft)
        elif not draft.hidden:
            ready = _with_thoughts(draft, waiting)
            waiting = ()
            if ready is None:
                notes.add("remarks on thinking without a reply are left out")
            else:
                placed.append((ready, after))
                after = draft.key
        stands_for[draft.key] = after
        stack.extend(_Place(child, after, waiting) for child in reversed(children))
    if len(stands_for) < len(nodes):
        lost = next(key for key in nodes if key not in stands_for)
        raise SamovarError(f"message {shown(lost)} is its own ancestor, or follows one that is")
    return _numbered(placed, stands_for.get(head) if head is not None else None)


def _by_key(drafts: Iterable[Draft]) -> dict[str, Draft]:
    nodes: dict[str, Draft] = {}
    for draft in drafts:
        if draft.key in nodes:
            raise SamovarError(f"two messages have the id {shown(draft.key)}")
        if len(nodes) == MAX_MESSAGES:
            raise SamovarError(f"it has more than {MAX_MESSAGES:,} messages, the most a chat can have")
        nodes[draft.key] = draft
    return nodes


def _children(nodes: dict[str, Draft], notes: Notes) -> dict[str | None, list[Draft]]:
    below: dict[str | None, list[Draft]] = {}
    num_orphans = 0
    for draft in nodes.values():
        is_orphan = draft.parent is not None and draft.parent not in nodes
        num_orphans += is_orphan
        below.setdefault(None if is_orphan else draft.parent, []).append(draft)
    if num_orphans and len(below[None]) > 1:  # a path that was cut out of its tree begins with one
        for _ in range(num_orphans):
            notes.add("messages whose predecessor is missing begin a branch of their own")
    return below


def _waits(children: list[Draft]) -> bool:
    """Whether what follows a thought is its one reply, or more of the thought."""
    return len(children) == 1 and children[0].role is Role.ASSISTANT and not children[0].hidden


def _with_thoughts(draft: Draft, thoughts: tuple[Draft, ...]) -> Draft | None:
    """The message with its reasoning; None for thoughts that say nothing and have no reply."""
    if not thoughts and not draft.thought:
        return draft
    own = (*thoughts, draft) if draft.thought else thoughts
    reasoning = "\n\n".join(thought.content for thought in own if thought.content)
    if draft.thought and not reasoning:
        return None
    before = [thought.extra for thought in thoughts if thought.extra]
    return msgspec.structs.replace(
        draft,
        content=with_reasoning(reasoning, "" if draft.thought else draft.content),
        extra={**draft.extra, "thoughts": before} if before else draft.extra,
    )


def _numbered(placed: list[tuple[Draft, str | None]], head: str | None) -> Grown:
    firsts = [draft for draft, after in placed if after is None]
    prompt = firsts[0].content if firsts else ""
    has_prompt = bool(firsts) and all(
        draft.role is Role.SYSTEM and draft.content == prompt and not draft.attachments for draft in firsts
    )
    ids: dict[str | None, int | None] = {None: None}
    messages: list[MessageDocument] = []
    for draft, after in placed:
        if after is None and has_prompt:
            ids[draft.key] = None
            continue
        ids[draft.key] = len(messages) + 1
        messages.append(
            MessageDocument(
                id=len(messages) + 1,
                parent=ids[after],
                role=draft.role,
                content=checked_text(draft.content, draft.key),
                created_at=draft.created_at,
                state=draft.state,
                model=draft.model,
                attachments=draft.attachments,
                extra=draft.extra,
            )
        )
    shown_last = ids[head]
    if shown_last is None and messages:
        shown_last = messages[-1].id
    return Grown(
        messages=tuple(messages),
        head=shown_last,
        system_prompt=checked_text(prompt, firsts[0].key) if has_prompt else "",
        system_extra=firsts[0].extra if has_prompt else {},
    )
