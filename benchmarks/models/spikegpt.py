"""SpikeGPT of the published 216M dimensions with random weights, for benchmarks.

Spike-driven is the variant whose matrices, the head's too, all read spike counts: int8 with an int4
head, its thresholds set so that a tenth of each matrix's inputs is not zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

LAYERS, WIDTH, INNER, VOCAB = 18, 768, 3072, 50277
SPIKE_DRIVEN = "spike-driven"
TARGET_RATE = 0.1
CALIBRATION_WORDS = 512  # the head of the model on which thresholds are set
CALIBRATION_TOKENS = 32
CALIBRATION_ROUNDS = 16

Tensors = dict[str, np.ndarray]


def config_of(weights: str, vocab: int = VOCAB) -> dict[str, Any]:
    """The config.json of int8, int4 or spike-driven."""
    driven = weights == SPIKE_DRIVEN
    body, head = ("int8", "int4") if driven else (weights, weights)
    return {
        "model_type": "spikegpt",
        "architectures": ["SpikeGPTForCausalLM"],
        "vocab_size": vocab,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "intermediate_size": INNER,
        "neuron_position": "projections" if driven else "residual",
        "spiketrain": {
            "format_version": 1,
            "weights": {"embedding": "bits", "body": body, "head": head},
            "events": "counts" if driven else {"int8": "fixed16", "int4": "fixed12"}[weights],
            "fidelity": "integer",
            "fingerprint": "sha256:" + "0" * 64,
            "provenance": {},
        },
    }


def write_package(path: Path, weights: str) -> None:
    """A package with random weights of about the size that training gives."""
    from spiketrain.runtime.package import write_package as write

    tensors = random_tensors(config_of(weights))
    if weights == SPIKE_DRIVEN:
        tensors |= calibrated_thresholds()
    write(path, config_of(weights), tensors)


def random_tensors(config: dict[str, Any]) -> Tensors:
    """A tensor for each that the config asks for; the first ones do not hang on the vocabulary."""
    from spiketrain.runtime.families.spikegpt import Spec

    rng = np.random.default_rng(0)
    return {
        name: random_tensor(rng, name, dtype, shape)
        for name, (dtype, shape) in Spec.from_config(config).tensors().items()
    }


def random_tensor(rng: np.random.Generator, name: str, dtype: str, shape: Any) -> Any:
    """Values that keep activations in a usual range."""
    kind = name.rpartition(".")[2]
    if dtype == "int8":
        return rng.integers(-127, 128, shape, np.int8)
    if kind == "multiplier":
        return rng.integers(1, 16, shape, np.uint8)
    if dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    if kind == "scale" and ".lif" not in name:
        step = np.full(shape, 2.0**-11, np.float32)
        return step if len(shape) == 1 else step * 16
    if kind == "weight":  # of a norm: no two channels alike, or a threshold passes many at once
        return rng.normal(0.0, 1.0, shape).astype(np.float32)
    if kind in ("threshold", "scale", "threshold_scale"):
        return np.ones(shape, np.float32)
    if kind == "bias":
        return np.zeros(shape, np.float32)
    return rng.uniform(0.1, 0.9, shape).astype(np.float32)


def calibrated_thresholds() -> Tensors:
    """Threshold scales with which each matrix reads about TARGET_RATE of its inputs.

    Of all places at once: each threshold follows its own rate, those after it meet the change in
    the next round. A short vocabulary stands for the whole one: no place's inputs hang on the head.
    """
    from spiketrain.runtime.families.spikegpt import Spec
    from spiketrain.runtime.model import Model
    from spiketrain.runtime.package import Package

    config = config_of(SPIKE_DRIVEN, CALIBRATION_WORDS)
    spec = Spec.from_config(config)
    tensors = random_tensors(config)
    tokens = np.random.default_rng(1).integers(0, CALIBRATION_WORDS, CALIBRATION_TOKENS)
    thresholds = {name: tensors[name] for name in tensors if name.endswith(".threshold_scale")}
    for _ in range(CALIBRATION_ROUNDS):
        package = Package(Path("random"), config, spec, tensors | thresholds, {}, None)
        model = Model(package, 1, 0)
        for place, counts in model.record(model.new_state(), tokens).items():
            name = f"{place}.threshold_scale"
            rate = max(float(np.mean(counts != 0)), 0.01)
            thresholds[name] = thresholds[name] * np.float32((rate / TARGET_RATE) ** 0.25)
    return thresholds


def activity_of(path: Path, tokens: int = 64) -> dict[str, float]:
    """Share of the spiking units that fire, and the weights that a token reads, in bytes."""
    from spiketrain import runtime

    model = runtime.load_model(path)
    state = model.new_state()
    for token in np.random.default_rng(2).integers(0, VOCAB, tokens):
        model.step([state], [token])
    activity = model.activity()
    return {
        "firing_rate": activity.firing_rate,
        "weight_bytes_touched_per_token": activity.weight_bytes_touched_per_token,
    }
