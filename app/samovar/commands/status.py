"""`samovar cache status` and `samovar stop`: they visit a running engine host and never start one."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.cells import cell_len, set_cell_size

from samovar.chats import cache_words
from samovar.client.local import running_hosts
from samovar.commands.visit import visit
from samovar.core.commands import Describe, StopHost
from samovar.core.errors import SamovarError
from samovar.core.events import CacheChanged, HostFailed, LoadingProgressed, Welcome
from samovar.core.maintenance import DiskList
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot, TierUse
from samovar.core.units import format_size

TITLE_CELLS: Final = 32
STOP_PATIENCE_S: Final = 20.0


async def print_status(
    run_dir: Path,
    socket_name: str,
    *,
    as_json: bool,
    look_at_disk: Callable[[], Awaitable[DiskList]] | None = None,
) -> int:
    """Print the state of the host with these settings, or else of any one that runs.

    Where none does, `look_at_disk` tells what lies there.
    """
    sockets = sorted(running_hosts(run_dir), key=lambda path: path.name != socket_name)
    found: CacheSnapshot | LoadingProgressed | None = None
    for socket in sockets:
        found = await _describe(socket)
        if found is not None:
            break
    disk = await look_at_disk() if found is None and look_at_disk is not None else None
    if as_json:
        snapshot = found if isinstance(found, CacheSnapshot) else CacheSnapshot()
        if disk is not None:
            use = TierUse(
                disk.bytes,
                disk.limit_bytes,
                blocks=disk.blocks,
                off=disk.limit_bytes == 0,
                problem=disk.problem,
            )
            snapshot = CacheSnapshot(disk=use)
        loading = isinstance(found, LoadingProgressed)
        report = _as_json(snapshot, running=found is not None, loading=loading)
        print(msgspec.json.encode(report).decode())
        return 0
    match found:
        case None:
            print("No engine is running: nothing is in the context or in RAM. `samovar` starts one.")
            if disk is not None:
                blocks = "1 block" if disk.blocks == 1 else f"{disk.blocks:,} blocks"
                print(disk.problem or f"On disk: {format_size(disk.bytes)} in {blocks} (samovar cache list).")
        case LoadingProgressed(stage, fraction):
            print(f"The engine is still loading ({stage}, {100 * fraction:.0f} %): nothing is cached yet.")
        case CacheSnapshot():
            print("\n".join(_as_text(found)))
    return 0


async def stop_hosts(run_dir: Path) -> int:
    """Ask every running host to end, and wait until it has. SamovarError, at the end, if one does not."""
    count = 0
    hung: list[SamovarError] = []
    for socket in running_hosts(run_dir):
        try:
            count += await _stop(socket)
        except SamovarError as error:
            hung.append(error)
    if hung:
        raise SamovarError(" ".join(map(str, hung)))
    print(
        {0: "No engine was running.", 1: "The engine has stopped."}.get(
            count, f"{count} engines have stopped."
        )
    )
    return 0


async def _stop(socket: Path) -> bool:
    """End one host and wait until it has ended; False if the socket is stale."""
    async with visit(socket, STOP_PATIENCE_S) as host:
        if not await host.is_welcome():
            return False
        host.send(StopHost())
        while not isinstance(await host.next(), HostFailed):
            pass
    return True


async def _describe(socket: Path) -> CacheSnapshot | LoadingProgressed | None:
    """What a host has cached, or how far it is with loading; None if there is none or it has failed."""
    is_waking = False  # then it answers as soon as the model is loaded again
    async with visit(socket) as host:
        host.send(Describe())
        while True:
            match await host.next():
                case Welcome(model=model):
                    is_waking = model is not None
                case CacheChanged(snapshot):
                    return snapshot
                case LoadingProgressed() as progress if not is_waking:
                    return progress
                case HostFailed():
                    return None
                case _:
                    pass


def _as_json(snapshot: CacheSnapshot, *, running: bool, loading: bool) -> dict[str, Any]:
    totals = snapshot.totals
    return {
        "running": running,
        "loading": loading,
        "model": snapshot.model,
        "asleep": snapshot.asleep,
        "wake_ms": snapshot.wake_ms,
        "context": {
            "used_tokens": snapshot.context.used_tokens,
            "total_tokens": snapshot.context.total_tokens,
            "highest_cell": snapshot.context.highest_cell,
        },
        "host": _tier(snapshot.host),
        "disk": _tier(snapshot.disk),
        "reused_tokens_total": totals.reused_tokens,
        "processed_tokens_total": totals.processed_tokens,
        "ahead_tokens_total": totals.ahead_tokens,
        "ahead_used_tokens_total": totals.ahead_used_tokens,
        "ahead_wasted_tokens_total": totals.ahead_wasted_tokens,
        "num_running": snapshot.num_running,
        "num_waiting": snapshot.num_waiting,
        "requests": totals.requests,
        "hit_ratio": totals.hit_ratio,
        "saved_ms": totals.saved_ms,
        "evictions": totals.evictions,
        "not_stored": totals.not_stored,
        "prompts": snapshot.prompts,
    }


def _tier(tier: TierUse) -> dict[str, Any]:
    return {
        "bytes": tier.bytes,
        "limit_bytes": tier.limit_bytes,
        "tokens": tier.tokens,
        "limit_tokens": tier.limit_tokens,
        "blocks": tier.blocks,
        "off": tier.off,
        "lowered_from": tier.lowered_from,
        "queued_bytes": tier.queued_bytes,
        "quarantined": tier.quarantined,
        "problem": tier.problem,
    }


def _as_text(snapshot: CacheSnapshot) -> list[str]:
    context, totals = snapshot.context, snapshot.totals
    requests = "request" if totals.requests == 1 else "requests"
    lines = [
        f"model     {clean(snapshot.model)}",
        f"context   {cache_words.asleep(snapshot)}"
        if snapshot.asleep
        else f"context   {context.used_tokens:,} of {context.total_tokens:,} tokens",
        *_tier_lines("RAM", snapshot.host),
        *_tier_lines("disk", snapshot.disk),
        f"reused    {totals.reused_tokens:,} of {totals.prompt_tokens:,} prompt tokens "
        f"({100 * totals.hit_ratio:.1f} %)",
        f"saved     {totals.saved_ms / 1000:,.1f} s in {totals.requests:,} {requests}",
    ]
    if totals.ahead_tokens:
        lines.append(
            f"ahead     {totals.ahead_tokens:,} tokens processed before they were asked for: "
            f"{totals.ahead_used_tokens:,} used, {totals.ahead_wasted_tokens:,} wasted"
        )
    if snapshot.num_running or snapshot.num_waiting:
        lines.append(f"requests  {snapshot.num_running:,} running, {snapshot.num_waiting:,} waiting")
    if totals.evictions or totals.not_stored:
        lines.append(f"evicted   {cache_words.blocks(totals.evictions)}; {totals.not_stored:,} did not fit")
    if snapshot.prompts:
        lines += [
            "",
            f"{'prompt':<{TITLE_CELLS}} {'tokens':>8} {'own':>10} {'shared':>10} {'hits':>5}  where",
        ]
    for row in snapshot.prompts:
        lines.append(
            f"{title_cells(row.title)} {row.tokens:>8,} {format_size(row.own_bytes):>10} "
            f"{format_size(row.shared_bytes):>10} {row.hits:>5}  {cache_words.where(row)}"
        )
    return lines


def _tier_lines(name: str, tier: TierUse) -> list[str]:
    """What a tier holds, and what is wrong with it."""
    notes = (cache_words.lowered(tier), cache_words.set_aside(tier.quarantined), clean(tier.problem))
    return [f"{name:<9} {_tier_text(tier)}", *(f"{'':<9} {note}" for note in notes if note)]


def _tier_text(tier: TierUse) -> str:
    if tier.off:
        return "off"
    limit = "no limit" if tier.limit_bytes is None else f"of {format_size(tier.limit_bytes)}"
    return f"{format_size(tier.bytes)} {limit}, {tier.tokens:,} tokens in {cache_words.blocks(tier.blocks)}"


def title_cells(title: str) -> str:
    """A title in exactly `TITLE_CELLS` cells."""
    text = " ".join(clean(title).split()) or "untitled"
    if cell_len(text) > TITLE_CELLS:
        text = set_cell_size(text, TITLE_CELLS - 1) + "…"
    return set_cell_size(text, TITLE_CELLS)
