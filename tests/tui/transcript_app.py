"""What the tests of the transcript share: an app with nothing else in it, and a conversation."""

import time
from collections.abc import Callable

from textual import on
from textual.app import App, ComposeResult
from textual.message import Message
from textual.pilot import Pilot

from samovar.tui.theme import load_themes
from samovar.tui.widgets.transcript import Entry, Transcript
from samovar.tui.widgets.transcript.messages import Wanted

REPLY = """Some **bold** words, `code` and a [link](https://example.org).

1. first
2. second, with a much longer text that has to be wrapped at the right place, doesn't it

```python
def f(x: int) -> int:
    return x  # same
```

| a | b |
|---|--:|
| 1 | 2 |

> quoted

done 日本語 👩\u200d👩\u200d👧 e\u0301 עברית
"""


class Chat(App[None]):
    CSS = "Transcript { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[tuple[str, str]] = []
        self.wanted: list[tuple[str, ...]] = []
        """The messages posted for entries: the name, the entry's id, what else it says."""

    def compose(self) -> ComposeResult:
        yield Transcript()

    def on_mount(self) -> None:
        for theme in load_themes()[0].values():
            self.register_theme(theme)
        self.theme = "samovar"

    def on_transcript_copy_requested(self, event: Transcript.CopyRequested) -> None:
        self.copied.append((event.text, event.what))

    @on(Transcript.EditWanted)
    @on(Transcript.AgainWanted)
    @on(Transcript.ForkWanted)
    @on(Transcript.DeleteWanted)
    @on(Transcript.ContinueWanted)
    @on(Transcript.SiblingWanted)
    def note_wanted(self, event: Message) -> None:
        assert isinstance(event, Wanted)
        step = (str(event.step),) if isinstance(event, Transcript.SiblingWanted) else ()
        self.wanted.append((type(event).__name__.removesuffix("Wanted").lower(), event.entry_id, *step))

    def on_transcript_undo_wanted(self) -> None:
        self.wanted.append(("undo",))

    @property
    def chat(self) -> Transcript:
        return self.query_one(Transcript)


def conversation(num_entries: int) -> list[Entry]:
    return [
        Entry(str(n), "assistant" if n % 2 else "user", REPLY if n % 2 else f"question {n}?\nwith two lines")
        for n in range(num_entries)
    ]


def shown(chat: Transcript) -> list[str]:
    return [chat.render_line(y).text.rstrip() for y in range(chat.size.height)]


def bare(line: str) -> str:
    """A shown line without the bar at its left and the keys at its right."""
    return line[1:].split("  e edit")[0].split("  g go on")[0].rstrip()


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await pilot.pause(0.01)
