"""What memory allows event-driven products: a loop that only reads the same rows, beside them.

    python benchmarks/row_reads.py [--rounds 9] [--shapes 1024x1024 ...] [--densities 10 50 100]

One thread, int8 rows from memory as in kernels.py, spike counts. The loop (row_reads.c, compiled
here for this machine) reads rows one after another, fetching ahead in each of WAYS; the best one
is shown. `a call` is the product with no event: Python's call and the outputs. Then products of all
rows and loops that read them in STREAMS, beside the dense product; and the sequential read of one
thread and of two at once. Elapsed time in turns, medians over rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import threading
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from kernel_calls import Call, Rows, call_dense, lists_of, turns

from spiketrain.runtime.kernels import products
from spiketrain.runtime.memory import Arena

# Lines between asking for one and reading it, and asking again; 0 for not at all.
WAYS = ((0, 0), (64, 0), (128, 0), (256, 32), (512, 64))
# Rows read side by side, and bytes between asking for a line and reading it.
STREAMS = ((1, 0), (1, 8192), (2, 0), (4, 0), (4, 8192), (16, 0), (16, 32768))
SHAPES = ("1024x1024", "2048x2048", "4096x4096", "3584x18944")
LINE = 64
SEQUENTIAL_BYTES = 256 << 20


def readers() -> Any:
    """The compiled loops."""
    source = Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "row_reads.so"
        flags = ["-O3", "-march=native", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, "-o", str(library), str(source)], check=True)
        loops = ctypes.CDLL(str(library))
    size, pointer = ctypes.c_ssize_t, ctypes.c_void_p
    loops.read_rows.argtypes = (pointer, size, size, pointer, size, size, size)
    loops.read_streams.argtypes = (pointer, size, size, size, size, size)
    loops.read_rows.restype = loops.read_streams.restype = ctypes.c_uint64
    return loops


def reading(read: Any, rows: Rows, density: float, ahead: int, again: int) -> Call:
    """Reads the rows of the next list in the next copy."""
    lines = -(-rows.row_bytes // LINE)
    lists = lists_of(rows.inputs, density)
    copies = [(copy.ctypes.data, copy.strides[0]) for (copy,) in rows.copies]
    order = turns(copies, [(index.ctypes.data, len(index)) for index in lists])

    def call(_keep: object = lists) -> None:
        (weight, stride), (index, count) = next(order)
        read(weight, stride, lines, index, count, ahead, again)

    return call


def streaming(read: Any, rows: Rows, streams: int, ahead: int) -> Call:
    """Reads all rows of the next copy, so many side by side."""
    lines = -(-rows.row_bytes // LINE)
    order = cycle([(copy.ctypes.data, copy.strides[0]) for (copy,) in rows.copies])
    return lambda: read(*next(order), lines, rows.inputs, streams, ahead)


def empty(rows: Rows) -> Call:
    """The product of a list without events."""
    matrix = products.Sparse("int8", rows.copies[0][0], rows.outputs, rows.scale)
    events = products.Events("int8", np.zeros((1, rows.inputs), np.int16), np.ones(1, np.float32))
    y, pool = np.empty((1, rows.outputs), np.float32), products.Pool(1)
    return lambda: matrix.multiply(events, y, pool)


def seconds(call: Call, budget_s: float) -> float:
    """Median seconds of a call over about `budget_s`."""
    call()
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def in_turns(calls: dict[Any, Call], options: argparse.Namespace) -> dict[Any, list[float]]:
    """Seconds of every call in every round."""
    times: dict[Any, list[float]] = {key: [] for key in calls}
    for _ in range(options.rounds):
        for key, call in calls.items():
            times[key].append(seconds(call, options.seconds))
    return times


def measure(read: Any, rows: Rows, density: float, options: argparse.Namespace) -> str:
    """A line of the table."""
    calls: dict[Any, Call] = {way: reading(read, rows, density, *way) for way in WAYS}
    calls |= {"product": rows.counts(density), "call": empty(rows)}
    times = in_turns(calls, options)
    found = {key: statistics.median(all_) for key, all_ in times.items()}
    best = min(WAYS, key=lambda way: found[way])
    touched = rows.touched(density)
    ratio = statistics.median(
        ours / theirs for ours, theirs in zip(times["product"], times[best], strict=True)
    )
    return (
        f"| {rows.inputs} x {rows.outputs} | {100 * density:g} % "
        f"| {1e6 * found['product']:.1f} us, {touched / found['product'] / 1e9:.1f} GB/s "
        f"| {1e6 * found['call']:.1f} us | {1e6 * found[best]:.1f} us, "
        f"{touched / found[best] / 1e9:.1f} GB/s | {best[0]}, {best[1]} | {ratio:.2f} |"
    )


def measure_streams(read: Any, rows: Rows, options: argparse.Namespace) -> str:
    """A line of the table of all rows: multiples of the dense product's time."""
    calls: dict[Any, Call] = {way: streaming(read, rows, *way) for way in STREAMS}
    dense = call_dense("int8", rows.inputs, rows.outputs)
    times = in_turns({"dense": dense, "product": rows.counts(1.0), **calls}, options)
    own = times.pop("dense")
    ratios = [
        statistics.median(ours / theirs for ours, theirs in zip(found, own, strict=True))
        for found in times.values()
    ]
    return (
        f"| {rows.inputs} x {rows.outputs} | {1e6 * statistics.median(own):.1f} us | "
        + " | ".join(f"{ratio:.2f}" for ratio in ratios)
        + " |"
    )


def sequential(read: Any, threads: int, memory: np.ndarray) -> float:
    """Bytes per second that so many threads read together, each its own part, one pass."""
    part = SEQUENTIAL_BYTES // threads
    zero, barrier = np.zeros(1, np.int32), threading.Barrier(threads)
    spans: list[tuple[float, float]] = []

    def work(number: int) -> None:
        at = memory.ctypes.data + number * part
        barrier.wait()
        start = time.perf_counter()
        read(at, part, part // LINE, zero.ctypes.data, 1, 0, 0)
        spans.append((start, time.perf_counter()))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return SEQUENTIAL_BYTES / (max(end for _, end in spans) - min(start for start, _ in spans))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Reading rows, and products of them.")
    parser.add_argument("--rounds", type=int, default=9, help="rounds")
    parser.add_argument("--seconds", type=float, default=0.01, help="of a contender in a round")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="inputs x outputs")
    parser.add_argument("--densities", nargs="+", type=float, default=(10.0, 50.0, 100.0))
    options = parser.parse_args()
    loops = readers()
    matrices = [Rows("int8", *(int(size) for size in shape.split("x"))) for shape in options.shapes]
    print(
        "| int8 rows | active | product | a call | loop that reads | fetching | product to loop |"
    )
    print("|---|---|---|---|---|---|---|")
    for rows in matrices:
        for percent in options.densities:
            print(measure(loops.read_rows, rows, percent / 100, options), flush=True)
    streams = [f"{count} at a time" + (f", {far} B ahead" if far else "") for count, far in STREAMS]
    print("\n| all rows | dense product | product |", " | ".join(streams), "|")
    print("|---" * (3 + len(STREAMS)) + "|")
    for rows in matrices:
        print(measure_streams(loops.read_streams, rows, options), flush=True)
    memory = Arena(SEQUENTIAL_BYTES + LINE).place(np.ones((1, SEQUENTIAL_BYTES), np.uint8))[0]
    for threads in (1, 2):
        found = [
            sequential(loops.read_rows, threads, memory) / 1e9 for _ in range(4 * options.rounds)
        ]
        print(
            f"\nsequential read, {threads} threads: {statistics.median(found):.1f} GB/s "
            f"({min(found):.1f} to {max(found):.1f})"
        )


if __name__ == "__main__":
    main()
