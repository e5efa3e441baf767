"""Negative log likelihood of tokens under a model: float32 logits in, float64 nats out.

Reads tokens in blocks, so memory depends on the vocabulary and not on the text. Each token's value
comes from its own row of logits alone: how a text is cut into calls changes no bit of it, nor does
the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import spiketrain.runtime.kernels.vectors.functions as functions
from spiketrain.runtime.errors import SpiketrainError

MAX_BLOCK_TOKENS = 256
MAX_BLOCK_LOGITS = 1 << 22


class ForwardModel(Protocol):
    """What scoring asks of a model."""

    @property
    def vocab_size(self) -> int:
        """Logits per token, V."""

    def forward(self, state: Any, token_ids: Any) -> NDArray[np.float32]:
        """Logits (T, V) after each of T tokens; `state` advances."""


def score_tokens(
    model: ForwardModel, state: Any, tokens: Sequence[int], context: int
) -> NDArray[np.float64]:
    """Nats (T,) of each of `tokens` (T,), the first of which follows `context`.

    `context` is the last token that the state has not read yet. Afterwards the state has read it
    and all of `tokens` but the last, which is the context of the next call.
    """
    targets = np.asarray(tokens, np.int64)
    inputs = np.concatenate([np.asarray([context], np.int64), targets[:-1]])[: targets.size]
    size = max(1, min(MAX_BLOCK_TOKENS, MAX_BLOCK_LOGITS // model.vocab_size))
    nats = np.empty(targets.size, np.float64)
    for start in range(0, targets.size, size):
        block = slice(start, start + size)
        nats[block] = token_nats(model.forward(state, inputs[block]), targets[block])
    return nats


def token_nats(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log softmax of logits (T, V) at targets (T,), in float64, within 3e-10."""
    if targets.size and not 0 <= targets.min() <= targets.max() < logits.shape[1]:
        raise SpiketrainError(f"token ids must be in [0, {logits.shape[1]})")
    token_losses = np.empty(targets.size, np.float64)
    try:
        functions.nats(
            np.asarray(logits, np.float32, order="C"),
            np.ascontiguousarray(targets, np.int64),
            token_losses,
        )
    except ValueError:
        raise SpiketrainError("logits must be finite, got NaN or infinity") from None
    return token_losses
