"""TokenRules: a request's checked rules for single tokens, as arrays over the vocabulary."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.errors import RequestError
from spiketrain.runtime.penalties import Penalties

MAX_BIASES = 1024
MAX_STOP_TOKENS = 16
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """Which tokens are moved or barred, and what is reported of them.

    bias_ids, bias (N,): added to logits. allowed (V,): None for all. late_ids: barred while fewer
    than min_new_tokens are there. top_logprobs: None for no log-probabilities at all.
    """

    penalties: Penalties
    bias_ids: NDArray[np.int64]
    bias: NDArray[np.float32]
    allowed: NDArray[np.bool_] | None
    late_ids: NDArray[np.int64]
    min_new_tokens: int
    top_logprobs: int | None

    @property
    def free(self) -> bool:
        """Whether logits stay as the model gave them."""
        moved = bool(self.penalties) or self.bias_ids.size or self.allowed is not None
        return not moved and not self.min_new_tokens


def check_logit_bias(
    bias: Mapping[int, float], vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Token ids (N,) ascending and what to add to their logits (N,)."""
    field = "logit_bias"
    if len(bias) > MAX_BIASES:
        raise RequestError(field, f"be for at most {MAX_BIASES} tokens", len(bias))
    check_ids(field, tuple(bias), vocab_size)
    for token, value in bias.items():
        if not (math.isfinite(value) and abs(value) <= 100):
            raise RequestError(field, f"be from -100 to 100 for token {token}", value)
    ids = np.array(sorted(bias), np.int64)
    return ids, np.array([bias[token] for token in sorted(bias)], np.float32)


def check_allowed(ids: Sequence[int], vocab_size: int) -> NDArray[np.bool_] | None:
    """Which tokens (V,) are allowed; None for all, which no ids stand for."""
    if not ids:
        return None
    field = "allowed_token_ids"
    if len(ids) > vocab_size:
        raise RequestError(field, f"be at most the vocabulary's {vocab_size}", len(ids))
    check_ids(field, ids, vocab_size)
    allowed = np.zeros(vocab_size, np.bool_)
    allowed[list(ids)] = True
    return allowed


def check_stop_tokens(ids: Sequence[int], vocab_size: int) -> frozenset[int]:
    """Tokens that end a completion."""
    field = "stop_token_ids"
    if len(ids) > MAX_STOP_TOKENS:
        raise RequestError(field, f"be at most {MAX_STOP_TOKENS}", len(ids))
    check_ids(field, ids, vocab_size)
    return frozenset(ids)


def check_ids(field: str, ids: Sequence[int], vocab_size: int) -> None:
    """Refuse what is no token id of the model."""
    for token in ids:
        if not 0 <= token < vocab_size:
            raise RequestError(field, f"hold token ids from 0 to {vocab_size - 1}", token)
