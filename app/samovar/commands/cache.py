"""`samovar cache list|verify|prune|clear|pin|unpin|evict|log`: on a running engine, else on the disk alone.

Runs in one event loop. A running engine is asked, since it owns its cache; where none runs, what concerns the
disk is done by `maintain`, and the rest is one clear sentence.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from samovar.chats import cache_words
from samovar.commands.maintain import MODULE, R, ignore, maintain
from samovar.commands.status import TITLE_CELLS, title_cells
from samovar.commands.visit import Visit, visit_any
from samovar.core.commands import (
    ClearTier,
    Command,
    Describe,
    Evict,
    ListRequests,
    Pin,
    PruneDisk,
    VerifyDisk,
)
from samovar.core.errors import SamovarError
from samovar.core.events import (
    CacheChanged,
    CommandRefused,
    DiskPruned,
    DiskVerified,
    HostFailed,
    RequestsListed,
    TierCleared,
    VerifyProgressed,
)
from samovar.core.figures import age, clock_time, count, duration
from samovar.core.maintenance import Action, Cleared, DiskList, Job, Pruned, Verified
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot, DiskModel, LastRequest, PromptRow, Tier
from samovar.core.units import format_size

NO_ENGINE: Final = "No engine is running, so nothing is in the context or in RAM. `samovar` starts one."


@dataclass(frozen=True, slots=True)
class Place:
    """Where the cache is: the running hosts, the preferred one among them, and the folder on disk.

    `find` gives the id of the chat that a user names, None if the store has none. `maintainer` is what
    Python runs to look after the disk where no host runs.
    """

    run_dir: Path
    socket_name: str
    cache_dir: Path
    disk_limit: str
    find: Callable[[str], str | None] = lambda name: None
    maintainer: Sequence[str] = MODULE

    async def maintain(
        self, action: Action, result: type[R], progress: Callable[[int, int], None] = ignore
    ) -> R:
        """Do a job on the disk without a host."""
        return await maintain(
            Job(str(self.cache_dir), self.disk_limit, action), result, progress, self.maintainer
        )


async def list_cache(place: Place, *, as_json: bool) -> int:
    """Print every prompt that is cached, and whose blocks lie on disk."""
    async with visit_any(place.run_dir, place.socket_name) as host:
        snapshot = None if host is None else await _snapshot(host)
    report = _live_list(snapshot) if snapshot is not None else await _disk_list(place)
    if as_json:
        _print_json(report)
    else:
        print("\n".join(_list_lines(report)))
    return _told(report["problem"])


async def verify(place: Place, *, as_json: bool) -> int:
    """Hash all files on disk again; returns 1 if one was bad."""
    show = _progress if sys.stderr.isatty() and not as_json else ignore
    async with visit_any(place.run_dir, place.socket_name) as host:
        if host is not None:
            found = await _verify_live(host, show)
    if host is None:
        found = await place.maintain("verify", Verified, show)
    if show is _progress:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if as_json:
        _print_json(msgspec.to_builtins(found))
    else:
        print(cache_words.verified(DiskVerified(found.files, found.bytes, found.bad, found.orphans)))
    return max(_told(found.problem), int(found.bad > 0))


async def prune(place: Place, *, as_json: bool) -> int:
    """Delete the blocks of models that are gone or have changed."""
    async with visit_any(place.run_dir, place.socket_name) as host:
        if host is not None:
            answer = await host.ask(PruneDisk(), DiskPruned)
            found = Pruned(answer.models, answer.num_blocks, answer.num_bytes)
    if host is None:
        found = await place.maintain("prune", Pruned)
    if as_json:
        _print_json(msgspec.to_builtins(found))
    else:
        print(cache_words.pruned(DiskPruned(found.models, found.num_blocks, found.num_bytes)))
    return _told(found.problem)


async def clear(place: Place, *, ram: bool, disk: bool, as_json: bool) -> int:
    """Empty RAM, the disk, or both, but for what is pinned or in use."""
    if not (ram or disk):
        raise SamovarError("Say what to clear: --ram, --disk or both.")
    found: dict[Tier, Cleared] = {}
    async with visit_any(place.run_dir, place.socket_name) as host:
        if host is not None:
            for tier in [Tier.HOST] * ram + [Tier.DISK] * disk:
                host.send(ClearTier(tier))
                while (answer := await host.hear(TierCleared)).tier is not tier:
                    pass
                found[tier] = Cleared(answer.num_blocks, answer.num_bytes, answer.kept_blocks)
    if host is None:
        if ram:
            raise SamovarError(NO_ENGINE)
        found[Tier.DISK] = await place.maintain("clear", Cleared)
    if as_json:
        names = {Tier.HOST: "ram", Tier.DISK: "disk"}
        _print_json({names[tier]: msgspec.to_builtins(result) for tier, result in found.items()})
    else:
        for tier, done in found.items():
            print(cache_words.cleared(TierCleared(tier, done.num_blocks, done.num_bytes, done.kept_blocks)))
    return max(_told(result.problem) for result in found.values())


async def pin(place: Place, name: str, *, pinned: bool, as_json: bool) -> int:
    """Keep a chat's blocks whatever else comes, or stop doing so."""
    async with visit_any(place.run_dir, place.socket_name) as host:
        before = await _find(host, place, name)
        assert host is not None
        row = await _row_after(host, Pin(before.session, pinned), before.session)
    title = cache_words.quoted(before.title)
    if row is None or row.pinned is not pinned:
        raise SamovarError(f"The engine has not {'pinned' if pinned else 'unpinned'} {title}. Try again.")
    if as_json:
        _print_json(msgspec.to_builtins(row))
    else:
        print(f"{title} is pinned: it stays." if pinned else f"{title} is not pinned any more.")
    return 0


async def evict(place: Place, name: str, *, everywhere: bool, as_json: bool) -> int:
    """Take what only this chat has out of context and RAM; `everywhere`: off the disk too."""
    async with visit_any(place.run_dir, place.socket_name) as host:
        before = await _find(host, place, name)
        assert host is not None
        row = await _row_after(host, Evict(before.session, everywhere), before.session)
    if as_json:
        left = {
            "session": before.session,
            "title": before.title,
            "everywhere": everywhere,
            "context_tokens": row.context_tokens if row is not None else 0,
            "host_tokens": row.host_tokens if row is not None else 0,
            "disk_tokens": row.disk_tokens if row is not None else 0,
        }
        _print_json(left)
    else:
        gone = msgspec.structs.replace(before, context_tokens=0, host_tokens=0, disk_tokens=0)
        print(cache_words.evicted(row or gone, "the cache" if everywhere else "context and RAM"))
    return 0


async def log(place: Place, *, as_json: bool) -> int:
    """Print what the last requests cost, and why."""
    async with visit_any(place.run_dir, place.socket_name) as host:
        if host is None:
            raise SamovarError(f"{NO_ENGINE} The costs of earlier requests went with the last engine.")
        requests = (await host.ask(ListRequests(), RequestsListed)).requests
    if as_json:
        _print_json({"requests": msgspec.to_builtins(requests)})
    else:
        print("\n".join(_log_lines(requests, time.time())))
    return 0


# ---- asking a host


async def _snapshot(host: Visit) -> CacheSnapshot:
    return (await host.ask(Describe(), CacheChanged)).snapshot


async def _find(host: Visit | None, place: Place, name: str) -> PromptRow:
    """The cached prompt that the user names: by id, by the store's chat of that name, by title."""
    if host is None:
        raise SamovarError(NO_ENGINE)
    rows = (await _snapshot(host)).prompts
    stored = place.find(name)
    for row in rows:
        if row.session in (name, stored):
            return row
    for row in rows:
        if row.title == name:
            return row
    shown = cache_words.quoted(name)
    if stored is not None:
        raise SamovarError(f"Nothing of {shown} is cached. Ask something in it first.")
    raise SamovarError(f"There is no chat {shown}. `samovar cache list` shows what is cached.")


async def _row_after(host: Visit, command: Command, session: str) -> PromptRow | None:
    """The session's row once the host has carried out a command that has no answer of its own.

    The host works in order: when it has answered the question that follows, the command has been done.
    """
    host.send(command)
    await host.ask(ListRequests(), RequestsListed)
    return next((row for row in (await _snapshot(host)).prompts if row.session == session), None)


async def _verify_live(host: Visit, show: Callable[[int, int], None]) -> Verified:
    host.send(VerifyDisk())
    while True:
        match await host.next():
            case VerifyProgressed(done, total):
                show(done, total)
            case DiskVerified(files, num_bytes, bad, orphans, problem):
                return Verified(files, num_bytes, bad, orphans, problem)
            case CommandRefused(message) | HostFailed(message):
                raise SamovarError(message)
            case _:
                pass


# ---- what is printed


def _live_list(snapshot: CacheSnapshot) -> dict[str, Any]:
    disk = snapshot.disk
    return {
        "running": True,
        "off": disk.off,
        "bytes": disk.bytes,
        "limit_bytes": disk.limit_bytes,
        "blocks": disk.blocks,
        "quarantined": disk.quarantined,
        "problem": disk.problem,
        "models": msgspec.to_builtins(snapshot.disk_models),
        "prompts": [{**msgspec.to_builtins(row), "model": snapshot.model} for row in snapshot.prompts],
    }


async def _disk_list(place: Place) -> dict[str, Any]:
    found = await place.maintain("list", DiskList)
    prompts = []
    for prompt in found.prompts:
        row = PromptRow(
            session=prompt.session,
            title=prompt.title,
            tokens=prompt.tokens,
            context_tokens=0,
            host_tokens=0,
            disk_tokens=prompt.disk_tokens,
            own_bytes=0,
            shared_bytes=0,
            tier=Tier.DISK if prompt.disk_tokens >= prompt.tokens else None,
            hits=0,
            last_used=prompt.last_used,
            pinned=prompt.pinned,
        )
        prompts.append({**msgspec.to_builtins(row), "model": prompt.model})
    return {
        "running": False,
        "off": place.disk_limit == "off",
        "bytes": found.bytes,
        "limit_bytes": found.limit_bytes,
        "blocks": found.blocks,
        "quarantined": 0,
        "problem": found.problem,
        "models": msgspec.to_builtins(found.models),
        "prompts": prompts,
    }


def _list_lines(report: dict[str, Any]) -> list[str]:
    rows = msgspec.convert(report["prompts"], list[PromptRow])
    models = msgspec.convert(report["models"], list[DiskModel])
    limit = "" if report["limit_bytes"] is None else f" of {format_size(report['limit_bytes'])}"
    use = f"{format_size(report['bytes'])}{limit} in {cache_words.blocks(report['blocks'])}"
    lines = ["disk   off" if report["off"] else f"disk   {use}"]
    if not report["running"]:
        lines.append("RAM    no engine is running")
    if aside := cache_words.set_aside(report["quarantined"]):
        lines.append(f"       {aside}")
    now = time.time()
    live = f"{'context':>8} {'RAM':>8} " if report["running"] else ""
    lines += ["", f"{'prompt':<{TITLE_CELLS}} {'tokens':>8} {live}{'disk':>8} {'used':>5}  where"]
    for row in rows:
        live = f"{count(row.context_tokens):>8} {count(row.host_tokens):>8} " if report["running"] else ""
        last_used = age(max(0.0, now - row.last_used))
        lines.append(
            f"{title_cells(row.title)} {count(row.tokens):>8} {live}{count(row.disk_tokens):>8} "
            f"{last_used:>5}  {cache_words.where(row)}"
        )
    if not rows:
        lines[-1] = "nothing is cached"
    if models:
        lines += ["", f"{'model on disk':<{TITLE_CELLS}} {'blocks':>8} {'size':>10}"]
    for model in models:
        state = "  in use" if model.current else "  gone or changed: prune deletes it" if model.stale else ""
        name = title_cells(f"{model.name} {model.fingerprint[:6]}")
        lines.append(f"{name} {count(model.blocks):>8} {format_size(model.bytes):>10}{state}")
    return lines


def _log_lines(requests: tuple[LastRequest, ...], now: float) -> list[str]:
    if not requests:
        return ["no request yet"]
    heads = ("prompt", "context", "RAM", "disk", "processed", "restored", "read")
    table = [f"{'when':<13} {'chat':<{TITLE_CELLS}} {' '.join(f'{head:>9}' for head in heads)}"]
    for last in requests:
        stats = last.stats
        figures = [
            *(count(n) for n in (stats.prompt_tokens, stats.reused.context, stats.reused.host)),
            *(count(n) for n in (stats.reused.disk, stats.processed_tokens)),
            *(duration(ms) for ms in (stats.restore_ms, stats.prefill_ms)),
        ]
        at = clock_time(last.finished_at, now) if last.finished_at else "–"
        table.append(f"{at:<13} {title_cells(last.title)} {' '.join(f'{figure:>9}' for figure in figures)}")
        if (mismatch := stats.mismatch) is not None:
            table.append(f"{'':<13} first difference at {count(mismatch.pos)}: {mismatch.reason.value}")
            sides = (("before", mismatch.before), ("cached", mismatch.cached), ("asked", mismatch.asked))
            if mismatch.cached:
                table += [f"{'':<13}   {name:<6}  {_one_line(''.join(tokens))}" for name, tokens in sides]
    return table


def _one_line(text: str) -> str:
    return clean(text).replace("\n", "↵").replace("\t", "⇥")


def _print_json(report: dict[str, Any]) -> None:
    print(msgspec.json.encode(report).decode())


def _told(problem: str) -> int:
    """Say what is wrong, if anything is; the exit code."""
    if problem:
        print(f"samovar: {clean(problem)}", file=sys.stderr)
    return 1 if problem else 0


def _progress(done: int, total: int) -> None:
    print(f"\r\x1b[Kverified {count(done)} of {count(total)} files", end="", file=sys.stderr, flush=True)
