"""Chooser: the next token of one sequence from its logits. No clock, no lock, no other sequence.

Penalties and bias move logits; the constraint, allowed_token_ids and min_new_tokens bar tokens;
`runtime.sampling` draws among what is left. Log-probabilities are the model's own: of the logits
as they came.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.logprobs import TokenLogprob, token_logprob
from runtime.penalties import RecentTokens
from runtime.sampling import SamplingParams, sample
from serving.constraint import Constraint
from serving.errors import NothingAllowed
from serving.token_rules import TokenRules


class Choice(NamedTuple):
    """A token, and its log-probability where the request asked for it."""

    token: int
    logprob: TokenLogprob | None = None


class Chooser:
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
        self._sampling = sampling
        self._rules = rules
        self._constraint = constraint
        window = rules.penalties.penalty_window if rules.penalties else 0
        self._recent = RecentTokens(window, text[-window:] if window else ())

    def choose(self, logits: NDArray[np.float32], position: int, new_tokens: int) -> Choice:
        """The token at `position`, after `new_tokens` of this completion; logits (V,) are kept.

        Raises NothingAllowed, ConstraintFailed, or SpiketrainError for logits that are not finite.
        """
        token = sample(self._adjusted(logits, new_tokens), self._sampling, position)
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

    def _adjusted(self, logits: NDArray[np.float32], new_tokens: int) -> NDArray[np.float32]:
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
