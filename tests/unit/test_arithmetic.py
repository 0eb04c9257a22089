"""What chats take: sums that can be checked by hand."""

import pytest

from samovar.commands.plan import Model, make_plan, text
from samovar.core.arithmetic import KvShape, Load, Needs, bytes_per_token, context_bytes, needs
from samovar.core.kv_types import KV_TYPES, Heads
from samovar.core.settings import EngineSettings

KIB = 1024
SMOLLM2 = KvShape(numbers=11_520, cell_bytes=12, heads=Heads(30, 3, (64,), (64,)))
GEMMA3 = KvShape(
    numbers=9216, window_numbers=7680, window=512, cell_bytes=24, heads=Heads(18, 1, (256,), (256,))
)
HYBRID = KvShape(numbers=256, state_bytes=4284, cell_bytes=12)
RECURRENT = KvShape(state_bytes=77_948)


def of(
    shape: KvShape, load: Load, type_k: str = "f16", type_v: str = "f16", block_tokens: int = 128
) -> Needs:
    return needs(shape, type_k, type_v, load, block_tokens=block_tokens, num_slots=8, batch_tokens=72)


@pytest.mark.parametrize(
    ("name", "kib"),
    [
        ("f32", 45.0),
        ("f16", 22.5),
        ("bf16", 22.5),
        ("q8_0", 22.5 * 34 / 64),
        ("q5_1", 22.5 * 24 / 64),
        ("q5_0", 22.5 * 22 / 64),
        ("q4_1", 22.5 * 20 / 64),
        ("q4_0", 22.5 * 18 / 64),
        ("iq4_nl", 22.5 * 18 / 64),
    ],
)
def test_bytes_of_a_token(name: str, kib: float) -> None:
    assert bytes_per_token(SMOLLM2, name, name) == kib * KIB


def test_every_type_is_in_the_table_above() -> None:
    assert len(KV_TYPES) == 9


def test_keys_and_values_of_different_types_and_sizes() -> None:
    assert bytes_per_token(SMOLLM2, "f32", "f16") == 1.5 * 22.5 * KIB
    uneven = KvShape(numbers=320, key_share=192 / 320)
    assert bytes_per_token(uneven, "f32", "f16") == 192 * 4 + 128 * 2


def test_a_window_bounds_its_layers_cells() -> None:
    def cells_of(num_cells: int) -> int:
        return context_bytes(
            full_bytes=0,
            window_bytes=1,
            window=512,
            state_bytes=0,
            num_cells=num_cells,
            num_slots=8,
            batch_tokens=72,
        )

    # nine sequences of 512, a step of 72, rounded up to 256
    assert cells_of(32768) == cells_of(131072) == 4864
    assert cells_of(2048) == 2048
    assert cells_of(2000) == 2048


def test_chats_of_a_dense_model() -> None:
    load = Load(chats=5, tokens=1280, shared=640)
    found = of(SMOLLM2, load)
    assert load.distinct_tokens == 640 + 5 * 640
    assert found.context_bytes == 1280 * 23_040
    assert found.together_bytes == load.distinct_tokens * 23_040
    blocks = load.distinct_tokens // 128
    pages = blocks * -(-128 * 23_052 // 4096) * 4096
    assert found.ram_bytes == pages + blocks * (1024 + 128 * 40), "the index counts too"
    assert pages <= found.disk_bytes <= pages + blocks * 4096


def test_what_is_shared_is_counted_once_and_tails_are_blocks() -> None:
    one, five = of(SMOLLM2, Load(1, 1000)), of(SMOLLM2, Load(5, 1000))
    assert five.ram_bytes == 5 * one.ram_bytes
    assert of(SMOLLM2, Load(5, 1000, 1000)).ram_bytes == one.ram_bytes
    assert of(SMOLLM2, Load(1, 1024)).ram_bytes > one.ram_bytes > of(SMOLLM2, Load(1, 896)).ram_bytes


def test_cells_are_not_shared_where_they_cannot_be() -> None:
    load = Load(chats=4, tokens=1024, shared=1024)
    assert of(SMOLLM2, load).together_bytes == of(SMOLLM2, load).context_bytes
    assert of(HYBRID, load).together_bytes == 4096 * 512 + 9 * 4284
    assert of(GEMMA3, load).together_bytes == (4096 * 1536 + 4096 * 7680) * 2


def test_state_is_in_every_block_whatever_the_types() -> None:
    found = of(RECURRENT, Load(2, 2048), block_tokens=1024)
    assert found == msgspec_types(of(RECURRENT, Load(2, 2048), "q8_0", "q8_0", 1024))
    assert found.ram_bytes == 4 * (20 * 4096 + 1024 + 1024 * 40)
    assert found.bytes_per_token == 0
    assert found.context_bytes == 9 * 77_948


def msgspec_types(found: Needs) -> Needs:
    """The same needs, under the names of unquantized types."""
    return Needs(
        "f16",
        "f16",
        found.bytes_per_token,
        found.context_bytes,
        found.together_bytes,
        found.ram_bytes,
        found.disk_bytes,
    )


def test_a_plan_tells_the_arithmetic_and_what_q8_0_takes() -> None:
    model = Model("Smol", SMOLLM2, 8192, 128, seen_bytes_per_token=22.6 * KIB)
    plan = make_plan(model, EngineSettings("m.gguf"), Load(5, 4096, 600))
    shown = text(plan, SMOLLM2)
    assert "22.5 KiB a token, keys and values in f16" in shown
    assert "30 layers × 3 KV heads × (64 + 64) numbers × 2 bytes" in shown
    assert "blocks in the cache hold 22.6 KiB" in shown
    assert "5 chats of 4,096 tokens, 600 of them the same in all" in shown
    assert plan.quantized is not None
    assert plan.quantized.ram_bytes < 0.54 * plan.needs.ram_bytes
    assert "does not fit" not in shown


def test_a_plan_says_what_is_not_possible() -> None:
    narrow = KvShape(numbers=128, cell_bytes=12, heads=Heads(0, 0, (16,), (16,)))
    plan = make_plan(Model("Narrow", narrow, 2048, 128), EngineSettings("m.gguf"), Load(1, 4096))
    assert plan.quantized is None
    shown = text(plan, narrow)
    assert "q8_0 is not possible" in shown
    assert "A chat of 4,096 tokens does not fit the context (2,048)" in shown
