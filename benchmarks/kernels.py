"""Products of one token: time, bytes touched, share of the read bandwidth, against dense and torch.

    python benchmarks/kernels.py [--json FILE] [--plot FILE.png] [--rounds 5] [--seconds 0.02]
        [--shapes 1024x1024 ...] [--densities 1 10 100 ...] [--products int8-graded ...]
        [--no-torch] [--processor-time]

One thread; about five minutes without options. Products read the rows of events: `int8-graded`
(16-bit events, EGRU), `int8-counts` and `int4-counts` (spike counts), `float32-graded` and
`bfloat16-graded`; lists are made before. Dense products of integer weights quantise their input as
well; torch's int8 is a dynamically quantised Linear, its bfloat16 a Linear. Rows come from memory
(kernel_calls.py). A time is the median of a round's calls, and of the rounds; shares are those of a
sequential read of huge pages in the same round (NumPy's search for the largest byte). Where the
slowest round took a multiple of the fastest, the machine was busy. `--processor-time` counts the
thread's own time, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np
from harness import Clock, Report, Sample, Turns, in_turns, parser, repeated, timed
from kernel_calls import Call, Rows, call_dense, dense_bytes, torch_calls, update_calls
from kernel_plot import plot

from spiketrain.runtime.memory import Arena

SHAPES = ("1024x1024", "2048x2048", "4096x4096", "3584x18944")
DENSITIES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 65.0, 80.0, 100.0)
PRODUCTS = ("int8-graded", "int8-counts", "int4-counts")
PIECE_BYTES = 4 << 20
READ_BYTES = 256 << 20
# Share of the read bandwidth and gain over dense of int8 rows at 10 %, by outputs.
ROW_TARGETS = {18944: (0.85, 9.0), 4096: (0.75, 7.0), 1024: (0.65, 6.0)}
DENSE_TARGET = ((3584, 18944), 0.9)
READ = "sequential read"
HEADER = (
    "product", "active", "touched", "time", "slowest to fastest round", "GB/s", "share of read",
    "than dense", "than torch int8", "than torch bfloat16",
)  # fmt: skip

Product = tuple[str, float]  # name, percent of the inputs


class Read:
    """Sequential reading of 256 MB on one thread."""

    def __init__(self, clock: Clock) -> None:
        self._bytes = Arena(READ_BYTES + 64).place(np.ones((1, READ_BYTES), np.uint8))[0]
        self._clock = clock

    def __call__(self) -> Sample:
        """Seconds a byte: the median over pieces."""
        pieces = [
            timed(self._bytes[start : start + PIECE_BYTES].max, PIECE_BYTES, self._clock)
            for start in range(0, READ_BYTES, PIECE_BYTES)
        ]
        return Sample(
            statistics.median(piece.wall_s for piece in pieces),
            statistics.median(piece.processor_s for piece in pieces),
        )


def contenders(
    shape: tuple[int, int], options: argparse.Namespace
) -> dict[Product, tuple[Call, int]]:
    """(name, percent of the inputs) -> (call, bytes that it touches)."""
    calls: dict[Product, tuple[Call, int]] = {}
    rows: dict[str, Rows] = {}
    for product in options.products:
        weights, kind = product.split("-")
        if weights not in rows:
            rows[weights] = Rows(weights, *shape)
            dense = call_dense(weights, *shape)
            calls[f"{weights}-dense", 100.0] = (dense, dense_bytes(weights, *shape))
        for percent in options.densities:
            call = getattr(rows[weights], kind)(percent / 100)
            calls[product, percent] = (call, rows[weights].touched(percent / 100))
    if options.torch:
        for name, call in torch_calls(*shape).items():
            size = shape[0] * shape[1]
            calls[name, 100.0] = (call, size * (2 if "bfloat16" in name else 1))
    return calls


def crossing(ratios: list[tuple[float, float]]) -> float | None:
    """The density at which `faster than dense by` falls to 1, between two measured ones."""
    for (low, above), (high, below) in pairwise(sorted(ratios)):
        if above >= 1.0 > below:
            return low + (high - low) * (above - 1.0) / (above - below)
    return None


def measure_shape(
    shape: tuple[int, int], read: Read, options: argparse.Namespace
) -> dict[str, Any]:
    """Rows of one shape, and where event-driven and dense products cross."""
    calls = contenders(shape, options)
    variants: dict[str, Any] = {READ: read}
    for key, (call, _) in calls.items():
        variants[label(key)] = lambda call=call: repeated(call, options.seconds, options.clock)
    turns = in_turns(variants, options.rounds, warm_up=0)  # every call warms up by itself
    rows = [row_of(key, touched, turns) for key, (_, touched) in calls.items()]
    crosses = {
        product: crossing(
            [(r["percent"], r["than_dense"]) for r in rows if r["product"] == product]
        )
        for product in options.products
    }
    read_gb_per_s = 1e-9 / turns.wall_s(READ).median
    return {"shape": shape, "rows": rows, "crosses_at": crosses, "read_gb_per_s": read_gb_per_s}


def label(key: Product) -> str:
    """The name of a variant."""
    return f"{key[0]}, {key[1]:g} %"


def row_of(key: Product, touched: int, turns: Turns) -> dict[str, Any]:
    """The figures of a product."""
    name, spread = label(key), turns.wall_s(label(key))

    def gain(other: str) -> float | None:
        other = label((other, 100.0))
        return turns.wall_ratio(other, to=name).median if other in turns.samples else None

    return {
        "product": key[0],
        "percent": key[1],
        "us": 1e6 * spread.median,
        "touched_bytes": touched,
        "gb_per_s": touched / spread.median / 1e9,
        "slowest_round_by": spread.max / spread.min,
        "share_of_read": touched * turns.wall_ratio(READ, to=name).median,
        "than_dense": gain(f"{key[0].split('-')[0]}-dense"),
        "than_torch_int8": gain("torch int8"),
        "than_torch_bfloat16": gain("torch bfloat16"),
    }


def targets(shapes: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """(what, figure, target) of the row lengths and of the dense product, as far as measured."""
    figures = []
    for result in shapes:
        inputs, outputs = result["shape"]
        for row in result["rows"]:
            what = f"{row['product']} {inputs} x {outputs}"
            if row["product"].startswith("int8-") and row["percent"] == 10.0:
                share, gain = ROW_TARGETS.get(outputs, (None, None))
                if share is not None:
                    figures.append((f"{what}, 10 %: share of read", row["share_of_read"], share))
                    figures.append((f"{what}, 10 %: than dense", row["than_dense"], gain))
            if row["product"].endswith("-dense") and (inputs, outputs) == DENSE_TARGET[0]:
                figures.append((f"{what}: share of read", row["share_of_read"], DENSE_TARGET[1]))
    return figures


def report_shape(report: Report, result: dict[str, Any]) -> None:
    """One shape."""
    inputs, outputs = result["shape"]
    rows = []
    for row in result["rows"]:
        gains = [
            f"{row[key]:.2f}x" if row[key] else ""
            for key in ("than_dense", "than_torch_int8", "than_torch_bfloat16")
        ]
        rows.append(
            [
                row["product"],
                f"{row['percent']:g} %",
                f"{row['touched_bytes'] / 1e6:.2f} MB",
                f"{row['us']:.1f} us",
                f"{row['slowest_round_by']:.1f}x",
                f"{row['gb_per_s']:.1f}",
                f"{100 * row['share_of_read']:.0f} %",
                *gains,
            ]
        )
    title = f"{inputs} x {outputs}, sequential read {result['read_gb_per_s']:.1f} GB/s"
    report.table(title, HEADER, rows, result)
    for product, percent in result["crosses_at"].items():
        print(
            f"\n{product}: dense is faster from "
            + (f"{percent:.0f} % on." if percent else "no measured density on.")
        )


def report_rest(report: Report, shapes: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Targets and what reads no weights."""
    figures = targets(shapes)
    rows = [[what, f"{figure:.2f}", f"{target:.2f}"] for what, figure, target in figures]
    report.table("Targets", ["target", "found", "target"], rows)
    variants = {
        name: lambda call=call: repeated(call, options.seconds, options.clock)
        for name, call in update_calls().items()
    }
    report.turns(
        "Without weights", "call", in_turns(variants, options.rounds, warm_up=0), compare=False
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    shared = parser(__doc__, rounds=5)
    shared.add_argument("--plot", metavar="FILE", help="write a picture (needs matplotlib)")
    shared.add_argument("--seconds", type=float, default=0.02, help="of a variant in a round")
    shared.add_argument("--shapes", nargs="+", default=SHAPES, help="inputs x outputs")
    shared.add_argument("--densities", nargs="+", type=float, default=DENSITIES, help="percents")
    shared.add_argument(
        "--products",
        nargs="+",
        default=PRODUCTS,
        choices=[*PRODUCTS, "float32-graded", "bfloat16-graded"],
    )
    shared.add_argument("--no-torch", dest="torch", action="store_false", help="leave torch out")
    shared.add_argument("--processor-time", action="store_true", help="of the thread, not elapsed")
    options = shared.parse_args(arguments)
    thread = Clock(time.thread_time, time.thread_time)
    options.clock = thread if options.processor_time else Clock()
    report = Report(options)
    print(f"\nOne thread, {'processor' if options.processor_time else 'elapsed'} time.")
    read, shapes = Read(options.clock), []
    for shape in options.shapes:
        inputs, outputs = (int(size) for size in shape.split("x"))
        shapes.append(measure_shape((inputs, outputs), read, options))
        report_shape(report, shapes[-1])
        print(f"{shape} measured", file=sys.stderr)
    report_rest(report, shapes, options)
    if options.plot:
        plot(shapes, options.plot)
    report.finish()


if __name__ == "__main__":
    main()
