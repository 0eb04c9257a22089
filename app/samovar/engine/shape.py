"""What a model keeps of each token, found without an engine host. A process of its own.

Run as `python -m samovar.engine.shape`, with a `HostJob` as JSON on standard input; it answers with an
`Answer` as one line of JSON. What the engine has found out about the model before is looked up; a model
that never ran here is tried, as at its first start.
"""

import sys
from pathlib import Path

import msgspec

from samovar.core.arithmetic import KvShape
from samovar.core.errors import SamovarError
from samovar.core.settings import HostJob
from samovar.engine.llama import model_name
from samovar.engine.start import examine


class Answer(msgspec.Struct, frozen=True):
    """`context_tokens` and `block_tokens` are what the engine would choose."""

    name: str = ""
    shape: KvShape = KvShape()
    context_tokens: int = 0
    block_tokens: int = 0
    error: str = ""


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=HostJob)
    try:
        known = examine(job.settings, Path(job.cache_dir), lambda _stage, _fraction: None)
        answer = Answer(model_name(known.path), known.found.shape, known.num_cells, known.block_tokens)
    except SamovarError as error:
        answer = Answer(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
