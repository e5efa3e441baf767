"""A Qwen2.5-7B as a GGUF file with random Q4_0 weights (needs gguf)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from models.spikingbrain import HEADS, INNER, SHARED, VOCAB, WIDTH
from models.spikingbrain_checkpoint import qwen_tensors


def write(path: Path, layers: int) -> None:
    """The file, with so many layers of the width."""
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, "qwen2", use_temp_file=True)
    writer.add_context_length(131072)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(VOCAB)
    rng = np.random.default_rng(0)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, shape in qwen_tensors(layers):
        stem, _, kind = name.rpartition(".")
        if stem in whole:
            target = f"{whole[stem]}.{kind}"
        else:
            _, _, layer, part = stem.split(".", 3)
            target = f"blk.{layer}.{names[part]}.{kind}"
        if len(shape) == 1:
            writer.add_tensor(target, np.full(shape, float(kind == "weight"), np.float32))
            continue
        blocks = rng.integers(0, 256, (shape[0], shape[1] // 32, 18), np.uint8)
        blocks[:, :, :2] = np.array([2.0**-9], np.float16).view(np.uint8)
        flat = blocks.reshape(shape[0], -1)
        writer.add_tensor(target, flat, raw_dtype=GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
