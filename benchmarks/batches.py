"""Sequences that decode together against one, and what share of the int8 peak their products reach.

    python benchmarks/batches.py [spikegpt] [egru] [--model PKG] [--batches 1 8 32]
        [--threads 1 2] [--rounds 5] [--json FILE]

spikegpt: the published 216M dimensions, random int8 weights (or --model), one token for each
sequence a step, and prompts of 512 tokens with the logits of the last. egru: the three layers of
models/egru.py, about 15 % active. The first batch is the yardstick.

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
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import Measure, Report, Sample, Turns, in_turns, parser, timed
from int8_peak import Peak
from models.egru import GAIN, VOCAB_SIZE, Weights, build_model, calibrate
from models.spikegpt import INNER, LAYERS, VOCAB, WIDTH, write_package

from spiketrain import runtime

PROMPT_TOKENS = 512
PROMPT = f"a prompt of {PROMPT_TOKENS}"
PEAK = "the peak"
BODY = LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER + WIDTH * WIDTH)
HEAD = WIDTH * VOCAB
ROWS_OF_A_QUAD = 4
BYTES_OF_AN_EVENT = 2


class Batch:
    """Sequences of one model that step together."""

    def __init__(self, model: Any, size: int) -> None:
        self._model = model
        self._states = [model.new_state() for _ in range(size)]
        self._rng = np.random.default_rng(size)

    def run(self, steps: int) -> Sample:
        """Seconds a token."""
        ids = self._rng.integers(0, self._model.vocab_size, (steps, len(self._states)))
        # fills token tables
        self._model.forward(self._model.new_state(), ids.ravel(), last_only=True)

        def decode() -> None:
            for tokens in ids:
                self._model.step(self._states, tokens)

        return timed(decode, ids.size)


def read_prompt(model: Any) -> Sample:
    """Seconds a token of a prompt."""
    ids = np.random.default_rng(0).integers(0, model.vocab_size, PROMPT_TOKENS)
    return timed(lambda: model.forward(model.new_state(), ids, last_only=True), ids.size)


def measure(model: Any, options: argparse.Namespace, threads: int, prompts: bool) -> Turns:
    """Every batch in every round, and the time of one multiplication at the peak."""
    variants: dict[str, Measure] = {
        name_of(size): partial(Batch(model, size).run, max(options.tokens // size, 3))
        for size in options.batches
    }
    if prompts:
        variants[PROMPT] = partial(read_prompt, model)
    if (peak := Peak.compiled()) is not None:
        variants[PEAK] = partial(at_peak, peak, threads)
    return in_turns(variants, options.rounds)


def at_peak(peak: Peak, threads: int) -> Sample:
    """Seconds of a multiplication, of all threads together."""
    wall_s = 1 / peak.multiplications_per_s(threads)
    return Sample(wall_s, threads * wall_s)


def name_of(size: int) -> str:
    """A batch as a variant."""
    return f"{size} sequences" if size > 1 else "1 sequence"


def without_peak(turns: Turns) -> Turns:
    """The variants whose unit is a token."""
    return Turns({name: one for name, one in turns.samples.items() if name != PEAK})


@contextmanager
def package(path: Path | None) -> Iterator[Path]:
    """The package at `path`, or one of random weights."""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "spikegpt"
            write_package(path, "int8")
        yield path


def measure_spikegpt(report: Report, options: argparse.Namespace) -> None:
    """By number of threads, with the share of the peak that products reach."""
    with package(options.model) as path:
        for threads in options.threads:
            model = runtime.load_model(path, threads=threads)
            turns = measure(model, options, threads, prompts=True)
            shares = shares_of_peak(turns) if PEAK in turns.samples else {}
            columns = {
                "share of the peak": {name: f"{100 * one:.0f} %" for name, one in shares.items()}
            }
            title = f"spikegpt, {threads} threads, peak {peak_of(turns)}"
            tokens = without_peak(turns)
            report.turns(title, "token", tokens, columns, {"shares_of_peak": shares})


def shares_of_peak(turns: Turns) -> dict[str, float]:
    """Every weight once a token, at the peak, over the time that a token took."""
    return {
        name: (BODY if name == PROMPT else BODY + HEAD) * turns.wall_ratio(PEAK, to=name).median
        for name in turns.samples
        if name != PEAK
    }


def peak_of(turns: Turns) -> str:
    """The peak, as far as it was measured."""
    if PEAK not in turns.samples:
        return "unknown"
    return f"{1e-9 / turns.wall_s(PEAK).median:.0f} billion/s"


def measure_egru(report: Report, options: argparse.Namespace) -> None:
    """By number of threads, with the microseconds a token that rows would take at the peak."""
    weights = Weights.random()
    biases = calibrate(weights)
    for threads in options.threads:
        model = build_model(weights, GAIN, biases, threads, VOCAB_SIZE)
        turns = measure(model, options, threads, prompts=False)
        title = f"egru, {threads} threads, peak {peak_of(turns)}"
        report.turns(title, "token", without_peak(turns))
        if PEAK in turns.samples:
            bounds = bounds_us(model, 1 / turns.wall_s(PEAK).median)
            rows = [[what, f"{us:.0f} us"] for what, us in bounds.items()]
            report.table("A token's rows at the peak", ["rows", "time"], rows, bounds)


def bounds_us(model: Any, peak: float) -> dict[str, float]:
    """What vpdpbusd alone would take for a token's rows, in three ways of taking them."""
    state = model.new_state()
    ids = np.random.default_rng(4).integers(0, model.vocab_size, 200)
    model.forward(state, ids[:100])
    model.reset_activity()
    for token in ids[100:]:
        model.step([state], [token])
    activity = model.activity()
    touched = activity.weight_bytes_touched_per_token
    every = activity.weight_bytes_dense / activity.tokens
    read_share = 1 - (1 - touched / every) ** ROWS_OF_A_QUAD
    scale = 1e6 * BYTES_OF_AN_EVENT / peak
    return {
        "own rows": touched * scale,
        "all rows for all": every * scale,
        "fours of rows that are wanted": every * read_share * scale,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    known = {"spikegpt": measure_spikegpt, "egru": measure_egru}
    shared = parser(__doc__, rounds=5)
    shared.add_argument("models", nargs="*", help="spikegpt, egru; both without any")
    shared.add_argument("--model", type=Path, help="SpikeGPT package of these dimensions")
    shared.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    shared.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    shared.add_argument("--tokens", type=int, default=64, help="of a round, at least 3 steps")
    options = shared.parse_args(arguments)
    unknown = set(options.models) - set(known)
    if unknown:
        shared.error(f"models must be of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    report = Report(options)
    for name in options.models or known:
        known[name](report, options)
    report.finish()


if __name__ == "__main__":
    main()
