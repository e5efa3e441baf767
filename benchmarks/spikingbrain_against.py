"""SpikingBrain at the published 7B dimensions beside llama.cpp's Qwen2.5-7B in Q4_0.

    python benchmarks/spikingbrain_against.py peer FILE.gguf [--layers 28]  (with llama.cpp's gguf)
    python benchmarks/spikingbrain_against.py against DIR FILE.gguf --llama-python PYTHON
    ... --past 32768, or --prefill --tokens 512

Both models have random weights; DIR is a package of `spikingbrain.py` or converted from its
checkpoint. `--past` decodes after so many synthetic tokens: ours a state filled with random
numbers, llama.cpp's keys and values repeat those of its first four tokens. `--prefill` reads a
prompt of --tokens tokens instead. The table's first row is llama.cpp's.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from harness import Report, Worker, in_turns, parser, serve
from llamacpp import qwen
from llamacpp.running import Llama
from models.spikingbrain import LAYERS, filled
from packaged import Packaged

CONTEXT = 1024  # tokens of all rounds that llama.cpp has room for


def work(path: Path, threads: int, past: int) -> None:
    """Serve decode and prefill of a package or of a GGUF file, after `past` synthetic tokens."""
    one = (
        Llama(path, threads, CONTEXT, past)
        if path.suffix == ".gguf"
        else Packaged(path, threads, lambda model: filled(model, past))
    )
    serve({"decode": one.decode, "prefill": one.prefill})


def against(options: argparse.Namespace) -> None:
    """Decode after `past` tokens, or read a prompt."""
    report = Report(options)
    pythons = {"llama.cpp": options.llama_python, "ours": sys.executable}
    paths = {"llama.cpp": options.peer, "ours": options.path}
    subject = "prefill" if options.prefill else "decode"
    with ExitStack() as stack:
        variants = {}
        for name, python in pythons.items():
            command = [python, __file__, "work", str(paths[name])]
            command += ["--threads", str(options.threads), "--past", str(options.past)]
            worker = stack.enter_context(Worker(command))
            variants[name] = worker.variant(subject, options.tokens)
        turns = in_turns(variants, options.rounds)
    title = f"{subject} after {options.past:,} tokens, {options.threads} threads"
    report.turns(title, "token", turns)
    report.finish()


def main(arguments: list[str] | None = None) -> None:
    """One step of the comparison."""
    shared = parser(__doc__, rounds=5)
    shared.add_argument("step", choices=("peer", "against", "work"))
    shared.add_argument("path", type=Path)
    shared.add_argument("peer", type=Path, nargs="?", help="llama.cpp's file, for against")
    shared.add_argument("--layers", type=int, default=LAYERS, help="layers of the same width")
    shared.add_argument("--tokens", type=int, default=4, help="tokens of a round")
    shared.add_argument("--threads", type=int, default=2)
    shared.add_argument("--past", type=int, default=0, help="synthetic tokens before")
    shared.add_argument("--prefill", action="store_true", help="read a prompt, do not decode")
    shared.add_argument("--llama-python", help="Python that has llama_cpp")
    options = shared.parse_args(arguments)
    if options.step == "peer":
        qwen.write(options.path, options.layers)
    elif options.step == "work":
        work(options.path, options.threads, options.past)
    elif options.peer is None or not options.llama_python:
        shared.error("against needs llama.cpp's file and --llama-python")
    else:
        against(options)


if __name__ == "__main__":
    main()
