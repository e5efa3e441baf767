"""Event-driven products against dense ones of the same weights, and the density where they cross.

    python benchmarks/crossover.py [--json] [--rounds 5]

One thread, one token. Int8 rows are those of gather_int8, from lists made before; int4 rows and all
dense products are calls of runtime.kernels.products, which quantise or list their input as well.
torch's int8 is a dynamically quantised Linear, its bfloat16 a Linear; without torch they are left
out. Copies of a matrix fill 128 MB (64 MB
for torch) and take turns, and all contenders take turns in every round;
ratios are medians of ratios within a round, shares those of the sequential read in the same round.
Where the slowest round took a multiple of the fastest, ratios with that contender mean little.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from itertools import cycle, pairwise
from typing import Any

import numpy as np
from kernels import COPIES_BYTES, Product, read_bandwidth, seconds

from runtime.kernels import dispatch, products
from runtime.memory import Arena, matrix_bytes

SHAPES = ((1024, 1024), (2048, 2048), (4096, 4096), (3584, 18944))
DENSITIES = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
GROUP = 32
TORCH_BYTES = 64 << 20  # copies of torch's layers, which are slow to make
SPAN = 128

Call = Callable[[], None]


def copies_of(arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
    """The arrays in huge pages, as often as fill the copies' bytes."""
    size = sum(array.nbytes for array in arrays)
    count = max(1, COPIES_BYTES // size)
    arena = Arena(count * sum(matrix_bytes(array) for array in arrays))
    return [[arena.place(array) for array in arrays] for _ in range(count)]


def rows_int4(inputs: int, outputs: int) -> list[products.Sparse]:
    """Copies of event-driven int4 weights."""
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 256, (inputs, outputs // 2), np.uint8)
    multiplier = rng.integers(1, 16, (inputs, -(-outputs // SPAN)), np.uint8)
    scale = np.ones(outputs, np.float32)
    return [
        products.Sparse("int4", codes, outputs, scale, factors)
        for codes, factors in copies_of([weight, multiplier])
    ]


def call_rows_int4(matrices: list[products.Sparse], shape: tuple[int, int], density: float) -> Call:
    """Products of counts, `density` of them non-zero, with the copies in turn."""
    rng = np.random.default_rng(1)
    counts = np.zeros((8, 1, shape[0]), np.int16)
    for row in counts:
        active = rng.permutation(shape[0])[: max(1, round(density * shape[0]))]
        row[0, active] = rng.integers(1, 8, len(active))
    y, unit, pool = np.empty((1, shape[1]), np.float32), np.ones(1, np.float32), products.Pool(1)
    turns = zip(cycle(matrices), cycle(counts), strict=False)

    def call() -> None:
        matrix, count = next(turns)
        matrix.counts(count, unit, y, pool)

    return call


def call_dense(weights: str, inputs: int, outputs: int) -> Call:
    """Products of one token with copies of packed weights in turn."""
    rng = np.random.default_rng(0)
    group = GROUP if weights == "int4" else 0
    panels = np.zeros(products.panels_shape(weights, inputs, outputs, group), np.uint8)
    scale = np.ones(outputs, np.float32)
    if weights == "int8":
        products.pack_int8(rng.integers(-127, 128, (inputs, outputs)).astype(np.int8), panels)
    else:
        codes = rng.integers(0, 256, (inputs, outputs // 2), np.uint8)
        products.pack_int4(codes, np.ones((inputs // GROUP, outputs), np.float32), group, panels)
    matrices = [
        products.Dense(weights, copy, inputs, outputs, scale, group)
        for (copy,) in copies_of([panels])
    ]
    x = rng.normal(size=(1, inputs)).astype(np.float32)
    y, pool, turns = np.empty((1, outputs), np.float32), products.Pool(1), cycle(matrices)
    return lambda: next(turns).multiply(x, y, pool)


def torch_calls(inputs: int, outputs: int) -> dict[str, Call]:
    """Linear layers in bfloat16 and dynamic int8; none without torch."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    layer = torch.nn.Linear(inputs, outputs, bias=False)
    half = layer.to(torch.bfloat16)
    copies = max(1, TORCH_BYTES // (2 * inputs * outputs))
    weights = cycle([half.weight.detach().clone() for _ in range(copies)])
    x = torch.randn(1, inputs)
    x_half = x.to(torch.bfloat16)
    codes = [
        torch.ao.quantization.quantize_dynamic(
            torch.nn.Sequential(torch.nn.Linear(inputs, outputs, bias=False)), dtype=torch.qint8
        )
        for _ in range(max(1, TORCH_BYTES // (inputs * outputs)))
    ]
    turns = cycle(codes)

    def run(product: Callable[[], Any]) -> Call:
        def call() -> None:
            with torch.inference_mode():
                product()

        return call

    return {
        "torch bfloat16": run(lambda: torch.nn.functional.linear(x_half, next(weights))),
        "torch int8": run(lambda: next(turns)(x)),
    }


def contenders(shape: tuple[int, int]) -> dict[tuple[str, float], tuple[Call, int]]:
    """(name, density) -> (call, bytes that it touches)."""
    inputs, outputs = shape
    size = {"int8": inputs * outputs, "int4": inputs * outputs // 2}
    found: dict[tuple[str, float], tuple[Call, int]] = {}
    rows = rows_int4(inputs, outputs)
    first = Product(inputs, outputs, 1.0, np.int8)
    for density in DENSITIES:
        product = Product(inputs, outputs, density, np.int8, first.copies)
        found["int8 rows", density] = (product, product.touched)
        row_bytes = outputs // 2 + -(-outputs // SPAN)
        touched = max(1, round(density * inputs)) * row_bytes
        found["int4 rows", density] = (call_rows_int4(rows, shape, density), touched)
    found["int8 dense", 1.0] = (call_dense("int8", *shape), size["int8"])
    scales = 2 * (inputs // GROUP) * outputs
    found["int4 dense", 1.0] = (call_dense("int4", *shape), size["int4"] + scales)
    for name, call in torch_calls(*shape).items():
        found[name, 1.0] = (call, size["int8"] * (2 if "bfloat16" in name else 1))
    return found


def crossing(ratios: list[tuple[float, float]]) -> float | None:
    """The density at which `faster than dense by` falls to 1, between two measured ones."""
    for (low, above), (high, below) in pairwise(ratios):
        if above >= 1.0 > below:
            return low + (high - low) * (above - 1.0) / (above - below)
    return None


def measure_shape(shape: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Rows of one shape, and where event-driven and dense products cross."""
    calls = contenders(shape)
    times: dict[tuple[str, float], list[float]] = {key: [] for key in calls}
    bandwidths = []
    for _ in range(rounds):
        bandwidths.append(read_bandwidth())
        for key, (call, _) in calls.items():
            times[key].append(seconds(call))

    def ratio(key: tuple[str, float], other: tuple[str, float]) -> float | None:
        if other not in times:
            return None
        pairs = zip(times[other], times[key], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    rows, crosses = [], {}
    for (name, density), (_, touched) in calls.items():
        key, found = (name, density), times[name, density]
        pairs = zip(found, bandwidths, strict=True)
        rows.append(
            {
                "shape": f"{shape[0]} x {shape[1]}",
                "product": name,
                "density": density,
                "us": 1e6 * statistics.median(found),
                "touched_bytes": touched,
                "gb_per_s": touched / statistics.median(found) / 1e9,
                "slowest_round_by": max(found) / min(found),
                "share_of_read": statistics.median(touched / t / b for t, b in pairs),
                "than_dense": ratio(key, (f"{name[:4]} dense", 1.0)),
                "than_torch_int8": ratio(key, ("torch int8", 1.0)),
                "than_torch_bfloat16": ratio(key, ("torch bfloat16", 1.0)),
            }
        )
    for weights in ("int8", "int4"):
        dense = (f"{weights} dense", 1.0)
        ratios = [(d, ratio((f"{weights} rows", d), dense) or 0.0) for d in DENSITIES]
        crosses[weights] = crossing(ratios)
    read = statistics.median(bandwidths) / 1e9
    return {"rows": rows, "crosses_at": crosses, "read_gb_per_s": read}


def print_shape(shape: tuple[int, int], result: dict[str, Any]) -> None:
    """One shape as Markdown."""
    print(f"\n{shape[0]} x {shape[1]}, sequential read {result['read_gb_per_s']:.1f} GB/s\n")
    print(
        "| product | active | touched | time | slowest to fastest round | GB/s | share of read "
        "| than dense | than torch int8 | than torch bfloat16 |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for row in result["rows"]:
        gains = " | ".join(
            f"{row[key]:.1f}x" if row[key] else ""
            for key in ("than_dense", "than_torch_int8", "than_torch_bfloat16")
        )
        print(
            f"| {row['product']} | {100 * row['density']:.0f} % "
            f"| {row['touched_bytes'] / 1e6:.2f} MB | {row['us']:.0f} us "
            f"| {row['slowest_round_by']:.1f}x | {row['gb_per_s']:.1f} "
            f"| {100 * row['share_of_read']:.0f} % | {gains} |"
        )
    for weights, density in result["crosses_at"].items():
        print(
            f"\n{weights}: dense is faster from "
            + (f"{100 * density:.0f} % on." if density else "no measured density on.")
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Event-driven against dense products.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="rounds")
    options = parser.parse_args()
    if not options.json:
        print(f"Build {dispatch.active()}, one thread, medians of {options.rounds} rounds.")
    named = {}
    for shape in SHAPES:
        result = measure_shape(shape, options.rounds)
        named[f"{shape[0]}x{shape[1]}"] = result
        if not options.json:
            print_shape(shape, result)
    if options.json:
        print(json.dumps({"build": dispatch.active(), "rounds": options.rounds, "shapes": named}))


if __name__ == "__main__":
    main()
