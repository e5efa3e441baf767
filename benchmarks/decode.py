"""Decode speed of an EGRU language model: event-driven against dense, and against eager torch.

    python benchmarks/decode.py [--tokens 60] [--rounds 9] [--threads 1 2] [--json FILE]

The model is that of models/egru.py, one sequence. Every unit active: same shapes, same codes, other
biases. Processor time, of all threads, is the fairer figure on a busy machine. Torch runs the same
layers step by step with eager operators; without torch those rows are left out.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from egru_torch import torch_decoders
from harness import Report, Sample, in_turns, parser, timed
from models import egru
from models.egru import LAYERS, VOCAB_SIZE, Weights, build_model, calibrate

SPARSE, FULL = "event-driven", "every unit active"


class Decoder:
    """Steps one sequence through tokens drawn at random, and times them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.state = model.new_state()
        self.rng = np.random.default_rng(2)

    def run(self, tokens: int) -> Sample:
        """Seconds a token."""
        ids = self.rng.integers(0, self.model.vocab_size, tokens).tolist()
        self.model.forward(self.state, ids, last_only=True)  # fills the token table

        def decode() -> None:
            for token in ids:
                self.model.step([self.state], [token])

        return timed(decode, tokens)

    def activity(self) -> Any:
        """Counters of 100 more steps."""
        self.model.reset_activity()
        for token in self.rng.integers(0, self.model.vocab_size, 100):
            self.model.step([self.state], [token])
        return self.model.activity()


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    shared = parser(__doc__, rounds=9)
    shared.add_argument("--tokens", type=int, default=60, help="tokens a round")
    shared.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = shared.parse_args(arguments)
    report = Report(options)
    weights = Weights.random()
    biases = calibrate(weights)
    torches = torch_decoders(weights)
    for threads in options.threads:
        models = {
            SPARSE: build_model(weights, egru.GAIN, biases, threads, VOCAB_SIZE),
            FULL: build_model(
                weights, egru.FULL_GAIN, [egru.FULL_BIAS] * LAYERS, threads, VOCAB_SIZE
            ),
        }
        decoders = {name: Decoder(model) for name, model in models.items()}
        few = {SPARSE: options.tokens, FULL: max(options.tokens // 4, 5)}
        variants = {name: partial(decoder.run, few[name]) for name, decoder in decoders.items()} | {
            name: partial(run, max(options.tokens // 8, 5), threads)
            for name, run in torches.items()
        }
        turns = in_turns(variants, options.rounds)
        activity = {name: decoder.activity() for name, decoder in decoders.items()}
        columns = {
            "units that fire": {n: f"{100 * a.firing_rate:.1f} %" for n, a in activity.items()},
            "weights touched": {
                n: f"{a.weight_bytes_touched_per_token / 1e6:.1f} MB" for n, a in activity.items()
            },
        }
        report.turns(f"Decoding with {threads} threads", "token", turns, columns)
    report.finish()


if __name__ == "__main__":
    main()
