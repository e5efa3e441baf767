"""Mixers against their scalar twins, on every build that this machine runs, bit for bit."""

import kernel_twins
import numpy as np
import pytest
from kernel_twins import normal

from spiketrain.runtime.kernels.reference import mixers as reference_mixers
from spiketrain.runtime.kernels.vectors import mixers

SIZES = (1, 2, 15, 16, 17, 63, 64, 65, 200)


pytestmark = pytest.mark.usefixtures("build")


def both(name, inputs, outputs):
    """Written arrays of the kernel, which are its twin's."""
    return kernel_twins.both((mixers, reference_mixers), name, inputs, outputs)[1]


def nan(size):
    return np.full(size, np.nan, np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_layer_norm_is_its_twin_and_the_definition(size):
    rng = np.random.default_rng(size)
    x, weight, bias = normal(rng, size, spread=3.0), normal(rng, size), normal(rng, size)
    (out,) = both("layer_norm", (x, weight, bias, 1e-5), [nan(size)])
    wide = x.astype(np.float64)
    wanted = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5) * weight + bias
    np.testing.assert_allclose(out, wanted, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_elementwise_kernels_are_their_twins(size):
    rng = np.random.default_rng(size)
    a, b, c = (normal(rng, size, spread=2.0) for _ in range(3))
    count = rng.integers(0, 40, size).astype(np.int32)
    both("token_shift", (a, b, c), [nan(size)])
    both("gate", (a, b), [nan(size)])
    both("square_relu", (a,), [nan(size)])
    both("add_counts", (a, count), [nan(size)])
    both("add_vector", (a,), [b.copy()])


@pytest.mark.parametrize("size", SIZES)
def test_wkv_is_its_twin_and_the_closed_form(size):
    rng = np.random.default_rng(size)
    decay, bonus = -np.exp(normal(rng, size)), normal(rng, size)
    state = [np.zeros(size, np.float32), np.zeros(size, np.float32), np.full(size, -1e38, "f")]
    keys, values = [], []
    for _ in range(6):
        r, k, v = normal(rng, size), normal(rng, size, spread=8.0), normal(rng, size)
        *state, out = both("wkv", (r, k, v, decay, bonus), [*state, nan(size)])
        t = len(keys)
        weights = [np.exp((t - 1 - s) * decay.astype("d") + keys[s]) for s in range(t)]
        weights.append(np.exp(bonus.astype("d") + k))
        keys.append(k)
        values.append(v)
        mean = sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)
        np.testing.assert_allclose(out, mean / (1 + np.exp(-r.astype("d"))), atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
def test_lif_is_its_twin(size):
    rng = np.random.default_rng(size)
    x, scale = normal(rng, size, spread=3.0), normal(rng, size)
    threshold = rng.uniform(0.1, 2.0, size).astype(np.float32)
    count = rng.integers(0, 9, size).astype(np.int32)
    for tau in (2.0, 1.5):
        both("lif", (x, scale, threshold, tau), [normal(rng, size, spread=0.3).copy(), count])


def test_lif_fires_at_exactly_the_threshold_and_resets_to_zero():
    one = np.ones(3, np.float32)
    membrane, count = np.zeros(3, np.float32), np.zeros(3, np.int32)
    x = np.array([2.0, np.nextafter(np.float32(2), np.float32(0)), 5.0], np.float32)
    assert mixers.lif(x, one, one, 2.0, membrane, count) == 2
    assert count.tolist() == [1, 0, 1]
    assert membrane.tolist() == [0.0, x[1] / 2, 0.0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", [0.0, 1e-42, 1.0, 1e30])
def test_counts_are_their_twins(size, spread):
    rng = np.random.default_rng(size)
    x = normal(rng, size, spread=spread)
    for scale in (0.5, 1.0, 1e-6):
        for dial in (1.0, 1.5, 3.0):
            both("count_spikes", (x, scale, dial), [np.zeros(size, np.int16)])


def test_counts_have_a_dead_zone_and_the_sign_of_their_input():
    counts = np.zeros(4, np.int16)
    x = np.array([4.0, -3.9, 1.0, -3.1], np.float32)  # mean |x| = 3
    assert mixers.count_spikes(x, 1.0, 1.0, counts) == 3.0
    assert counts.tolist() == [1, -1, 0, -1]
    assert mixers.count_spikes(x, 0.5, 1.0, counts) == 1.5
    assert counts.tolist() == [2, -2, 0, -2]


def test_what_is_no_number_counts_nothing(build):
    """Infinity makes V infinite; what it is over that has no whole part."""
    x = np.array([np.inf, -np.inf, 1.0, -2.0, np.inf], np.float32)
    both("count_spikes", (x, 1.0, 0.0), [np.full(5, 9, np.int16)])
    both("count_spikes", (np.full(5, np.nan, np.float32), 1.0, 0.0), [np.full(5, 9, np.int16)])


def test_a_dial_silences_what_is_below_it_and_leaves_the_rest():
    counts = np.zeros(5, np.int16)
    x = np.array([9.0, -3.0, 4.5, 4.4999995, -0.1], np.float32)
    scale = 3.0 / (np.abs(x).sum() / 5)
    assert mixers.count_spikes(x, scale, 1.5, counts) == pytest.approx(3.0)
    unit = mixers.count_spikes(x, scale, 1.0, counts.copy())
    at = np.float32(4.5) / np.float32(unit)
    for dial, wanted in ((1.0, [3, -1, 1, 1, 0]), (at, [3, 0, 1, 0, 0]), (3.1, [0, 0, 0, 0, 0])):
        mixers.count_spikes(x, scale, dial, counts)
        assert counts.tolist() == wanted


def test_vectors_of_different_sizes_are_refused():
    two, three = np.zeros(2, np.float32), np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="vectors must have 3 elements"):
        mixers.gate(three, two, three.copy())
    with pytest.raises(ValueError, match="vectors must have 3 elements"):
        mixers.lif(two, three, three, 2.0, three.copy(), np.zeros(3, np.int32))
