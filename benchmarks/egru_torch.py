"""The layers of the EGRU benchmark in eager torch, in float32 and bfloat16."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import Sample, timed
from models.egru import LAYERS, UNITS, VOCAB_SIZE, Weights


def torch_decoders(weights: Weights) -> dict[str, Callable[[int, int], Sample]]:
    """The same layers in eager torch, by name: functions of tokens and threads. {} without it."""
    try:
        import torch
        from torch import nn
    except ImportError:
        print("torch is not installed: its rows are left out", file=sys.stderr)
        return {}

    class Layer(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: np.ndarray, recurrent: np.ndarray) -> None:
            super().__init__()
            self.input = linear(inputs)
            self.recurrent = linear(recurrent)
            self.threshold = nn.Parameter(torch.full((UNITS,), 0.01))

        def forward(self, x: Any, cell: Any, output: Any) -> tuple[Any, Any]:
            xz, xr, xg = self.input(x).chunk(3, -1)
            yz, yr, yg = self.recurrent(output).chunk(3, -1)
            z, r = torch.sigmoid(xz + yz), torch.sigmoid(xr + yr)
            cell = z * cell + (1 - z) * torch.tanh(xg + r * yg)
            event = (cell > self.threshold).to(cell.dtype)
            return cell - event * self.threshold, event * cell

    class Network(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Layer(*layer) for layer in weights.layers)
            self.head = linear(weights.head)

        def forward(self, token: Any, state: list[tuple[Any, Any]]) -> tuple[Any, Any]:
            x = self.head.weight[token]
            following = []
            for layer, (cell, output) in zip(self.layers, state, strict=True):
                cell, x = layer(x, cell, output)
                following.append((cell, x))
            return self.head(x), following

    def linear(codes: np.ndarray) -> Any:
        module = nn.Linear(*codes.shape)
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(codes.T.astype(np.float32) * 0.001))
        return module

    def decoder(dtype: Any) -> Callable[[int, int], Sample]:
        network = Network().to(dtype).eval()
        zero = torch.zeros(1, UNITS, dtype=dtype)
        rng = np.random.default_rng(3)

        @torch.inference_mode()
        def run(tokens: int, threads: int) -> Sample:
            torch.set_num_threads(threads)
            state = [(zero, zero)] * LAYERS
            ids = torch.from_numpy(rng.integers(0, VOCAB_SIZE, (tokens, 1)))
            network(ids[0], state)

            def decode() -> None:
                nonlocal state
                for token in ids:
                    _, state = network(token, state)

            return timed(decode, tokens)

        return run

    return {"torch float32": decoder(torch.float32), "torch bfloat16": decoder(torch.bfloat16)}
