"""Drawing tokens, on every build that this machine runs: the scalar twin's token each time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrain.runtime.kernels.reference import sampling as reference_sampling
from spiketrain.runtime.kernels.vectors import sampling

SHARE = st.floats(0.001, 1.0) | st.sampled_from([0.5, 0.95, 1.0])


pytestmark = pytest.mark.usefixtures("build")


def both(rows, choices):
    """Tokens of kernel and twin."""
    found = []
    for module in (sampling, reference_sampling):
        tokens = np.full(len(rows), -7, np.int64)
        module.Drawer(rows[0].size).draw(rows, np.array(choices, np.float64), tokens)
        found.append(tokens.tolist())
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1, 2, 15, 16, 17, 63, 64, 65, 100, 257, 640]),
    spread=st.sampled_from([0.0, 0.1, 1.0, 20.0]),
    equal=st.booleans(),
    barred=st.sampled_from([0.0, 0.5, 0.99]),
    temperature=st.sampled_from([0.0, 5e-324, 0.1, 0.8, 1.0, 7.0, 1e308]),
    top_k=st.integers(0, 80),
    top_p=SHARE,
    min_p=st.sampled_from([0.0, 1e-9, 0.1, 1.0]),
    typical_p=SHARE,
    random=st.floats(0.0, 1.0, exclude_max=True),
)
@settings(max_examples=300, deadline=None)
def test_a_draw_is_its_twins(
    build, seed, size, spread, equal, barred, temperature, top_k, top_p, min_p, typical_p, random
):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=size) * spread).astype(np.float32)
    if equal:
        logits = np.round(logits, 1)
    logits[rng.random(size) < barred] = -np.inf
    logits.flags.writeable = False
    found, expected = both([logits], [(temperature, top_k, top_p, min_p, typical_p, random)])
    assert found == expected


def test_rows_of_one_call_do_not_meet(build):
    rng = np.random.default_rng(5)
    rows = [rng.normal(size=300).astype(np.float32) for _ in range(150)]
    choices = [(0.8, n % 90, 0.9, 0.0, 1.0, rng.random()) for n in range(150)]
    together, expected = both(rows, choices)
    assert together == expected
    assert together == [
        both([row], [choice])[0][0] for row, choice in zip(rows, choices, strict=True)
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 1, 16, 33, 39])
def test_a_row_that_is_not_finite_has_no_token(build, bad, at):
    row = np.zeros(40, np.float32)
    row[at] = bad
    nothing = np.full(40, -np.inf, np.float32)
    found, expected = both([row, nothing, np.zeros(40, np.float32)], [(1, 0, 1, 0, 1, 0.5)] * 3)
    assert found == expected
    assert found[:2] == [-1, -1]
    assert found[2] == 20


def test_sizes_that_do_not_fit_are_refused():
    drawer = sampling.Drawer(4)
    row, tokens = np.zeros(4, np.float32), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="choices and tokens"):
        drawer.draw([row], np.zeros((2, 6)), tokens)
    with pytest.raises(ValueError, match="rows must have 4, got 5"):
        drawer.draw([np.zeros(5, np.float32)], np.ones((1, 6)), tokens)
    with pytest.raises(ValueError, match="size must be from 1"):
        sampling.Drawer(0)
    drawer.draw([], np.zeros((0, 6)), np.zeros(0, np.int64))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_the_random_number_is_its_twins(seed, position, index):
    number = sampling.uniform(seed, position, index)
    assert number == reference_sampling.uniform(seed, position, index)
