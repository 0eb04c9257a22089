"""Upkeep of the disk tier without a model: look, verify, prune, clear.

Run as `python -m samovar.engine.maintain`, with a `MaintainJob` as JSON on standard input; answers with
lines of JSON on standard output, the last one is the result. A running host may use the same folder.
"""

import sys
from pathlib import Path
from typing import Literal

import msgspec

from samovar.core.snapshot import DiskModel
from samovar.engine import limits, llama
from samovar.engine.fingerprint import weights_id
from samovar.kv.disk_tier import Checked, DiskError, DiskTier
from samovar.kv.explain import decode_past


class MaintainJob(msgspec.Struct, frozen=True):
    cache_dir: str
    disk_limit: str
    action: Literal["list", "verify", "prune", "clear"]


class Progress(msgspec.Struct, frozen=True):
    done: int
    total: int


class VerifyResult(msgspec.Struct, frozen=True):
    files: int = 0
    bytes: int = 0
    bad: int = 0
    orphans: int = 0
    problem: str = ""


class ClearResult(msgspec.Struct, frozen=True):
    num_blocks: int = 0
    num_bytes: int = 0
    kept_blocks: int = 0
    problem: str = ""


class PruneResult(msgspec.Struct, frozen=True):
    models: tuple[str, ...] = ()
    num_blocks: int = 0
    num_bytes: int = 0
    problem: str = ""


class StoredPrompt(msgspec.Struct, frozen=True):
    """A session's last prompt as the disk knows it; `model` is the model's name."""

    session: str
    title: str
    tokens: int
    disk_tokens: int
    pinned: bool
    last_used: float
    model: str


class ListResult(msgspec.Struct, frozen=True):
    models: tuple[DiskModel, ...] = ()
    prompts: tuple[StoredPrompt, ...] = ()
    bytes: int = 0
    limit_bytes: int | None = None
    blocks: int = 0
    problem: str = ""


def _say(value: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def _list(tier: DiskTier) -> ListResult:
    num_bytes, _, num_blocks = tier.usage()
    prompts = []
    for model, past, disk_tokens in tier.all_past():
        previous = decode_past(past.past)
        if previous is None:
            continue
        num_tokens = len(previous.tokens)
        prompts.append(
            StoredPrompt(
                past.session,
                past.title,
                num_tokens,
                min(num_tokens, disk_tokens),
                past.pinned,
                past.used,
                model,
            )
        )
    return ListResult(
        tuple(tier.models(llama.BUILD, weights_id)),
        tuple(prompts),
        num_bytes,
        tier.limit_bytes(),
        num_blocks,
    )


def _verify(tier: DiskTier) -> VerifyResult:
    result = VerifyResult()
    for step in tier.verify():
        match step:
            case Checked(files, num_bytes, bad, orphans):
                result = VerifyResult(files, num_bytes, bad, orphans)
            case (done, total) if done % 16 == 0:
                _say(Progress(done, total))
            case _:
                pass
    return result


def run(job: MaintainJob) -> msgspec.Struct:
    """Do one job; what goes wrong stands in the result's `problem`."""
    empty: dict[str, type[msgspec.Struct]] = {
        "list": ListResult,
        "verify": VerifyResult,
        "prune": PruneResult,
        "clear": ClearResult,
    }
    try:
        tier = DiskTier(Path(job.cache_dir), lambda free, own: limits.disk_limit(job.disk_limit, free, own))
        try:
            match job.action:
                case "list":
                    return _list(tier)
                case "verify":
                    return _verify(tier)
                case "prune":
                    names, num_blocks, num_bytes = tier.prune(llama.BUILD, weights_id)
                    return PruneResult(tuple(names), num_blocks, num_bytes)
                case "clear":
                    return ClearResult(*tier.clear())
        finally:
            tier.close()
    except DiskError as error:
        return empty[job.action](problem=str(error))


def main() -> None:
    _say(run(msgspec.json.decode(sys.stdin.buffer.read(), type=MaintainJob)))


if __name__ == "__main__":
    main()
