"""Upkeep of the disk tier without a model: look, verify, prune, clear.

Run as `python -m samovar.engine.maintain`, with a `Job` as JSON on standard input; answers with
lines of JSON on standard output, the last one is the result. A running host may use the same folder.
"""

import sys
from pathlib import Path

import msgspec

from samovar.core.maintenance import Cleared, DiskList, DiskPrompt, Job, Progress, Pruned, Verified
from samovar.engine import limits, llama
from samovar.engine.fingerprint import weights_id
from samovar.kv.disk_tier import Checked, DiskError, DiskTier
from samovar.kv.explain import decode_past


def _say(value: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def _list(tier: DiskTier) -> DiskList:
    num_bytes, _, num_blocks = tier.usage()
    prompts = []
    for model, past, disk_tokens in tier.all_past():
        previous = decode_past(past.past)
        if previous is None:
            continue
        num_tokens = len(previous.tokens)
        prompts.append(
            DiskPrompt(
                past.session,
                past.title,
                num_tokens,
                min(num_tokens, disk_tokens),
                past.pinned,
                past.used,
                model,
            )
        )
    return DiskList(
        tuple(tier.models(llama.BUILD, weights_id)),
        tuple(prompts),
        num_bytes,
        tier.limit_bytes(),
        num_blocks,
    )


def _verify(tier: DiskTier) -> Verified:
    result = Verified()
    for step in tier.verify():
        match step:
            case Checked(files, num_bytes, bad, orphans):
                result = Verified(files, num_bytes, bad, orphans)
            case (done, total) if done % 16 == 0:
                _say(Progress(done, total))
            case _:
                pass
    return result


def run(job: Job) -> msgspec.Struct:
    """Do one job; what goes wrong stands in the result's `problem`."""
    empty: dict[str, type[msgspec.Struct]] = {
        "list": DiskList,
        "verify": Verified,
        "prune": Pruned,
        "clear": Cleared,
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
                    return Pruned(tuple(names), num_blocks, num_bytes)
                case "clear":
                    return Cleared(*tier.clear())
        finally:
            tier.close()
    except DiskError as error:
        return empty[job.action](problem=str(error))


def main() -> None:
    _say(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))


if __name__ == "__main__":
    main()
