"""The EGRU of the benchmarks, with random int8 weights.

Three layers of 1350 units, embedding 1350, tied head, 33,278 words. Its biases are set so that
about 15 % of the units fire, or so that all do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spiketrain.runtime.families.egru import Spec
from spiketrain.runtime.model import DEFAULT_TABLE_BYTES, Model
from spiketrain.runtime.package import Package
from spiketrain.runtime.package import write_package as write

UNITS = 1350
LAYERS = 3
VOCAB_SIZE = 33_278
TARGET_RATE = 0.15
GAIN = 1.5  # standard deviation of the sums, where TARGET_RATE of the units fire
FULL_GAIN, FULL_BIAS = 0.02, 0.3  # candidates stay near tanh(0.3), hence above every threshold
CALIBRATION_WORDS = 512

Tensors = dict[str, np.ndarray]


@dataclass
class Weights:
    """Random codes, shared by all contenders, and scales that keep gates in their range."""

    layers: list[tuple[np.ndarray, np.ndarray]]
    head: np.ndarray
    scale: np.float32

    @classmethod
    def random(cls, seed: int = 0) -> Weights:
        """Codes of about a normal distribution."""
        rng = np.random.default_rng(seed)

        def codes(columns: int) -> np.ndarray:
            return np.clip(rng.normal(0, 32, (UNITS, columns)), -127, 127).astype(np.int8)

        layers = [(codes(3 * UNITS), codes(3 * UNITS)) for _ in range(LAYERS)]
        return cls(layers, codes(VOCAB_SIZE), np.float32(1 / 32))


def config_of(vocab: int) -> dict[str, Any]:
    """The config.json of a model with so many words."""
    return {
        "model_type": "egru",
        "vocab_size": vocab,
        "embedding_size": UNITS,
        "hidden_sizes": [UNITS] * LAYERS,
        "spiketrain": {
            "format_version": 1,
            "weights": {"recurrent": "int8"},
            "events": "fixed16",
            "fidelity": "integer",
            "fingerprint": "sha256:" + "0" * 64,
            "provenance": {},
        },
    }


def tensors_of(weights: Weights, gain: float, candidate_bias: list[float], vocab: int) -> Tensors:
    """Sums of standard deviation about `gain`; `candidate_bias` sets how many units fire."""
    tensors: Tensors = {}
    for layer, (inputs, recurrent) in enumerate(weights.layers):
        for name, codes, rows in (
            ("input", inputs, 1.0 if layer == 0 else TARGET_RATE / 4),
            ("recurrent", recurrent, TARGET_RATE / 4),
        ):
            scale = weights.scale * np.float32(gain / np.sqrt(UNITS * rows))
            tensors[f"layers.{layer}.{name}.weight"] = codes
            tensors[f"layers.{layer}.{name}.scale"] = np.full(3 * UNITS, scale, np.float32)
            tensors[f"layers.{layer}.{name}.bias"] = np.zeros(3 * UNITS, np.float32)
        tensors[f"layers.{layer}.input.bias"][2 * UNITS :] = candidate_bias[layer]
        tensors[f"layers.{layer}.threshold"] = np.full(UNITS, 0.01, np.float32)
    tensors["head.weight"] = np.ascontiguousarray(weights.head[:, :vocab])
    tensors["head.scale"] = np.full(vocab, weights.scale, np.float32)
    tensors["head.bias"] = np.zeros(vocab, np.float32)
    return tensors


def build_model(
    weights: Weights, gain: float, candidate_bias: list[float], threads: int, vocab: int
) -> Model:
    """The model in memory, without a package on disk."""
    config = config_of(vocab)
    tensors = tensors_of(weights, gain, candidate_bias, vocab)
    package = Package(Path("random"), config, Spec.from_config(config), tensors, {}, None)
    return Model(package, threads, DEFAULT_TABLE_BYTES)


def write_package(path: Path) -> None:
    """A package of which about TARGET_RATE of the units fire."""
    weights = Weights.random()
    write(path, config_of(VOCAB_SIZE), tensors_of(weights, GAIN, calibrate(weights), VOCAB_SIZE))


def firing_rates(model: Model, tokens: int = 320) -> list[float]:
    """Share of units that fire, by layer, after some tokens to settle."""
    state = model.new_state()
    ids = np.random.default_rng(1).integers(0, model.vocab_size, tokens)
    settle = 3 * tokens // 4
    model.forward(state, ids[:settle], last_only=True)
    model.reset_activity()
    model.forward(state, ids[settle:], last_only=True)
    return [layer.firing_rate for layer in model.activity().layers]


def calibrate(weights: Weights, gain: float = GAIN) -> list[float]:
    """Candidate biases by layer with which about TARGET_RATE of the units fire."""
    biases = [-1.0] * LAYERS
    for layer in range(LAYERS):
        low, high = -4.0, 4.0
        for _ in range(10):
            biases[layer] = (low + high) / 2
            rate = firing_rates(build_model(weights, gain, biases, 1, CALIBRATION_WORDS))[layer]
            low, high = (low, biases[layer]) if rate > TARGET_RATE else (biases[layer], high)
    return biases
