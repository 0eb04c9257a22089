"""Fills a disk tier with made-up blocks of a model, for the benchmark of starting up. Loads no model.

Run as `python -m samovar.engine.populate`, with a `PopulateJob` as JSON on standard input. The files are
real ones, with right tags, but small: a payload is a few bytes. Nothing is synced.
"""

import os
import random
import sys
from pathlib import Path
from typing import Final

import msgspec

from samovar.core.chat import ChatMessage, Role
from samovar.core.events import ModelInfo
from samovar.engine import llama
from samovar.engine.fingerprint import weights_id
from samovar.kv.block import child_key, root_key
from samovar.kv.block_file import BlockHeader, load_secret, write_block
from samovar.kv.disk_index import DiskIndex, PastRow
from samovar.kv.disk_tier import DiskTier
from samovar.kv.explain import Previous
from samovar.kv.host_tier import page_bytes
from samovar.kv.tokens import pack

PAYLOAD: Final = b"made up"
CHAIN_BLOCKS: Final = 25
VOCABULARY: Final = 30_000


class PopulateJob(msgspec.Struct, frozen=True):
    """`num_blocks` in chains of some, the first `num_sessions` of which are chats' prompts."""

    cache_dir: str
    model: ModelInfo
    num_blocks: int
    num_sessions: int


def run(job: PopulateJob) -> None:
    """Write the files, then all rows at once."""
    cache_dir, model = Path(job.cache_dir), job.model
    DiskTier(cache_dir, lambda _free, _own: sys.maxsize).close()  # makes folders, secret and index
    secret = load_secret(cache_dir / "kv.secret")
    index = DiskIndex(cache_dir / "kv" / "index.db")
    rng = random.Random(0)
    with index.exclusive():
        weights = weights_id(Path(model.path))
        number = index.model_id(model.fingerprint, model.name, model.path, weights, llama.BUILD)
        for chain in range(-(-job.num_blocks // CHAIN_BLOCKS)):
            session, parent = f"session {chain}", root_key(model.fingerprint)
            prompt: list[int] = []
            for place in range(min(CHAIN_BLOCKS, job.num_blocks - chain * CHAIN_BLOCKS)):
                tokens = tuple(rng.choices(range(VOCABULARY), k=model.block_tokens))
                header = BlockHeader(
                    model.fingerprint,
                    child_key(parent, tokens),
                    parent,
                    place * model.block_tokens,
                    pack(tokens),
                    len(PAYLOAD),
                )
                _write(cache_dir / "kv" / "blocks", secret, header)
                index.begin_write(header, page_bytes(header.file_bytes()), number, "")
                index.end_write(header.key, [session], "")
                parent = header.key
                prompt += tokens
            if chain < job.num_sessions:
                previous = Previous((ChatMessage(Role.USER, session),), tuple(prompt))
                past = PastRow(session, session, msgspec.msgpack.encode(previous), 0, float(chain), False)
                index.remember(number, past, job.num_sessions)
    index.close()


def _write(blocks: Path, secret: bytes, header: BlockHeader) -> None:
    name = f"{header.key.hex()}.kv"
    file = blocks / name[:2] / name
    file.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    write_block(file, temporary, secret, header, memoryview(PAYLOAD), sync=False)


if __name__ == "__main__":
    run(msgspec.json.decode(sys.stdin.buffer.read(), type=PopulateJob))
