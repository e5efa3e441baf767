"""Sequences that decode together against one, and what share of the int8 peak their products reach.

    python benchmarks/batches.py [spikegpt] [egru] [--model PKG] [--batches 1 8 32]
        [--threads 1 2] [--rounds 5] [--json]

spikegpt: the published 216M dimensions, random int8 weights (or --model), one token for each
sequence a step, and prompts of 512 tokens with the logits of the last. egru: the three layers of
decode.py, about 15 % active. All take turns in every round; figures are medians of rounds, ratios
medians of ratios to the first batch within a round.

The peak is that of int8_peak.py in the same rounds, on as many threads. The share of it counts each
weight of the model once a token, as if all were read; squares take two bytes an input, so that
SpikeGPT's products really are 1.24 times as many (1.31 without the head).

What bounds a batch of the EGRU: its events have two bytes as well, and sharing rows means that
vpdpbusd takes rows by fours, for every sequence. The last lines say how long that would take at
the peak: with the rows of each sequence by themselves, with all rows for all, and with those fours
of neighbouring rows of which a sequence wants any.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from decode import VOCAB_SIZE, Weights, build_model, calibrate
from int8_peak import Peak
from spikegpt import INNER, LAYERS, VOCAB, WIDTH, write_spikegpt

from spiketrain import runtime

PROMPT_TOKENS = 512
PROMPT = "prompt"
BODY = LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER + WIDTH * WIDTH)
HEAD = WIDTH * VOCAB
ROWS_OF_A_QUAD = 4
BYTES_OF_AN_EVENT = 2
GAIN = 1.5  # of the EGRU's sums, as in decode.py

Times = dict[Any, list[tuple[float, float]]]


class Batch:
    """Sequences of one model that step together."""

    def __init__(self, model: Any, size: int) -> None:
        self._model = model
        self._states = [model.new_state() for _ in range(size)]
        self._rng = np.random.default_rng(size)
        self.run(2)

    def run(self, steps: int) -> tuple[float, float]:
        """Wall and processor seconds a token."""
        ids = self._rng.integers(0, self._model.vocab_size, (steps, len(self._states)))
        self._model.forward(
            self._model.new_state(), ids.ravel(), last_only=True
        )  # fills token tables
        start_s, used_s = time.perf_counter(), time.process_time()
        for tokens in ids:
            self._model.step(self._states, tokens)
        wall_s, processor_s = time.perf_counter() - start_s, time.process_time() - used_s
        return wall_s / ids.size, processor_s / ids.size


def read_prompt(model: Any) -> tuple[float, float]:
    """Wall and processor seconds a token of a prompt."""
    ids = np.random.default_rng(0).integers(0, model.vocab_size, PROMPT_TOKENS)
    start_s, used_s = time.perf_counter(), time.process_time()
    model.forward(model.new_state(), ids, last_only=True)
    wall_s, processor_s = time.perf_counter() - start_s, time.process_time() - used_s
    return wall_s / ids.size, processor_s / ids.size


def measure(model: Any, options: argparse.Namespace, threads: int, prompts: bool) -> dict[str, Any]:
    """Every batch in every round, and the peak."""
    batches = [Batch(model, size) for size in options.batches]
    peak = Peak.compiled()
    times: Times = {}
    peaks = []
    for _ in range(options.rounds):
        for size, batch in zip(options.batches, batches, strict=True):
            times.setdefault(size, []).append(batch.run(max(options.tokens // size, 3)))
        if prompts:
            times.setdefault(PROMPT, []).append(read_prompt(model))
        if peak is not None:
            peaks.append(peak.multiplications_per_s(threads))
    one = times[options.batches[0]]
    return {
        "peak": statistics.median(peaks) if peaks else None,
        "rows": {name: summary(found, one) for name, found in times.items()},
    }


def summary(found: list[tuple[float, float]], one: list[tuple[float, float]]) -> dict[str, float]:
    """Medians, and those of ratios to one sequence within a round."""
    return {
        "tokens_per_s": 1 / statistics.median(wall for wall, _ in found),
        "processor_us_per_token": 1e6 * statistics.median(used for _, used in found),
        "times_one": statistics.median(a[0] / b[0] for a, b in zip(one, found, strict=True)),
    }


@contextmanager
def package(given: Path | None) -> Iterator[Path]:
    """The given one, or one of random weights."""
    with tempfile.TemporaryDirectory() as folder:
        if given is None:
            given = Path(folder) / "spikegpt"
            write_spikegpt(given, "int8")
        yield given


def measure_spikegpt(options: argparse.Namespace) -> dict[str, Any]:
    """By number of threads."""
    result = {}
    with package(options.model) as path:
        for threads in options.threads:
            model = runtime.load_model(path, threads=threads)
            found = measure(model, options, threads, prompts=True)
            for name, row in found["rows"].items():
                weights = BODY if name == PROMPT else BODY + HEAD
                if found["peak"]:
                    row["share_of_peak"] = row["tokens_per_s"] * weights / found["peak"]
            result[threads] = found
    return result


def measure_egru(options: argparse.Namespace) -> dict[str, Any]:
    """By number of threads, with the microseconds a token that rows would take at the peak."""
    weights = Weights.random()
    biases = calibrate(weights, GAIN)
    result = {}
    for threads in options.threads:
        model = build_model(weights, GAIN, biases, threads, VOCAB_SIZE)
        found = measure(model, options, threads, prompts=False)
        if found["peak"]:
            found["bounds_us"] = bounds_us(model, found["peak"])
        result[threads] = found
    return result


def bounds_us(model: Any, peak: float) -> dict[str, float]:
    """What vpdpbusd alone would take for a token's rows, in three ways of taking them."""
    state = model.new_state()
    ids = np.random.default_rng(4).integers(0, model.vocab_size, 200)
    model.forward(state, ids[:100])
    model.reset_activity()
    for token in ids[100:]:
        model.step([state], [token])
    activity = model.activity()
    own = activity.weight_bytes_touched_per_token
    every = activity.weight_bytes_dense / activity.tokens
    wanted = 1 - (1 - own / every) ** ROWS_OF_A_QUAD
    scale = 1e6 * BYTES_OF_AN_EVENT / peak
    return {
        "own rows": own * scale,
        "all rows for all": every * scale,
        "fours of rows that are wanted": every * wanted * scale,
    }


def print_table(name: str, result: dict[int, Any]) -> None:
    """A result as Markdown."""
    print(f"\n{name}\n")
    print(
        "| threads | sequences | tokens/s | of one | processor time a token | share of the peak |"
    )
    print("|---|---|---|---|---|---|")
    for threads, found in result.items():
        for size, row in found["rows"].items():
            share = f"{100 * row['share_of_peak']:.0f} %" if "share_of_peak" in row else ""
            what = f"a prompt of {PROMPT_TOKENS}" if size == PROMPT else size
            print(
                f"| {threads} | {what} | {row['tokens_per_s']:,.0f} | {row['times_one']:.2f}x "
                f"| {row['processor_us_per_token']:,.0f} us | {share} |"
            )
    print()
    for threads, found in result.items():
        peak = "unknown" if found["peak"] is None else f"{found['peak'] / 1e9:.0f} billion/s"
        bounds = ", ".join(f"{what} {us:.0f}" for what, us in found.get("bounds_us", {}).items())
        print(f"{threads} threads: peak {peak}" + (f"; us a token at it: {bounds}" * bool(bounds)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Batches of sequences against one.")
    parser.add_argument("models", nargs="*", help="spikegpt, egru; both without any")
    parser.add_argument("--model", type=Path, help="SpikeGPT package of these dimensions")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="of a round, at least 3 steps")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    known = {"spikegpt": measure_spikegpt, "egru": measure_egru}
    unknown = set(options.models) - set(known)
    if unknown:
        parser.error(f"models must be of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    results = {name: known[name](options) for name in options.models or known}
    if options.json:
        print(json.dumps(results))
        return
    for name, result in results.items():
        print_table(name, result)


if __name__ == "__main__":
    main()
