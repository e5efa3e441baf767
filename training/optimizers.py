"""Optimizers of the weights: AdamW, or Muon for the matrices between embedding and head.

Muon (Jordan et al. 2024, torch.optim.Muon) makes the update of a matrix orthogonal by a few steps
of Newton and Schulz; scaled to the root mean square of AdamW's updates, it takes AdamW's rates.
"""

from typing import Any

import torch
from torch import nn

from spiketrain.training.config import OptimizerConfig


class Optimizers:
    """Optimizers of a model's parameters as one.

    Weight decay is for matrices only; biases and thresholds go without.  vocab_size tells
    embedding and head, which are AdamW's, from the other matrices.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig, vocab_size: int) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim == 2]
        inner = [p for p in matrices if vocab_size not in p.shape] if config.kind == "muon" else []
        ours = {id(p) for p in inner}
        groups = [
            {
                "params": [p for p in matrices if id(p) not in ours],
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in trained if p.ndim != 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self._parts: list[torch.optim.Optimizer] = []
        if groups:
            self._parts.append(torch.optim.AdamW(groups, betas=config.betas, fused=True))
        if inner:
            self._parts.append(
                torch.optim.Muon(
                    inner, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )

    def step(self, rate: float) -> None:
        """Update all parameters from their gradients at this learning rate."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """All that it takes to go on, weights aside."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from `state_dict` of the same model and config."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)
