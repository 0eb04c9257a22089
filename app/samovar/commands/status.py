"""`samovar cache status` and `samovar stop`: they join a running engine host and never start one."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import msgspec

from samovar.client.local import LocalClient, running_hosts
from samovar.core.commands import Command, Describe, StopHost
from samovar.core.errors import SamovarError
from samovar.core.events import CacheChanged, Event, HostFailed, LoadingProgressed, Welcome
from samovar.core.safe_text import clean
from samovar.core.settings import LOCK_SUFFIX
from samovar.core.snapshot import CacheSnapshot, PromptRow, Tier, TierUse
from samovar.core.units import format_size

GREETING_PATIENCE_S: Final = 5.0  # a host answers at once, also while it loads or computes
ANSWER_PATIENCE_S: Final = 30.0  # the engine looks at its commands between two steps
STOP_PATIENCE_S: Final = 20.0


async def print_status(run_dir: Path, socket_name: str, *, as_json: bool) -> int:
    """Print the state of the host with these settings, or else of any one that runs."""
    sockets = sorted(running_hosts(run_dir), key=lambda path: path.name != socket_name)
    found: CacheSnapshot | LoadingProgressed | None = None
    for socket in sockets:
        found = await _describe(socket)
        if found is not None:
            break
    if as_json:
        snapshot = found if isinstance(found, CacheSnapshot) else CacheSnapshot()
        loading = isinstance(found, LoadingProgressed)
        report = _as_json(snapshot, running=found is not None, loading=loading)
        print(msgspec.json.encode(report).decode())
        return 0
    match found:
        case None:
            print("No engine is running: nothing is in the context or in RAM. `samovar` starts one.")
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
    joined = False
    async with aclosing(_conversation(socket, StopHost(), STOP_PATIENCE_S)) as events:
        async for event in events:
            if isinstance(event, HostFailed):
                break
            joined = joined or isinstance(event, Welcome)
    return joined


async def _describe(socket: Path) -> CacheSnapshot | LoadingProgressed | None:
    """What a host has cached, or how far it is with loading; None if there is none or it has failed."""
    is_waking = False  # then it answers as soon as the model is loaded again
    async with aclosing(_conversation(socket, Describe(), ANSWER_PATIENCE_S)) as events:
        async for event in events:
            match event:
                case Welcome():
                    is_waking = event.model is not None
                case CacheChanged(snapshot):
                    return snapshot
                case LoadingProgressed() if not is_waking:
                    return event
                case HostFailed():
                    return None
                case _:
                    pass
    return None


async def _conversation(socket: Path, command: Command, patience_s: float) -> AsyncGenerator[Event, None]:
    """Join a host, give it one command, and yield what it says. SamovarError if it hangs."""
    client = LocalClient(socket, "command")
    await client.start()
    try:
        client.send(command)
        deadline = time.monotonic() + GREETING_PATIENCE_S
        events = client.events()
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    event = await anext(events)
            except (TimeoutError, StopAsyncIteration):
                raise SamovarError(_hangs(socket)) from None
            if isinstance(event, Welcome):
                deadline = time.monotonic() + patience_s
            yield event
    finally:
        await client.close()


def _hangs(socket: Path) -> str:
    """What to do about a host that does not answer."""
    try:
        pid = int(socket.with_suffix(LOCK_SUFFIX).read_text())
    except (OSError, ValueError):
        return f"The engine behind {socket} does not answer. End its process, then try again."
    return f"The engine (process {pid}) does not answer. End it with `kill -9 {pid}`, then try again."


def _as_json(snapshot: CacheSnapshot, *, running: bool, loading: bool) -> dict[str, Any]:
    totals = snapshot.totals
    return {
        "running": running,
        "loading": loading,
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
