"""From the stored messages of a chat to those of a request. Pure."""

from collections.abc import Sequence

from samovar.core.chat import ChatMessage, Role
from samovar.sessions.store import StoredMessage
from samovar.sessions.values import Attachment


def prompt_messages(system_prompt: str, path: Sequence[StoredMessage]) -> tuple[ChatMessage, ...]:
    """The messages of a request for this path; where it ends in a reply, that is to be gone on with.

    A reply that brought no text is left out. Messages of the same role in a row become one, since many
    templates refuse them: the user's around such a reply, and replies in parts that an import has brought.
    """
    system = (ChatMessage(Role.SYSTEM, system_prompt),) if system_prompt else ()
    return (*system, *joined((), path))


def joined(before: Sequence[ChatMessage], path: Sequence[StoredMessage]) -> tuple[ChatMessage, ...]:
    """The messages of a request for a path that begins with those in `before`, in the same way."""
    messages = list(before)
    for message in path:
        if message.role is Role.ASSISTANT and not message.content:
            continue
        text = prompt_text(message)
        if message.role is not Role.SYSTEM and messages and messages[-1].role is message.role:
            messages[-1] = ChatMessage(message.role, f"{messages[-1].content}\n\n{text}")
            continue
        messages.append(ChatMessage(message.role, text, message.tokens, message.tokenizer))
    return tuple(messages)


def prompt_text(message: StoredMessage) -> str:
    """What the model reads of a message: its files first, so that chats begun with the same file share it.

    It depends on nothing but the message, so a later turn repeats it character for character.
    """
    if not message.attachments:
        return message.content
    return "\n\n".join([*map(_file_text, message.attachments), *filter(None, [message.content])])


def _file_text(one: Attachment) -> str:
    name = one.name.replace('"', "'").replace("\n", " ")
    if one.repeated:
        return f'<file name="{name}">as above, unchanged</file>'
    end = "" if one.text.endswith("\n") else "\n"
    return f'<file name="{name}">\n{one.text}{end}</file>'
