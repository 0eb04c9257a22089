"""How far something is that the engine does for somebody, in a glyph and a few words. Pure."""

from typing import Final

from samovar.core.figures import count, duration, rate
from samovar.core.request import RequestStats
from samovar.tui.widgets.parts import Part

WAITING: Final = "◦"
RUNNING: Final = "▸"
DONE: Final = "✓"
FAILED: Final = "×"

_EXACT_FROM_MS: Final = 59_500.0


def queue_words(position: int, estimate_ms: float | None) -> str:
    """`2nd · ~8 s` of the queue; `waiting` where no place is known."""
    if not position:
        return "waiting"
    return _ordinal(position) if estimate_ms is None else f"{_ordinal(position)} · {about(estimate_ms)}"


def about(ms: float) -> str:
    """A guessed time: `~8 s`, `~2 m 10 s`."""
    return f"~{max(1, round(ms / 1000))} s" if ms < _EXACT_FROM_MS else f"~{duration(ms)}"


def tokens(number: int) -> str:
    """`1 token`, `3,888 tokens`."""
    return f"{count(number)} token{'' if number == 1 else 's'}"


def to_process(stats: RequestStats) -> int:
    """Prompt tokens that are processed for a request, or will be."""
    return stats.processed_tokens or max(0, stats.prompt_tokens - stats.reused.total)


def cost_parts(stats: RequestStats, read: int | None = None) -> list[Part]:
    """`76 tok/s · 3,888 reused, 24 processed`, as far as it is known; `read` are the tokens processed so far
    of a prompt that is still being read.
    """
    parts: list[Part] = []
    if stats.tokens_per_second:
        parts.append((f"{rate(stats.tokens_per_second)} tok/s", "$faint"))
    if stats.prompt_tokens:
        parts += [(" · ", "$faint")] if parts else []
        if stats.reused.total:
            parts += [(f"{count(stats.reused.total)} reused", "$green"), (", ", "$faint")]
        so_far = "" if read is None else f"{count(read)} of "
        parts.append((f"{so_far}{count(to_process(stats))} processed", "$faint"))
    return parts


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
