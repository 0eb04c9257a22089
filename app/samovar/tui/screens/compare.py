"""Answers to the same message, side by side where there is room, else one at a time. Keeps what is chosen.

The app hands it each `Change` while it is there. Owns no answer: those are `Comparisons`'.
"""

from collections.abc import Coroutine
from typing import ClassVar, Final

from rich.cells import cell_len
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from samovar.chats import changes
from samovar.chats.compare import Comparison, Comparisons
from samovar.core.reasoning import answer_of
from samovar.core.safe_text import clean
from samovar.tui.screens.help import HelpGroup, HelpScreen, group_of
from samovar.tui.widgets.answer_column import AnswerColumn, state_part
from samovar.tui.widgets.parts import Part, fitted

COLUMN_FROM: Final = 50  # cells that an answer needs to be read beside another one
_PREFIX_NOTE: Final = "other system prompts: only what is common is processed once"
_OVER: Final = "the comparison is over: this chat has been deleted"


class CompareScreen(Screen[str]):
    """Ends with what the user should know of what was kept or discarded."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "keep(0)", "keep that answer as the reply", key_display="1 … 6", id="compare.keep"),
        *(Binding(str(number + 1), f"keep({number})", show=False) for number in range(1, 6)),
        Binding("a", "keep_all", "keep all, as versions of the reply", id="compare.keep_all"),
        Binding("c", "copy", "copy the answer", id="compare.copy"),
        Binding("tab,right", "step(1)", "the next answer", id="compare.next", priority=True),
        Binding("shift+tab,left", "step(-1)", "the answer before", show=False, priority=True),
        Binding("f1", "help", "help", show=False),
        Binding("escape", "leave", "stop what is written; then, twice: discard all", id="compare.leave"),
    ]

    def __init__(self, comparisons: Comparisons, comparison: Comparison, *, max_fps: float) -> None:
        super().__init__()
        self._comparisons = comparisons
        self._comparison = comparison
        self._columns = [
            AnswerColumn(answer, place, max_fps=max_fps) for place, answer in enumerate(comparison.answers)
        ]
        self._current = 0
        self._first = 0  # of the columns that are shown
        self._is_deciding = False  # what ends the comparison is our own doing
        self._is_leaving = False  # the user has been told that answers will be lost
        self._notice: Part = (_note(comparison), "$faint")

    @staticmethod
    def help_group() -> HelpGroup:
        """The keys of this screen."""
        return group_of("COMPARE · /compare goes there", CompareScreen.BINDINGS)

    def compose(self) -> ComposeResult:
        yield Static("", id="compare-title")
        yield Static("", id="compare-tabs")
        with Horizontal(id="compare-body"):
            yield from self._columns
        yield Static("", id="compare-notice")
        yield Static("", id="compare-keys")

    def on_mount(self) -> None:
        self._go_to(0)

    def on_resize(self) -> None:
        self._arrange()

    # Changes

    def apply(self, change: changes.Change) -> None:
        """Show what has happened."""
        session = self._comparison.chat.id
        match change:
            case changes.ComparisonGrew(session=grown, place=place, text=text) if grown == session:
                self._columns[place].grow(text)
            case changes.ComparisonChanged(session=changed) if changed == session:
                if self._comparisons.of(session) is not self._comparison:
                    if not self._is_deciding:
                        self.dismiss(_OVER)
                    return
                for column in self._columns:
                    column.draw()
                self._draw()
            case changes.Noticed(text, is_error):
                self._say(text, "$red" if is_error else "$secondary")
            case _:
                pass

    # Drawing

    @property
    def _num_shown(self) -> int:
        return max(1, min(len(self._columns), self.size.width // COLUMN_FROM))

    def _arrange(self) -> None:
        """Show as many answers as there is room for, the current one among them."""
        number = self._num_shown
        last = max(0, len(self._columns) - number)
        self._first = min(max(self._first, self._current - number + 1, 0), self._current, last)
        for column in self._columns:
            column.display = self._first <= column.place < self._first + number
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        width = self.size.width - 4
        asked = " ".join(clean(self._comparison.asked.content).split())
        title = Content.assemble(("compare", "bold $brass"), (f"   {asked}", "$secondary"))
        self.query_one("#compare-title", Static).update(title.truncate(width, ellipsis=True))
        tabs = self.query_one("#compare-tabs", Static)
        tabs.display = self._num_shown < len(self._columns)
        if tabs.display:
            tabs.update(self._tabs(width))
        self.query_one("#compare-notice", Static).update(
            Content.assemble(self._notice).truncate(width, ellipsis=True)
        )
        self.query_one("#compare-keys", Static).update(Content.assemble((self._keys(width), "$faint")))

    def _tabs(self, width: int) -> Content:
        """Every answer with its glyph, the current one in brass; labels where all fit."""
        answers = self._comparison.answers
        room = width // len(answers) - 6
        labels = [clean(answer.variant.label) for answer in answers]
        if max(map(cell_len, labels)) > room:  # what they have in common tells nothing
            words = [label.partition(" ") for label in labels]
            if len({first for first, _, _ in words}) == 1 and all(rest for _, _, rest in words):
                labels = [rest for _, _, rest in words]
        parts: list[Part] = []
        for place, answer in enumerate(answers):
            glyph, color = state_part(answer)
            name = fitted(labels[place], room).rstrip() if room >= 3 else ""
            parts += [
                (f"{place + 1} ", "$brass" if place == self._current else "$faint"),
                (f"{name} ".lstrip(), "$brass" if place == self._current else "$secondary"),
                (f"{glyph[0]}   ", color),
            ]
        return Content.assemble(*parts)

    def _keys(self, width: int) -> str:
        numbers = f"1 … {len(self._columns)} keep one"
        leave = "esc stops" if self._comparison.is_running else "esc discards all"
        long = f"{numbers} · a keep all · c copy · tab next answer · ↑ ↓ scroll · {leave}"
        short = f"{numbers} · a keep all · c copy · tab next · {leave}"
        brief = f"1 … {len(self._columns)} keep · a all · c copy · tab · {leave}"
        briefest = f"1 … {len(self._columns)} keep · {leave}"
        return next((text for text in (long, short, brief, briefest) if len(text) <= width), leave)

    def _say(self, text: str, color: str = "$secondary") -> None:
        self._notice = (clean(text), color)
        self._draw()

    # Keys and mouse

    def _go_to(self, place: int) -> None:
        self._current, self._is_leaving = place, False
        self._arrange()
        for column in self._columns:
            column.set_current(column.place == place)
        self._columns[place].text.focus()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """A click may go to another answer than the keys did."""
        place = next((column.place for column in self._columns if column.text is event.widget), self._current)
        if place != self._current:
            self._go_to(place)

    @on(AnswerColumn.Picked)
    def _picked(self, event: AnswerColumn.Picked) -> None:
        self._go_to(event.place)

    def action_step(self, step: int) -> None:
        self._go_to((self._current + step) % len(self._columns))

    def action_copy(self) -> None:
        """Copy the current answer, as far as it has come."""
        answer = self._comparison.answers[self._current]
        if text := answer_of(answer.text, thinks=answer.thinks):
            self.app.copy_to_clipboard(text)
            self._say(f"copied: answer {self._current + 1}")
        else:
            self._say("there is nothing to copy yet")

    def action_keep(self, place: int) -> None:
        if place < len(self._columns) and not self._is_deciding:
            self.run_worker(self._keep(place), group="keep")

    async def _keep(self, place: int) -> None:
        chat, variant = self._comparison.chat, self._comparison.answers[place].variant
        if await self._is_refused(self._comparisons.keep(self._comparison, place)):
            return
        is_other = variant.system_prompt != chat.system_prompt
        own = "; the chat keeps its own system prompt" if is_other else ""
        self.dismiss(f"kept: {clean(variant.label)}{own}")

    def action_keep_all(self) -> None:
        if not self._is_deciding:
            self.run_worker(self._keep_all(), group="keep")

    async def _keep_all(self) -> None:
        if not await self._is_refused(self._comparisons.keep_all(self._comparison, self._current)):
            self.dismiss("all are versions of the reply: left and right on it go through them")

    async def _is_refused(self, keeping: Coroutine[None, None, str]) -> bool:
        """Whether it cannot be kept; says why."""
        self._is_deciding = True
        refusal = await keeping
        if refusal:
            self._is_deciding = False
            self._say(refusal, "$red")
        return bool(refusal)

    def action_leave(self) -> None:
        """Stop what is still written; with nothing running, discard all, if need be at a second press."""
        if self._is_deciding:
            return
        if self._comparisons.stop(self._comparison):
            self._say("stopped: what has arrived can still be kept · esc twice discards all")
            return
        if not self._is_leaving and any(answer.text for answer in self._comparison.answers):
            self._is_leaving = True
            self._say("esc again discards all answers; a number keeps one", "$brass")
            return
        self._is_deciding = True
        self._comparisons.discard(self._comparison)
        self.dismiss("")

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen([CompareScreen.help_group()]))


def _note(comparison: Comparison) -> str:
    """What is to be known of it from the start on."""
    left_out = comparison.num_left_out
    return " · ".join(
        part
        for part in (
            f"the context is full: the first {left_out:,} messages are not sent" if left_out else "",
            "" if comparison.wish.shares_all else _PREFIX_NOTE,
        )
        if part
    )
