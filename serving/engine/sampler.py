"""Sampler: the next token of one sequence from its logits. No clock, no lock, no other sequence.

Penalties and bias move logits; the constraint, allowed_token_ids and min_new_tokens bar tokens;
`spiketrain.runtime.sampling` draws among what is left, for many sequences in one call.
Log-probabilities are the model's own: of the logits as they came.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.logprobs import TokenLogprob, token_logprob
from spiketrain.runtime.penalties import RecentTokens
from spiketrain.runtime.sampling import SamplingParams
from spiketrain.serving.errors import NothingAllowed
from spiketrain.serving.request.constraint import Constraint
from spiketrain.serving.request.token_rules import TokenRules


class Choice(NamedTuple):
    """A token, and its log-probability where the request asked for it."""

    token: int
    logprob: TokenLogprob | None = None


class Sampler:
    """Holds what the choice of a token remembers of earlier ones: recent tokens, the grammar.

    text: the tokens so far, of which penalties see the last ones.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        rules: TokenRules,
        constraint: Constraint | None,
        text: Sequence[int],
    ) -> None:
        self.sampling = sampling
        self._rules = rules
        self._constraint = constraint
        window = rules.penalties.penalty_window if rules.penalties else 0
        self._recent = RecentTokens(window, text[-window:] if window else ())

    def take(self, token: int, logits: NDArray[np.float32]) -> Choice:
        """Remember a token that was drawn; how likely it was by the model's own logits (V,).

        Raises ConstraintFailed.
        """
        self._recent.push(token)
        if self._constraint is not None:
            self._constraint.push(token)
        if self._rules.top_logprobs is None:
            return Choice(token)
        return Choice(token, token_logprob(logits, token, self._rules.top_logprobs))

    @property
    def complete(self) -> bool:
        """Whether the constraint lets nothing follow."""
        return self._constraint is not None and self._constraint.complete

    def adjusted(self, logits: NDArray[np.float32], new_tokens: int) -> NDArray[np.float32]:
        """What to draw from after `new_tokens` of this completion; logits (V,) are left alone.

        Raises NothingAllowed, ConstraintFailed.
        """
        rules = self._rules
        if rules.free and self._constraint is None:
            return logits
        finite = np.isfinite(logits.max())
        logits = logits.copy()
        if rules.penalties:
            rules.penalties.apply(logits, self._recent)
        logits[rules.bias_ids] += rules.bias
        if rules.allowed is not None:
            logits[~rules.allowed] = -np.inf
        if new_tokens < rules.min_new_tokens:
            logits[rules.late_ids] = -np.inf
        if self._constraint is not None:
            logits[~self._constraint.allowed()] = -np.inf
        if finite and logits.max() == -np.inf:
            raise NothingAllowed
        return logits
