import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spiketrain.runtime.scoring
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.scoring import score_tokens, token_nats


class Counter:
    """Logits (V,) after a token depend on that token and on how many came before it."""

    def __init__(self, vocab_size=7):
        self.vocab_size = vocab_size
        self.table = np.random.default_rng(1).normal(0, 3, (vocab_size, vocab_size))

    def forward(self, state, token_ids, last_only=False):
        rows = []
        for token in token_ids:
            state.append(int(token))
            rows.append(np.roll(self.table[token], len(state)))
        return np.array(rows, np.float32)


def expected(model, context, tokens):
    logits = model.forward([], [context, *tokens[:-1]]).astype(np.float64)
    return [
        math.log(sum(math.exp(x) for x in row)) - row[token]
        for row, token in zip(logits, tokens, strict=True)
    ]


def test_each_token_is_scored_after_its_predecessors():
    tokens = [3, 1, 4, 1, 5]
    state = []
    nats = score_tokens(Counter(), state, tokens, context=6)
    assert nats == pytest.approx(expected(Counter(), 6, tokens), rel=1e-6)
    assert nats.dtype == np.float64
    assert state == [6, 3, 1, 4, 1]


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(1, 9),
)
def test_no_bit_depends_on_how_a_text_is_cut(tokens, cuts, block):
    whole = score_tokens(Counter(), [], tokens, context=2)
    parts, state, context = [], [], 2
    edges = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spiketrain.runtime.scoring, "MAX_BLOCK_TOKENS", block)
        for start, stop in itertools.pairwise(edges):
            parts.append(score_tokens(Counter(), state, tokens[start:stop], context))
            context = tokens[stop - 1] if stop > start else context
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_no_tokens_cost_nothing_and_leave_the_state_alone():
    state = []
    assert score_tokens(Counter(), state, [], context=1).shape == (0,)
    assert state == []


def test_a_block_of_logits_is_bounded(monkeypatch):
    monkeypatch.setattr(spiketrain.runtime.scoring, "MAX_BLOCK_LOGITS", 21)
    seen = []

    class Watched(Counter):
        def forward(self, state, token_ids, last_only=False):
            seen.append(len(token_ids))
            return super().forward(state, token_ids)

    score_tokens(Watched(), [], [1] * 10, context=0)
    assert seen == [3, 3, 3, 1]


def test_a_certain_token_costs_nothing_and_an_impossible_one_everything():
    logits = np.array([[-np.inf, 2.0, -np.inf], [-np.inf, 2.0, -np.inf]], np.float32)
    assert token_nats(logits, np.array([1, 0])).tolist() == [0, math.inf]


def test_huge_logits_do_not_overflow():
    nats = token_nats(np.array([[3e38, -3e38, 3e38]], np.float32), np.array([0]))
    assert nats == pytest.approx([math.log(2)])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error(bad):
    with pytest.raises(SpiketrainError, match="logits must be finite"):
        token_nats(np.array([[0, bad]], np.float32), np.array([0]))


def test_a_token_out_of_range_is_an_error():
    with pytest.raises(SpiketrainError, match=r"token ids must be in \[0, 2\)"):
        token_nats(np.zeros((1, 2), np.float32), np.array([2]))
