"""A checkpoint of SpikingBrain-7B's names and shapes with random bfloat16 weights, to convert."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models.spikingbrain import INNER, SHARED, SIZE, VOCAB, WIDTH, sizes

SHARD_BYTES = 4 << 30
NOISE = 1 << 20  # random numbers of a matrix: pieces of them, from random places


def qwen_tensors(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of Qwen2.5-7B, output-major as they are published."""
    narrow = SHARED * SIZE
    yield "model.embed_tokens.weight", (VOCAB, WIDTH)
    for i in range(layers):
        block = f"model.layers.{i}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{block}.{name}.weight", (WIDTH,)
        for key, outputs in (("q", WIDTH), ("k", narrow), ("v", narrow)):
            yield f"{block}.self_attn.{key}_proj.weight", (outputs, WIDTH)
            yield f"{block}.self_attn.{key}_proj.bias", (outputs,)
        yield f"{block}.self_attn.o_proj.weight", (WIDTH, WIDTH)
        for key in ("gate", "up"):
            yield f"{block}.mlp.{key}_proj.weight", (INNER, WIDTH)
        yield f"{block}.mlp.down_proj.weight", (WIDTH, INNER)
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (VOCAB, WIDTH)


def write_checkpoint(path: Path, layers: int) -> None:
    """Random bfloat16 weights in shards with an index, as `hf_7B_model` has them."""
    from spiketrain.lm.families.spikingbrain.config import Config
    from spiketrain.lm.families.spikingbrain.upstream import expected_shapes

    settings = sizes(layers, linear=False) | {"max_position_embeddings": 131072}
    path.mkdir(parents=True)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    size = 0
    for name, shape in expected_shapes(Config(**settings)).items():
        nbytes = 2 * int(np.prod(shape))
        if shards[-1] and size + nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += nbytes
    rng = np.random.default_rng(0)
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        index |= {name: file for name, _ in shard}
        write_shard(path / file, shard, rng)
    total = sum(2 * int(np.prod(shape)) for shard in shards for _, shape in shard)
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (path / "model.safetensors.index.json").write_text(json.dumps(content))
    config = settings | {
        "architectures": ["GLAswaForCausalLM"],
        "model_type": "gla_swa",
        "hidden_act": "swish",
        "norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (path / "config.json").write_text(json.dumps(config, indent=1))


def write_shard(path: Path, tensors: list[tuple[str, tuple[int, ...]]], rng: Any) -> None:
    """One safetensors file; matrices are normal with the deviation 1 / sqrt(inputs)."""
    header, position = {}, 0
    for name, shape in tensors:
        end = position + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    raw += b" " * (-(8 + len(raw)) % 64)
    with open(path, "wb") as stream:
        stream.write(len(raw).to_bytes(8, "little") + raw)
        for name, shape in tensors:
            if len(shape) == 1:
                values = np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32)
                stream.write(bits_of_bfloat16(values))
                continue
            noise = rng.standard_normal(NOISE, np.float32) / np.float32(np.sqrt(shape[1]))
            left, whole = int(np.prod(shape)), bits_of_bfloat16(noise)
            while left:
                start = 2 * int(rng.integers(NOISE))  # bytes
                piece = whole[start : min(len(whole), start + 2 * left)]
                stream.write(piece)
                left -= len(piece) // 2


def bits_of_bfloat16(values: np.ndarray) -> bytes:
    """The upper halves of float32 values."""
    return bytes((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
