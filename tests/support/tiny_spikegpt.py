"""Tiny random SpikeGPT packages, made with NumPy alone. Same arguments, same bytes.

`tiny_spikegpt_package(path)` writes a package whose neurons fire some of the time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tiny import BYTE_VOCAB_SIZE, bits_of_bfloat16, package_files

from spiketrain.runtime.families.spikegpt import Spec
from spiketrain.runtime.package import write_package


def tiny_spikegpt_package(
    path: str | Path,
    weights: str = "int8",
    head: str | None = None,
    seed: int = 0,
    vocab: int | None = None,
    with_tokenizer: bool = True,
    force: bool = False,
    max_dial: float | None = None,
    **fields: Any,
) -> Path:
    """Write a random SpikeGPT package to `path` and return it; fields are those of the config.

    With a tokenizer the vocabulary is the 256 bytes and the end of text (id 256).
    """
    vocab = (BYTE_VOCAB_SIZE if with_tokenizer else 101) if vocab is None else vocab
    config = spikegpt_config(weights, head, vocab, max_dial, **fields)
    files = package_files(vocab, with_tokenizer)
    write_package(path, config, spikegpt_tensors(config, seed), files, force=force)
    return Path(path)


def spikegpt_config(
    weights: str = "int8",
    head: str | None = None,
    vocab: int = 101,
    max_dial: float | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The config.json of such a package."""
    config: dict[str, Any] = {
        "model_type": "spikegpt",
        "architectures": ["SpikeGPTForCausalLM"],
        "vocab_size": vocab,
        "hidden_size": 40,
        "num_hidden_layers": 3,
        "intermediate_size": 72,
        **fields,
    }
    bits = config.get("binary_embedding", True)
    plain = weights in ("float32", "bfloat16")
    real = weights if plain else "int8"
    counts = config.get("neuron_position", "residual") == "projections"
    events = "float32" if plain else {"int8": "fixed16", "int4": "fixed12"}[weights]
    config["spiketrain"] = {
        "format_version": 1,
        "weights": {
            "embedding": "bits" if bits else real,
            "body": weights,
            "head": head or weights,
        },
        "events": "counts" if counts else events,
        "fidelity": "exact" if plain else "integer",
        "provenance": {"source": "tests/tiny_spikegpt.py", "licence": "Apache-2.0"},
    }
    if max_dial is not None:
        config["spiketrain"]["max_dial"] = max_dial
    return config


def spikegpt_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors for `config`, scales of integer codes as small as real ones."""
    stand_in = {"spiketrain": {**config["spiketrain"], "fingerprint": "", "provenance": {}}}
    spec = Spec.from_config({**config, **stand_in})
    rng = np.random.default_rng(seed)
    return {
        name: _tensor(rng, name, dtype, shape, spec)
        for name, (dtype, shape) in spec.tensors().items()
    }


def _tensor(
    rng: np.random.Generator, name: str, dtype: str, shape: tuple[int, ...], spec: Spec
) -> np.ndarray:
    last = name.rpartition(".")[2]
    if dtype == "int8":
        return rng.integers(-127, 128, shape).astype(np.int8)
    if dtype == "uint8":
        low, high = (1, 16) if last == "multiplier" else (0, 256)
        return rng.integers(low, high, shape).astype(np.uint8)
    if last == "weight" and len(shape) == 2:
        floats = rng.normal(0.0, 1.5 / np.sqrt(shape[0]), shape).astype(np.float32)
        return bits_of_bfloat16(floats) if dtype == "uint16" else floats
    found = {
        "weight": lambda: 1 + 0.1 * rng.normal(size=shape),
        "bias": lambda: 0.1 * rng.normal(size=shape),
        "threshold": lambda: rng.uniform(0.05, 0.6, shape),
        "threshold_scale": lambda: rng.uniform(0.7, 1.6, shape),
        "time_decay": lambda: rng.uniform(-5, 1, shape),
        "time_first": lambda: rng.normal(size=shape),
        "scale": lambda: _scale(rng, name, shape, spec),
    }.get(last, lambda: rng.uniform(0, 1, shape))()
    values: np.ndarray = np.asarray(found, np.float32)
    if last == "scale":  # what int4 panels can hold
        values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    return values


def _scale(rng: np.random.Generator, name: str, shape: tuple[int, ...], spec: Spec) -> np.ndarray:
    """Of a neuron's input about 1; of codes so that outputs are about 1."""
    around = rng.uniform(0.7, 1.4, shape)
    if ".lif" in name:
        return around
    weights = spec.head if name.startswith("head") else spec.body
    largest = 127.0 if weights == "int8" or name.startswith("embedding") else 8.0
    if len(shape) == 1 and largest == 8.0:
        largest *= 8  # times the multiplier
    return around * 1.5 / (largest * np.sqrt(spec.hidden_size))
