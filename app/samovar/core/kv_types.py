"""Number types of the KV cache: what they take, and what llama.cpp demands of them. Pure."""

from collections.abc import Iterable
from typing import Final

import msgspec

from samovar.core.errors import SamovarError


class KvType(msgspec.Struct, frozen=True):
    """`block_numbers` neighbouring numbers take `block_bytes` together (ggml's block sizes)."""

    block_numbers: int
    block_bytes: int

    @property
    def is_quantized(self) -> bool:
        return self.block_numbers > 1

    @property
    def bytes_per_number(self) -> float:
        return self.block_bytes / self.block_numbers


KV_TYPES: Final = {
    "f32": KvType(1, 4),
    "f16": KvType(1, 2),
    "bf16": KvType(1, 2),
    "q8_0": KvType(32, 34),
    "q5_1": KvType(32, 24),
    "q5_0": KvType(32, 22),
    "q4_1": KvType(32, 20),
    "q4_0": KvType(32, 18),
    "iq4_nl": KvType(32, 18),
}
UNQUANTIZED: Final = tuple(name for name, kind in KV_TYPES.items() if not kind.is_quantized)


class Heads(msgspec.Struct, frozen=True):
    """What a model's file says of its attention heads; 0 or empty where it says nothing, or layers differ.

    `key_sizes` and `value_sizes` are all head sizes that occur. `same_types`: keys and values share their
    memory (MLA). `no_flash_attn`: llama.cpp never uses flash attention for this architecture.
    """

    num_layers: int = 0
    kv_heads: int = 0
    key_sizes: tuple[int, ...] = ()
    value_sizes: tuple[int, ...] = ()
    same_types: bool = False
    no_flash_attn: bool = False

    @property
    def numbers_per_token(self) -> int:
        """Layers × KV heads × (key size + value size); 0 where the file does not say."""
        if len(self.key_sizes) != 1 or len(self.value_sizes) != 1 or self.same_types:
            return 0
        return self.num_layers * self.kv_heads * (self.key_sizes[0] + self.value_sizes[0])


def check_types(type_k: str, type_v: str, flash_attn: str) -> None:
    """SamovarError if no model could be run with these settings; `flash_attn` is auto, on or off."""
    for key, name in (("kv_type_k", type_k), ("kv_type_v", type_v)):
        if name not in KV_TYPES:
            raise SamovarError(f"{key}: {name!r} is no KV type; choose one of {', '.join(KV_TYPES)}.")
    if flash_attn not in ("auto", "on", "off"):
        raise SamovarError(f"flash_attn is {flash_attn!r}; choose auto, on or off.")
    if flash_attn == "off" and KV_TYPES[type_v].is_quantized:
        raise SamovarError(
            f'A quantized V cache (kv_type_v = "{type_v}") needs flash attention, and flash_attn is "off". '
            f'Set flash_attn to "auto" or "on", or kv_type_v to {_or(UNQUANTIZED)}.'
        )


def check_heads(heads: Heads, type_k: str, type_v: str) -> None:
    """SamovarError if llama.cpp refuses (or dies of) these types for a model with these heads."""
    if heads.same_types and type_k != type_v:
        raise SamovarError(
            "This model keeps keys and values in the same memory, so their types must be equal: "
            f"set kv_type_k and kv_type_v both to {type_k}, or both to {type_v}."
        )
    if heads.no_flash_attn and KV_TYPES[type_v].is_quantized:
        raise SamovarError(
            f"llama.cpp runs this model without flash attention, which a quantized V cache needs: "
            f"set kv_type_v to {_or(UNQUANTIZED)} (it is {type_v})."
        )
    for key, name, sizes in (
        ("kv_type_k", type_k, heads.key_sizes),
        ("kv_type_v", type_v, heads.value_sizes),
    ):
        block = KV_TYPES[name].block_numbers
        odd = next((size for size in sizes if size % block), None)
        if odd is not None:
            raise SamovarError(
                f"This model's heads have {odd} numbers, which {name} cannot hold: it packs {block} at a "
                f"time. Set {key} to {_or(UNQUANTIZED)}."
            )


def quantized_fits(heads: Heads) -> bool:
    """Whether K and V can both be quantized."""
    try:
        check_heads(heads, "q8_0", "q8_0")
    except SamovarError:
        return False
    return True


def _or(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"
