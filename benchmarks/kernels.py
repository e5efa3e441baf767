"""Products of one token: time, bytes touched, share of the read bandwidth, against dense and torch.

    python benchmarks/kernels.py [--json] [--plot FILE.png] [--rounds 5] [--seconds 0.02]
        [--shapes 1024x1024 ...] [--densities 1 10 100 ...] [--products int8-graded ...]
        [--no-torch] [--processor-time]

One thread; about five minutes without options. Products read the rows of events: `int8-graded`
(16-bit events, EGRU), `int8-counts` and `int4-counts` (spike counts), `float32-graded` and
`bfloat16-graded`; lists are made before. Dense products of integer weights quantise their input as
well; torch's int8 is a dynamically quantised Linear, its bfloat16 a Linear. Rows come from memory
(kernel_calls.py). All take turns in every round; times are medians of a round's calls and over
rounds, ratios medians of ratios within a round, shares those of a sequential read of huge pages in
the same round (NumPy's search for the largest byte). Where the slowest round took a multiple of the
fastest, the machine was busy. `--processor-time` counts the thread's own time, which a busy machine
disturbs less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from kernel_calls import Call, Rows, call_dense, dense_bytes, torch_calls, update_calls

from spiketrain.runtime.kernels import dispatch
from spiketrain.runtime.memory import Arena

SHAPES = ("1024x1024", "2048x2048", "4096x4096", "3584x18944")
DENSITIES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 65.0, 80.0, 100.0)
PRODUCTS = ("int8-graded", "int8-counts", "int4-counts")
PIECE_BYTES = 4 << 20
# Share of the read bandwidth and gain over dense of int8 rows at 10 %, by outputs.
ROW_TARGETS = {18944: (0.85, 9.0), 4096: (0.75, 7.0), 1024: (0.65, 6.0)}
DENSE_TARGET = ((3584, 18944), 0.9)

Clock = Callable[[], float]


class Read:
    """Sequential reading of 256 MB on one thread."""

    def __init__(self) -> None:
        size = 256 << 20
        self.bytes = Arena(size + 64).place(np.ones((1, size), np.uint8))[0]

    def bandwidth(self, clock: Clock) -> float:
        """Bytes per second: the median over pieces."""
        times = []
        for start in range(0, self.bytes.size, PIECE_BYTES):
            piece = self.bytes[start : start + PIECE_BYTES]
            begin = clock()
            piece.max()
            times.append(clock() - begin)
        return PIECE_BYTES / statistics.median(times)


def seconds(call: Call, budget_s: float, clock: Clock) -> float:
    """Median seconds of a call over about `budget_s`, after one that counts for nothing."""
    call()
    times = []
    end = clock() + budget_s
    while clock() < end or len(times) < 3:
        start = clock()
        call()
        times.append(clock() - start)
    return statistics.median(times)


def contenders(
    shape: tuple[int, int], options: argparse.Namespace
) -> dict[tuple[str, float], tuple[Call, int]]:
    """(name, percent of the inputs) -> (call, bytes that it touches)."""
    found: dict[tuple[str, float], tuple[Call, int]] = {}
    rows: dict[str, Rows] = {}
    for product in options.products:
        weights, kind = product.split("-")
        if weights not in rows:
            rows[weights] = Rows(weights, *shape)
            dense = call_dense(weights, *shape)
            found[f"{weights}-dense", 100.0] = (dense, dense_bytes(weights, *shape))
        for percent in options.densities:
            call = getattr(rows[weights], kind)(percent / 100)
            found[product, percent] = (call, rows[weights].touched(percent / 100))
    if options.torch:
        for name, call in torch_calls(*shape).items():
            size = shape[0] * shape[1]
            found[name, 100.0] = (call, size * (2 if "bfloat16" in name else 1))
    return found


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
    times: dict[tuple[str, float], list[float]] = {key: [] for key in calls}
    bandwidths = []
    for _ in range(options.rounds):
        bandwidths.append(read.bandwidth(options.clock))
        for key, (call, _) in calls.items():
            times[key].append(seconds(call, options.seconds, options.clock))

    def ratio(key: tuple[str, float], other: tuple[str, float]) -> float | None:
        if other not in times:
            return None
        pairs = zip(times[other], times[key], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    rows = []
    for (name, percent), (_, touched) in calls.items():
        key, found = (name, percent), times[name, percent]
        pairs = zip(found, bandwidths, strict=True)
        rows.append(
            {
                "product": name,
                "percent": percent,
                "us": 1e6 * statistics.median(found),
                "touched_bytes": touched,
                "gb_per_s": touched / statistics.median(found) / 1e9,
                "slowest_round_by": max(found) / min(found),
                "share_of_read": statistics.median(touched / t / b for t, b in pairs),
                "than_dense": ratio(key, (f"{name.split('-')[0]}-dense", 100.0)),
                "than_torch_int8": ratio(key, ("torch int8", 100.0)),
                "than_torch_bfloat16": ratio(key, ("torch bfloat16", 100.0)),
            }
        )
    crosses = {
        product: crossing(
            [(r["percent"], r["than_dense"]) for r in rows if r["product"] == product]
        )
        for product in options.products
    }
    read_gb_per_s = statistics.median(bandwidths) / 1e9
    return {"shape": shape, "rows": rows, "crosses_at": crosses, "read_gb_per_s": read_gb_per_s}


def targets(shapes: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """(what, found, target) of the row lengths and of the dense product, as far as measured."""
    found = []
    for result in shapes:
        inputs, outputs = result["shape"]
        for row in result["rows"]:
            what = f"{row['product']} {inputs} x {outputs}"
            if row["product"].startswith("int8-") and row["percent"] == 10.0:
                share, gain = ROW_TARGETS.get(outputs, (None, None))
                if share is not None:
                    found.append((f"{what}, 10 %: share of read", row["share_of_read"], share))
                    found.append((f"{what}, 10 %: than dense", row["than_dense"], gain))
            if row["product"].endswith("-dense") and (inputs, outputs) == DENSE_TARGET[0]:
                found.append((f"{what}: share of read", row["share_of_read"], DENSE_TARGET[1]))
    return found


def print_shape(result: dict[str, Any]) -> None:
    """One shape as Markdown."""
    inputs, outputs = result["shape"]
    print(f"\n{inputs} x {outputs}, sequential read {result['read_gb_per_s']:.1f} GB/s\n")
    print(
        "| product | active | touched | time | slowest to fastest round | GB/s | share of read "
        "| than dense | than torch int8 | than torch bfloat16 |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for row in result["rows"]:
        gains = " | ".join(
            f"{row[key]:.2f}x" if row[key] else ""
            for key in ("than_dense", "than_torch_int8", "than_torch_bfloat16")
        )
        print(
            f"| {row['product']} | {row['percent']:g} % "
            f"| {row['touched_bytes'] / 1e6:.2f} MB | {row['us']:.1f} us "
            f"| {row['slowest_round_by']:.1f}x | {row['gb_per_s']:.1f} "
            f"| {100 * row['share_of_read']:.0f} % | {gains} |"
        )
    for product, percent in result["crosses_at"].items():
        print(
            f"\n{product}: dense is faster from "
            + (f"{percent:.0f} % on." if percent else "no measured density on.")
        )


def print_rest(shapes: list[dict[str, Any]], updates: dict[str, float]) -> None:
    """Targets and what reads no weights, as Markdown."""
    print("\n| target | found | target |\n|---|---|---|")
    for what, found, target in targets(shapes):
        print(f"| {what} | {found:.2f} | {target:.2f} |")
    print("\n| without weights | time |\n|---|---|")
    for name, us in updates.items():
        print(f"| {name} | {us:.1f} us |")


def plot(shapes: list[dict[str, Any]], file: str) -> None:
    """Share of the read bandwidth and gain over dense by density: a column for each product."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(shapes[0]["crosses_at"])
    figure, axes = plt.subplots(
        2, len(names), figsize=(4 * len(names), 7), squeeze=False, sharex=True, layout="constrained"
    )
    for column, name in enumerate(names):
        share, gain = axes[0][column], axes[1][column]
        for result in shapes:
            rows = sorted((r for r in result["rows"] if r["product"] == name), key=_percent)
            percents = [r["percent"] for r in rows]
            label = " x ".join(str(size) for size in result["shape"])
            share.plot(percents, [100 * r["share_of_read"] for r in rows], "o-", label=label)
            gain.plot(percents, [r["than_dense"] for r in rows], "o-", label=label)
        gain.plot(percents, [100 / p for p in percents], "k:", label="bytes of dense / touched")
        gain.axhline(1.0, color="0.6", lw=1)
        share.set(title=name, ylabel="% of sequential read", xscale="log", ylim=(0, None))
        gain.set(xlabel="% of inputs active", ylabel="faster than dense by", yscale="log")
    axes[0][0].legend()
    axes[1][0].legend()
    figure.savefig(file, dpi=110)


def _percent(row: dict[str, Any]) -> float:
    return row["percent"]


def parse() -> argparse.Namespace:
    """The command line; `clock` is added."""
    parser = argparse.ArgumentParser(description="Event-driven and dense products of one token.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", metavar="FILE", help="write a picture (needs matplotlib)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=0.02, help="of a contender in a round")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="inputs x outputs")
    parser.add_argument("--densities", nargs="+", type=float, default=DENSITIES, help="percents")
    parser.add_argument(
        "--products",
        nargs="+",
        default=PRODUCTS,
        choices=[*PRODUCTS, "float32-graded", "bfloat16-graded"],
    )
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="leave torch out")
    parser.add_argument("--processor-time", action="store_true", help="of the thread, not elapsed")
    options = parser.parse_args()
    options.clock = time.thread_time if options.processor_time else time.perf_counter
    return options


def main() -> None:
    """Measure and print."""
    options = parse()
    read, shapes = Read(), []
    for shape in options.shapes:
        inputs, outputs = (int(size) for size in shape.split("x"))
        shapes.append(measure_shape((inputs, outputs), read, options))
        print(f"{shape} measured", file=sys.stderr)
    updates = {
        name: 1e6 * seconds(call, options.seconds, options.clock)
        for name, call in update_calls().items()
    }
    if options.plot:
        plot(shapes, options.plot)
    if options.json:
        result = {"build": dispatch.active(), "rounds": options.rounds, "shapes": shapes}
        print(json.dumps({**result, "us_without_weights": updates}))
        return
    timed = "processor time" if options.processor_time else "elapsed time"
    print(f"Build {dispatch.active()}, one thread, {timed}, medians of {options.rounds} rounds.")
    for result in shapes:
        print_shape(result)
    print_rest(shapes, updates)


if __name__ == "__main__":
    main()
