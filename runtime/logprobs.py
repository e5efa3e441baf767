"""Log-probabilities of a token and of the likeliest ones beside it, from one row of logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.scoring import token_nats


class TokenLogprob(NamedTuple):
    """A token's log-probability in nats, its rank (1: likeliest), and the likeliest tokens.

    `top` holds (token, log-probability), likeliest first, of equal ones the lower id first.
    """

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()


def token_logprob(logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """Log softmax of logits (V,) at `token` and at the `top` likeliest tokens.

    Raises SpiketrainError for logits that are not finite.
    """
    greatest = np.array([logits.argmax()])
    log_sum = token_nats(logits[None], greatest)[0]  # of the exponentials, the greatest being 1
    ids = np.concatenate([[token], _likeliest(logits, min(top, logits.size))]).astype(np.int64)
    logprobs = logits[ids].astype(np.float64) - float(logits[greatest[0]]) - log_sum
    rank = 1 + int(np.count_nonzero(logits > logits[token]))
    likeliest = tuple(zip(ids[1:].tolist(), logprobs[1:].tolist(), strict=True))
    return TokenLogprob(token, float(logprobs[0]), rank, likeliest)


def _likeliest(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Ids of the `count` greatest logits, greatest first; of equal ones the lower id first."""
    if count == 0:
        return np.empty(0, np.int64)
    border = np.partition(logits, logits.size - count)[logits.size - count]
    ids = np.flatnonzero(logits >= border)
    return ids[np.lexsort((ids, -logits[ids]))][:count]
