"""Parts of decoder layers against their scalar twins, on every build, bit for bit."""

import kernel_twins
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_twins import normal

from spiketrain.runtime.kernels.reference import attention as reference_attention
from spiketrain.runtime.kernels.vectors import attention

TILE = attention.TILE


pytestmark = pytest.mark.usefixtures("build")


def both(name, inputs, outputs):
    """Result and written arrays of the kernel, which are its twin's."""
    return kernel_twins.both((attention, reference_attention), name, inputs, outputs)


def nan(*shape):
    return np.full(shape, np.nan, np.float32)


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 90))
@settings(max_examples=10)
def test_elementwise_parts_are_their_twins(build, seed, size):
    rng = np.random.default_rng(seed)
    a, b = normal(rng, size, spread=4.0), normal(rng, size, spread=4.0)
    both("rms_norm", (a, b, 1e-6), [nan(size)])
    both("silu_product", (a, b), [nan(size)])
    both("decay", (a, 16.0), [nan(size)])
    both("rotate", (a, b), [normal(rng, 2 * size).copy()])
    both("widen_bfloat16", (rng.integers(0, 0x7F80, size).astype(np.uint16),), [nan(size)])
    codes, scale = rng.integers(-128, 128, (1 + size % 5, TILE)).astype(np.int8), normal(rng, TILE)
    both("widen_keys", (codes, scale), [nan(*codes.shape)])
    both("widen_values", (np.ascontiguousarray(codes.T), scale), [nan(*codes.T.shape)])


def test_norm_silu_and_decay_are_their_definitions(build):
    rng = np.random.default_rng(0)
    x, w = normal(rng, 500, spread=30.0), normal(rng, 500)
    wide, out = x.astype(np.float64), nan(500)
    attention.rms_norm(x, w, 1e-6, out)
    np.testing.assert_allclose(out, wide / np.sqrt((wide**2).mean() + 1e-6) * w, rtol=1e-6)
    attention.silu_product(x, w, out)
    np.testing.assert_allclose(out, wide / (1 + np.exp(-wide)) * w, rtol=1e-6, atol=1e-40)
    for normalizer in (1.0, 16.0):
        attention.decay(x, normalizer, out)
        wanted = np.exp(-np.logaddexp(0, -wide) / normalizer)
        np.testing.assert_allclose(out, wanted, rtol=2e-7, atol=1e-44)


def test_silu_is_within_two_ulp_over_the_whole_range(build):
    """Every 65,521st float32 there is; silu falls to zero, however large its input is."""
    bits = np.arange(0, 2**32, 65521, dtype=np.uint32)
    x = np.append(bits.view(np.float32), np.float32([-np.inf, np.inf, -1e3, -1e4, -3e38, -103.9]))
    out = nan(len(x))
    attention.silu_product(x, np.ones(len(x), np.float32), out)
    assert np.array_equal(np.isnan(out), np.isnan(x))
    good = np.isfinite(x)
    wide = x[good].astype(np.longdouble)
    with np.errstate(over="ignore", under="ignore"):
        true = wide / (1 + np.exp(-wide))
    _, exponent = np.frexp(true)
    unit = np.ldexp(np.longdouble(1), np.maximum(exponent - 24, -149))
    assert np.max(np.abs(out[good] - true) / unit) <= 0.6
    assert np.array_equal(out[np.isinf(x)], np.where(x[np.isinf(x)] > 0, np.inf, 0))


def test_sines_are_right_at_a_hundred_million_tokens(build):
    x = np.concatenate([np.linspace(0, 50, 400), 10.0 ** np.linspace(2, 8, 200)])
    _, (sine, cosine) = both("sincos", (x,), [nan(600), nan(600)])
    np.testing.assert_allclose(sine, np.sin(x), atol=1e-7)
    np.testing.assert_allclose(cosine, np.cos(x), atol=1e-7)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 300),
    k=st.sampled_from([0.5, 3.0, 16.0]),
    dead_zone=st.sampled_from([0.0, 0.5, 1.7]),
    outlier=st.sampled_from([1.0, 1e3, 1e6]),
    most=st.sampled_from([8, 127]),
)
@settings(max_examples=20)
def test_spike_counts_are_their_twins_and_never_clipped(
    build, seed, size, k, dead_zone, outlier, most
):
    rng = np.random.default_rng(seed)
    x = np.array(normal(rng, size))
    x[seed % size] *= outlier
    v, (values,) = both("spike_values", (x, k, dead_zone), [nan(size)])
    room = size + 16 + int(size * (k + 1) / most)
    lists = [np.full(room, -1, np.int32), np.full(room, -1, np.int16)]
    found = []
    for module in (attention, reference_attention):
        index, value = (array.copy() for array in lists)
        count, threshold, fired = module.spike_list(x, k, dead_zone, most, index, value)
        found.append((count, threshold, fired, index[:count].tolist(), value[:count].tolist()))
    assert found[0] == found[1]
    count, threshold, fired, index, value = found[0]
    sums = np.bincount(index, np.array(value, np.float64), size) if count else np.zeros(size)
    assert threshold == v
    assert fired == np.count_nonzero(sums)
    assert all(0 < abs(s) <= most for s in value)
    assert (sums.astype(np.float32) * np.float32(v)).tolist() == values.tolist()
    plain = np.rint(x.astype(np.float64) / v)
    away = np.abs(np.abs(x / v) % 1 - 0.5) > 1e-3
    quiet = np.abs(x) < dead_zone * v
    assert np.array_equal(sums[away & ~quiet], plain[away & ~quiet])
    assert not sums[quiet & (np.abs(np.abs(x) / v - dead_zone) > 1e-3)].any()


def test_a_vector_that_is_no_number_has_no_counts_and_a_threshold_that_is_none(build):
    for bad in (np.nan, np.inf):
        x = np.array([1.0, bad, -2.0], np.float32)
        index, value = np.zeros(20, np.int32), np.zeros(20, np.int16)
        count, v, fired = attention.spike_list(x, 3.0, 0.0, 127, index, value)
        assert (count, fired) == (0, 0)
        assert not np.isfinite(v)


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([2, 16, 30, 64, 70]))
@settings(max_examples=5)
def test_gla_is_its_twin_and_the_recurrence(build, seed, size):
    rng = np.random.default_rng(seed)
    decay = rng.uniform(0, 1, size).astype(np.float32)
    k, v, q = normal(rng, size), normal(rng, size), np.maximum(normal(rng, 3, size), 0)
    before = normal(rng, size, size)
    _, (state, out) = both("gla", (decay, k, v, q), [np.array(before), nan(3, size)])
    wanted = decay[:, None].astype("d") * before + np.outer(k, v)
    np.testing.assert_allclose(state, wanted, atol=1e-5)
    np.testing.assert_allclose(out, q.astype("d") @ wanted, atol=1e-4)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([2, 17, 64, 66]),
    first=st.integers(0, TILE - 1),
    last=st.integers(1, TILE),
)
@settings(max_examples=4)
def test_tiles_are_their_twins_and_add_up_to_a_softmax(build, seed, size, first, last):
    rng = np.random.default_rng(seed)
    last = max(first + 1, last)
    q = normal(rng, 2, size)
    state = [np.full(2, -np.inf, np.float32), np.zeros(2, np.float32), np.zeros((2, size), "f")]
    seen_keys, seen_values = [], []
    for begin, end in ((first, last), (0, TILE), (0, 1)):
        keys, values = normal(rng, size, TILE), normal(rng, TILE, size)
        _, state = both("window_tile", (keys, values, q, begin, end), state)
        seen_keys.append(keys.T[begin:end])
        seen_values.append(values[begin:end])
    scores = q.astype("d") @ np.concatenate(seen_keys).T
    p = np.exp(scores - scores.max(1, keepdims=True))
    wanted = p / p.sum(1, keepdims=True) @ np.concatenate(seen_values)
    np.testing.assert_allclose(state[2] / state[1][:, None], wanted, atol=2e-5)


def test_misfitting_arguments_are_refused_by_name(build):
    f4 = lambda *shape: np.zeros(shape, np.float32)  # noqa: E731
    with pytest.raises(ValueError, match="weight must be 3, got 2"):
        attention.rms_norm(f4(3), f4(2), 1e-6, f4(3))
    with pytest.raises(ValueError, match="x must be 4, got 3"):
        attention.rotate(f4(2), f4(2), f4(3))
    with pytest.raises(ValueError, match="state rows must be 2, got 3"):
        attention.gla(f4(2), f4(2), f4(2), f4(1, 2), f4(3, 2), f4(1, 2))
    with pytest.raises(ValueError, match=r"keys must be some of 64, got 5 \.\. 5"):
        attention.window_tile(f4(2, 64), f4(64, 2), f4(1, 2), 5, 5, f4(1), f4(1), f4(1, 2))
    with pytest.raises(ValueError, match="must have room for 19"):
        attention.spike_list(f4(2), 3.0, 0.0, 8, np.zeros(3, np.int32), np.zeros(3, np.int16))
