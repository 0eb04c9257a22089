"""What a model's file says of its attention heads, from GGUF metadata. Pure; probe child.

llama.cpp gives metadata as text, and leaves out lists: where a value differs from layer to layer it is
unknown here.
"""

from collections.abc import Mapping
from typing import Final

from samovar.core.kv_types import Heads

_SHARED_MEMORY: Final = frozenset({"deepseek4"})
_NO_FLASH_ATTENTION: Final = frozenset({"grok"})


def heads_of(metadata: Mapping[str, str]) -> Heads:
    """Heads as `llama_hparams` reads them: sizes not given are embedding length / heads."""
    architecture = metadata.get("general.architecture", "")

    def number(key: str) -> int:
        text = metadata.get(f"{architecture}.{key}", "")
        return int(text) if text.isdecimal() else 0

    heads = number("attention.head_count")
    usual = number("embedding_length") // heads if heads else 0

    def sizes(key: str) -> tuple[int, ...]:
        found = {number(f"attention.{key}") or usual, number(f"attention.{key}_swa")}
        return tuple(sorted(found - {0}))

    return Heads(
        num_layers=number("block_count"),
        kv_heads=number("attention.head_count_kv")
        or (0 if f"{architecture}.attention.head_count_kv" in metadata else heads),
        key_sizes=sizes("key_length"),
        value_sizes=sizes("value_length"),
        same_types=number("attention.key_length_mla") > 0 or architecture in _SHARED_MEMORY,
        no_flash_attn=architecture in _NO_FLASH_ATTENTION,
    )
