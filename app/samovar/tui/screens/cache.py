"""The cache on a screen of its own: every prompt, the last requests and what they cost, models, totals.

Shows what `Conversations` knows and turns keys into commands of the cache. Owns no figure. Where there is
room all parts stand beside one another, else one at a time.
"""

import time
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Static

from samovar.chats import cache_words, changes
from samovar.chats.cache_desk import Limit
from samovar.chats.conversation import Conversations
from samovar.chats.host_state import HostPhase
from samovar.core.figures import count
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot, PromptRow, Tier, TierUse
from samovar.core.units import format_size
from samovar.tui.rows import prompt_colors
from samovar.tui.screens.help import GLYPH_KEYS, HelpGroup, HelpScreen, group_of
from samovar.tui.screens.question import Question
from samovar.tui.theme import palette_of
from samovar.tui.widgets import totals_text
from samovar.tui.widgets.limit_field import LimitField
from samovar.tui.widgets.parts import Part
from samovar.tui.widgets.prompt_table import PromptList, PromptTable
from samovar.tui.widgets.request_table import RequestTable
from samovar.tui.widgets.running_text import MAX_ROWS, running_lines
from samovar.tui.widgets.tiers import Tiers

NOTICE_S: Final = 8.0
AGES_EVERY_S: Final = 20.0
SPLIT_FROM: Final = (120, 40)  # columns and rows from which all parts fit beside one another
_TIERS_WIDE_FROM: Final = 110
_NOW_WIDTH: Final = 76
_PARTS: Final = ("prompts", "requests", "figures")
_PART_NAMES: Final = {"prompts": "1 prompts", "requests": "2 last requests", "figures": "3 models and totals"}
_PROMPT_KEYS: Final = "p pin · e evict · E everywhere · f fetch · s sort · enter opens"
_REQUEST_KEYS: Final = "↑ ↓ go through the requests · tab next part"
_FIGURE_KEYS: Final = "x prune what is gone · tab next part"
_KEYS: Final = (
    "r RAM limit · d disk limit · c clear RAM · C disk · v verify · esc back",
    "r RAM · d disk limit · c C clear · v verify · esc back",
    "f1 help · esc back",
)
_VERIFYING: Final = "verifying the files on disk"
_LABELS: Final = {
    Limit.RAM: ("RAM limit", "auto, 2GiB, unlimited or off · + - step"),
    Limit.TOKENS: ("token limit", "a number, unlimited or off"),
    Limit.DISK: ("disk limit", "auto, 8GiB or off · + - step"),
}


class CacheScreen(Screen[None]):
    """Everything about the cache. The app hands it each `Change` while it is there."""

    AUTO_FOCUS = "#prompt-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "limit('ram')", "change the RAM limit", id="cache.ram"),
        Binding("t", "limit('tokens')", "change the token limit", id="cache.tokens"),
        Binding("d", "limit('disk')", "change the disk limit", id="cache.disk"),
        Binding("c", "clear('host')", "clear RAM (asks first)", id="cache.clear_ram"),
        Binding("C", "clear('disk')", "clear the disk (asks first)", id="cache.clear_disk"),
        Binding("v", "verify", "verify all files on disk", id="cache.verify"),
        Binding("x", "prune", "delete the blocks of models that are gone (asks first)", id="cache.prune"),
        Binding("tab", "next_part(1)", "the next part", id="cache.next"),
        Binding("shift+tab", "next_part(-1)", "the part before", show=False),
        Binding(
            "1",
            "part('prompts')",
            "prompts, last requests, models and totals",
            key_display="1 2 3",
            id="cache.part",
        ),
        Binding("2", "part('requests')", show=False),
        Binding("3", "part('figures')", show=False),
        Binding("f1", "help", "help", show=False),
        Binding("escape,f5,q", "leave", "back to the chat", id="cache.leave"),
    ]

    def __init__(self, conversations: Conversations, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._conversations = conversations
        self._clock = clock
        self._tiers = Tiers(id="tiers")
        self._prompts = PromptTable(id="prompts", classes="part")
        self._requests = RequestTable(id="requests", classes="part")
        self._figures = VerticalScroll(id="figures", classes="part")
        self._field = LimitField(id="limit-field")
        self._part = "prompts"
        self._notice = Content("")
        self._verifying = (0, 0)
        self._notice_timer: Timer | None = None

    @staticmethod
    def help_group() -> HelpGroup:
        """The keys of this screen."""
        return group_of("THE CACHE · f5 goes there, esc back", [*PromptList.BINDINGS, *CacheScreen.BINDINGS])

    def compose(self) -> ComposeResult:
        yield Static("", id="cache-title")
        yield self._tiers
        yield Static("", id="now")
        yield Static("", id="parts")
        with Horizontal(id="cache-body"):
            with Vertical(id="left"):
                yield self._prompts
                with self._figures:
                    yield Static("", id="models")
                    yield Static("", id="totals")
            yield self._requests
        yield Static("", id="cache-notice")
        yield self._field
        yield Static("", id="cache-keys")

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())
        self.set_interval(AGES_EVERY_S, self._draw)
        self._ask_for_requests()
        self.action_part("prompts")

    def on_resize(self, event: events.Resize) -> None:
        width, height = event.size
        is_split = width >= SPLIT_FROM[0] and height >= SPLIT_FROM[1]
        self.set_class(is_split, "-split")
        self._requests.set_class(is_split, "-roomy")
        self._tiers.set_class(width >= _TIERS_WIDE_FROM and height >= SPLIT_FROM[1], "-wide")
        self.call_after_refresh(self._draw)

    # Changes

    def apply(self, change: changes.Change) -> None:
        """Show what has happened."""
        if not self.is_mounted:
            return
        match change:
            case changes.CacheDrawn(snapshot):
                if snapshot.last is not None and snapshot.last != self._requests.newest:
                    self._ask_for_requests()
                self._draw()
            case changes.RequestsTold(requests):
                self._requests.set_requests(requests)
                self._draw()
            case changes.VerifyMoved(done, total):
                self._verifying = (done, total)
                if self._notice.plain == _VERIFYING:
                    self._notice = Content("")
                self._draw_foot()
            case changes.Noticed(text, is_error):
                self._say(text, "$red" if is_error else "$secondary")
            case changes.LimitRefused(command, text, error):
                self._say(error, "$red")
                self._ask_limit(Limit(command), text)
            case changes.HostChanged():
                self._verifying = (0, 0)  # what it was at ended with it
                if self._conversations.host.phase is HostPhase.READY:
                    self._ask_for_requests()
                self._draw()
            case changes.ChatsChanged():
                self._draw()
            case _:
                pass

    def _ask_for_requests(self) -> None:
        if self._conversations.host.phase is HostPhase.READY:
            self._conversations.cache.ask_for_requests()

    def _say(self, text: str, color: str) -> None:
        """Show one line for some seconds."""
        self._notice = Content.assemble((clean(text), color))
        if self._notice_timer is not None:
            self._notice_timer.stop()
        self._notice_timer = self.set_timer(NOTICE_S, self._end_notice)
        self._draw_foot()

    def _end_notice(self) -> None:
        self._notice = Content("")
        self._draw_foot()

    # Drawing

    def _draw(self) -> None:
        snapshot = self._conversations.snapshot
        colors = prompt_colors(snapshot, palette_of(self.app.current_theme))
        self._set("#cache-title", self._title(snapshot))
        self._tiers.set_snapshot(snapshot, colors)
        self._draw_now(snapshot, colors)
        self._prompts.set_prompts(snapshot.prompts, colors, self._clock())
        self._requests.draw(colors, self._clock())
        width = max(20, self._figures.scrollable_content_region.width)
        models = totals_text.model_lines(snapshot.disk_models, width)
        self._set("#models", models)
        totals = totals_text.total_lines(snapshot.totals, snapshot.totals_ever, width)
        self._set("#totals", totals)
        self._set("#parts", self._part_line())
        self._draw_foot()

    def _draw_now(self, snapshot: CacheSnapshot, colors: Mapping[str, str]) -> None:
        """Who runs and who waits; where it is tight, the first of them alone."""
        width = min(_NOW_WIDTH, max(20, self.size.width - 4))
        now = running_lines(snapshot, colors, width, MAX_ROWS if self.has_class("-split") else 1)
        self.query_one("#now").display = bool(now.plain)
        self._set("#now", now)

    def _title(self, snapshot: CacheSnapshot) -> Content:
        parts: list[Part] = [("cache", "bold $brass")]
        facts = [" ".join(clean(snapshot.model).split())] if snapshot.model else []
        if self._conversations.host.doing:
            facts.append(self._conversations.host.doing)
        elif asleep := cache_words.asleep(snapshot):
            facts.append(asleep)
        if snapshot.bytes_per_token:
            facts.append(f"{format_size(snapshot.bytes_per_token)} a token")
        return Content.assemble(*parts, ("   " + " · ".join(facts), "$secondary"))

    def _part_line(self) -> Content:
        parts: list[Part] = []
        for part in _PARTS:
            parts += [(_PART_NAMES[part], "$brass" if part == self._part else "$secondary"), ("    ", "")]
        return Content.assemble(*parts)

    def _draw_foot(self) -> None:
        width = self.size.width - 4
        done, total = self._verifying
        notice = self._notice
        if total:
            progress = Content.assemble((f"verifying {count(done)} of {count(total)} files", "$brass"))
            notice = Content.assemble(notice, "  " if notice.plain else "", progress)
        keys = {"prompts": _PROMPT_KEYS, "requests": _REQUEST_KEYS, "figures": _FIGURE_KEYS}[self._part]
        general = next((text for text in _KEYS if len(text) <= width), "")
        if self._field.display:
            keys, general = "enter sets it · esc leaves it as it is", ""
        lines = [Content.assemble((keys, "$faint")), Content.assemble((general, "$faint"))]
        self._set("#cache-notice", notice)
        text = Content("\n").join(line.truncate(width, ellipsis=True) for line in lines)
        self._set("#cache-keys", text)

    def _set(self, selector: str, content: Content) -> None:
        """Update one text, if it is another one."""
        static = self.query_one(selector, Static)
        if not (isinstance(static.content, Content) and static.content.is_same(content)):
            static.update(content)

    # Parts

    def action_part(self, part: str) -> None:
        """Go to one part; where not all fit, it is the one shown."""
        self._part = part
        for name in _PARTS:
            self.set_class(name == part, f"-see-{name}")
        goals = {"prompts": self._prompts.list, "requests": self._requests.list, "figures": self._figures}
        goals[part].focus()
        self.call_after_refresh(self._draw)

    def action_next_part(self, step: int) -> None:
        self.action_part(_PARTS[(_PARTS.index(self._part) + step) % len(_PARTS)])

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """A click may go to another part than the keys did."""
        part = {"prompt-list": "prompts", "request-list": "requests", "figures": "figures"}.get(
            event.widget.id or ""
        )
        if part is not None and part != self._part:
            self.action_part(part)

    def action_leave(self) -> None:
        self.dismiss()

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen([CacheScreen.help_group(), GLYPH_KEYS]))

    # Deeds

    @property
    def _row(self) -> PromptRow | None:
        """The prompt under the cursor; None where there is none, or no host to do anything with it."""
        return self._conversations.cache.row(self._prompts.list.cursor) if self._has_host() else None

    def _has_host(self) -> bool:
        """Whether a host is there to do something; says so if not."""
        host = self._conversations.host
        if host.phase in (HostPhase.STOPPED, HostPhase.FAILED):
            self._say(host.doing, "$red" if host.phase is HostPhase.FAILED else "$secondary")
            return False
        return True

    def action_pin(self) -> None:
        if (row := self._row) is not None:
            self._conversations.cache.pin(row.session, pinned=not row.pinned)

    def action_evict(self) -> None:
        if (row := self._row) is None:
            return
        if not row.context_tokens and not row.host_tokens:
            self._say(f"{cache_words.quoted(row.title)} is neither in the context nor in RAM", "$secondary")
            return
        self._conversations.cache.evict(row.session)

    def action_evict_everywhere(self) -> None:
        if (row := self._row) is None:
            return
        session = row.session
        title = cache_words.quoted(row.title)
        self._ask(
            f"Evict {title} everywhere? Its {count(row.tokens)} tokens will be processed again.",
            lambda: self._conversations.cache.evict(session, everywhere=True),
        )

    def action_fetch(self) -> None:
        if (row := self._row) is None:
            return
        title = cache_words.quoted(row.title)
        if self._conversations.cache.prefetch(row.session):
            self._say(f"{title} comes from disk to RAM", "$secondary")
        else:
            self._say(f"{title} has nothing on disk to fetch", "$secondary")

    def action_sort(self) -> None:
        self._prompts.sort_by_next()
        self._draw()

    def action_open(self) -> None:
        session = self._prompts.list.cursor
        if session not in self._conversations.chats:
            self._say("this prompt is of no chat here: a script or a side task asked it", "$secondary")
            return
        self.dismiss()
        if session != self._conversations.shown.id:
            self._conversations.show(session)

    def action_clear(self, tier_name: str) -> None:
        if not self._has_host():
            return
        tier = Tier(tier_name)
        use = self._use(tier)
        name = cache_words.TIER_NAMES[tier]
        if use.off or not use.blocks:
            self._say(
                f"there is nothing in {name} to clear" if not use.off else f"{name} is off", "$secondary"
            )
            return
        cost = (
            "What is on disk comes back from there." if tier is Tier.HOST else "What is in RAM stays there."
        )
        self._ask(
            f"Clear {format_size(use.bytes)} in {count(use.blocks)} blocks from {name}? Pinned and used ones"
            f" stay. {cost}",
            lambda: self._conversations.cache.clear(tier),
        )

    def action_verify(self) -> None:
        if not self._has_host():
            return
        if self._conversations.snapshot.disk.off:
            self._say("disk is off: there is nothing to verify", "$secondary")
            return
        self._say(_VERIFYING, "$brass")
        self._conversations.cache.verify()

    def action_prune(self) -> None:
        if not self._has_host():
            return
        stale = [model for model in self._conversations.snapshot.disk_models if model.stale]
        if not stale:
            self._say("nothing to prune: every model on disk can still be used", "$secondary")
            return
        num_blocks, num_bytes = sum(model.blocks for model in stale), sum(model.bytes for model in stale)
        names = ", ".join(dict.fromkeys(cache_words.quoted(model.name) for model in stale))
        self._ask(
            f"Delete {count(num_blocks)} blocks ({format_size(num_bytes)}) of {names}? The model is gone or"
            " has changed, so they can never be used again.",
            self._conversations.cache.prune,
        )

    def _ask(self, text: str, deed: Callable[[], None]) -> None:
        """Do it if the user says yes."""

        def answered(said_yes: bool | None) -> None:
            if said_yes:
                deed()

        self.app.push_screen(Question(text), answered)

    def _use(self, tier: Tier) -> TierUse:
        snapshot = self._conversations.snapshot
        return snapshot.disk if tier is Tier.DISK else snapshot.host

    # Limits

    def action_limit(self, name: str) -> None:
        """Let the user change a limit."""
        snapshot = self._conversations.snapshot
        limit = Limit(name)
        if limit is Limit.TOKENS:
            tokens = snapshot.host.limit_tokens
            self._ask_limit(limit, "unlimited" if tokens is None else str(tokens))
        else:
            use = snapshot.disk if limit is Limit.DISK else snapshot.host
            self._ask_limit(limit, use.setting or ("off" if use.off else ""))

    def _ask_limit(self, limit: Limit, text: str) -> None:
        use = self._use(Tier.DISK if limit is Limit.DISK else Tier.HOST)
        label, hint = _LABELS[limit]
        self._field.ask(limit.value, label, text, hint, use.limit_bytes or use.bytes)
        self._draw_foot()

    @on(LimitField.Chosen)
    def _chosen(self, event: LimitField.Chosen) -> None:
        self._conversations.cache.set_limit(Limit(event.limit), event.text)

    @on(LimitField.Closed)
    def _limit_closed(self) -> None:
        self.action_part(self._part)
