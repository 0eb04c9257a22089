"""From a side task and what is sent of its chat to a request: the chat's own prompt, one message behind it.

All but that message is as the chat's own turn sends it, so the cache has it. Pure.
"""

import string
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from samovar.core.chat import ChatMessage, Role, Sampling
from samovar.core.errors import SamovarError
from samovar.core.request import Request, RequestKind
from samovar.sessions.store import StoredMessage
from samovar.tasks.spec import TaskSpec

MAX_PROMPT_BYTES: Final = 8192


class Filling(msgspec.Struct, frozen=True):
    """What the variables of a prompt stand for."""

    input: str = ""
    message: str = ""
    subject: str = ""
    title: str = ""


def checked_prompt(prompt: str) -> str:
    """The same template; SamovarError says what is wrong with it."""
    if not prompt.strip():
        raise SamovarError("prompt must say what to do: it is empty")
    if len(prompt.encode(errors="replace")) > MAX_PROMPT_BYTES:
        raise SamovarError(f"prompt must be at most {MAX_PROMPT_BYTES:,} bytes long")
    template = string.Template(prompt)
    if not template.is_valid():
        raise SamovarError("prompt holds a $ that begins no variable; write $$ for a dollar sign")
    for name in template.get_identifiers():
        if name not in Filling.__struct_fields__:
            known = ", ".join(f"${known}" for known in Filling.__struct_fields__)
            raise SamovarError(f"prompt holds ${name}, which stands for nothing; known are {known}")
    return prompt


def variables(prompt: str) -> set[str]:
    """The names of the variables in a checked template."""
    return set(string.Template(prompt).get_identifiers())


def instruction(spec: TaskSpec, filling: Filling) -> str:
    """What the model is told to do."""
    return string.Template(spec.prompt).substitute(
        input=filling.input, message=filling.message, subject=filling.subject, title=filling.title
    )


def about(path: Sequence[StoredMessage], message: StoredMessage) -> str:
    """What names a message at the end of this path in an instruction; the whole text of any other one.

    A few words are enough for what the model has just read, and all that is longer has to be processed.
    """
    if path and message.id == path[-1].id:
        return "your last reply" if message.role is Role.ASSISTANT else "my previous message"
    last_of_user = next((one for one in reversed(path) if one.role is Role.USER), None)
    if last_of_user is not None and message.id == last_of_user.id:
        return "my previous message"
    return f'this text: """\n{message.content}\n"""\n'


def side_request(
    spec: TaskSpec,
    sent: tuple[ChatMessage, ...],
    filling: Filling,
    *,
    session: str,
    chat_title: str,
    urgent: bool,
) -> Request:
    """The request for a task on a chat of which `sent` is sent; that ends in a reply."""
    assert sent
    assert sent[-1].role is Role.ASSISTANT
    return Request(
        id=uuid.uuid4().hex,
        session=session,
        messages=(*sent, ChatMessage(Role.USER, instruction(spec, filling))),
        kind=RequestKind.SIDE_TASK,
        title=chat_title,
        sampling=Sampling(temperature=spec.temperature),
        max_tokens=spec.max_tokens,
        store=False,
        urgent=urgent,
        json_schema=spec.json_schema,
        grammar=spec.grammar,
    )
