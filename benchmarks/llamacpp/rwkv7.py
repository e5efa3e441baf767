"""An RWKV-7 of the size of the 216M SpikeGPT as a GGUF file with random weights (needs gguf)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from models.spikegpt import INNER, LAYERS, VOCAB, WIDTH

CONTEXT = 2048
HEAD_SIZE = 64
RANKS = {"w": 64, "a": 64, "v": 32, "g": 128}


def write(path: Path, weights: str) -> None:
    """The file, its matrices in the format `weights` (Q8_0, Q4_0)."""
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, "rwkv7")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(0)
    writer.add_layer_norm_eps(1e-5)
    writer.add_wkv_head_size(HEAD_SIZE)
    writer.add_decay_lora_rank(RANKS["w"])
    writer.add_iclr_lora_rank(RANKS["a"])
    writer.add_value_residual_mix_lora_rank(RANKS["v"])
    writer.add_gate_lora_rank(RANKS["g"])
    writer.add_token_shift_count(2)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(VOCAB)
    rng = np.random.default_rng(0)
    quantised = GGMLQuantizationType[weights]

    def matrix(name: str, outputs: int, inputs: int) -> None:
        blocks = random_blocks(rng, weights, outputs, inputs)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=quantised)

    def vector(name: str, value: float, *shape: int) -> None:
        writer.add_tensor(name, np.full(shape or (WIDTH,), value, np.float32))

    def norm(name: str) -> None:
        vector(f"{name}.weight", 1.0)
        vector(f"{name}.bias", 0.0)

    matrix("token_embd", VOCAB, WIDTH)
    matrix("output", VOCAB, WIDTH)
    norm("token_embd_norm")
    norm("output_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
            norm(f"{block}.{name}")
        for letter, rank in RANKS.items():
            rank = RANKS["a"] if letter == "v" and layer == 0 else rank
            if letter != "g":
                vector(f"{block}.time_mix_{letter}0.weight", -1.0)
            matrix(f"{block}.time_mix_{letter}1", rank, WIDTH)
            matrix(f"{block}.time_mix_{letter}2", WIDTH, rank)
        vector(f"{block}.time_mix_lerp_fused.weight", 0.5, 6, 1, 1, WIDTH)
        for name in ("k_k", "k_a", "r_k"):
            vector(f"{block}.time_mix_{name}.weight", 0.5)
        for name in ("key", "value", "receptance", "output"):
            matrix(f"{block}.time_mix_{name}", WIDTH, WIDTH)
        vector(f"{block}.channel_mix_lerp_k.weight", 0.5, 1, 1, WIDTH)
        matrix(f"{block}.channel_mix_key", INNER, WIDTH)
        matrix(f"{block}.channel_mix_value", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_blocks(rng: np.random.Generator, weights: str, outputs: int, inputs: int) -> Any:
    """Blocks of 32 weights, each a float16 scale and codes, as bytes (outputs, bytes)."""
    size = {"Q8_0": 32, "Q4_0": 16}[weights]
    blocks = rng.integers(0, 256, (outputs, inputs // 32, 2 + size), np.uint8)
    scale = np.full((outputs, inputs // 32, 1), 2.0**-11 if size == 32 else 2.0**-7, np.float16)
    blocks[:, :, :2] = scale.view(np.uint8)
    return blocks.reshape(outputs, -1)
