from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiketrain.runtime.errors import RequestError
from spiketrain.runtime.penalties import MAX_WINDOW, Penalties, RecentTokens


def penalised(logits, penalties, tokens):
    """What `apply` must give, token by token."""
    seen = Counter(tokens[-penalties.penalty_window :])
    changed = []
    for token, logit in enumerate(logits.astype(float)):
        if seen[token]:
            ratio = penalties.repetition_penalty
            logit = logit / ratio if logit > 0 else logit * ratio
            logit -= penalties.frequency_penalty * seen[token] + penalties.presence_penalty
        changed.append(logit)
    return np.array(changed, np.float32)


@given(
    st.lists(st.integers(0, 9), max_size=40),
    st.floats(0.1, 3),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.integers(1, 20),
)
def test_each_seen_token_loses_by_its_own_count(tokens, repetition, frequency, presence, window):
    penalties = Penalties(repetition, frequency, presence, window)
    logits = np.linspace(-3, 3, 10).astype(np.float32)
    expected = penalised(logits, penalties, tokens)
    penalties.apply(logits, RecentTokens(window, tokens))
    np.testing.assert_array_equal(logits, expected)


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(0, 12))
def test_recent_tokens_are_the_last_ones_and_their_counts(tokens, window):
    recent = RecentTokens(window, tokens)
    last = tokens[len(tokens) - min(window, len(tokens)) :]
    assert recent.tokens() == tuple(last)
    ids, counts = recent.counts()
    assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == Counter(last)


def test_what_was_seen_before_the_window_is_forgiven():
    logits = np.ones(3, np.float32)
    Penalties(presence_penalty=0.5, penalty_window=2).apply(logits, RecentTokens(2, [0, 1, 2]))
    np.testing.assert_array_equal(logits, [1, 0.5, 0.5])


def test_a_barred_token_stays_barred():
    logits = np.array([-np.inf, 1], np.float32)
    Penalties(repetition_penalty=2.0, frequency_penalty=-1.0).apply(logits, RecentTokens(4, [0]))
    assert logits[0] == -np.inf


def test_penalties_that_do_nothing_are_false():
    assert not Penalties()
    assert Penalties(repetition_penalty=1.1)
    assert Penalties(presence_penalty=-0.1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-300),
        ("repetition_penalty", 101.0),
        ("repetition_penalty", float("inf")),
        ("repetition_penalty", float("nan")),
        ("frequency_penalty", 100.1),
        ("presence_penalty", float("nan")),
        ("penalty_window", 0),
        ("penalty_window", MAX_WINDOW + 1),
    ],
)
def test_a_penalty_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(RequestError) as caught:
        Penalties(**{field: value})
    assert caught.value.field == field
