"""The chat view: one line-API widget that holds a whole chat.

Runs in the UI thread. It draws what `Layout` has rendered, scrolls, follows the end, and selects. It takes
entries and posts `CopyRequested`; it knows nothing of clients or stores. It must have neither border nor
padding.
"""

import time
from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Offset, Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from samovar.core.safe_text import clean
from samovar.tui.theme import palette_of, rich_style
from samovar.tui.widgets.transcript import actions
from samovar.tui.widgets.transcript.entry import Entry
from samovar.tui.widgets.transcript.layout import Anchor, Layout
from samovar.tui.widgets.transcript.page import Line, Page
from samovar.tui.widgets.transcript.selecting import key_of, select, selected_text, word_at

_SLICE_S = 0.006
_SLICE_EVERY_S = 0.08


class Transcript(ScrollView, can_focus=True):
    """The messages of one chat."""

    ALLOW_SELECT = True
    DEFAULT_CSS = """
    Transcript {
        background: $background;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size: 0 1;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "copy_code", "copy code", id="transcript.copy_code"),
        Binding("y", "copy_reply", "copy reply", id="transcript.copy_reply"),
        Binding(
            "left_square_bracket", "jump(-1)", "previous message", key_display="[", id="transcript.previous"
        ),
        Binding("right_square_bracket", "jump(1)", "next message", key_display="]", id="transcript.next"),
    ]

    LETTERS: ClassVar = frozenset(binding.key for binding in BINDINGS if isinstance(binding, Binding))
    """The printable keys that mean something here."""

    following: reactive[bool] = reactive(True, repaint=False)
    """Whether the end stays in view; off once the user scrolls up, on again at the end."""

    class CopyRequested(Message):
        """The user wants `text` on the clipboard; `what` says what it is."""

        def __init__(self, transcript: "Transcript", text: str, what: str) -> None:
            super().__init__()
            self.transcript = transcript
            self.text = text
            self.what = what

        @property
        def control(self) -> "Transcript":
            return self.transcript

    class NothingToCopy(Message):
        """The user wants to copy `what`, and there is none."""

        def __init__(self, what: str) -> None:
            super().__init__()
            self.what = what

    def __init__(
        self,
        *,
        max_fps: float = 15,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.max_fps = max_fps
        self._layout_of_chat: Layout | None = None
        self._waiting: list[Entry] = []
        """What is to be shown once the widget has a size."""
        self._anchor = Anchor(0, 0, 0)
        self._live = False
        self._live_text = ""
        self._pending: list[str] = []
        self._note: str | None = None
        self._frame_timer: Timer | None = None
        self._frame_at = 0.0
        self._idle_timer: Timer | None = None
        self._next_unmeasured = -1
        self._placing = False
        self._theme_name = ""
        self._bar = Strip([])
        self._drawn: dict[int, tuple[Line, Strip]] = {}
        """What was drawn on each line of the screen, and from what."""
        self._drawn_with: tuple[object, ...] = ()

    # -- what the app calls

    def load(self, entries: Sequence[Entry]) -> None:
        """Show another chat, at its end."""
        self._live = False
        self._pending.clear()
        self._note = None
        if self.text_selection is not None:
            self.screen.clear_selection()
        self._waiting = list(entries)
        self._layout_of_chat = None
        self.following = True
        self._open()

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        if (layout := self._layout_of_chat) is None:
            self._waiting.append(entry)
            return
        layout.append(entry)
        self._rearrange()

    def begin_stream(self, entry: Entry) -> None:
        """Add an entry whose text will grow; one that is last already goes on growing."""
        self._open()
        self._live_text = clean(entry.text)
        self._pending.clear()
        self._live = True
        if (layout := self._layout_of_chat) is None:
            if self._waiting and self._waiting[-1].id == entry.id:
                self._waiting.pop()
            self._waiting.append(entry)
            return
        if layout.items and layout.items[-1].entry.id == entry.id:
            layout.items[-1].entry = entry
        else:
            layout.append(entry)
        layout.grow(len(layout.items) - 1, self._live_text)
        self._rearrange()

    def stream(self, text: str) -> None:
        """Add text to the growing entry; it shows with the next frame."""
        if not self._live or not text:
            return
        self._pending.append(text)
        if self._frame_timer is None:
            delay = self._frame_at + 1 / self.max_fps - time.monotonic()
            self._frame_timer = self.set_timer(max(0.001, delay), self._frame, name="transcript frame")

    def end_stream(self, entry: Entry) -> None:
        """Show the final text and meta of the growing entry."""
        self._live = False
        self._pending.clear()
        if (layout := self._layout_of_chat) is None:
            self._waiting = [*self._waiting[:-1], entry]
            return
        for index in range(len(layout.items) - 1, -1, -1):
            if layout.items[index].entry.id == entry.id:
                layout.replace(index, entry)
                break
        self._rearrange()

    def update_meta(self, entry_id: str, meta: tuple[tuple[str, str], ...]) -> None:
        """Change what stands behind the heading of an entry."""

        def changed(entry: Entry) -> Entry:
            return Entry(entry.id, entry.role, entry.text, meta, entry.state)

        if (layout := self._layout_of_chat) is None:
            self._waiting = [changed(entry) if entry.id == entry_id else entry for entry in self._waiting]
            return
        for index in range(len(layout.items) - 1, -1, -1):
            item = layout.items[index]
            if item.entry.id == entry_id:
                item.entry = changed(item.entry)
                if item.parts:
                    layout.measure_again(index, item.parts[0])
                    self._refresh_from(layout.start(index), 2)
                return

    def set_live_note(self, text: str | None) -> None:
        """Show one faint line at the end, or none."""
        self._note = text
        if (layout := self._layout_of_chat) is not None:
            had_one = bool(layout.note)
            layout.set_note(text)
            if had_one and layout.note:
                self._refresh_from(layout.height - 1, 1)
            elif had_one or layout.note:
                self._rearrange()

    @property
    def entries(self) -> list[Entry]:
        """What is shown."""
        layout = self._layout_of_chat
        return [item.entry for item in layout.items] if layout is not None else list(self._waiting)

    # -- size and theme

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self._restyle())
        self._idle_timer = self.set_interval(
            _SLICE_EVERY_S, self._measure_slice, pause=True, name="transcript idle"
        )

    def on_resize(self) -> None:
        layout = self._layout_of_chat
        if layout is None:
            self._open()
            return
        if layout.page.width != max(10, self.size.width):
            self._turn_page()
        self._rearrange()

    def _restyle(self) -> None:
        if self._layout_of_chat is not None and self.app.theme != self._theme_name:
            self._turn_page()
            self._rearrange()

    def _turn_page(self) -> None:
        layout = self._layout_of_chat
        assert layout is not None
        layout.turn_page(self._new_page())
        layout.set_note(self._note)

    def _new_page(self) -> Page:
        palette = palette_of(self.app.current_theme)
        self._theme_name = self.app.theme
        self._bar = Strip([Segment("▎", rich_style(palette.brass, palette.ground))], 1)
        return Page(palette, self.size.width)

    def _open(self) -> None:
        """Lay out what is waiting, once there is a size to do it for."""
        if self._layout_of_chat is None and self.is_attached and self.size.width and self.size.height:
            layout = self._layout_of_chat = Layout(self._new_page(), self._waiting)
            self._waiting = []
            layout.set_note(self._note)
            if self._live and layout.items:
                layout.grow(len(layout.items) - 1, self._live_text)
            self._rearrange()

    # -- scrolling

    def scroll_to(self, x: float | None = None, y: float | None = None, **options: object) -> None:
        """Scroll at once: a chat is read, not watched moving."""
        self._scroll_to(x, y, animate=False, force=bool(options.get("force")))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        layout = self._layout_of_chat
        if self._placing or layout is None or layout.page.width != max(10, self.size.width):
            return
        self.following = round(new_value) >= self.max_scroll_y
        self._anchor = layout.anchor_at(round(new_value))
        if not self.following:
            self._rearrange(repaint=False)

    def watch_following(self, following: bool) -> None:
        if following and not self._placing and self._layout_of_chat is not None:
            self._rearrange()

    def _rearrange(self, *, repaint: bool = True) -> None:
        """Make what is in view exact and put it where it belongs: the end, or the anchor at the top."""
        layout = self._layout_of_chat
        if layout is None or not self.size.height:
            return
        height = self.size.height
        if self.following:
            layout.settle_end(2 * height)
            top = max(0, layout.height - height)
            self._place(top)
            self._anchor = layout.anchor_at(top)
        else:
            layout.settle(self._anchor, height, 2 * height)
            self._place(layout.line_of(self._anchor))
        if repaint:
            self.refresh()
        if self._idle_timer is not None:
            self._next_unmeasured = len(layout.items) - 1
            self._idle_timer.resume()

    def _place(self, top: int) -> None:
        """Set size and position without a layout of the screen, and without telling the watchers."""
        layout = self._layout_of_chat
        assert layout is not None
        size = Size(self.size.width, layout.height)
        self.set_reactive(Widget.virtual_size, size)
        top = max(0, min(top, self.max_scroll_y))
        self._placing = True
        try:
            bar = self.vertical_scrollbar
            grown = abs(size.height - bar.window_virtual_size)
            if not (self._live and self.following and 50 * grown < size.height):
                # While a reply grows at the end, the bar moves less than one can see.
                bar.window_size = self.size.height
                bar.window_virtual_size = size.height
                bar.position = top
            if round(self.scroll_y) != top:
                self.set_reactive(Widget.scroll_y, top)
                self.set_reactive(Widget.scroll_target_y, top)
        finally:
            self._placing = False

    def _refresh_from(self, y: int, num_lines: int) -> None:
        """Draw some lines of the chat again, as far as they are in view."""
        first = max(0, y - self.scroll_offset.y)
        last = min(self.size.height, y + num_lines - self.scroll_offset.y)
        if first < last:
            self.refresh(Region(0, first, self.size.width, last - first))

    def _measure_slice(self) -> None:
        """Make guessed heights exact, from the end upwards, in short slices; nothing on screen moves."""
        layout = self._layout_of_chat
        if layout is None or self._live:
            return
        until = time.perf_counter() + _SLICE_S
        while self._next_unmeasured >= 0:
            if layout.measure_item(self._next_unmeasured, until):
                self._next_unmeasured -= 1
            if time.perf_counter() > until:
                break
        self._place(layout.height - self.size.height if self.following else layout.line_of(self._anchor))
        if self._next_unmeasured < 0 and self._idle_timer is not None:
            self._idle_timer.pause()

    # -- streaming

    def _frame(self) -> None:
        """Show what has arrived since the last frame: render the live blocks, draw the changed lines."""
        self._frame_timer = None
        self._frame_at = time.monotonic()
        layout = self._layout_of_chat
        if not self._live or not self._pending:
            return
        arrived = "".join(self._pending)
        self._pending.clear()
        if arrived.endswith("\r"):
            # The other half of a line end may be on its way.
            self._pending.append("\r")
            arrived = arrived[:-1]
        self._live_text += clean(arrived)
        if layout is None:
            return
        index = len(layout.items) - 1
        before = layout.height
        changed = layout.start(index) + layout.grow(index, self._live_text)
        if layout.height == before:
            self._refresh_from(changed, layout.height - changed)
        elif self.following:
            top = max(0, layout.height - self.size.height)
            moved = top != self.scroll_offset.y
            self._place(top)
            self._anchor = layout.anchor_at(top)
            if moved:
                self.refresh(self.size.region)
            else:
                self._refresh_from(changed, self.size.height)
        else:
            self._place(layout.line_of(self._anchor))
            self._refresh_from(changed, self.size.height)

    # -- drawing

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return finished lines: what a widget's styles would add is part of them already.

        Textual asks for every visible line in every frame, so a line that is the same as last time costs a
        look-up.
        """
        layout = self._layout_of_chat
        if layout is None:
            return [Strip.blank(crop.width, self.rich_style)] * crop.height
        filters = [filter for filter in self.get_line_filters() if filter.enabled]
        focused = self.has_focus
        drawn_with = (filters, focused, self._theme_name, self.size, self.text_selection)
        if drawn_with != self._drawn_with:
            self._drawn_with = drawn_with
            self._drawn.clear()
        background = self.background_colors[1]
        top = self.scroll_offset.y
        blank = layout.page.blank_line
        strips = []
        for y in crop.line_range:
            line = layout.line(top + y) or blank
            before = self._drawn.get(y)
            if before is not None and before[0] is line:
                strips.append(before[1])
                continue
            strip = self._strip(y, line)
            for filter in filters:
                strip = strip.apply_filter(filter, background)
            self._drawn[y] = (line, strip)
            strips.append(strip)
        if crop.x or crop.width < self.size.width:
            strips = [strip.crop(crop.x, crop.right) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        """Return a line with the offsets that Textual's selection asks for."""
        layout = self._layout_of_chat
        if layout is None:
            return Strip.blank(self.size.width, self.rich_style)
        line_y = y + self.scroll_offset.y
        strip = self._strip(y, layout.line(line_y) or layout.page.blank_line)
        return strip.apply_offsets(0, key_of(layout, min(line_y, max(0, layout.height - 1))))

    def _strip(self, y: int, line: Line) -> Strip:
        """Return a line as it is to be seen: with the selection, and with the bar that shows the focus."""
        layout = self._layout_of_chat
        assert layout is not None
        strip = line.strip
        selection = self.text_selection
        line_y = y + self.scroll_offset.y
        if selection is not None and line_y < layout.height:
            strip = select(line, selection.get_span(key_of(layout, line_y)), self._selection_style())
        if self.has_focus:
            strip = Strip.join([self._bar, strip.crop(1)])
        if strip.cell_length != self.size.width:
            strip = strip.adjust_cell_length(self.size.width, layout.page.styles.text)
        return strip

    def _selection_style(self) -> Style:
        return self.screen.get_component_rich_style("screen--selection")

    def on_focus(self) -> None:
        self.refresh(self.size.region)

    def on_blur(self) -> None:
        self.refresh(self.size.region)

    # -- selection

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return the selected text: without margins, and with wrapped lines joined again."""
        if (layout := self._layout_of_chat) is None or not layout.items:
            return None
        return selected_text(layout, selection), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh(self.size.region)

    def on_click(self, event: events.Click) -> None:
        """A click on the label beneath code copies it; two select a word, three the line."""
        layout = self._layout_of_chat
        event.prevent_default()
        if layout is None:
            return
        y = event.y + self.scroll_offset.y
        line = layout.line(y)
        if line is None:
            return
        if event.chain == 1:
            if (code := actions.code_of_label(layout, y)) is not None:
                self._request_copy(code)
        elif (span := word_at(line, event.x) if event.chain == 2 else (line.left, line.end)) is not None:
            key = key_of(layout, y)
            self.screen.selections = {self: Selection(Offset(span[0], key), Offset(span[1], key))}

    # -- keys

    def action_copy_code(self) -> None:
        """Copy the code block that is nearest to the bottom of the view."""
        if (layout := self._layout_of_chat) is not None:
            bottom = min(self.scroll_offset.y + self.size.height, layout.height) - 1
            if (code := actions.nearest_code(layout, bottom)) is not None:
                self._request_copy(code)
            else:
                self.post_message(self.NothingToCopy("code"))

    def action_copy_reply(self) -> None:
        """Copy the last reply."""
        replies = [entry for entry in self.entries if entry.role == "assistant"]
        if replies:
            text = self._live_text if self._live else clean(replies[-1].text)
            self._request_copy((text, "reply"))
        else:
            self.post_message(self.NothingToCopy("reply"))

    def action_jump(self, step: int) -> None:
        """Bring the next or previous message to the top."""
        if (layout := self._layout_of_chat) is not None:
            self.scroll_to(y=actions.neighbour(layout, self.scroll_offset.y, step))

    def _request_copy(self, found: actions.Found) -> None:
        self.post_message(self.CopyRequested(self, *found))
