"""SpikeGPT at the published 216M dimensions against llama.cpp's RWKV-7 of equal size, in one run.

    python benchmarks/peers.py --llama-python VENV/bin/python [--rounds 5] [--json FILE]

VENV has `pip install llama-cpp-python gguf` (which builds llama.cpp for this machine). Both models
have random weights: SpikeGPT 18 x 768 with 50,277 words (215M parameters; int8, int4), RWKV-7
18 x 768 with the same vocabulary (213M; Q8_0, Q4_0, its small matrices too). Spike-driven is the
SpikeGPT whose every matrix, the head too, reads spikes of 10 % of its inputs (int8, head int4).
Every contender is a process of its own; some tokens are decoded one by one, then a prompt of 512 is
read. A table's first row is llama.cpp's. About half of the squared ReLUs are zero.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from harness import Report, Turns, Worker, in_turns, parser, serve
from llamacpp import rwkv7
from llamacpp.running import Llama
from models.spikegpt import SPIKE_DRIVEN, activity_of, write_package
from packaged import Packaged

PROMPT = 512
PEERS = {"int8": "Q8_0", "int4": "Q4_0", SPIKE_DRIVEN: "Q8_0"}
SUFFIX = ".gguf"


def work(path: Path, threads: int) -> None:
    """Serve decode and prefill of a package or of a GGUF file."""
    is_peer = path.suffix == SUFFIX
    one = Llama(path, threads, rwkv7.CONTEXT) if is_peer else Packaged(path, threads)
    serve({"decode": one.decode, "prefill": one.prefill})


def write(options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """All contenders' files by format."""
    paths = {ours: folder / ours for ours in PEERS}
    for ours, path in paths.items():
        write_package(path, ours)
    for theirs in sorted(set(PEERS.values())):
        paths[theirs] = folder / f"{theirs}{SUFFIX}"
        command = [options.llama_python, __file__, "--write", theirs, str(paths[theirs])]
        subprocess.run(command, check=True)
    return paths


def measure(
    report: Report, options: argparse.Namespace, paths: dict[str, Path], threads: int
) -> None:
    """All contenders in turns; a table for each format and subject."""
    with ExitStack() as stack:
        workers = {}
        for kind, path in paths.items():
            python = sys.executable if kind in PEERS else options.llama_python
            command = [python, __file__, "--work", str(path), "--threads", str(threads)]
            workers[kind] = stack.enter_context(Worker(command))
        for subject, tokens in (("decode", options.tokens), ("prefill", PROMPT)):
            variants = {kind: one.variant(subject, tokens) for kind, one in workers.items()}
            turns = in_turns(variants, options.rounds)
            for ours, theirs in PEERS.items():
                pair = Turns({f"llama.cpp, {theirs}": turns.samples[theirs],
                              f"ours, {ours}": turns.samples[ours]})  # fmt: skip
                report.turns(f"{subject}, {threads} threads", "token", pair)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    shared = parser(__doc__, rounds=5)
    shared.add_argument("--llama-python", help="Python that has llama_cpp and gguf")
    shared.add_argument("--tokens", type=int, default=24, help="tokens decoded in a round")
    shared.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts")
    shared.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    shared.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    options = shared.parse_args(arguments)
    if options.work:
        work(options.work, options.threads[0])
        return
    if options.write:
        rwkv7.write(Path(options.write[1]), options.write[0])
        return
    if not options.llama_python:
        shared.error("--llama-python must name a Python that has llama_cpp and gguf")
    report = Report(options)
    with tempfile.TemporaryDirectory() as folder:
        paths = write(options, Path(folder))
        spikes = activity_of(paths[SPIKE_DRIVEN])
        rows = [[name, f"{value:,.4g}"] for name, value in spikes.items()]
        report.table("Spike-driven", ["what", "figure"], rows, spikes)
        for threads in options.threads:
            measure(report, options, paths, threads)
    report.finish()


if __name__ == "__main__":
    main()
