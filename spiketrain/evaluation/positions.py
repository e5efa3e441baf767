"""Perplexity by position in context: the gain of a model from more tokens before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.protocols import Span
from spiketrain.evaluation.reading import nats_of
from spiketrain.evaluation.stop import NEVER, Stop


def perplexity_by_position(
    model: Any, tokens: NDArray[np.int64], length: int, stop: Stop = NEVER
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Upper ends of bins 8, 16, 32, ... up to `length`, and exp of the mean nats of tokens in them.

    The text, tokens (T,), is cut into pieces of `length` + 1, each read from the zero state; what
    is left at the end is not read. ValueError if there is no whole piece. Once `stop` is wanted,
    of the pieces read so far; None if there are none.
    """
    pieces = (tokens.size - 1) // length
    if pieces < 1:
        raise ValueError(f"tokens must be more than {length}, got {tokens.size}")
    rows = []
    for piece in range(pieces):
        if stop.requested:
            break
        ids = tokens[piece * length : (piece + 1) * length + 1].tolist()
        rows.append(nats_of(model, model.new_state(), Span("zero", ids[:1], ids[1:], 0)))
    if not rows:
        return None
    nats = np.stack(rows)
    ends = np.unique(np.minimum(8 * 2 ** np.arange(length.bit_length()), length))
    begins = np.concatenate([[0], ends[:-1]])
    means = [nats[:, a:b].mean() for a, b in zip(begins, ends, strict=True)]
    return ends.astype(np.float64), np.exp(means)
