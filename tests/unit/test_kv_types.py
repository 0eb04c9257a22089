"""KV types: what they take, what is refused before anything is loaded, and in which words."""

import typing
from pathlib import Path

import pytest

from samovar.config import Config
from samovar.core.errors import SamovarError
from samovar.core.kv_types import KV_TYPES, UNQUANTIZED, Heads, check_heads, check_types
from samovar.engine.metadata import heads_of

PLAIN = Heads(30, 3, (64,), (64,))


def test_the_configuration_offers_every_type() -> None:
    annotated = typing.get_type_hints(Config, include_extras=True)["kv_type_k"]
    assert set(typing.get_args(typing.get_args(annotated)[0])) == set(KV_TYPES)


@pytest.mark.parametrize("type_v", sorted(set(KV_TYPES) - set(UNQUANTIZED)))
def test_a_quantized_v_cache_needs_flash_attention(type_v: str, tmp_path: Path) -> None:
    for flash_attn in ("auto", "on"):
        check_types("f16", type_v, flash_attn)
    check_types(type_v, "f16", "off")
    with pytest.raises(SamovarError) as raised:
        check_types("f16", type_v, "off")
    assert f'"{type_v}"' in str(raised.value)
    assert 'Set flash_attn to "auto" or "on"' in str(raised.value)
    file = tmp_path / "config.toml"
    file.write_text(f'kv_type_v = "{type_v}"\nflash_attn = "off"\n')
    with pytest.raises(SamovarError, match="needs flash attention"):
        Config.load(file)


@pytest.mark.parametrize(
    ("type_k", "type_v", "flash_attn", "said"),
    [
        ("q9_0", "f16", "auto", "kv_type_k: 'q9_0' is no KV type; choose one of f32, f16"),
        ("f16", "F16", "auto", "kv_type_v: 'F16' is no KV type"),
        ("f16", "f16", "maybe", "choose auto, on or off"),
    ],
)
def test_unknown_values_are_named_with_what_is_known(
    type_k: str, type_v: str, flash_attn: str, said: str
) -> None:
    with pytest.raises(SamovarError) as raised:
        check_types(type_k, type_v, flash_attn)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("heads", "type_k", "type_v", "said"),
    [
        (PLAIN, "q8_0", "q4_0", ""),
        (Heads(2, 2, (80,), (80,)), "f16", "bf16", ""),
        (Heads(), "q8_0", "q8_0", ""),
        (Heads(2, 2, (80,), (64,)), "q8_0", "q8_0", "heads have 80 numbers, which q8_0 cannot hold"),
        (Heads(2, 2, (64,), (80,)), "q8_0", "iq4_nl", "Set kv_type_v to f32, f16 or bf16"),
        (Heads(2, 2, (64, 80), (64,)), "q5_1", "f16", "Set kv_type_k"),
        (Heads(2, 1, (576,), (512,), same_types=True), "q8_0", "f16", "both to q8_0, or both to f16"),
        (Heads(2, 1, (576,), (512,), same_types=True), "q8_0", "q8_0", ""),
        (Heads(2, 2, (64,), (64,), no_flash_attn=True), "f16", "q8_0", "without flash attention"),
        (Heads(2, 2, (64,), (64,), no_flash_attn=True), "q8_0", "f16", ""),
    ],
)
def test_types_that_a_model_cannot_have_are_refused(
    heads: Heads, type_k: str, type_v: str, said: str
) -> None:
    if not said:
        check_heads(heads, type_k, type_v)
        return
    with pytest.raises(SamovarError) as raised:
        check_heads(heads, type_k, type_v)
    assert said in str(raised.value)


def metadata(architecture: str, **values: int) -> dict[str, str]:
    found = {"general.architecture": architecture, "general.name": "x"}
    return found | {f"{architecture}.{key.replace('__', '.')}": str(value) for key, value in values.items()}


def test_heads_are_read_as_llama_cpp_reads_them() -> None:
    smollm2 = metadata(
        "llama", block_count=30, embedding_length=576, attention__head_count=9, attention__head_count_kv=3
    )
    assert heads_of(smollm2) == PLAIN
    assert heads_of(smollm2).numbers_per_token == 11_520
    gemma3 = metadata(
        "gemma3",
        block_count=18,
        embedding_length=640,
        attention__head_count=4,
        attention__head_count_kv=1,
        attention__key_length=256,
        attention__value_length=256,
    )
    assert heads_of(gemma3).numbers_per_token == 18 * 512
    assert heads_of(gemma3 | {"gemma3.attention.key_length_swa": "128"}).key_sizes == (128, 256)


def test_what_the_file_does_not_say_is_unknown() -> None:
    assert heads_of({}) == Heads()
    hybrid = metadata("lfm2", block_count=6, embedding_length=128, attention__head_count=4)
    # llama.cpp leaves lists out: heads by layer are not there, and no heads at all means no grouping.
    assert heads_of(hybrid).kv_heads == 4
    assert heads_of(metadata("mamba", block_count=4, attention__head_count=0)).numbers_per_token == 0
    deepseek = metadata("deepseek2", attention__head_count=8, attention__key_length_mla=192)
    assert heads_of(deepseek).same_types
    assert heads_of(deepseek).numbers_per_token == 0
    assert heads_of(metadata("grok")).no_flash_attn
    assert heads_of({"general.architecture": "x", "x.block_count": "many"}).num_layers == 0
