"""Every kernel against its scalar twin, on every build that this machine runs, bit for bit."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_matrices import events_of, nan, read_only, same

from spiketrain.runtime.kernels import products
from spiketrain.runtime.kernels.networks import egru as network
from spiketrain.runtime.kernels.networks import spikegpt as rwkv
from spiketrain.runtime.kernels.reference import attention as reference_attention
from spiketrain.runtime.kernels.reference import egru as reference
from spiketrain.runtime.kernels.reference import functions as reference_functions
from spiketrain.runtime.kernels.reference import mixers as reference_mixers
from spiketrain.runtime.kernels.reference import neurons as reference_neurons
from spiketrain.runtime.kernels.reference import sampling as reference_sampling
from spiketrain.runtime.kernels.reference import spikegpt as reference_rwkv
from spiketrain.runtime.kernels.vectors import attention, functions, mixers, neurons, sampling

TWINS = {
    attention: reference_attention,
    functions: reference_functions,
    mixers: reference_mixers,
    network: reference,
    neurons: reference_neurons,
    rwkv: reference_rwkv,
    sampling: reference_sampling,
}


pytestmark = pytest.mark.usefixtures("build")


def test_every_kernel_has_a_twin_with_the_same_arguments():
    for module, reference_module in TWINS.items():
        for name, kernel in vars(module).items():
            if name.startswith("_") or getattr(kernel, "__module__", None) != module.__name__:
                continue
            twin = getattr(reference_module, name)
            if inspect.isclass(twin):
                methods = [
                    m
                    for m in vars(kernel)
                    if not m.startswith("_") and callable(getattr(kernel, m))
                ]
                for method in methods:
                    assert arguments(getattr(kernel, method)) == arguments(getattr(twin, method))
            else:
                assert arguments(kernel) == arguments(twin), name


def arguments(function):
    code = getattr(function, "__code__", None)
    return code.co_varnames[: code.co_argcount]


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(0, 140),
    density=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_lists_are_their_twins(build, seed, size, density):
    rng = np.random.default_rng(seed)
    y, index, value = events_of(rng, size, density)
    for name, output in {"list_int16": y, "list_float32": y.astype(np.float32)}.items():
        found = np.full(size, -1, np.int32)
        values = np.zeros(size, output.dtype)
        count = getattr(neurons, name)(read_only(output), found, values)
        assert count == len(index)
        assert same(found[:count], index)
        assert same(values[:count], value.astype(output.dtype))
        twin = np.full(size, -1, np.int32), np.zeros(size, output.dtype)
        assert getattr(reference_neurons, name)(output, *twin) == count


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(0, 140),
    spread=st.sampled_from([0.0, 1e-30, 1.0, 1e30]),
)
@settings(max_examples=40, deadline=None)
def test_quantise_is_its_twin(build, seed, size, spread):
    rng = np.random.default_rng(seed)
    x = read_only((spread * rng.normal(size=size)).astype(np.float32))
    codes, expected = np.full(size, 99, np.int16), np.full(size, 99, np.int16)
    assert neurons.quantise(x, codes) == reference_neurons.quantise(x, expected)
    assert same(codes, expected)


def test_what_an_infinite_largest_element_divides_is_a_code(build):
    """Infinity over infinity is no number, which is the largest code in rows of bytes as well."""
    x = np.array([np.inf, 1.0, -2.0, np.inf], np.float32)
    codes, row = np.full(4, 99, np.int16), np.full(64, 99, np.int8)
    assert neurons.quantise(x, codes) == products.quantise_row(x, row, np.zeros(2, np.int32))
    assert list(codes) == list(row[:4]) == [127, 0, 0, 127]


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(0, 140),
    spread=st.sampled_from([0.1, 2.0, 50.0]),
    zoneout=st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=25, deadline=None)
def test_neuron_updates_are_their_twins(build, seed, size, spread, zoneout):
    rng = np.random.default_rng(seed)
    x = read_only((spread * rng.normal(size=3 * size)).astype(np.float32))
    y = read_only((spread * rng.normal(size=3 * size)).astype(np.float32))
    threshold = read_only(rng.uniform(0, 0.3, size).astype(np.float32))
    start = rng.uniform(-1, 1, size).astype(np.float32)
    for name, dtype in {"egru_float32": np.float32, "egru_int16": np.int16}.items():
        cell, expected_cell = start.copy(), start.copy()
        output, expected = np.full(size, -9, dtype), np.full(size, -9, dtype)
        getattr(neurons, name)(x, y, threshold, zoneout, cell, output)
        getattr(reference_neurons, name)(x, y, threshold, zoneout, expected_cell, expected)
        assert same(cell, expected_cell)
        assert same(output, expected)
        assert np.all(np.abs(cell) <= 1)
        assert np.all(output >= 0)


def test_a_unit_exactly_at_its_threshold_stays_silent(build):
    """z = 1/2 and g = 0: the cell halves. One step of float32 above, the unit fires."""
    at = np.float32(0.25)
    cell = np.array([2 * at, 2 * np.nextafter(at, np.float32(1)), 2 * at, 0.0], np.float32)
    threshold = np.array([at, at, np.nextafter(at, np.float32(0)), 0.0], np.float32)
    zeros = np.zeros(12, np.float32)
    for name, dtype in {"egru_float32": np.float32, "egru_int16": np.int16}.items():
        cells, output = cell.copy(), np.full(4, -1, dtype)
        getattr(neurons, name)(zeros, zeros, threshold, 0.0, cells, output)
        assert list(output != 0) == [False, True, True, False]
        assert cells[0] == at
        assert cells[1] == np.nextafter(at, np.float32(1)) - at
        if dtype == np.int16:
            assert output[2] == 8192  # 0.25 * 32767 = 8191.75


def test_fixed_point_outputs_round_half_to_even_and_reset_by_the_exact_cell(build):
    steps = np.array([0.4, 0.5, 1.5, 2.5, 1000.5, 32766.4, 32766.5], np.float64)
    cell = np.float32(2 * steps / 32767.0)
    cell[cell > 1] = 1.0
    size = len(cell)
    y = np.zeros(3 * size, np.float32)
    output = np.full(size, -1, np.int16)
    cells = cell.copy()
    neurons.egru_int16(y, y, np.zeros(size, np.float32), 0.0, cells, output)
    expected = np.rint((cell / np.float32(2)) * np.float32(32767)).astype(np.int16)
    assert same(output, expected)
    assert same(cells, cell / np.float32(2))  # threshold 0: fired, and lost nothing


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh"])
def test_functions_are_their_twins_and_within_two_ulp(build, name):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, s, 300) for s in (1e-38, 1e-6, 1e-3, 0.1, 1, 10, 50, 100)])
    edges = [
        0.0,
        -0.0,
        2.0**-12,
        -(2.0**-12),
        88.7,
        88.73,
        -87.4,
        -103.9,
        -104.1,
        9.02,
        3e38,
        -3e38,
        1e-45,
        np.inf,
        -np.inf,
        np.nan,
    ]
    x = read_only(np.concatenate([x, edges]).astype(np.float32))
    out, expected = nan(len(x)), nan(len(x))
    getattr(functions, name)(x, out)
    getattr(reference_functions, name)(x, expected)
    assert same(out, expected)
    assert ulps(name, x, out) <= 0.6


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh"])
def test_functions_are_within_two_ulp_over_the_whole_range(name):
    """Every 1009th float32 there is."""
    bits = np.arange(0, 2**32, 1009, dtype=np.uint32)
    x = bits.view(np.float32)
    out = nan(len(x))
    getattr(functions, name)(x, out)
    assert np.array_equal(np.isnan(out), np.isnan(x))
    assert ulps(name, x, out) <= 0.6


def ulps(name, x, out):
    """Largest error in units of the last place of the true value, floor 2**-149."""
    good = ~np.isnan(x)
    wide = x[good].astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        true = {
            "exp": np.exp,
            "sigmoid": lambda v: 1.0 / (1.0 + np.exp(-v)),
            "tanh": np.tanh,
        }[name](wide)
        rounded = true.astype(np.float32)
    found = out[good]
    finite = np.isfinite(rounded)
    assert np.array_equal(found[~finite], rounded[~finite])
    _, exponent = np.frexp(true[finite])
    unit = np.ldexp(1.0, np.maximum(exponent - 24, -149))
    return np.max(np.abs(found[finite].astype(np.float64) - true[finite]) / unit)


def test_misfitting_arguments_are_refused_by_name(build):
    f4 = lambda *shape: np.zeros(shape, np.float32)  # noqa: E731
    codes, output = np.zeros((3, 4), np.int8), np.ones((1, 3), np.int16)
    matrix, pool = products.Sparse("int8", codes, 4, f4(4), bias=f4(4)), products.Pool(1)
    with pytest.raises(ValueError, match="y columns must be 4, got 5"):
        matrix.graded(output, f4(1, 5), pool)
    with pytest.raises(ValueError, match="input columns must be 3, got 2"):
        matrix.graded(np.ones((1, 2), np.int16), f4(1, 4), pool)
    with pytest.raises(ValueError, match=r"must be in 0 \.\. 32767, got -1"):
        matrix.graded(-output, f4(1, 4), pool)
    with pytest.raises(ValueError, match="events of this kind"):
        products.Events("int4", output, graded=True)
    with pytest.raises(ValueError, match="contiguous rows"):
        products.Sparse("int8", codes[:, ::2], 2, f4(2))
    with pytest.raises(ValueError, match="weight must be int8, got float32"):
        products.Sparse("int8", f4(3, 4), 4, f4(4))
    with pytest.raises(ValueError, match="bias must be 4, got 3"):
        products.Sparse("int8", codes, 4, f4(4), bias=f4(3))
    with pytest.raises(ValueError, match="x and y must have 6"):
        neurons.egru_float32(f4(5), f4(6), f4(2), 0.0, f4(2), f4(2))
    with pytest.raises(ValueError, match="out has 1 elements"):
        functions.exp(f4(2), f4(1))
    with pytest.raises(ValueError, match="Buffer dtype mismatch"):
        functions.exp(np.zeros(2), f4(2))
