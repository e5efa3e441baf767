"""What memory allows event-driven products: a loop that only reads the same rows, beside them.

    python benchmarks/row_reads.py [--rounds 9] [--shapes 1024x1024 ...] [--densities 10 50 100]
        [--json FILE]

One thread, int8 rows from memory as in kernels.py, spike counts. The loop (row_reads.c, compiled
here for this machine) reads rows one after another, fetching ahead in each of WAYS; the best one
is shown. `a call` is the product with no event: Python's call and the outputs. Then products of all
rows and loops that read them in STREAMS, beside the dense product; and the sequential read of one
thread and of two at once. Elapsed time.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
import threading
import time
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from harness import Measure, Report, Sample, in_turns, parser, repeated
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
HEADER = (
    "int8 rows", "active", "product", "a call", "loop that reads", "fetching", "product to loop",
)  # fmt: skip


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


def variants_of(calls: dict[Any, Call], seconds: float) -> dict[str, Measure]:
    """Each call, repeated for so long, by its key as text."""
    return {str(key): lambda call=call: repeated(call, seconds) for key, call in calls.items()}


def measure(read: Any, rows: Rows, density: float, options: argparse.Namespace) -> list[str]:
    """A line of the table."""
    calls: dict[Any, Call] = {way: reading(read, rows, density, *way) for way in WAYS}
    calls |= {"product": rows.counts(density), "call": empty(rows)}
    turns = in_turns(variants_of(calls, options.seconds), options.rounds, warm_up=0)
    medians = {key: turns.wall_s(str(key)).median for key in calls}
    best = min(WAYS, key=lambda way: medians[way])
    touched = rows.touched(density)
    return [
        f"{rows.inputs} x {rows.outputs}",
        f"{100 * density:g} %",
        f"{1e6 * medians['product']:.1f} us, {touched / medians['product'] / 1e9:.1f} GB/s",
        f"{1e6 * medians['call']:.1f} us",
        f"{1e6 * medians[best]:.1f} us, {touched / medians[best] / 1e9:.1f} GB/s",
        f"{best[0]}, {best[1]}",
        f"{turns.wall_ratio('product', to=str(best)).median:.2f}",
    ]


def measure_streams(read: Any, rows: Rows, options: argparse.Namespace) -> list[str]:
    """A line of the table of all rows: multiples of the dense product's time."""
    calls: dict[Any, Call] = {
        "dense": call_dense("int8", rows.inputs, rows.outputs),
        "product": rows.counts(1.0),
        **{way: streaming(read, rows, *way) for way in STREAMS},
    }
    turns = in_turns(variants_of(calls, options.seconds), options.rounds, warm_up=0)
    ratios = [turns.wall_ratio(name).median for name in list(turns.samples)[1:]]
    return [
        f"{rows.inputs} x {rows.outputs}",
        f"{1e6 * turns.wall_s('dense').median:.1f} us",
        *(f"{ratio:.2f}" for ratio in ratios),
    ]


def sequential(read: Any, threads: int, memory: np.ndarray) -> Sample:
    """Seconds a byte that so many threads read together, each its own part, one pass."""
    part = SEQUENTIAL_BYTES // threads
    zero, barrier = np.zeros(1, np.int32), threading.Barrier(threads)
    spans: list[tuple[float, float]] = []

    def work(number: int) -> None:
        at = memory.ctypes.data + number * part
        barrier.wait()
        start = time.perf_counter()
        read(at, part, part // LINE, zero.ctypes.data, 1, 0, 0)
        spans.append((start, time.perf_counter()))

    used_s = time.process_time()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wall_s = max(end for _, end in spans) - min(start for start, _ in spans)
    return Sample(wall_s / SEQUENTIAL_BYTES, (time.process_time() - used_s) / SEQUENTIAL_BYTES)


def report_reads(report: Report, loops: Any, rounds: int) -> None:
    """The sequential read of one thread and of two."""
    memory = Arena(SEQUENTIAL_BYTES + LINE).place(np.ones((1, SEQUENTIAL_BYTES), np.uint8))[0]
    names = {threads: f"{threads} threads" for threads in (1, 2)}
    turns = in_turns(
        {name: partial(sequential, loops.read_rows, t, memory) for t, name in names.items()},
        4 * rounds,
    )
    rows = []
    for name in turns.samples:
        spread = turns.wall_s(name)
        figures = (1e-9 / seconds for seconds in (spread.median, spread.max, spread.min))
        rows.append([name, *(f"{gigabytes:.1f}" for gigabytes in figures)])
    report.table("Sequential read, GB/s", ["", "median", "least", "most"], rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    shared = parser(__doc__, rounds=9)
    shared.add_argument("--seconds", type=float, default=0.01, help="of a variant in a round")
    shared.add_argument("--shapes", nargs="+", default=SHAPES, help="inputs x outputs")
    shared.add_argument("--densities", nargs="+", type=float, default=(10.0, 50.0, 100.0))
    options = shared.parse_args(arguments)
    report = Report(options)
    loops = readers()
    matrices = [Rows("int8", *(int(size) for size in shape.split("x"))) for shape in options.shapes]
    lines = [
        measure(loops.read_rows, rows, percent / 100, options)
        for rows in matrices
        for percent in options.densities
    ]
    report.table("Products, and loops that only read their rows", HEADER, lines)
    ways = [f"{count} at a time" + (f", {far} B ahead" if far else "") for count, far in STREAMS]
    lines = [measure_streams(loops.read_streams, rows, options) for rows in matrices]
    header = ["all rows", "dense product", "product", *ways]
    report.table("All rows, multiples of the dense product's time", header, lines)
    report_reads(report, loops, options.rounds)
    report.finish()


if __name__ == "__main__":
    main()
