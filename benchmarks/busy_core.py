"""Decoding with one thread and with two, while another process keeps a core busy or does not.

    python benchmarks/busy_core.py [--rounds 9] [--tokens 1000] [--json FILE]

Two threads must not be slower than one beside a core that is taken. The model is that of
models/egru.py with fewer words; the other process spins on the last core and is stopped in between.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from decode import Decoder
from harness import Measure, Report, Sample, in_turns, parser
from models.egru import LAYERS, Weights, build_model, firing_rates

VOCAB_SIZE = 8192
GAIN, BIAS = 2.0, -1.5
THREADS = (1, 2)


@contextlib.contextmanager
def neighbour(core: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that spins on a core, stopped at first."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(process.pid, {core})
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.wait()


def beside(process: subprocess.Popen[bytes], busy: bool, decoder: Decoder, tokens: int) -> Measure:
    """Decoding while the process spins, or while it is stopped."""

    def measure() -> Sample:
        process.send_signal(signal.SIGCONT if busy else signal.SIGSTOP)
        return decoder.run(tokens)

    return measure


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    shared = parser(__doc__, rounds=9)
    shared.add_argument("--tokens", type=int, default=1000, help="tokens a variant and round")
    options = shared.parse_args(arguments)
    report = Report(options)
    weights = Weights.random()
    models = {
        threads: build_model(weights, GAIN, [BIAS] * LAYERS, threads, VOCAB_SIZE)
        for threads in THREADS
    }
    rates = firing_rates(models[1])
    decoders = {threads: Decoder(model) for threads, model in models.items()}
    with neighbour(max(os.sched_getaffinity(0))) as process:
        for busy in (False, True):
            variants = {
                f"{threads} threads": beside(process, busy, decoder, options.tokens)
                for threads, decoder in decoders.items()
            }
            title = f"Decoding beside a core that is {'busy' if busy else 'idle'}"
            turns = in_turns(variants, options.rounds)
            report.turns(title, "token", turns, facts={"firing_rates": rates})
    report.finish()


if __name__ == "__main__":
    main()
