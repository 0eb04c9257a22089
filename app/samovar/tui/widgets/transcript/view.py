"""The chat view: one line-API widget that holds a whole chat.

Runs in the UI thread. It draws what `Layout` has rendered, scrolls, follows the end, and selects text; what
is done with messages is the transcript's. It must have neither border nor padding.
"""

import time
from collections.abc import Sequence
from typing import Final

import msgspec
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from samovar.core.safe_text import clean
from samovar.tui.theme import palette_of, rich_style
from samovar.tui.widgets.transcript.entry import Entry
from samovar.tui.widgets.transcript.layout import Anchor, Layout
from samovar.tui.widgets.transcript.page import Line, Page
from samovar.tui.widgets.transcript.selecting import key_of, select, selected_text

_SLICE_S: Final = 0.006
_SLICE_EVERY_S: Final = 0.08
_MEASURED_AROUND: Final = 200  # messages on both sides of the view whose heights are made exact when idle


class ChatScroll(ScrollView, can_focus=True):
    """The messages of one chat, to be read."""

    ALLOW_SELECT = True
    DEFAULT_CSS = """
    ChatScroll {
        background: $background;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size: 0 1;
    }
    """

    following: reactive[bool] = reactive(True, repaint=False)
    """Whether the end stays in view; off once the user scrolls up, on again at the end."""

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
        self._unfolded: set[tuple[str, int]] = set()
        self._live = False
        self._live_id = ""
        self._live_text = ""
        self._pending: list[str] = []
        self._note: str | None = None
        self._frame_timer: Timer | None = None
        self._frame_at = 0.0
        self._idle_timer: Timer | None = None
        self._unmeasured: list[int] = []
        self._placing = False
        self._theme_name = ""
        self._bar = Segment("")
        self._raised = Style()
        self._drawn: dict[int, tuple[Line, bool, Strip]] = {}
        """What was drawn on each line of the screen, and from what."""
        self._drawn_with: tuple[object, ...] = ()

    # -- what the app calls

    def load(self, entries: Sequence[Entry], *, stay: bool = False) -> None:
        """Show another chat, at its end; or with `stay` the same chat after a change, where it is."""
        self._live = False
        self._pending.clear()
        self._note = None
        if self.text_selection is not None:
            self.screen.clear_selection()
        before = self._layout_of_chat
        self._layout_of_chat = None
        self._waiting = list(entries)
        if not stay:
            self._unfolded = set()
        if stay and before is not None and not self.following:
            same = _num_same(before.entries, self._waiting)
            if self._anchor.item >= same:
                self._anchor = Anchor(same, 0, 0)
        else:
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
        """Add an entry whose text will grow; one that is the last message already goes on growing."""
        self._open()
        self._live_id = entry.id
        self._live_text = clean(entry.text)
        self._pending.clear()
        self._live = True
        if (layout := self._layout_of_chat) is None:
            if (last := _last_message(self._waiting)) is not None and self._waiting[last].id == entry.id:
                del self._waiting[last:]
            self._waiting.append(entry)
            return
        if (last := _last_message(layout.entries)) is not None and layout.entries[last].id == entry.id:
            layout.truncate(last + 1)
            layout.entries[last] = entry
        else:
            layout.append(entry)
        layout.grow(len(layout.entries) - 1, self._live_text)
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
        """Show the final entry in place of the growing one, whose id may have been another."""
        growing, self._live = self._live_id, False
        self._pending.clear()
        if _index_of(self._entries, entry.id) is None:
            self._replace(growing, entry)
        else:
            self._replace(entry.id, entry)

    def replace(self, entry: Entry) -> None:
        """Show another state of the entry that has the same id, if it is shown; one that grows goes on."""
        if not (self._live and entry.id == self._live_id):
            self._replace(entry.id, entry)

    def _replace(self, entry_id: str, entry: Entry) -> None:
        layout = self._layout_of_chat
        if (index := _index_of(self._entries, entry_id)) is None:
            return
        if layout is None:
            self._waiting[index] = entry
        else:
            layout.replace(index, entry)
            self._rearrange()

    def update_meta(self, entry_id: str, meta: tuple[tuple[str, str], ...]) -> None:
        """Change what stands behind the heading of an entry."""
        layout = self._layout_of_chat
        if (index := _index_of(self._entries, entry_id)) is None:
            return
        if layout is None:
            self._waiting[index] = msgspec.structs.replace(self._waiting[index], meta=meta)
        else:
            layout.set_meta(index, meta)
            self._refresh_from(layout.start(index), 2)

    def update_thought(self, entry_id: str, thought: str, *, thinks: bool) -> None:
        """Change what is known of the thinking of the growing entry; it shows with the next frame."""
        entries, layout = self._entries, self._layout_of_chat
        if not self._live or not entries or entries[-1].id != entry_id:
            return
        if layout is None:
            self._waiting[-1] = msgspec.structs.replace(entries[-1], thought=thought, thinks=thinks)
        else:
            layout.set_thought(len(entries) - 1, thought, thinks=thinks)

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
        return list(self._entries)

    @property
    def _entries(self) -> list[Entry]:
        return self._waiting if self._layout_of_chat is None else self._layout_of_chat.entries

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
        self._moved()

    def _restyle(self) -> None:
        if self._layout_of_chat is not None and self.app.theme != self._theme_name:
            self._turn_page()
            self._rearrange()

    def _turn_page(self) -> None:
        layout = self._layout_of_chat
        assert layout is not None
        layout.turn_page(self._new_page())
        layout.set_note(self._note)
        if self._live and layout.entries:
            layout.grow(len(layout.entries) - 1, self._live_text)

    def _new_page(self) -> Page:
        palette = palette_of(self.app.current_theme)
        self._theme_name = self.app.theme
        self._bar = Segment("▌", rich_style(palette.brass, palette.ground))
        self._raised = rich_style(None, palette.raised)
        return Page(palette, self.size.width)

    def _open(self) -> None:
        """Lay out what is waiting, once there is a size to do it for."""
        if self._layout_of_chat is None and self.is_attached and self.size.width and self.size.height:
            layout = self._layout_of_chat = Layout(self._new_page(), self._waiting)
            layout.unfolded = self._unfolded
            self._waiting = []
            layout.set_note(self._note)
            if self._live and layout.entries:
                layout.grow(len(layout.entries) - 1, self._live_text)
            self._rearrange()
            self._opened()

    def _opened(self) -> None:
        """Called when a chat has been laid out."""

    def _moved(self) -> None:
        """Called when other lines have come into view."""

    def _marked_lines(self) -> range:
        """Return the lines that have the bar at their left."""
        return range(layout.height) if self.has_focus and (layout := self._layout_of_chat) else range(0)

    def _lit_lines(self) -> range:
        """Return the lines that stand out."""
        return range(0)

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
        self._moved()

    def go_to_line(self, top: int) -> None:
        """Bring line `top` of the chat to the top of the view, as far as that goes."""
        layout = self._layout_of_chat
        assert layout is not None
        last = max(0, layout.height - self.size.height)
        self._anchor = layout.anchor_at(max(0, min(top, last)))
        self._placing = True
        self.following = top >= last
        self._placing = False
        self._rearrange()

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
            here = self._anchor.item
            around = range(max(0, here - _MEASURED_AROUND), min(len(layout.entries), here + _MEASURED_AROUND))
            self._unmeasured = list(around)
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
        """Make guessed heights around the view exact, in short slices; nothing on screen moves."""
        layout = self._layout_of_chat
        if layout is None or self._live:
            return
        until = time.perf_counter() + _SLICE_S
        while self._unmeasured and layout.measure_item(self._unmeasured[-1], until):
            self._unmeasured.pop()
            if time.perf_counter() > until:
                break
        self._place(layout.height - self.size.height if self.following else layout.line_of(self._anchor))
        if not self._unmeasured and self._idle_timer is not None:
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
        index = len(layout.entries) - 1
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
                self._moved()
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
        top = self.scroll_offset.y
        lit = self._lit_lines()
        drawn_with = (filters, lit, self._theme_name, self.size, self.text_selection)
        if drawn_with != self._drawn_with:
            self._drawn_with = drawn_with
            self._drawn.clear()
        background = self.background_colors[1]
        marked = self._marked_lines()
        blank = layout.page.blank_line
        strips = []
        for y in crop.line_range:
            line = layout.line(top + y) or blank
            is_marked = top + y in marked
            before = self._drawn.get(y)
            if before is not None and before[0] is line and before[1] is is_marked and not lit:
                strips.append(before[2])
                continue
            strip = self._strip(y, line)
            for filter in filters:
                # Not `apply_filter`: it keeps both strips.
                strip = Strip(filter.apply(list(strip), background), strip.cell_length)
            self._drawn[y] = (line, is_marked, strip)
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
        """Return a line as it is to be seen: with selection, bar, and the ground of what stands out."""
        layout = self._layout_of_chat
        assert layout is not None
        segments = line.segments
        selection = self.text_selection
        line_y = y + self.scroll_offset.y
        if selection is not None and line_y < layout.height:
            segments = select(line, selection.get_span(key_of(layout, line_y)), self._selection_style())
        if line_y in self._lit_lines():
            segments = [Segment(text, (style or Style()) + self._raised) for text, style, _ in segments]
        if line_y in self._marked_lines():
            text, style, _ = segments[0]  # the margin
            segments = [self._bar, Segment(text[1:], style), *segments[1:]]
        strip = Strip(segments, line.cells)
        if line.cells != self.size.width:
            strip = strip.adjust_cell_length(self.size.width, layout.page.styles.text)
        return strip

    def _selection_style(self) -> Style:
        return self.screen.get_component_rich_style("screen--selection")

    # -- selection

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return the selected text: without margins, and with wrapped lines joined again."""
        if (layout := self._layout_of_chat) is None or not layout.entries:
            return None
        return selected_text(layout, selection), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh(self.size.region)


def _index_of(entries: Sequence[Entry], entry_id: str) -> int | None:
    """Return the last entry of this id."""
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].id == entry_id:
            return index
    return None


def _last_message(entries: Sequence[Entry]) -> int | None:
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].is_message:
            return index
    return None


def _num_same(before: Sequence[Entry], after: Sequence[Entry]) -> int:
    """Return how many entries at the beginning are the same ones."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((n for n, (old, new) in pairs if old.id != new.id), min(len(before), len(after)))
