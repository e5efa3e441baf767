"""Errors of a mean over text: from documents where there are enough, else from blocks of tokens.

The nats per token R = sum(n) / sum(t) of units with n nats and t tokens has the standard error
sqrt(k / (k - 1) * sum((n - R t)^2)) / sum(t) over k units (linearised ratio), which is right where
units are independent. Tokens of one document are not, hence documents first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spiketrain.evaluation.accounts import BLOCK_TOKENS

MIN_DOCUMENTS = 10  # with fewer, blocks are the units
Z95 = 1.959963984540054  # 97.5 % of a standard normal distribution lie below


@dataclass(frozen=True, slots=True)
class StandardError:
    """Of the nats per token, from `count` units of the kind `over`; None of one unit."""

    nats_per_token: float | None
    over: str
    count: int


def standard_error(
    documents: Sequence[tuple[float, int]], blocks: Sequence[tuple[float, int]]
) -> StandardError:
    """The error of sum(nats) / sum(tokens), from (nats, tokens) of documents and of blocks."""
    units, over = choose_units(documents, blocks)
    return StandardError(ratio_error(units), over, len(units))


def choose_units(
    documents: Sequence[tuple[float, int]], blocks: Sequence[tuple[float, int]]
) -> tuple[list[tuple[float, int]], str]:
    """The units with tokens that an error is taken over, and what they are."""
    scored = [unit for unit in documents if unit[1]]
    if len(scored) >= MIN_DOCUMENTS:
        return scored, "documents"
    return list(blocks), f"blocks of {BLOCK_TOKENS} tokens"


def ratio_error(units: Sequence[tuple[float, int]]) -> float | None:
    """Standard error of sum(x) / sum(t) over units (x, t)."""
    if len(units) < 2:
        return None
    values, tokens = np.asarray(units, np.float64).T
    residues = values - values.sum() / tokens.sum() * tokens
    count = len(units)
    return math.sqrt(count / (count - 1) * float(residues @ residues)) / float(tokens.sum())
