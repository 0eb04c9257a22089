"""What the cache has done, as sentences that every front end shows. Pure."""

from typing import Final

from samovar.core.events import DiskPruned, DiskVerified, SwapFinished, TierCleared
from samovar.core.figures import count, duration
from samovar.core.request import Mismatch, MismatchReason
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot, PromptRow, Tier, TierUse
from samovar.core.units import format_size

TIER_NAMES: Final = {Tier.CONTEXT: "the context", Tier.HOST: "RAM", Tier.DISK: "disk"}


def swapped(swap: SwapFinished) -> str:
    """`3,041 tokens back in the context in 25 ms, from disk`."""
    text = f"{count(swap.num_tokens)} tokens back in the context in {duration(swap.ms)}"
    if swap.disk_tokens >= swap.num_tokens:
        return f"{text}, from disk"
    return f"{text}, {count(swap.disk_tokens)} of them from disk" if swap.disk_tokens else text


def cleared(result: TierCleared) -> str:
    """`cleared 88 MiB from RAM: 120 blocks`, and what had to stay."""
    name = TIER_NAMES[result.tier]
    text = f"cleared {format_size(result.num_bytes)} from {name}: {blocks(result.num_blocks)}"
    if not result.num_blocks:
        text = (
            f"there was nothing to clear from {name}"
            if not result.kept_blocks
            else f"nothing was cleared from {name}"
        )
    if result.kept_blocks:
        stay = "stays" if result.kept_blocks == 1 else "stay"
        text += f" · {blocks(result.kept_blocks)} {stay}: pinned or in use"
    return text


def verified(result: DiskVerified) -> str:
    """`1,240 files, 1.2 GiB: all are as they were written`, or what was not."""
    files = f"{count(result.files)} {'file' if result.files == 1 else 'files'}"
    if result.bad:
        text = f"{count(result.bad)} of {files} bad and set aside: their tokens will be processed again"
    elif result.files:
        text = f"{files}, {format_size(result.bytes)}: all are as they were written"
    else:
        text = "there are no files to verify"
    if result.orphans:
        text += f" · {count(result.orphans)} without a counterpart removed"
    return f"{text} · {clean(result.problem)}" if result.problem else text


def pruned(result: DiskPruned) -> str:
    """`pruned 1.2 GiB from disk: 312 blocks of SmolLM2 135M`."""
    if not result.models and not result.num_blocks:
        return "nothing to prune: every model on disk can still be used"
    names = ", ".join(" ".join(clean(name).split()) for name in result.models)
    text = f"pruned {format_size(result.num_bytes)} from disk: {blocks(result.num_blocks)}"
    return f"{text} of {names}" if names else text


def asleep(snapshot: CacheSnapshot) -> str:
    """`asleep, waking costs about 0.9 s`; empty while the model is loaded."""
    if not snapshot.asleep:
        return ""
    cost = "the next message wakes it"
    if snapshot.wake_ms is not None:
        cost = f"waking costs about {duration(snapshot.wake_ms)}"
    return f"asleep, {cost}"


def lowered(use: TierUse) -> str:
    """`lowered from 4 GiB: memory is short`; empty where the limit is the one asked for."""
    if use.lowered_from is None:
        return ""
    size = format_size(use.lowered_from).replace(".0 ", " ")
    return f"lowered from {size}: memory is short"


def beyond_the_disk(use: TierUse) -> str:
    """`, more than the disk has room for (41 GiB)`; empty where its limit fits the disk."""
    if use.room_bytes is None or use.limit_bytes is None or use.limit_bytes <= use.room_bytes:
        return ""
    return f", more than the disk has room for ({format_size(use.room_bytes)})"


def set_aside(num_files: int) -> str:
    """`3 bad files set aside`; empty for none."""
    return f"{count(num_files)} bad {'file' if num_files == 1 else 'files'} set aside" if num_files else ""


def quoted(title: str) -> str:
    """`“Rust lifetimes”`."""
    return f"“{' '.join(clean(title).split()) or 'untitled'}”"


def where(row: PromptRow) -> str:
    """The hottest tier that the whole prompt is in, in a word, and whether it is pinned there."""
    names = {Tier.CONTEXT: "context", Tier.HOST: "RAM", Tier.DISK: "disk"}
    some = row.context_tokens or row.host_tokens or row.disk_tokens
    name = names[row.tier] if row.tier is not None else "partly" if some else "nowhere"
    return f"{name}, pinned" if row.pinned else name


def evicted(row: PromptRow | None, place: str) -> str:
    """What has left a place, and what stays there because others share it; `row` is what is left."""
    if row is None:
        return f"the prompt has left {place}"
    rest = max(row.context_tokens, row.host_tokens)
    stays = f" · {count(rest)} tokens stay: others share them" if row.shared_bytes and rest else ""
    return f"{quoted(row.title)} has left {place}{stays}"


def first_difference(mismatch: Mismatch) -> str:
    """`first difference at 812: message edited`; where reasoning was dropped, what follows from that."""
    pos = count(mismatch.pos)
    match mismatch.reason:
        case MismatchReason.NEW_CHAT:
            return f"never seen from {pos} on"
        case MismatchReason.REASONING_DROPPED:
            return f"the template drops reasoning: processed again from {pos} on"
        case reason:
            return f"first difference at {pos}: {reason.value}"


def blocks(number: int) -> str:
    """`1 block`, `1,240 blocks`."""
    return f"{count(number)} {'block' if number == 1 else 'blocks'}"
