"""Training speed of EGRU: fused steps, a plain autograd loop, and torch's dense LSTM.

    python benchmarks/training.py [--threads 2] [--batch 32] [--steps 64] [--rounds 7] [--json FILE]

Forward and backward of the whole language model on random tokens, without an optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from harness import Report, in_turns, parser, timed
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.egru import Config, Model
from spiketrain.lm.kernels.cross_entropy import linear_cross_entropy
from spiketrain.lm.kernels.egru import scan_reference

VOCAB, EMBEDDING = 4096, 384
EGRU_SIZES, LSTM_SIZES = [896, 384], [724, 384]


class DenseLSTM(nn.Module):
    """torch.nn.LSTM layers with a tied head: the parameters of the EGRU within 0.2 %."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(VOCAB, EMBEDDING)
        sizes = [EMBEDDING, *LSTM_SIZES]
        self.layers = nn.ModuleList(nn.LSTM(a, b) for a, b in pairwise(sizes))
        self.bias = nn.Parameter(torch.zeros(VOCAB))

    def loss(self, ids: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
        """Mean nats of ids (B, T) as their own targets; `precision` of the matrix products."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            x = self.embeddings(ids.t())
            for layer in self.layers:
                x, _ = layer(x)
        x = x.to(precision).flatten(0, 1)
        return linear_cross_entropy(x, self.embeddings.weight, self.bias, ids.t().flatten())


def egru(precision: str) -> Model:
    """The benchmark's EGRU in training mode."""
    sizes = {"vocab_size": VOCAB, "embedding_size": EMBEDDING, "hidden_sizes": EGRU_SIZES}
    return Model(Config(**sizes, initial_preactivation=0.5, compute_dtype=precision)).train()


def fused_loss(model: Model, ids: torch.Tensor) -> torch.Tensor:
    """Mean nats through the fused scan and the fused head."""
    features, _, _ = model.features(ids)
    return model.mean_nll(features, ids)


def plain_loss(model: Model, ids: torch.Tensor, per_step: bool) -> torch.Tensor:
    """Mean nats through the autograd loop and torch's cross-entropy, in float32.

    per_step: a cell called step by step, its input product included; else that one is batched.
    """
    x = F.embedding(ids.t(), model.embeddings.weight)
    for layer, (cell, y) in zip(model.layers, model.initial_state(ids.shape[0]), strict=True):
        fixed = (layer.recurrent_kernel, layer.recurrent_bias, layer.threshold)
        outputs = []
        for part in x.split(1 if per_step else len(x)):
            xk = part @ layer.kernel + layer.bias
            out, cell = scan_reference(xk, y, cell, *fixed, damp=1.0, support=1.0)
            y = out[-1]
            outputs.append(out)
        x = torch.cat(outputs)
    logits = F.linear(x, model.head.weight, model.head.bias)
    return F.cross_entropy(logits.flatten(0, 1), ids.t().flatten())


def contestants(ids: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """Name -> a function that gives the loss to differentiate."""
    fused, fused32, plain, lstm = egru("bfloat16"), egru("float32"), egru("float32"), DenseLSTM()
    return {
        "EGRU fused, bfloat16": lambda: fused_loss(fused, ids),
        "EGRU fused, float32": lambda: fused_loss(fused32, ids),
        "EGRU plain loop, a cell per step, float32": lambda: plain_loss(plain, ids, True),
        "EGRU plain loop, inputs batched, float32": lambda: plain_loss(plain, ids, False),
        "torch.nn.LSTM, bfloat16 autocast": lambda: lstm.loss(ids, torch.bfloat16),
        "torch.nn.LSTM, float32": lambda: lstm.loss(ids, torch.float32),
    }


def products_alone(batch: int, steps: int) -> Callable[[], None]:
    """The matrix products of one fused bfloat16 chunk and nothing else: what bounds it."""

    def pair(rows: int, inner: int, columns: int) -> list[torch.Tensor]:
        return [torch.randn(rows, inner).bfloat16(), torch.randn(inner, columns).bfloat16()]

    rows, once, each_step = batch * steps, [], []
    for inputs, hidden in pairwise([EMBEDDING, *EGRU_SIZES]):
        once += [pair(rows, inputs, 3 * hidden), pair(rows, 3 * hidden, inputs)]  # x K, its dx
        once += [pair(inputs, rows, 3 * hidden), pair(hidden, rows, 3 * hidden)]  # dK, dR
        each_step += [pair(batch, hidden, 3 * hidden), pair(batch, 3 * hidden, hidden)]
    once += [pair(rows, EMBEDDING, VOCAB), pair(rows, VOCAB, EMBEDDING)]
    once += [pair(VOCAB, rows, EMBEDDING)]

    def run() -> None:
        for a, b in once:
            torch.mm(a, b)
        for _ in range(steps):
            for a, b in each_step:
                torch.mm(a, b)

    return run


def main(arguments: list[str] | None = None) -> None:
    """Parse flags, measure, print."""
    shared = parser(__doc__, rounds=7)
    shared.add_argument("--threads", type=int, default=2)
    shared.add_argument("--batch", type=int, default=32)
    shared.add_argument("--steps", type=int, default=64)
    options = shared.parse_args(arguments)
    report = Report(options)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ids = torch.randint(0, VOCAB, (options.batch, options.steps))
    runs: dict[str, Callable[[], object]] = {
        name: lambda loss=loss: loss().backward()  # type: ignore[misc]
        for name, loss in contestants(ids).items()
    }
    runs["its matrix products alone, bfloat16"] = products_alone(*ids.shape)
    variants = {name: partial(timed, run, ids.numel()) for name, run in runs.items()}
    title = f"{options.threads} threads, batch {options.batch}, {options.steps} steps"
    report.turns(title, "token", in_turns(variants, options.rounds))
    report.finish()


if __name__ == "__main__":
    main()
