import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.logprobs import token_logprob

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.2, 0.1], np.float32))


def test_a_logprob_is_the_log_of_the_models_probability():
    found = token_logprob(LOGITS, 2, 3)
    assert found.logprob == pytest.approx(np.log(0.2), rel=1e-6)
    assert found.rank == 2
    assert [token for token, _ in found.top] == [1, 2, 3]
    assert [value for _, value in found.top] == pytest.approx(np.log([0.4, 0.2, 0.2]), rel=1e-6)
    assert found.top[1][1] == found.logprob


@given(
    npst.arrays(np.float32, st.integers(1, 50), elements=st.floats(-30, 30, width=32)),
    st.data(),
)
def test_the_likeliest_are_those_that_sorting_finds(logits, data):
    token = data.draw(st.integers(0, logits.size - 1))
    top = data.draw(st.integers(0, 60))
    found = token_logprob(logits, token, top)
    order = np.lexsort((np.arange(logits.size), -logits))
    assert [other for other, _ in found.top] == order[:top].tolist()
    exact = logits.astype(float) - np.log(np.exp(logits.astype(float)).sum())
    np.testing.assert_allclose([value for _, value in found.top], exact[order[:top]], atol=1e-9)
    assert found.logprob == pytest.approx(exact[token], abs=1e-9)
    assert found.rank == 1 + np.count_nonzero(logits > logits[token])


def test_the_same_row_gives_the_same_bits_wherever_it_lies_in_memory():
    rows = np.random.default_rng(0).normal(size=(7, 1000)).astype(np.float32)
    alone = token_logprob(rows[3].copy(), 5, 2)
    assert token_logprob(rows[3], 5, 2) == alone


def test_logits_that_are_not_finite_are_an_error():
    with pytest.raises(SpiketrainError, match="finite"):
        token_logprob(np.array([0, np.nan], np.float32), 0, 0)
