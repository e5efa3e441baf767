"""Decoding with one thread and with two, while another process keeps a core busy or does not.

    python benchmarks/busy_core.py [--json] [--rounds 9] [--tokens 1000]

Two threads must not be slower than one beside a core that is taken. The model is that of
`decode.py` with fewer words; the other process spins on the last core and is stopped in between.
Contenders take turns in every round; figures are medians of elapsed time, ratios medians of ratios
within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from decode import LAYERS, Decoder, Weights, build_model, firing_rates

VOCAB_SIZE = 8192
BIAS = -1.5
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


def measure(rounds: int, tokens: int) -> dict[str, Any]:
    """Milliseconds a token by threads, beside an idle and a busy core."""
    weights = Weights.random()
    models = {t: build_model(weights, 2.0, [BIAS] * LAYERS, t, VOCAB_SIZE) for t in THREADS}
    decoders = {threads: Decoder(model) for threads, model in models.items()}
    rates = firing_rates(models[1])
    times: dict[tuple[bool, int], list[float]] = {
        (busy, threads): [] for busy in (False, True) for threads in THREADS
    }
    with neighbour(max(os.sched_getaffinity(0))) as process:
        for decoder in decoders.values():
            decoder.run(tokens)
        for _ in range(rounds):
            for (busy, threads), found in times.items():
                process.send_signal(signal.SIGCONT if busy else signal.SIGSTOP)
                found.append(decoders[threads].run(tokens)[0])
    rows = []
    for (busy, threads), found in times.items():
        alone = times[busy, 1]
        ratios = [one / time for one, time in zip(alone, found, strict=True)]
        rows.append(
            {
                "busy": busy,
                "threads": threads,
                "ms": 1e3 * statistics.median(found),
                "than_one_thread": statistics.median(ratios),
                "slowest_round": min(ratios),
            }
        )
    return {"firing_rates": rates, "rounds": rounds, "tokens": tokens, "rows": rows}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Threads beside a busy core.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=9, help="rounds")
    parser.add_argument("--tokens", type=int, default=1000, help="tokens a contender and round")
    options = parser.parse_args()
    result = measure(options.rounds, options.tokens)
    if options.json:
        print(json.dumps(result))
        return
    rates = ", ".join(f"{100 * rate:.0f} %" for rate in result["firing_rates"])
    print(f"Units that fire, by layer: {rates}; medians of {options.rounds} rounds.\n")
    print("| other core | threads | time a token | than one thread | slowest round |")
    print("|---|---|---|---|---|")
    for row in result["rows"]:
        print(
            f"| {'busy' if row['busy'] else 'idle'} | {row['threads']} | {row['ms']:.3f} ms "
            f"| {row['than_one_thread']:.2f}x | {row['slowest_round']:.2f}x |"
        )


if __name__ == "__main__":
    main()
