"""Tiny GGUF models with random weights and a real tokenizer, for the families that no small package ships.

The text they write is noise: they are for tests of the cache, where equal logits are the only question.
"""

from pathlib import Path
from typing import Final

import gguf
import numpy as np

WIDTH: Final = 128
FEED_FORWARD: Final = 256
HEADS: Final = {"lfm2": 4, "lfm2-narrow": 8, "mamba": 0}


def write(tokenizer_source: Path, kind: str, out: Path) -> None:
    """Write a `lfm2` (attention, short convolution) or a `mamba` (recurrent) with the source's vocabulary.

    The heads of a `lfm2` have 32 numbers, those of a `lfm2-narrow` 16.
    """
    heads = HEADS[kind]
    source = gguf.GGUFReader(tokenizer_source)
    writer = gguf.GGUFWriter(out, "lfm2" if heads else kind)
    vocab_size = len(source.fields["tokenizer.ggml.tokens"].data)
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_vocab_size(vocab_size)
    writer.add_layer_norm_rms_eps(1e-5)
    for field in source.fields.values():
        if field.name.startswith("tokenizer."):
            if field.types[0] == gguf.GGUFValueType.ARRAY:
                writer.add_array(field.name, field.contents())
            else:
                writer.add_key_value(field.name, field.contents(), field.types[0])
    tensors = _Tensors(writer)
    tensors.random("token_embd.weight", vocab_size, WIDTH)
    if heads:
        _lfm2(writer, tensors, heads)
    else:
        _mamba(writer, tensors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _Tensors:
    """Adds tensors; the random ones are the same in every run."""

    def __init__(self, writer: gguf.GGUFWriter) -> None:
        self._writer = writer
        self._rng = np.random.default_rng(0)

    def random(self, name: str, *shape: int) -> None:
        values = self._rng.standard_normal(shape) * 0.5 / np.sqrt(shape[-1])
        self._writer.add_tensor(name, values.astype(np.float32))

    def ones(self, name: str, count: int) -> None:
        self._writer.add_tensor(name, np.ones(count, np.float32))

    def decay(self, name: str, inner: int, state: int) -> None:
        """The diagonal of a Mamba state matrix: -1, -2, … for each channel."""
        self._writer.add_tensor(name, -np.tile(np.arange(1, state + 1, dtype=np.float32), (inner, 1)))


def _lfm2(writer: gguf.GGUFWriter, tensors: _Tensors, heads: int) -> None:
    kv_heads = [0, 2, 0, 0, 2, 0]
    head = WIDTH // heads
    writer.add_block_count(len(kv_heads))
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(1e6)
    writer.add_uint32("lfm2.shortconv.l_cache", 3)
    tensors.ones("token_embd_norm.weight", WIDTH)
    for layer, kv in enumerate(kv_heads):
        name = f"blk.{layer}."
        tensors.ones(name + "attn_norm.weight", WIDTH)
        tensors.ones(name + "ffn_norm.weight", WIDTH)
        tensors.random(name + "ffn_gate.weight", FEED_FORWARD, WIDTH)
        tensors.random(name + "ffn_up.weight", FEED_FORWARD, WIDTH)
        tensors.random(name + "ffn_down.weight", WIDTH, FEED_FORWARD)
        if kv:
            tensors.ones(name + "attn_q_norm.weight", head)
            tensors.ones(name + "attn_k_norm.weight", head)
            tensors.random(name + "attn_q.weight", WIDTH, WIDTH)
            tensors.random(name + "attn_k.weight", kv * head, WIDTH)
            tensors.random(name + "attn_v.weight", kv * head, WIDTH)
            tensors.random(name + "attn_output.weight", WIDTH, WIDTH)
        else:
            tensors.random(name + "shortconv.conv.weight", WIDTH, 3)
            tensors.random(name + "shortconv.in_proj.weight", 3 * WIDTH, WIDTH)
            tensors.random(name + "shortconv.out_proj.weight", WIDTH, WIDTH)


def _mamba(writer: gguf.GGUFWriter, tensors: _Tensors) -> None:
    layers, inner, state, kernel, rank = 4, 2 * WIDTH, 16, 4, 8
    writer.add_block_count(layers)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    tensors.ones("output_norm.weight", WIDTH)
    for layer in range(layers):
        name = f"blk.{layer}."
        tensors.ones(name + "attn_norm.weight", WIDTH)
        tensors.random(name + "ssm_in.weight", 2 * inner, WIDTH)
        tensors.random(name + "ssm_conv1d.weight", inner, kernel)
        tensors.random(name + "ssm_conv1d.bias", inner)
        tensors.random(name + "ssm_x.weight", rank + 2 * state, inner)
        tensors.random(name + "ssm_dt.weight", inner, rank)
        tensors.random(name + "ssm_dt.bias", inner)
        tensors.decay(name + "ssm_a", inner, state)
        tensors.ones(name + "ssm_d", inner)
        tensors.random(name + "ssm_out.weight", WIDTH, inner)
