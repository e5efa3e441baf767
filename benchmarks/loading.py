"""How long a package takes to load, by a fresh process, and how much memory at most.

    python benchmarks/loading.py DIR [--rounds 3] [--threads 2] [--json FILE]

The files are read once before, so that they are in the page cache. First the machine is as it was
found: pages that a virtual machine has not used lately have to be had from its host, which can take
longer than all the rest. Then in every round one process writes to as much memory as the files have
bytes, and a quarter more, and ends; the next one loads, from pages that were in use just before.
"""

from __future__ import annotations

import argparse
import json
import mmap
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from harness import Report, Sample, in_turns, parser, runtime_module, timed

AS_FOUND, USED_BEFORE = "memory as found", "memory in use before"


def take(nbytes: int) -> dict[str, float]:
    """Write to that much memory, page by page."""

    def write() -> None:
        region = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            region.madvise(mmap.MADV_HUGEPAGE)
        np.frombuffer(region, np.uint8)[:: mmap.PAGESIZE] = 1

    return asdict(timed(write))


def load(path: Path, threads: int) -> dict[str, float]:
    """Load a package once."""
    runtime = runtime_module()
    sample = timed(lambda: runtime.load_model(path, threads=threads))
    return {
        **asdict(sample),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


class Elsewhere:
    """Runs of this script with other arguments, each a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self._command = [sys.executable, __file__, *arguments]
        self.answers: list[dict[str, Any]] = []

    def __call__(self) -> Sample:
        """What one more run took."""
        done = subprocess.run(self._command, check=True, stdout=subprocess.PIPE)
        self.answers.append(json.loads(done.stdout))
        return Sample(self.answers[-1]["wall_s"], self.answers[-1]["processor_s"])

    def peak(self, file_bytes: int) -> str:
        """The most memory that any run took, of the files' size."""
        return f"{100 * max(one['peak_bytes'] for one in self.answers) / file_bytes:.0f} %"


def read_once(path: Path) -> int:
    """Bring the package's tensors into the page cache; return their bytes."""
    nbytes = 0
    for file in sorted(path.glob("*.safetensors")):
        nbytes += file.stat().st_size
        with open(file, "rb") as stream:
            while stream.read(1 << 24):
                pass
    return nbytes


def after(first: Callable[[], object], then: Elsewhere) -> Callable[[], Sample]:
    """Time the second of two."""

    def measure() -> Sample:
        first()
        return then()

    return measure


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    shared = parser(__doc__, rounds=3)
    shared.add_argument("path", type=Path, nargs="?", help="a package")
    shared.add_argument("--threads", type=int, default=2)
    shared.add_argument("--take", type=int, help=argparse.SUPPRESS)
    shared.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = shared.parse_args(arguments)
    if options.take:
        print(json.dumps(take(options.take)))
        return
    if options.load:
        print(json.dumps(load(options.load, options.threads)))
        return
    if options.path is None:
        shared.error("a package must be named")
    report = Report(options)
    nbytes = read_once(options.path)
    flags = ("--load", str(options.path), "--threads", str(options.threads))
    loading = Elsewhere(*flags)
    as_found = in_turns({AS_FOUND: loading}, 1, warm_up=0)
    most = {AS_FOUND: loading.peak(nbytes)}
    header = "most memory, of the files' size"
    report.turns("One load", "load", as_found, {header: most}, {"file_bytes": nbytes})
    taking, loading = Elsewhere("--take", str(nbytes + nbytes // 4)), Elsewhere(*flags)
    used = in_turns({USED_BEFORE: after(taking, loading)}, options.rounds, warm_up=0)
    most = {USED_BEFORE: loading.peak(nbytes)}
    report.turns("Later loads", "load", used, {header: most}, {"written": taking.answers})
    report.finish()


if __name__ == "__main__":
    main()
