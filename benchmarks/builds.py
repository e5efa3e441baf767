"""Two builds of spiketrain in turns in one run: decode and prefill, one and two threads.

    python benchmarks/builds.py --old PYTHON [--new PYTHON] [--families egru spikegpt spikingbrain]
        [--threads 1 2] [--rounds 15] [--within 3] [--packages FOLDER] [--json FILE]

PYTHON is the interpreter of an environment with that build; --new defaults to this one. Both load
the same packages of random weights (models/), made by this interpreter; SpikingBrain has --layers
layers of the 7B width. With --packages they are kept in FOLDER and used again. A build may call
its runtime `runtime` or `spiketrain.runtime`.

Each build is one process for each package and number of threads; both stay alive and take turns.
Exits with 1 where a median of the new build's time over the old one's is more than --within percent
above 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import Report, Worker, in_turns, parser, serve
from packaged import Packaged

OLD, NEW = "old", "new"
# Tokens of a turn: decoded one by one, and read as a prompt.
TOKENS = {"egru": (200, 512), "spikegpt": (24, 256), "spikingbrain": (8, 64)}


def work(path: Path, threads: int) -> None:
    """Serve decode and prefill of a package with the runtime of this interpreter."""
    package = Packaged(path, threads)
    serve({"decode": package.decode, "prefill": package.prefill})


@contextmanager
def packages(options: argparse.Namespace) -> Iterator[dict[str, Path]]:
    """A package for each family."""
    with ExitStack() as stack:
        folder = options.packages or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paths = {family: folder / family for family in options.families}
        for family, path in paths.items():
            if not path.exists():
                write(family, path, options.layers)
        yield paths


def write(family: str, path: Path, layers: int) -> None:
    """A package of random weights at the size that the family's benchmark has."""
    from models import egru, spikegpt, spikingbrain

    path.parent.mkdir(parents=True, exist_ok=True)
    if family == "egru":
        egru.write_package(path)
    elif family == "spikegpt":
        spikegpt.write_package(path, "int8")
    else:
        spikingbrain.write_package(path, layers, linear=False, dead_zone=0.0)


def compare(
    report: Report, options: argparse.Namespace, family: str, path: Path, threads: int
) -> list[str]:
    """Measure one package; return what is slower than allowed, in words."""
    slower = []
    pythons = {OLD: options.old, NEW: options.new}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                Worker([python, __file__, "--work", str(path), "--threads", str(threads)])
            )
            for name, python in pythons.items()
        }
        machines = {name: worker.machine for name, worker in workers.items()}
        for subject, tokens in zip(("decode", "prefill"), TOKENS[family], strict=True):
            variants = {name: worker.variant(subject, tokens) for name, worker in workers.items()}
            turns = in_turns(variants, options.rounds)
            title = f"{family}, {subject}, {threads} threads"
            report.turns(title, "token", turns, facts={"machines": machines})
            ratio = turns.wall_ratio(NEW).median
            if ratio > 1 + options.within / 100:
                slower.append(f"{title}: the new build takes {ratio:.3f} times as long")
    return slower


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    shared = parser(__doc__, rounds=15)
    shared.add_argument("--old", metavar="PYTHON", help="interpreter of the old build")
    shared.add_argument("--new", metavar="PYTHON", default=sys.executable)
    shared.add_argument("--families", nargs="+", choices=list(TOKENS), default=list(TOKENS))
    shared.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    shared.add_argument("--layers", type=int, default=4, help="of SpikingBrain, at the 7B width")
    shared.add_argument("--within", type=float, default=3.0, help="percent that may be lost")
    shared.add_argument("--packages", type=Path, metavar="FOLDER", help="keep the packages there")
    shared.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = shared.parse_args(arguments)
    if options.work is not None:
        work(options.work, options.threads[0])
        return 0
    if options.old is None:
        shared.error("--old must name the interpreter of the old build")
    report = Report(options)
    slower: list[str] = []
    with packages(options) as paths:
        for family, path in paths.items():
            for threads in options.threads:
                slower += compare(report, options, family, path, threads)
    report.finish()
    print(*slower, sep="\n")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
