import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from spiketrain.runtime.errors import RequestError, SpiketrainError
from spiketrain.runtime.sampling import SamplingParams, sample, uniform

LOGITS = np.log(np.array([0.05, 0.4, 0.2, 0.05, 0.3], np.float32))


def draws(params, logits=LOGITS, count=4000):
    return np.bincount([sample(logits, params, at) for at in range(count)], minlength=logits.size)


def chi_square(observed, probabilities):
    expected = np.asarray(probabilities) * observed.sum()
    used = expected > 0
    assert observed[~used].sum() == 0
    return float((((observed - expected) ** 2)[used] / expected[used]).sum())


def test_draws_follow_the_softmax():
    assert chi_square(draws(SamplingParams(seed=7)), [0.05, 0.4, 0.2, 0.05, 0.3]) < 18.5  # p=0.001


def test_temperature_sharpens_the_distribution():
    sharp = np.array([0.05, 0.4, 0.2, 0.05, 0.3]) ** 2
    observed = draws(SamplingParams(temperature=0.5, seed=3))
    assert chi_square(observed, sharp / sharp.sum()) < 18.5


def test_top_k_keeps_the_most_likely():
    assert chi_square(draws(SamplingParams(top_k=2, seed=1)), [0, 4 / 7, 0, 0, 3 / 7]) < 10.9


def test_top_p_keeps_the_fewest_that_reach_it():
    assert chi_square(draws(SamplingParams(top_p=0.69, seed=1)), [0, 4 / 7, 0, 0, 3 / 7]) < 10.9
    assert set(np.flatnonzero(draws(SamplingParams(top_p=0.71, seed=1)))) == {1, 2, 4}


def test_min_p_keeps_what_is_nearly_as_likely_as_the_likeliest():
    assert chi_square(draws(SamplingParams(min_p=0.51, seed=1)), [0, 4 / 7, 0, 0, 3 / 7]) < 10.9
    assert set(np.flatnonzero(draws(SamplingParams(min_p=0.49, seed=1)))) == {1, 2, 4}
    assert set(np.flatnonzero(draws(SamplingParams(min_p=1.0), count=50))) == {1}


def test_typical_p_keeps_the_tokens_nearest_to_the_entropy():
    # H = 1.333 nats; the tokens' information is 3.00, 0.92, 1.61, 3.00, 1.20 nats
    assert set(np.flatnonzero(draws(SamplingParams(typical_p=0.29), count=50))) == {4}
    assert chi_square(draws(SamplingParams(typical_p=0.4, seed=1)), [0, 0, 0.4, 0, 0.6]) < 10.9
    assert set(np.flatnonzero(draws(SamplingParams(typical_p=0.6), count=200))) == {1, 2, 4}
    assert set(np.flatnonzero(draws(SamplingParams(typical_p=0.93), count=400))) == {0, 1, 2, 4}


def test_the_completions_of_one_seed_differ_and_repeat():
    flat = np.zeros(4096, np.float32)
    drawn = [[sample(flat, SamplingParams(seed=4, index=i), at) for at in range(9)] for i in (0, 1)]
    assert drawn[0] == [sample(flat, SamplingParams(seed=4), at) for at in range(9)]
    assert drawn[1] == [sample(flat, SamplingParams(seed=4, index=1), at) for at in range(9)]
    assert drawn[0] != drawn[1]


def test_more_than_all_tokens_are_all_tokens():
    flat, everything = np.zeros(9, np.float32), SamplingParams(seed=2)
    for top_k in (9, 10, 10**400):
        chosen = SamplingParams(seed=2, top_k=top_k)
        assert all(sample(flat, chosen, at) == sample(flat, everything, at) for at in range(20))


def test_tiny_top_p_is_greedy():
    assert set(np.flatnonzero(draws(SamplingParams(top_p=1e-9), count=50))) == {1}


def test_top_p_looks_at_what_top_k_left():
    assert set(np.flatnonzero(draws(SamplingParams(top_k=2, top_p=0.5), count=200))) == {1}


def test_temperature_zero_and_top_k_one_are_greedy():
    for params in (SamplingParams(temperature=0), SamplingParams(top_k=1)):
        assert set(np.flatnonzero(draws(params, count=20))) == {1}


def test_the_coldest_temperature_does_not_overflow():
    assert sample(LOGITS, SamplingParams(temperature=5e-324), 0) == 1


def test_ties_go_to_the_lower_id():
    flat = np.zeros(1000, np.float32)
    assert sample(flat, SamplingParams(temperature=0), 0) == 0
    drawn = {sample(flat, SamplingParams(top_k=3), at) for at in range(60)}
    assert drawn == {0, 1, 2}
    drawn = {sample(flat, SamplingParams(top_p=0.0025), at) for at in range(60)}
    assert drawn == {0, 1, 2}


def test_a_wide_nucleus_is_found_beyond_the_first_candidates():
    flat = np.zeros(5000, np.float32)
    params = SamplingParams(top_p=0.5)
    drawn = [sample(flat, params, at) for at in range(500)]
    assert max(drawn) < 2500
    assert max(drawn) > 2000


def test_a_draw_repeats_for_its_seed_and_position_only():
    params = SamplingParams(seed=11)
    flat = np.zeros(4096, np.float32)
    forward = [sample(flat, params, at) for at in range(20)]
    assert [sample(flat, params, at) for at in reversed(range(20))] == forward[::-1]
    assert [sample(flat, SamplingParams(seed=12), at) for at in range(20)] != forward
    assert len(set(forward)) > 15


def test_the_random_number_of_a_seed_and_position_never_changes():
    assert uniform(0, 0) == 0.011546754286331562
    assert uniform(1, 2) == 0.9456775220595027
    assert uniform(2**64 - 1, 10**9) == 0.7860171873344397


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_the_random_number_is_that_of_numpys_philox(seed, position, index):
    key = np.array([seed, index], np.uint64)
    stream = np.random.Philox(key=key, counter=[0, position, 0, 0])
    assert uniform(seed, position, index) == (int(stream.random_raw()) >> 11) * 2.0**-53


def sorted_and_drawn(logits, params, position):
    """What `sample` must give, by sorting all tokens and adding all weights up."""
    ids = np.lexsort((np.arange(logits.size), -logits))[: params.top_k or None]
    weights = np.exp((logits[ids].astype(np.float64) - logits.max()) / params.temperature)
    if params.top_p < 1:
        enough = np.searchsorted(np.cumsum(weights), params.top_p * weights.sum()) + 1
        ids, weights = ids[:enough], weights[:enough]
    order = np.argsort(ids)
    mass = np.cumsum(weights[order])
    wanted = uniform(params.seed, position) * mass[-1]
    return ids[order][np.searchsorted(mass, wanted, side="right")]


@pytest.mark.parametrize("size", [3, 16, 17, 64, 65, 1000, 4096])
@pytest.mark.parametrize("top_k", [0, 2, 15, 61, 700])
@pytest.mark.parametrize("top_p", [0.3, 0.95, 1])
def test_shortcuts_draw_what_sorting_all_tokens_draws(size, top_k, top_p):
    chance = np.random.default_rng(size + top_k)
    logits = chance.normal(size=size).astype(np.float32)
    if top_p == 1:
        logits = np.round(logits, 1)  # so that many are equal
    params = SamplingParams(temperature=0.8, top_k=top_k, top_p=top_p, seed=3)
    for position in range(40):
        assert sample(logits, params, position) == sorted_and_drawn(logits, params, position)


def test_impossible_tokens_are_never_drawn():
    logits = np.full(300, -np.inf, np.float32)
    logits[[7, 200]] = 0
    for params in (SamplingParams(), SamplingParams(top_k=10), SamplingParams(top_p=0.999)):
        assert {sample(logits, params, at) for at in range(40)} == {7, 200}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error(bad):
    logits = LOGITS.copy()
    logits[2] = bad
    with pytest.raises(SpiketrainError, match=r"logits must be finite, got (nan|inf) for token 2"):
        sample(logits, SamplingParams(), 0)
    with pytest.raises(SpiketrainError, match="logits must be finite"):
        sample(np.full(3, -np.inf, np.float32), SamplingParams(), 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", 10**400),
        ("temperature", "1"),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("seed", -1),
        ("seed", 1 << 64),
        ("seed", 1.0),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("typical_p", 0),
        ("typical_p", math.nan),
        ("index", -1),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{field: value})
    assert caught.value.field == field
    assert repr(value) in str(caught.value)


@pytest.mark.slow
@given(
    npst.arrays(np.float32, st.integers(1, 40), elements=st.floats(-50, 50, width=32)),
    st.floats(0, 10),
    st.integers(0, 50),
    st.floats(0.01, 1),
    st.integers(0, 2**64 - 1),
)
@example(np.float32([-(2.0**-52), 0.0]), 4.0, 0, 0.25, 0)
def test_a_drawn_token_is_among_those_the_filters_keep(logits, temperature, top_k, top_p, seed):
    token = sample(logits, SamplingParams(temperature, top_k, top_p, seed), 5)
    better = np.flatnonzero(logits > logits[token])
    if top_k:
        assert better.size < top_k
    if temperature == 0:
        assert better.size == 0
    else:
        with np.errstate(over="ignore"):
            weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
        kept = np.sort(weights)[::-1][: top_k or None]
        better = weights > weights[token] * (1 + 1e-9)  # those of other logits may round to equal
        assert weights[better].sum() <= top_p * kept.sum() * (1 + 1e-9)
