"""How long a package takes to load, by a fresh process, and how much memory at most.

    python benchmarks/loading.py DIR [--rounds 3] [--threads 2] [--json]

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
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def take(nbytes: int) -> dict[str, float]:
    """Write to that much memory, page by page."""
    start = time.perf_counter()
    region = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        region.madvise(mmap.MADV_HUGEPAGE)
    np.frombuffer(region, np.uint8)[:: mmap.PAGESIZE] = 1
    return {"seconds": time.perf_counter() - start}


def load(path: Path, threads: int) -> dict[str, float]:
    """Load a package once."""
    from spiketrain import runtime

    start, processor = time.perf_counter(), time.process_time()
    model = runtime.load_model(path, threads=threads)
    return {
        "seconds": time.perf_counter() - start,
        "processor_s": time.process_time() - processor,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "state_bytes": model.state_nbytes,
    }


def elsewhere(*arguments: str) -> dict[str, float]:
    """What a process of its own finds."""
    command = [sys.executable, __file__, *arguments]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    )
    return found


def measure(path: Path, threads: int, rounds: int) -> dict[str, Any]:
    """The load as the machine was found, and `rounds` loads from memory in use before."""
    nbytes = 0
    for file in sorted(path.glob("*.safetensors")):
        nbytes += file.stat().st_size
        with open(file, "rb") as stream:
            while stream.read(1 << 24):
                pass
    loading = ("--load", str(path), "--threads", str(threads))
    first = elsewhere(*loading)
    taken, loaded = [], []
    for _ in range(rounds):
        taken.append(elsewhere("--take", str(nbytes + nbytes // 4)))
        loaded.append(elsewhere(*loading))
    return {"file_bytes": nbytes, "as_found": first, "taken": taken, "loaded": loaded}


def print_table(result: dict[str, Any]) -> None:
    """The result as Markdown."""
    size = result["file_bytes"]
    print("| loading | seconds | processor seconds | most memory, of the files' size |")
    print("|---|---|---|---|")
    rows = [("memory as found", [result["as_found"]]), ("memory in use before", result["loaded"])]
    for name, found in rows:
        seconds, processor, peak = (
            statistics.median(one[key] for one in found)
            for key in ("seconds", "processor_s", "peak_bytes")
        )
        print(f"| {name} | {seconds:.1f} | {processor:.1f} | {100 * peak / size:.0f} % |")
    taken = ", ".join(f"{one['seconds']:.1f}" for one in result["taken"])
    print(f"\n{1.25 * size / 1e9:.1f} GB were written in {taken} s before each of the latter.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Loading a package: time and memory.")
    parser.add_argument("path", type=Path, nargs="?", help="a package")
    parser.add_argument("--rounds", type=int, default=3, help="loads from memory in use before")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--take", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.take:
        print(json.dumps(take(options.take)))
    elif options.load:
        print(json.dumps(load(options.load, options.threads)))
    elif options.path is None:
        parser.error("a package must be named")
    else:
        result = measure(options.path, options.threads, options.rounds)
        print(json.dumps(result)) if options.json else print_table(result)


if __name__ == "__main__":
    main()
