"""A cache with everything in it, for the tests of what is drawn of it."""

from samovar.core.request import Mismatch, MismatchReason, RequestStats, TierTokens
from samovar.core.snapshot import (
    FREE,
    SHARED,
    CacheSnapshot,
    CellRun,
    ContextUse,
    DiskModel,
    LastRequest,
    PromptRow,
    Tier,
    TierUse,
    Totals,
)
from tests.tui.support import NOW

MIB = 1 << 20
GIB = 1 << 30

EDITED = Mismatch(
    812,
    MismatchReason.MESSAGE_EDITED,
    before=(" reads", " the", " whole", " file", ",", " so", " that", " the", " parser", "\n"),
    cached=("returns", " a", " list", " of", " blocks", "."),
    asked=("returns", " a", " tuple", " of", " [bold]blocks", "\x1b[31m", "."),
)


def prompt(
    session: str,
    title: str,
    tokens: int,
    tier: Tier | None,
    *,
    shared: int = 660,
    hits: int = 3,
    ago_s: float = 400.0,
    pinned: bool = False,
) -> PromptRow:
    """One prompt: in its tier and in all colder ones."""
    return PromptRow(
        session=session,
        title=title,
        tokens=tokens,
        context_tokens=tokens if tier is Tier.CONTEXT else 0,
        host_tokens=tokens if tier in (Tier.CONTEXT, Tier.HOST) else 0,
        disk_tokens=tokens if tier is not None else 0,
        own_bytes=(tokens - shared) * 23040,
        shared_bytes=shared * 23040,
        tier=tier,
        hits=hits,
        last_used=NOW - ago_s,
        pinned=pinned,
    )


PROMPTS = (
    prompt("session-5", "Parser refactor", 3912, Tier.CONTEXT, hits=5, ago_s=3, pinned=True),
    prompt("session-4", "Rust lifetimes", 2048, Tier.HOST, hits=2),
    prompt("session-3", "Grant proposal", 5802, Tier.HOST, hits=1, ago_s=1400),
    prompt("session-2", "Weekly review", 1190, Tier.HOST, ago_s=3000),
    prompt("session-1", "Trip to Kyoto", 6200, Tier.DISK, hits=12, ago_s=86_000, pinned=True),
    prompt("ask-1", "notes [red]from[/] a script", 900, None, shared=0, hits=0, ago_s=200_000),
)
REQUESTS = (
    LastRequest(
        "session-5",
        "Parser refactor",
        RequestStats(
            3912,
            TierTokens(context=660, host=152),
            3100,
            212,
            queued_ms=2.0,
            restore_ms=9.0,
            prefill_ms=14_700.0,
            first_token_ms=14_730.0,
            tokens_per_second=76.3,
            mismatch=EDITED,
        ),
        NOW - 3,
    ),
    LastRequest(
        "session-1",
        "Trip to Kyoto",
        RequestStats(
            6200,
            TierTokens(context=660, host=1024, disk=4500),
            16,
            90,
            restore_ms=61.0,
            prefill_ms=98.0,
            first_token_ms=161.0,
            tokens_per_second=71.0,
            mismatch=Mismatch(6184, MismatchReason.NEW_MESSAGE, asked=("user", "\n", "And", " Nara", "?")),
        ),
        NOW - 70,
    ),
    LastRequest(
        "session-4",
        "Rust lifetimes",
        RequestStats(640, TierTokens(context=639), 1, 12, prefill_ms=13.0, first_token_ms=14.0),
        NOW - 300,
        side_task=True,
    ),
    LastRequest(
        "session-3",
        "Grant proposal",
        RequestStats(
            5802,
            TierTokens(),
            5802,
            300,
            prefill_ms=27_600.0,
            first_token_ms=27_630.0,
            mismatch=Mismatch(0, MismatchReason.NEW_CHAT),
        ),
        NOW - 4000,
    ),
)
MODELS = (
    DiskModel("SmolLM2 135M", "/models/smollm2.gguf", "3fa9c1d2", 420, 1204 * MIB, current=True),
    DiskModel("SmolLM2 135M", "/models/smollm2.gguf", "77b0aa01", 96, 270 * MIB),
    DiskModel("Gemma 3 270M", "/gone/gemma.gguf", "0d00c4fe", 312, 640 * MIB, stale=True),
)
FULL = CacheSnapshot(
    model="SmolLM2 135M",
    context=ContextUse(
        4915, 8192, 4915, (CellRun(SHARED, 660), CellRun("session-5", 4255), CellRun(FREE, 3277))
    ),
    host=TierUse(412 * MIB, 2048 * MIB, 18_752, None, 147, setting="auto"),
    disk=TierUse(2114 * MIB, 8192 * MIB, 96_000, None, 828, setting="auto"),
    prompts=PROMPTS,
    totals=Totals(
        requests=1240,
        hits=1201,
        prompt_tokens=4_100_000,
        reused_tokens=4_034_400,
        processed_tokens=65_600,
        generated_tokens=210_000,
        saved_ms=192_000.0,
        swaps_in=300,
        swaps_out=310,
        evictions=120,
        swap_in_ms=1800.0,
        swap_out_ms=310.0,
        disk_reads=66,
        disk_writes=828,
        disk_read_ms=264.0,
        disk_write_ms=7452.0,
        disk_evictions=4,
    ),
    totals_ever=Totals(
        requests=12_402,
        hits=12_000,
        prompt_tokens=41_000_000,
        reused_tokens=39_770_000,
        processed_tokens=1_230_000,
        saved_ms=7_512_000.0,
        swaps_in=3000,
        swaps_out=3100,
        evictions=1200,
        not_stored=3,
        swap_in_ms=18_000.0,
        swap_out_ms=3100.0,
        quarantined=2,
    ),
    disk_models=MODELS,
    wake_ms=880.0,
    last=REQUESTS[0],
    bytes_per_token=23040.0,
    prefill_tokens_per_second=210.0,
    decode_tokens_per_second=76.3,
)
