"""SpikingBrain of the published 7B dimensions with random weights, and states to go on from.

Int4 weights, spiked down projections, int8 embedding, int4 head, bfloat16 window. Four layers of
the same width stand for the time of a layer; head and embedding are then the larger part.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEADS, SHARED, SIZE, INNER, VOCAB = 3584, 28, 4, 128, 18944, 152064
LAYERS, WINDOW = 28, 4096
WEIGHTS = {"embedding": "int8", "body": "int4-go", "down": "int4-go", "head": "int4-gi"}


def sizes(layers: int, linear: bool) -> dict[str, Any]:
    """Fields of a config that say how large it is."""
    return {
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": SHARED,
        "intermediate_size": INNER,
        "sliding_window": WINDOW,
        "attn_layers": [] if linear else list(range(1, layers, 2)),
    }


def write_package(path: Path, layers: int, linear: bool, dead_zone: float) -> None:
    """A package with random weights, tensors in a temporary file beside it until it is written."""
    from spiketrain.runtime.families.spikingbrain import Spec
    from spiketrain.runtime.package import write_package

    config = sizes(layers, linear) | {
        "model_type": "spikingbrain",
        "architectures": ["SpikingBrainForCausalLM"],
        "gate": "merged",
        "spikes": True,
        "window_cache": "bfloat16",
        "spiketrain": {
            "format_version": 1,
            "weights": WEIGHTS,
            "events": "counts",
            "fidelity": "approximate" if dead_zone else "integer",
            "provenance": {"source": "random weights"},
        },
    }
    shapes = Spec.from_config(config).tensors()
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        tensors = {
            name: np.array([3.0, dead_zone], np.float32)
            if name.endswith("spikes")
            else random_tensor(rng, Path(folder) / str(i), name, dtype, shape)
            for i, (name, (dtype, shape)) in enumerate(shapes.items())
        }
        write_package(path, config, tensors)


def random_tensor(
    rng: np.random.Generator, file: Path, name: str, dtype: str, shape: tuple[int, ...]
) -> Any:
    """Values that keep activations in a usual range; large ones in a mapped file."""
    kind = name.rpartition(".")[2]
    if dtype in ("uint8", "int8"):
        values = np.arange(1, 16, dtype=np.uint8)  # codes -7 .. 7 + 8, and multipliers
        if dtype == "int8":
            values = np.arange(-127, 128).astype(np.int8)
        elif kind == "weight":
            values = (values[:, None] << 4 | values).reshape(-1)
        array = np.memmap(file, dtype, "w+", shape=shape)
        for row in range(0, shape[0], 256):
            part = array[row : row + 256]
            part[...] = values[rng.integers(0, len(values), part.shape, np.uint8)]
        array.flush()
        return np.memmap(file, dtype, "r", shape=shape)
    if kind == "scale":
        inputs = INNER if ".down_proj" in name else WIDTH
        step = 2.0**-7 if len(shape) == 1 and shape[0] == VOCAB else 1 / (40 * np.sqrt(inputs))
        step = 2.0**-8 if len(shape) == 2 else step
        return np.full(shape, step, np.float32)
    return np.full(shape, 1.0 if kind == "weight" else 0.0, np.float32)


def filled(model: Any, context: int) -> Any:
    """A state at position `context` whose memories hold random numbers of a usual size."""
    rng = np.random.default_rng(1)
    state = model.new_state()
    if not context:
        return state
    for name, array in state.arrays().items():
        if name == "position":
            array[...] = context
        elif array.dtype == np.uint16:
            array[...] = rng.integers(0x3E00, 0x3F80, array.shape, np.uint16)
        elif array.dtype == np.float32 and name != "dial":
            array[...] = rng.random(array.shape, np.float32)
    state.position = context
    return state
