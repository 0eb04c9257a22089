"""One of the answers that are compared: what is special about it, how far it is, and its text as it comes.

Takes an `Answer` and draws it; knows no client.
"""

import time
from typing import Final

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from samovar.chats.compare import Answer, AnswerPhase
from samovar.core.figures import count
from samovar.core.safe_text import clean
from samovar.sessions.values import MessageState
from samovar.tui import progress
from samovar.tui.widgets.parts import Part, two_sides
from samovar.tui.widgets.transcript import Entry
from samovar.tui.widgets.transcript.view import ChatScroll

FIGURES_EVERY_S: Final = 0.4


def state_part(answer: Answer) -> Part:
    """How far an answer is: `▸ 120 tokens`, `✓ 212 tokens`, `◦ 2nd · ~8 s`."""
    if answer.message is not None:
        size = progress.tokens(answer.message.stats.generated_tokens if answer.message.stats else 0)
        match answer.message.state:
            case MessageState.FAILED:
                return f"{progress.FAILED} failed", "$red"
            case MessageState.STOPPED:
                return f"{progress.FAILED} stopped · {size}", "$brass"
            case MessageState.CUT:
                return f"{progress.DONE} cut · {size}", "$brass"
            case _:
                return f"{progress.DONE} {size}", "$green"
    if answer.stopping:
        return f"{progress.RUNNING} stopping", "$brass"
    match answer.phase:
        case AnswerPhase.WAITING:
            words = progress.queue_words(answer.position, answer.estimate_ms)
            return f"{progress.WAITING} {words}", "$faint"
        case AnswerPhase.READING:
            total = count(answer.to_read_tokens)
            done = count(answer.read_tokens).rjust(len(total))
            return f"{progress.RUNNING} reading {done} of {total}", "$brass"
        case _:
            return f"{progress.RUNNING} {progress.tokens(answer.num_tokens)}", "$brass"


class AnswerColumn(Vertical):
    """Answer number `place`, from 0 on."""

    class Picked(Message):
        """The user clicked on the heading of an answer."""

        def __init__(self, place: int) -> None:
            super().__init__()
            self.place = place

    def __init__(self, answer: Answer, place: int, *, max_fps: float) -> None:
        super().__init__(classes="answer")
        self.place = place
        self.text = ChatScroll(max_fps=max_fps, id=f"answer-{place}")
        self._answer = answer
        self._is_current = False
        self._drawn_at = 0.0
        self._is_ended = False

    def compose(self) -> ComposeResult:
        yield Static("", classes="answer-head")
        yield self.text

    def on_mount(self) -> None:
        self.text.begin_stream(Entry("answer", "answer", self._answer.text, state="streaming"))
        self.draw()

    def on_resize(self) -> None:
        self.draw()

    def set_current(self, is_current: bool) -> None:
        """Whether the keys work on this one."""
        self._is_current = is_current
        self.draw()

    def grow(self, text: str) -> None:
        """Show more of the answer; its figures follow a few times a second."""
        self.text.stream(text)
        if time.monotonic() - self._drawn_at >= FIGURES_EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Show how far it is, and its end once it has ended."""
        if not self.is_mounted:
            return
        self._drawn_at = time.monotonic()
        answer, width = self._answer, max(20, self.size.width - 4)
        number = (f"{self.place + 1}  ", "$brass" if self._is_current else "$faint")
        label = (clean(answer.variant.label), "bold $text" if self._is_current else "$secondary")
        first = two_sides([number, label], [state_part(answer)], width)
        read = answer.read_tokens if answer.phase is AnswerPhase.READING else None
        cost = Content.assemble("   ", *(progress.cost_parts(answer.stats, read) if answer.stats else ()))
        head = Content("\n").join(line.truncate(width, ellipsis=True) for line in (first, cost))
        static = self.query_one(".answer-head", Static)
        if not (isinstance(static.content, Content) and static.content.is_same(head)):
            static.update(head)
        if answer.thinks and not self._is_ended:
            self.text.update_thought("answer", "", thinks=True)
        if answer.message is not None and not self._is_ended:
            self._is_ended = True
            self.text.end_stream(Entry("answer", "answer", answer.text, thinks=answer.thinks))
            if note := answer.message.error:
                self.text.append(Entry("note", "note", note))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.post_message(self.Picked(self.place))
