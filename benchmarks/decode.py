"""Decode speed of an EGRU language model: event-driven against dense, and against eager torch.

    python benchmarks/decode.py [--json] [--tokens 60] [--rounds 9]

Three layers of 1350 units, embedding 1350, tied head, 33,278 words, random int8 weights, one
sequence. The biases are set so that about 15 % of the units fire (measured and printed), or so that
all do: same shapes, same codes. Every contender runs in every round, so that other work on the
machine meets all of them; figures are medians of rounds, ratios are medians of ratios within a
round. Processor time, of all threads, is the fairer figure on a busy machine. Torch runs the same
layers step by step with eager operators, in float32 and bfloat16; without torch those rows are left
out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spiketrain.runtime.families.egru import Spec
from spiketrain.runtime.kernels import dispatch
from spiketrain.runtime.model import DEFAULT_TABLE_BYTES, Model
from spiketrain.runtime.package import Package

UNITS = 1350
LAYERS = 3
VOCAB_SIZE = 33_278
TARGET_RATE = 0.15
THREADS = (1, 2)


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


def build_model(
    weights: Weights, gain: float, candidate_bias: list[float], threads: int, vocab: int
) -> Model:
    """The model with sums of standard deviation about `gain`; `candidate_bias` sets who fires."""
    config = {
        "model_type": "egru",
        "vocab_size": vocab,
        "embedding_size": UNITS,
        "hidden_sizes": [UNITS] * LAYERS,
        "spiketrain": {
            "format_version": 1,
            "weights": {"recurrent": "int8"},
            "events": "fixed16",
            "fingerprint": "sha256:" + "0" * 64,
        },
    }
    tensors: dict[str, np.ndarray] = {}
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
    tensors["head.weight"] = weights.head[:, :vocab]
    tensors["head.scale"] = np.full(vocab, weights.scale, np.float32)
    tensors["head.bias"] = np.zeros(vocab, np.float32)
    package = Package(Path("random"), config, Spec.from_config(config), tensors, {}, None)
    return Model(package, threads, DEFAULT_TABLE_BYTES)


def firing_rates(model: Model, tokens: int = 320) -> list[float]:
    """Share of units that fire, by layer, after some tokens to settle."""
    state = model.new_state()
    ids = np.random.default_rng(1).integers(0, model.vocab_size, tokens)
    settle = 3 * tokens // 4
    model.forward(state, ids[:settle], last_only=True)
    model.reset_activity()
    model.forward(state, ids[settle:], last_only=True)
    return [layer.firing_rate for layer in model.activity().layers]


def calibrate(weights: Weights, gain: float) -> list[float]:
    """Candidate biases by layer with which about TARGET_RATE of the units fire."""
    biases = [-1.0] * LAYERS
    for layer in range(LAYERS):
        low, high = -4.0, 4.0
        for _ in range(10):
            biases[layer] = (low + high) / 2
            rate = firing_rates(build_model(weights, gain, biases, 1, 512))[layer]
            low, high = (low, biases[layer]) if rate > TARGET_RATE else (biases[layer], high)
    return biases


class Stopwatch:
    """Wall and processor seconds per token since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def read(self, tokens: int) -> tuple[float, float]:
        """(wall, processor) seconds per token."""
        wall, processor = time.perf_counter(), time.process_time()
        return (wall - self.start[0]) / tokens, (processor - self.start[1]) / tokens


class Decoder:
    """Steps one sequence through tokens drawn at random, and times them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.state = model.new_state()
        self.rng = np.random.default_rng(2)

    def run(self, tokens: int) -> tuple[float, float]:
        """Wall and processor seconds per token."""
        ids = self.rng.integers(0, self.model.vocab_size, tokens).tolist()
        self.model.forward(self.state, ids, last_only=True)  # fills the token table
        watch = Stopwatch()
        for token in ids:
            self.model.step([self.state], [token])
        return watch.read(tokens)


def torch_decoders(weights: Weights) -> dict[str, Callable[[int, int], tuple[float, float]]]:
    """The same layers in eager torch, by name, timed as Decoder.run does; {} without torch."""
    try:
        import torch
        from torch import nn
    except ImportError:
        print("torch is not installed: its rows are left out", file=sys.stderr)
        return {}

    class Layer(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: np.ndarray, recurrent: np.ndarray) -> None:
            super().__init__()
            self.input = linear(inputs)
            self.recurrent = linear(recurrent)
            self.threshold = nn.Parameter(torch.full((UNITS,), 0.01))

        def forward(self, x: Any, cell: Any, output: Any) -> tuple[Any, Any]:
            xz, xr, xg = self.input(x).chunk(3, -1)
            yz, yr, yg = self.recurrent(output).chunk(3, -1)
            z, r = torch.sigmoid(xz + yz), torch.sigmoid(xr + yr)
            cell = z * cell + (1 - z) * torch.tanh(xg + r * yg)
            event = (cell > self.threshold).to(cell.dtype)
            return cell - event * self.threshold, event * cell

    class Network(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Layer(*layer) for layer in weights.layers)
            self.head = linear(weights.head)

        def forward(self, token: Any, state: list[tuple[Any, Any]]) -> tuple[Any, Any]:
            x = self.head.weight[token]
            following = []
            for layer, (cell, output) in zip(self.layers, state, strict=True):
                cell, x = layer(x, cell, output)
                following.append((cell, x))
            return self.head(x), following

    def linear(codes: np.ndarray) -> Any:
        module = nn.Linear(*codes.shape)
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(codes.T.astype(np.float32) * 0.001))
        return module

    def decoder(dtype: Any) -> Callable[[int, int], tuple[float, float]]:
        network = Network().to(dtype).eval()
        zero = torch.zeros(1, UNITS, dtype=dtype)
        rng = np.random.default_rng(3)

        @torch.inference_mode()
        def run(tokens: int, threads: int) -> tuple[float, float]:
            torch.set_num_threads(threads)
            state = [(zero, zero)] * LAYERS
            ids = torch.from_numpy(rng.integers(0, VOCAB_SIZE, (tokens, 1)))
            network(ids[0], state)
            watch = Stopwatch()
            for token in ids:
                _, state = network(token, state)
            return watch.read(tokens)

        return run

    return {"torch float32": decoder(torch.float32), "torch bfloat16": decoder(torch.bfloat16)}


def measure(rounds: int, tokens: int) -> dict[str, Any]:
    """Every contender in every round; medians."""
    weights = Weights.random()
    biases = calibrate(weights, 1.5)
    torches = torch_decoders(weights)
    result: dict[str, Any] = {"build": dispatch.active(), "tokens": tokens, "rounds": rounds}
    for threads in THREADS:
        sparse = Decoder(build_model(weights, 1.5, biases, threads, VOCAB_SIZE))
        # Sums of 1/20: candidates stay near tanh(0.3), hence above every threshold.
        full = Decoder(build_model(weights, 0.02, [0.3] * LAYERS, threads, VOCAB_SIZE))
        times: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            times.setdefault("event-driven", []).append(sparse.run(tokens))
            times.setdefault("every unit active", []).append(full.run(max(tokens // 4, 5)))
            for name, run in torches.items():
                times.setdefault(name, []).append(run(max(tokens // 8, 5), threads))
        result[f"{threads} thread{'s' * (threads > 1)}"] = {
            name: compare(found, times["event-driven"]) for name, found in times.items()
        }
        result["activity"] = {
            "event-driven": describe(sparse),
            "every unit active": describe(full),
        }
    return result


def compare(found: list[tuple[float, float]], ours: list[tuple[float, float]]) -> dict[str, float]:
    """Medians of a contender, and of its ratios to ours within a round."""
    wall, processor = (
        statistics.median(other[kind] / own[kind] for other, own in zip(found, ours, strict=True))
        for kind in (0, 1)
    )
    return {
        "tokens_per_s": 1 / statistics.median(times[0] for times in found),
        "processor_us_per_token": 1e6 * statistics.median(times[1] for times in found),
        "event_driven_is_faster_by": wall,
        "event_driven_takes_less_processor_time_by": processor,
    }


def describe(decoder: Decoder) -> dict[str, Any]:
    """Firing rates and weight bytes of a token, from 100 more steps."""
    model, state = decoder.model, decoder.state
    model.reset_activity()
    for token in decoder.rng.integers(0, model.vocab_size, 100):
        model.step([state], [token])
    activity = model.activity()
    return {
        "firing_rate": activity.firing_rate,
        "firing_rates": [layer.firing_rate for layer in activity.layers],
        "weight_bytes_touched_per_token": activity.weight_bytes_touched_per_token,
    }


def print_table(result: dict[str, Any]) -> None:
    """The result as Markdown."""
    activity = result["activity"]
    rates = {name: 100 * found["firing_rate"] for name, found in activity.items()}
    touched = {name: found["weight_bytes_touched_per_token"] for name, found in activity.items()}
    print(f"Build {result['build']}, medians of {result['rounds']} rounds.\n")
    print(
        "| contender | units that fire | weights touched | threads | tokens/s | ours is faster by "
        "| processor time a token | ours takes less by |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for threads in THREADS:
        for name, row in result[f"{threads} thread{'s' * (threads > 1)}"].items():
            rate = f"{rates[name]:.1f} %" if name in rates else ""
            megabytes = f"{touched[name] / 1e6:.1f} MB" if name in touched else ""
            print(
                f"| {name} | {rate} | {megabytes} | {threads} | {row['tokens_per_s']:.0f} "
                f"| {row['event_driven_is_faster_by']:.1f}x "
                f"| {row['processor_us_per_token']:.0f} us "
                f"| {row['event_driven_takes_less_processor_time_by']:.1f}x |"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="EGRU decode, event-driven against dense.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--tokens", type=int, default=60, help="tokens a round")
    parser.add_argument("--rounds", type=int, default=9, help="rounds")
    options = parser.parse_args()
    result = measure(options.rounds, options.tokens)
    print(json.dumps(result)) if options.json else print_table(result)


if __name__ == "__main__":
    main()
