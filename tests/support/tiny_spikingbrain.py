"""Tiny random SpikingBrain packages, made with NumPy alone. Same arguments, same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tiny import BYTE_VOCAB_SIZE, package_files

from spiketrain.runtime.families.spikingbrain import Spec
from spiketrain.runtime.formats import FLOATS
from spiketrain.runtime.package import write_package


def tiny_spikingbrain_package(
    path: str | Path,
    weights: str = "int8",
    down: str | None = None,
    head: str | None = None,
    embedding: str | None = None,
    seed: int = 0,
    vocab: int | None = None,
    with_tokenizer: bool = True,
    force: bool = False,
    max_dial: float | None = None,
    **fields: Any,
) -> Path:
    """Write a random SpikingBrain package to `path` and return it; fields are those of the config.

    With a tokenizer the vocabulary is the 256 bytes and the end of text (id 256).
    """
    vocab = (BYTE_VOCAB_SIZE if with_tokenizer else 101) if vocab is None else vocab
    config = spikingbrain_config(weights, down, head, embedding, vocab, max_dial, **fields)
    files = package_files(vocab, with_tokenizer)
    write_package(path, config, spikingbrain_tensors(config, seed), files, force=force)
    return Path(path)


def spikingbrain_config(
    weights: str = "int8",
    down: str | None = None,
    head: str | None = None,
    embedding: str | None = None,
    vocab: int = 101,
    max_dial: float | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The config.json of such a package; spikes unless weights are floats or fields say so."""
    spikes = fields.setdefault("spikes", weights not in FLOATS)
    config: dict[str, Any] = {
        "model_type": "spikingbrain",
        "architectures": ["SpikingBrainForCausalLM"],
        "vocab_size": vocab,
        "hidden_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 50,
        "sliding_window": 9,
        "attn_layers": [1],
        **fields,
    }
    plain = weights in FLOATS
    events = "counts" if spikes else "float32" if plain else "int8"
    config["spiketrain"] = {
        "format_version": 1,
        "weights": {
            "embedding": embedding or (weights if plain else "int8"),
            "body": weights,
            "down": down or weights,
            "head": head or (weights if plain else "int8"),
        },
        "events": events,
        "fidelity": "exact" if plain and not spikes else "integer",
        "provenance": {"source": "tests/tiny_spikingbrain.py", "licence": "Apache-2.0"},
    }
    if max_dial is not None:
        config["spiketrain"]["max_dial"] = max_dial
    return config


def spikingbrain_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors for `config`, scales of integer codes as small as real ones."""
    stand_in = {"spiketrain": {**config["spiketrain"], "fingerprint": "", "provenance": {}}}
    spec = Spec.from_config({**config, **stand_in})
    rng = np.random.default_rng(seed)
    shapes = spec.tensors()
    return {name: _tensor(rng, name, *shapes[name], shapes) for name in shapes}


def _tensor(
    rng: np.random.Generator, name: str, dtype: str, shape: tuple[int, ...], shapes: Any
) -> np.ndarray:
    last = name.rpartition(".")[2]
    if last in ("extra_row", "extra_column", "extra"):
        return _extra(rng, name.rpartition(".")[0], last, shapes)
    if dtype == "int8":
        return rng.integers(-127, 128, shape).astype(np.int8)
    if dtype == "uint8":
        low, high = (1, 16) if last == "multiplier" else (0, 256)
        return rng.integers(low, high, shape).astype(np.uint8)
    if last.endswith("spikes"):
        return np.array([rng.uniform(1, 4), rng.uniform(0, 1)], np.float32)
    if last == "scale":
        spread = 1.5 / np.sqrt(36) / (64 if shapes[f"{name[:-6]}.weight"][0] == "uint8" else 127)
        values = rng.uniform(0.7, 1.4, shape) * spread
        return (values.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    if len(shape) == 1:
        return (last == "weight") + (0.1 * rng.normal(size=shape)).astype(np.float32)
    values = rng.normal(0.0, 1.5 / np.sqrt(shape[-2]), shape).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "uint16" else values


def _extra(rng: np.random.Generator, name: str, last: str, shapes: Any) -> np.ndarray:
    """Corrections of every few codes, spread evenly over a matrix."""
    inputs, outputs = shapes[f"{name}.weight"][1]
    places = np.linspace(0, inputs * outputs - 1, shapes[f"{name}.extra"][1][0]).astype(np.int64)
    if last == "extra_row":
        counts = np.bincount(places // outputs, minlength=inputs)
        return np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    if last == "extra_column":
        return (places % outputs).astype(np.int32)
    return rng.choice(np.array([-300, -1, 1, 40], np.int16), len(places))
