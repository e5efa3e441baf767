"""SpikingBrain at the published 7B dimensions: load, memory and decode speed at several contexts.

    python benchmarks/spikingbrain.py package DIR [--layers 28] [--linear]
    python benchmarks/spikingbrain.py checkpoint DIR [--layers 28]
    python benchmarks/spikingbrain.py measure DIR [--contexts 0 8192 32768 100000] [--tokens 4]

`package` writes a runtime package of random weights (models/spikingbrain.py), `checkpoint` random
bfloat16 weights as a sharded directory with the names and shapes of SpikingBrain-7B, for
`spiketrain convert`. `measure` takes every figure in one process: a context is a state whose window
and linear states are filled with random numbers at that position; contexts take turns.
`spikingbrain_against.py` compares with llama.cpp.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from harness import Report, in_turns, parser, timed
from int8_peak import Peak
from models.spikingbrain import LAYERS, VOCAB, filled, write_package
from models.spikingbrain_checkpoint import write_checkpoint

from spiketrain import runtime

PROMPT_TOKENS = 128
PEAK_TRIES = 5


def measure(options: argparse.Namespace) -> None:
    """Load time, memory, prefill and decode times of one package."""
    report = Report(options)
    start_s = time.perf_counter()
    model = runtime.load_model(options.path, threads=options.threads)
    loading = {
        "load_s": time.perf_counter() - start_s,
        "peak_bytes_loading": peak_bytes(),
        "resident_bytes_loaded": resident_bytes(),
        "state_bytes": model.state_nbytes,
        **prefill(model, options.threads),
    }
    report.table("Loading, and one prompt", ["what", "figure"], rows(loading), loading)
    memory = memory_by_context(model, options.contexts)
    variants = {
        f"after {context:,} tokens": decoder(model, context, options.tokens)
        for context in options.contexts
    }
    turns = in_turns({n: lambda r=run: timed(r, options.tokens) for n, run in variants.items()},
                     options.rounds)  # fmt: skip
    resident = {
        name: f"{nbytes / 1e9:.2f} GB"
        for name, nbytes in zip(variants, memory.values(), strict=True)
    }
    columns = {"memory in use, one state": resident}
    report.turns("Decoding", "token", turns, columns, {"resident_bytes": memory})
    rest = {"peak_bytes": peak_bytes(), "input_sparsity": 1 - model.activity().firing_rate}
    report.table("In the end", ["what", "figure"], rows(rest), rest)
    report.finish()


def prefill(model: Any, threads: int) -> dict[str, float]:
    """Tokens a second of a prompt, and its share of what the cores can do."""
    prompt = list(range(PROMPT_TOKENS))
    wall_s = timed(lambda: model.forward(model.new_state(), prompt, last_only=True)).wall_s
    figures = {"prefill_tokens_per_s": PROMPT_TOKENS / wall_s}
    if (peak := Peak.compiled()) is not None:
        per_s = model.activity().macs_dense / wall_s  # every weight once a token
        best = max(peak.multiplications_per_s(threads) for _ in range(PEAK_TRIES))
        figures["prefill_share_of_int8_peak"] = per_s / best
    return figures


def memory_by_context(model: Any, contexts: list[int]) -> dict[int, int]:
    """Bytes in use after a token at each context, with no state of another context."""
    resident = {}
    for context in contexts:
        decoder(model, context, 1)()
        resident[context] = resident_bytes()
    return resident


def decoder(model: Any, context: int, tokens: int) -> Callable[[], None]:
    """Decodes so many tokens a call from a state at a context."""
    state, words = filled(model, context), count()

    def decode() -> None:
        for _ in range(tokens):
            model.step([state], [next(words) % VOCAB])

    return decode


def rows(figures: dict[str, float]) -> list[list[str]]:
    """Two columns."""
    return [[name, f"{value:,.4g}" if value < 1e6 else f"{value:,}"]
            for name, value in figures.items()]  # fmt: skip


def resident_bytes() -> int:
    """Bytes of this process in memory now."""
    status = Path("/proc/self/status").read_text().split("VmRSS:")[1]
    return 1024 * int(status.split()[0])


def peak_bytes() -> int:
    """Most bytes of this process in memory so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(arguments: list[str] | None = None) -> None:
    """One step of the measurement."""
    shared = parser(__doc__, rounds=5)
    shared.add_argument("step", choices=("package", "checkpoint", "measure"))
    shared.add_argument("path", type=Path)
    shared.add_argument("--layers", type=int, default=LAYERS, help="layers of the same width")
    shared.add_argument("--linear", action="store_true", help="linear attention in every layer")
    shared.add_argument("--dead-zone", type=float, default=0.0, help="1.9: half of the inputs")
    shared.add_argument("--contexts", type=int, nargs="+", default=[0, 8192, 32768, 100_000])
    shared.add_argument("--tokens", type=int, default=4, help="tokens a context and round")
    shared.add_argument("--threads", type=int, default=2)
    options = shared.parse_args(arguments)
    if options.step == "package":
        write_package(options.path, options.layers, options.linear, options.dead_zone)
    elif options.step == "checkpoint":
        write_checkpoint(options.path, options.layers)
    else:
        measure(options)


if __name__ == "__main__":
    main()
