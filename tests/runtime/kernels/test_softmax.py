"""softmax and nats against their twins and against float64, on every build."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_matrices import nan, read_only, rows_apart, same

from spiketrain.runtime.kernels.reference import functions as reference_functions
from spiketrain.runtime.kernels.vectors import functions

pytestmark = pytest.mark.usefixtures("build")

MAX_ULP = 1.6
MAX_NATS = 3e-10
FLOATS = st.floats(allow_nan=False, width=32).filter(lambda x: x != np.inf)


def softmax(x):
    out = nan(len(x))
    functions.softmax(x, out)
    return out


def true_softmax(x):
    """In float64, whose error is far below a float32's."""
    with np.errstate(under="ignore"):
        terms = np.exp(x.astype(np.float64) - float(x.max()))
    return terms / terms.sum()


def ulps(x, out):
    """Largest error in units of the last place of the true value, floor 2**-149."""
    true = true_softmax(x)
    _, exponent = np.frexp(true)
    unit = np.ldexp(1.0, np.maximum(exponent - 24, -149))
    return np.max(np.abs(out.astype(np.float64) - true) / unit)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 100),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 10.0, 60.0, 300.0, 1e38]),
    hidden=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=80, deadline=None)
def test_softmax_is_its_twin_and_close_to_float64(build, seed, size, spread, hidden):
    rng = np.random.default_rng(seed)
    space = (spread * rng.normal(size=(1, size))).clip(-3.4e38, 3.4e38).astype(np.float32)
    space[0, 1:][rng.random(size - 1) < hidden] = -np.inf
    (x,) = rows_apart(space)
    out, expected = softmax(x), nan(size)
    reference_functions.softmax(x, expected)
    assert same(out, expected)
    assert ulps(x, out) <= MAX_ULP
    assert (out[np.isneginf(x)] == 0).all()


@pytest.mark.parametrize("size", [1, 15, 16, 17, 4096, 50_277])
def test_large_vectors_are_close_to_float64_and_add_up_to_one(build, size):
    x = read_only(np.random.default_rng(size).normal(0, 4, size).astype(np.float32))
    out = softmax(x)
    assert ulps(x, out) <= MAX_ULP
    assert abs(out.astype(np.float64).sum() - 1) < 1e-6


@given(x=st.lists(FLOATS, min_size=1, max_size=40))
@settings(deadline=None)
def test_softmax_of_any_floats_is_close_to_float64(build, x):
    x = read_only(np.float32([*x, 1.0]))
    assert ulps(x, softmax(x)) <= MAX_ULP


@pytest.mark.parametrize(
    ("x", "wanted"),
    [
        ([3e38, -3e38], [1, 0]),
        ([-3e38, -np.inf, -3e38], [0.5, 0, 0.5]),
        ([1e38] * 8, [0.125] * 8),
        ([-np.inf, 7.0], [0, 1]),
        ([0.0, -103.97], [1, 2.0**-149]),
        ([0.0, -104.1], [1, 0]),
        ([0.0, -1e6], [1, 0]),
        ([5e-324], [1]),
        ([], []),
    ],
)
def test_softmax_at_the_extremes(build, x, wanted):
    assert softmax(np.float32(x)).tolist() == wanted


@pytest.mark.parametrize("where", [0, 5, 15, 16, 20, 36])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(build, where, bad):
    x = np.zeros(37, np.float32)
    x[where] = bad
    with pytest.raises(ValueError, match="finite greatest element, and no NaN"):
        softmax(x)
    with pytest.raises(ValueError, match=r"logits\[1\] must have a finite greatest"):
        functions.nats(np.stack([np.zeros_like(x), x]), np.zeros(2, np.int64), np.zeros(2))
    with pytest.raises(ValueError, match="finite greatest"):
        reference_functions.softmax(x, nan(37))


def test_nothing_but_minus_infinity_is_refused(build):
    with pytest.raises(ValueError, match="finite greatest"):
        softmax(np.full(20, -np.inf, np.float32))


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 3),
    size=st.integers(1, 80),
    spread=st.sampled_from([0.0, 1.0, 30.0, 1e4, 1e38]),
)
@settings(max_examples=60, deadline=None)
def test_nats_are_their_twins_and_close_to_float64(build, seed, rows, size, spread):
    rng = np.random.default_rng(seed)
    logits = rows_apart((spread * rng.normal(size=(rows, size))).clip(-3e38, 3e38).astype("f"))
    target = rng.integers(0, size, rows)
    out, expected = np.full(rows, np.nan), np.full(rows, np.nan)
    functions.nats(logits, target, out)
    reference_functions.nats(logits, target, expected)
    assert same(out, expected)
    for row, at, found in zip(logits.astype(np.float64), target, out, strict=True):
        true = np.log(np.exp(row - row.max()).sum()) + (row.max() - row[at])
        assert abs(found - true) <= MAX_NATS + 1e-15 * abs(true)


def test_a_token_without_any_chance_has_infinite_nats(build):
    out = np.zeros(1)
    functions.nats(np.float32([[0, -np.inf]]), np.array([1]), out)
    assert out[0] == np.inf


def test_wrong_sizes_are_refused(build):
    f4 = lambda *shape: np.zeros(shape, np.float32)  # noqa: E731
    with pytest.raises(ValueError, match="out has 1 elements"):
        functions.softmax(f4(2), f4(1))
    with pytest.raises(ValueError, match="target and out must have 2"):
        functions.nats(f4(2, 3), np.zeros(1, np.int64), np.zeros(2))
    with pytest.raises(ValueError, match=r"target\[1\] must be in \[0, 3\), got 3"):
        functions.nats(f4(2, 3), np.array([0, 3]), np.zeros(2))
    with pytest.raises(ValueError, match="contiguous rows"):
        functions.nats(f4(3, 2).T, np.zeros(2, np.int64), np.zeros(2))
