"""What the transcript posts: what the user wants done with a message. Handlers are `on_transcript_…`."""

from typing import TYPE_CHECKING, Final

from textual.message import Message

if TYPE_CHECKING:
    from samovar.tui.widgets.transcript.view import ChatScroll


ASIDE: Final = "aside"
"""The side task that is about the whole chat, whichever message is the current one."""


class _Posted(Message):
    """A message of a transcript, by which `@on` can choose."""

    def __init__(self, transcript: "ChatScroll") -> None:
        super().__init__()
        self.transcript = transcript

    @property
    def control(self) -> "ChatScroll":
        return self.transcript


class Wanted(_Posted):
    """The user wants something done with the entry `entry_id`."""

    def __init__(self, transcript: "ChatScroll", entry_id: str) -> None:
        super().__init__(transcript)
        self.entry_id = entry_id


class EditWanted(Wanted, namespace="transcript"):
    """The user wants to write a message anew."""


class AgainWanted(Wanted, namespace="transcript"):
    """The user wants another reply in place of this one, or to this message of theirs."""


class ForkWanted(Wanted, namespace="transcript"):
    """The user wants a chat of its own that goes as far as this message."""


class DeleteWanted(Wanted, namespace="transcript"):
    """The user wants to be rid of this message and all below it."""


class ContinueWanted(Wanted, namespace="transcript"):
    """The user wants a reply that was cut to go on."""


class SiblingWanted(Wanted, namespace="transcript"):
    """The user wants to see the next version of this message (`step` 1) or the one before it (-1)."""

    def __init__(self, transcript: "ChatScroll", entry_id: str, step: int) -> None:
        super().__init__(transcript, entry_id)
        self.step = step


class TaskWanted(Wanted, namespace="transcript"):
    """The user wants the side task of this name to be run on this message."""

    def __init__(self, transcript: "ChatScroll", entry_id: str, task: str) -> None:
        super().__init__(transcript, entry_id)
        self.task = task


class UndoWanted(_Posted, namespace="transcript"):
    """The user wants back what was deleted last; the chat may be empty by now. `entry_id` is the current
    entry, if there is one: on the mark of a summary, that is undone.
    """

    def __init__(self, transcript: "ChatScroll", entry_id: str | None) -> None:
        super().__init__(transcript)
        self.entry_id = entry_id


class CopyRequested(_Posted, namespace="transcript"):
    """The user wants `text` on the clipboard; `what` says what it is."""

    def __init__(self, transcript: "ChatScroll", text: str, what: str) -> None:
        super().__init__(transcript)
        self.text = text
        self.what = what


class NothingToCopy(_Posted, namespace="transcript"):
    """The user wants to copy `what`, and there is none."""

    def __init__(self, transcript: "ChatScroll", what: str) -> None:
        super().__init__(transcript)
        self.what = what
