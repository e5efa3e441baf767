"""Tiny random packages, made with NumPy alone, for every test that needs a model.

`tiny_egru_package(path)` writes a package whose units fire some of the time and whose logits
differ clearly from token to token. Same arguments, same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spiketrain.runtime.package import write_package

END_OF_TEXT = "<|endoftext|>"
BYTE_VOCAB_SIZE = 257


def tiny_egru_package(
    path: str | Path,
    weights: str = "int8",
    tied: bool = True,
    projection: bool = False,
    seed: int = 0,
    vocab: int | None = None,
    with_tokenizer: bool = True,
    hidden_sizes: Sequence[int] = (24, 33, 16),
    embedding_size: int = 16,
    zoneout: float = 0.0,
    threshold: float = 0.02,
    force: bool = False,
) -> Path:
    """Write a random EGRU package to `path` and return it.

    With a tokenizer the vocabulary is the 256 bytes and the end of text (id 256).
    """
    vocab = (BYTE_VOCAB_SIZE if with_tokenizer else 101) if vocab is None else vocab
    config = egru_config(weights, tied, projection, vocab, hidden_sizes, embedding_size, zoneout)
    tensors = egru_tensors(config, seed, threshold)
    files = package_files(vocab, with_tokenizer)
    write_package(path, config, tensors, files, force=force)
    return Path(path)


def egru_config(
    weights: str,
    tied: bool,
    projection: bool,
    vocab: int,
    hidden_sizes: Sequence[int],
    embedding_size: int,
    zoneout: float = 0.0,
) -> dict[str, Any]:
    """The config.json of such a package."""
    return {
        "model_type": "egru",
        "architectures": ["EGRUForCausalLM"],
        "vocab_size": vocab,
        "embedding_size": embedding_size,
        "hidden_sizes": list(hidden_sizes),
        "projection": projection,
        "tie_word_embeddings": tied,
        "zoneout": zoneout,
        "carry": "state",
        "spiketrain": {
            "format_version": 1,
            "weights": dict.fromkeys(("recurrent", "input", "head", "embedding"), weights),
            "events": "fixed16" if weights == "int8" else "float32",
            "fidelity": "integer" if weights == "int8" else "exact",
            "provenance": {"source": "tests/tiny.py", "licence": "Apache-2.0"},
        },
    }


def egru_tensors(
    config: dict[str, Any], seed: int = 0, threshold: float = 0.02, bias: float = 0.1
) -> dict[str, np.ndarray]:
    """Random tensors for `config`."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    weights = config["spiketrain"]["weights"]["recurrent"]

    def matrix(name: str, inputs: int, outputs: int, gain: float) -> None:
        weight = rng.normal(0.0, gain / np.sqrt(inputs), (inputs, outputs))
        _put(tensors, name, weight, 0, weights)
        tensors[f"{name}.bias"] = rng.normal(0.0, bias, outputs).astype(np.float32)

    inputs = config["embedding_size"]
    for layer, size in enumerate(config["hidden_sizes"]):
        matrix(f"layers.{layer}.input", inputs, 3 * size, 3.0)
        matrix(f"layers.{layer}.recurrent", size, 3 * size, 2.0)
        tensors[f"layers.{layer}.threshold"] = (threshold * rng.uniform(0.2, 2.0, size)).astype(
            np.float32
        )
        inputs = size
    if config["projection"]:
        matrix("projection", inputs, config["embedding_size"], 3.0)
        inputs = config["embedding_size"]
    matrix("head", inputs, config["vocab_size"], 4.0)
    if not config["tie_word_embeddings"]:
        table = rng.normal(0.0, 1.0, (config["vocab_size"], config["embedding_size"]))
        _put(tensors, "embedding", table, 1, weights)
    return tensors


def _put(
    tensors: dict[str, np.ndarray], name: str, weight: np.ndarray, axis: int, weights: str
) -> None:
    """Store `weight` as floats, or as int8 codes with one scale along the other axis."""
    if weights != "int8":
        floats = weight.astype(np.float32)
        tensors[f"{name}.weight"] = floats if weights == "float32" else bits_of_bfloat16(floats)
        return
    scale = (np.abs(weight).max(axis=axis) / 127.0).astype(np.float32)
    scale[scale == 0] = 1.0
    codes = np.rint(weight / np.expand_dims(scale, axis))
    tensors[f"{name}.weight"] = np.clip(codes, -127, 127).astype(np.int8)
    tensors[f"{name}.scale"] = scale


def bits_of_bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32 values."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def package_files(vocab: int, with_tokenizer: bool) -> dict[str, bytes]:
    """What stands beside the tensors: sampling defaults, and a tokenizer of bytes if asked."""
    generation: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    generation["max_new_tokens"] = 32
    if with_tokenizer:
        generation["eos_token_id"] = BYTE_VOCAB_SIZE - 1
    files = {"generation_config.json": json.dumps(generation).encode()}
    if with_tokenizer:
        files["tokenizer.json"] = json.dumps(byte_tokenizer(vocab)).encode()
        files["tokenizer_config.json"] = json.dumps({"eos_token": END_OF_TEXT}).encode()
    return files


def byte_tokenizer(vocab: int) -> dict[str, Any]:
    """A tokenizer.json of single bytes: id = byte, 256 = end of text, then unused words."""
    if vocab < BYTE_VOCAB_SIZE:
        raise ValueError(f"vocab must be at least {BYTE_VOCAB_SIZE} with a tokenizer, got {vocab}")
    pieces = {piece: byte for byte, piece in enumerate(_byte_pieces())}
    for extra in range(BYTE_VOCAB_SIZE, vocab):
        pieces[f"<unused{extra}>"] = extra
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": BYTE_VOCAB_SIZE - 1,
                "content": END_OF_TEXT,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {**pieces, END_OF_TEXT: BYTE_VOCAB_SIZE - 1},
            "merges": [],
        },
    }


def _byte_pieces() -> list[str]:
    """The printable stand-in that byte-level tokenizers use for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = {byte: chr(byte) for byte in printable}
    spare = 256
    for byte in range(256):
        if byte not in stand_ins:
            stand_ins[byte] = chr(spare)
            spare += 1
    return [stand_ins[byte] for byte in range(256)]
