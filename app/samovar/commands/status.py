"""`samovar cache status` and `samovar stop`: they join a running engine host and never start one."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Final

import msgspec

from samovar.client.local import LocalClient, running_hosts
from samovar.core.commands import Describe, StopHost
from samovar.core.events import CacheChanged, HostFailed
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot, PromptRow, Tier, TierUse
from samovar.core.units import format_size

STOP_PATIENCE_S: Final = 15.0


async def print_status(run_dir: Path, socket_name: str, *, as_json: bool) -> int:
    """Print the state of the host with these settings, or else of any one that runs."""
    sockets = sorted(running_hosts(run_dir), key=lambda path: path.name != socket_name)
    snapshot = None
    for socket in sockets:
        snapshot = await _describe(socket)
        if snapshot is not None:
            break
    if as_json:
        print(
            msgspec.json.encode(_as_json(snapshot or CacheSnapshot(), running=snapshot is not None)).decode()
        )
    elif snapshot is None:
        print("No engine is running: nothing is in the context or in RAM. `samovar` starts one.")
    else:
        print("\n".join(_as_text(snapshot)))
    return 0


async def stop_hosts(run_dir: Path) -> int:
    """Ask every running host to end, and wait until it has."""
    count = 0
    for socket in running_hosts(run_dir):
        client = LocalClient(socket, "stop")
        await client.start()
        client.send(StopHost())
        async with asyncio.timeout(STOP_PATIENCE_S):
            async for event in client.events():
                if isinstance(event, HostFailed):
                    break
        count += client.host_pid is not None
        await client.close()
    print(
        {0: "No engine was running.", 1: "The engine has stopped."}.get(
            count, f"{count} engines have stopped."
        )
    )
    return 0


async def _describe(socket: Path) -> CacheSnapshot | None:
    client = LocalClient(socket, "status")
    await client.start()
    client.send(Describe())
    try:
        async for event in client.events():
            match event:
                case CacheChanged(snapshot):
                    return snapshot
                case HostFailed():
                    return None
                case _:
                    pass
    finally:
        with contextlib.suppress(ConnectionError):
            await client.close()
    return None


def _as_json(snapshot: CacheSnapshot, *, running: bool) -> dict[str, Any]:
    totals = snapshot.totals
    return {
        "running": running,
        "model": snapshot.model,
        "context": {
            "used_tokens": snapshot.context.used_tokens,
            "total_tokens": snapshot.context.total_tokens,
            "highest_cell": snapshot.context.highest_cell,
        },
        "host": _tier(snapshot.host),
        "disk": _tier(snapshot.disk),
        "reused_tokens_total": totals.reused_tokens,
        "processed_tokens_total": totals.processed_tokens,
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
    }


def _as_text(snapshot: CacheSnapshot) -> list[str]:
    context, totals = snapshot.context, snapshot.totals
    lines = [
        f"model     {snapshot.model}",
        f"context   {context.used_tokens:,} of {context.total_tokens:,} tokens",
        f"RAM       {_tier_text(snapshot.host)}",
        f"disk      {_tier_text(snapshot.disk)}",
        f"reused    {totals.reused_tokens:,} of {totals.prompt_tokens:,} prompt tokens "
        f"({100 * totals.hit_ratio:.1f} %)",
        f"saved     {totals.saved_ms / 1000:,.1f} s in {totals.requests:,} requests",
    ]
    if totals.evictions or totals.not_stored:
        lines.append(f"evicted   {totals.evictions:,} blocks; {totals.not_stored:,} did not fit")
    if snapshot.prompts:
        lines += ["", f"{'prompt':<32} {'tokens':>8} {'own':>10} {'shared':>10} {'hits':>5}  where"]
    for row in snapshot.prompts:
        title = clean(row.title) or "untitled"
        lines.append(
            f"{title[:32]:<32} {row.tokens:>8,} {format_size(row.own_bytes):>10} "
            f"{format_size(row.shared_bytes):>10} {row.hits:>5}  {_where(row)}"
        )
    return lines


def _where(row: PromptRow) -> str:
    match row.tier:
        case Tier.CONTEXT:
            return "context"
        case Tier.HOST:
            return "RAM"
        case Tier.DISK:
            return "disk"
        case None:
            return "partly" if row.host_tokens or row.context_tokens else "nowhere"


def _tier_text(tier: TierUse) -> str:
    if tier.off:
        return "off"
    limit = "no limit" if tier.limit_bytes is None else f"of {format_size(tier.limit_bytes)}"
    return f"{format_size(tier.bytes)} {limit}, {tier.tokens:,} tokens in {tier.blocks:,} blocks"
