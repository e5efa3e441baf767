"""Time of the event-driven products, and the share of the read bandwidth that they reach.

    python benchmarks/kernels.py [--json] [--rounds 7]

One thread. Each matrix is repeated in memory until the copies fill 128 MB, and each call takes the
next copy and another list of events, so that rows come from memory and not from a cache. The read
bandwidth is that of NumPy's search for the largest byte of 256 MB on huge pages, measured in every
round beside the kernels; shares are medians of ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.kernels import dispatch, functions, gather, neurons
from runtime.memory import Arena, matrix_bytes

SHAPES = ((1024, 1024), (4096, 4096), (1350, 4050), (1350, 33278))
DENSITIES = (0.1, 0.15, 1.0)
COPIES_BYTES = 128 << 20
SEARCHED = Arena((256 << 20) + 64).place(np.ones((1, 256 << 20), np.uint8))[0]
PIECE_BYTES = 4 << 20


def read_bandwidth() -> float:
    """Bytes per second of sequential reading, one thread: the median over pieces."""
    times = []
    for start in range(0, SEARCHED.size, PIECE_BYTES):
        piece = SEARCHED[start : start + PIECE_BYTES]
        begin = time.perf_counter()
        piece.max()
        times.append(time.perf_counter() - begin)
    return PIECE_BYTES / statistics.median(times)


class Product:
    """Calls of one kernel over copies of a matrix and lists of events."""

    def __init__(
        self, rows: int, columns: int, density: float, dtype: type, copies: Any = None
    ) -> None:
        """Of new copies, or of those that another Product has."""
        rng = np.random.default_rng(0)
        self.copies = copies or self._copies(rng, rows, columns, dtype)
        count = max(1, round(density * rows))
        unit = np.int16 if dtype is np.int8 else np.float32
        self.lists = [
            (
                np.sort(rng.permutation(rows)[:count]).astype(np.int32),
                rng.integers(1, 8000, count).astype(unit),
            )
            for _ in range(16)
        ]
        self.scale = np.ones(columns, np.float32)
        self.bias = np.zeros(columns, np.float32)
        self.out = np.empty(columns, np.float32)
        self.touched = count * columns * self.copies[0].itemsize
        self.next = 0

    @staticmethod
    def _copies(rng: np.random.Generator, rows: int, columns: int, dtype: type) -> list[Any]:
        matrix = rng.integers(-127, 128, (rows, columns)).astype(dtype)
        count = max(1, COPIES_BYTES // matrix.nbytes)
        arena = Arena(count * matrix_bytes(matrix))
        return [arena.place(matrix) for _ in range(count)]

    def __call__(self) -> None:
        """Run the next of the calls."""
        weight = self.copies[self.next % len(self.copies)]
        index, value = self.lists[self.next % len(self.lists)]
        self.next += 1
        if weight.dtype == np.int8:
            gather.gather_int8(weight, index, value, self.scale, self.bias, self.out)
        else:
            gather.gather_float32(weight, index, value, self.bias, self.out)


def seconds(call: Callable[[], None], budget_s: float = 0.03) -> float:
    """Median seconds of a call over about `budget_s`."""
    times = []
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def update_calls() -> dict[str, Callable[[], None]]:
    """Calls that read no weights: a layer's update and its event list."""
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=4050).astype(np.float32) for _ in range(2))
    threshold, cell = np.full(1350, 0.01, np.float32), np.zeros(1350, np.float32)
    output, index = np.zeros(1350, np.int16), np.zeros(1350, np.int32)
    value, out = np.zeros(1350, np.int16), np.zeros(4050, np.float32)
    return {
        "egru_int16, 1350 units": lambda: neurons.egru_int16(x, y, threshold, 0.0, cell, output),
        "list_int16, 1350 units": lambda: neurons.list_int16(output, index, value),
        "sigmoid, 4050 values": lambda: functions.sigmoid(x, out),
        "tanh, 4050 values": lambda: functions.tanh(x, out),
    }


def measure(rounds: int) -> dict[str, Any]:
    """Medians by kernel, shape and density."""
    cases = {
        (dtype.__name__, shape, density): Product(*shape, density, dtype)
        for dtype in (np.int8, np.float32)
        for shape in SHAPES
        for density in DENSITIES
        if dtype is np.int8 or shape == (1350, 4050)
    }
    bandwidths, times = [], {case: [] for case in cases}
    updates = {name: (call, []) for name, call in update_calls().items()}
    for _ in range(rounds):
        bandwidths.append(read_bandwidth())
        for case, product in cases.items():
            times[case].append(seconds(product))
        for call, found in updates.values():
            found.append(seconds(call))
    rows = []
    for (kind, shape, density), found in times.items():
        touched = cases[kind, shape, density].touched
        dense = times[kind, shape, 1.0]
        shares = [touched / t / b for t, b in zip(found, bandwidths, strict=True)]
        gains = [d / t for d, t in zip(dense, found, strict=True)]
        rows.append(
            {
                "weights": kind,
                "inputs": shape[0],
                "outputs": shape[1],
                "density": density,
                "us": 1e6 * statistics.median(found),
                "touched_bytes": touched,
                "gb_per_s": touched / statistics.median(found) / 1e9,
                "share_of_read_bandwidth": statistics.median(shares),
                "faster_than_all_active_by": statistics.median(gains),
            }
        )
    return {
        "build": dispatch.active(),
        "rounds": rounds,
        "read_gb_per_s": statistics.median(bandwidths) / 1e9,
        "products": rows,
        "updates": {n: 1e6 * statistics.median(found) for n, (_, found) in updates.items()},
    }


def print_table(result: dict[str, Any]) -> None:
    """The result as Markdown."""
    print(
        f"Build {result['build']}, 1 thread, medians of {result['rounds']} rounds; "
        f"sequential read {result['read_gb_per_s']:.1f} GB/s.\n"
    )
    print("| product | active | touched | time | GB/s | share of read | against all active |")
    print("|---|---|---|---|---|---|---|")
    for row in result["products"]:
        print(
            f"| {row['weights']} {row['inputs']} x {row['outputs']} | {100 * row['density']:.0f} % "
            f"| {row['touched_bytes'] / 1e6:.2f} MB | {row['us']:.0f} us | {row['gb_per_s']:.1f} "
            f"| {100 * row['share_of_read_bandwidth']:.0f} % "
            f"| {row['faster_than_all_active_by']:.1f}x |"
        )
    print("\n| without weights | time |\n|---|---|")
    for name, us in result["updates"].items():
        print(f"| {name} | {us:.1f} us |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Event-driven products and the read bandwidth.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=7, help="rounds")
    options = parser.parse_args()
    result = measure(options.rounds)
    print(json.dumps(result)) if options.json else print_table(result)


if __name__ == "__main__":
    main()
