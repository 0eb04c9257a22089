"""What a front end without a screen and the test that kills it tell each other: one line of JSON each.

The worker says `Began` before it asks for a change, and `Did` once the change is one that a user may rely on.
"""

import random
from typing import Any, Final

import msgspec

from samovar.core.chat import Role
from samovar.core.request import RequestStats
from samovar.core.settings import EngineSettings
from samovar.sessions.settings import SessionSettings
from samovar.sessions.transfer.document import ChatDocument, MessageDocument
from samovar.sessions.values import MessageState

WORDS: Final = (
    "samovar tea snow lantern river Kyoto naïve Straße über кот чай 雪が降る שלום مرحبا 🫖 α→β it's 3.14 "
    "def_f(x) <b> [link](http://x) \x1b[31m a\u202eb `code`"
).split(" ")


class Trip(msgspec.Struct, frozen=True):
    """The worker kills itself (SIGKILL) before its `count`th statement, or right after its `count`th commit.

    `while_loading`: counted from the start on, else from `go` on.
    """

    what: str  # statement | commit
    count: int
    while_loading: bool = False


class Job(msgspec.Struct, frozen=True):
    """What a worker gets as its first line. `engine` is None for replies that are made up."""

    file: str
    folder: str
    seed: int
    index: int
    num_workers: int
    trip: Trip | None = None
    fond_of: str = ""
    engine: EngineSettings | None = None


class Shown(msgspec.Struct, frozen=True):
    """A message as the front end has it."""

    id: int
    session: str
    parent: int | None
    role: Role
    content: str
    state: MessageState


class ChatShown(msgspec.Struct, frozen=True):
    """A chat as the front end has it. `messages` are its path with the place of a running reply.

    They are None where the front end has not read them.
    """

    id: str
    title: str
    system_prompt: str
    settings: SessionSettings
    tags: tuple[str, ...]
    is_favourite: bool
    is_archived: bool
    messages: tuple[Shown, ...] | None


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The front end has started: recovered, listed, drafts by chat taken over."""

    drafts: dict[str, str]


class Began(msgspec.Struct, frozen=True, tag=True):
    """A change is asked for. It sets `fields`, or adds `num_added` messages, or is about one `message`.

    Until it is `Did` or `Declined`, all of it may be there or nothing.
    """

    op: str
    session: str
    fields: dict[str, Any] = {}
    num_added: int = 0
    message: int | None = None


class Did(msgspec.Struct, frozen=True, tag=True):
    """The change that began last is done; `chat` is as the front end has it now, None once it is deleted."""

    op: str
    session: str
    chat: ChatShown | None = None


class Declined(msgspec.Struct, frozen=True, tag=True):
    """The change that began last was refused with a sentence; nothing of it is there."""

    op: str
    session: str
    reason: str


class Asked(msgspec.Struct, frozen=True, tag=True):
    """A reply is being written in this place; `begins` is what it goes on from."""

    message: int
    begins: str


class Grew(msgspec.Struct, frozen=True, tag=True):
    message: int
    text: str


class Saved(msgspec.Struct, frozen=True, tag=True):
    """So many characters of a running reply have been read back from the store."""

    message: int
    num_characters: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A reply has ended and is stored."""

    message: Shown


class Typing(msgspec.Struct, frozen=True, tag=True):
    """This stands in a composer, with what an edit has put aside, and is being kept as a draft."""

    session: str
    texts: tuple[str, ...]


class Kept(msgspec.Struct, frozen=True, tag=True):
    """The draft is kept."""

    session: str
    texts: tuple[str, ...]


class Importing(msgspec.Struct, frozen=True, tag=True):
    key: str


class Imported(msgspec.Struct, frozen=True, tag=True):
    """All chats of an import are there."""

    key: str


class HostFound(msgspec.Struct, frozen=True, tag=True):
    """The engine host of this front end is ready."""

    pid: int


class HostGone(msgspec.Struct, frozen=True, tag=True):
    """The front end has noticed that its host is lost."""


class Closed(msgspec.Struct, frozen=True, tag=True):
    """The front end has ended in good order."""


class Broken(msgspec.Struct, frozen=True, tag=True):
    """The worker itself has seen something that must not be."""

    what: str


Line = (
    Loaded
    | Began
    | Did
    | Declined
    | Asked
    | Grew
    | Saved
    | Ended
    | Typing
    | Kept
    | Importing
    | Imported
    | HostFound
    | HostGone
    | Closed
    | Broken
)


def text_of(dice: random.Random, num_words: int) -> str:
    """A text that no other message has, of many scripts."""
    words = [dice.choice(WORDS) for _ in range(num_words)]
    return " ".join([f"w{dice.getrandbits(48):012x}", *words])


def documents_of(key: str) -> list[ChatDocument]:
    """The chats of an import, the same ones for the same key; `source` is the key."""
    dice = random.Random(key)
    return [_document(dice, key, number) for number in range(dice.randrange(10, 50))]


def _document(dice: random.Random, key: str, number: int) -> ChatDocument:
    messages: list[MessageDocument] = []
    for pair in range(dice.randrange(1, 8)):
        question, answer = 2 * pair + 1, 2 * pair + 2
        parent = dice.choice([None, *range(2, question, 2)]) if dice.random() < 0.2 else question - 1 or None
        messages += [
            MessageDocument(id=question, parent=parent, role=Role.USER, content=text_of(dice, 20)),
            MessageDocument(
                id=answer,
                parent=question,
                role=Role.ASSISTANT,
                content=text_of(dice, 40),
                model="imported",
                tokens=(1, 2, 3),
                stats=RequestStats(prompt_tokens=7),
            ),
        ]
    return ChatDocument(
        title=f"imported {number}", tags=("imported",), messages=tuple(messages), source=key, created_at=1e9
    )
