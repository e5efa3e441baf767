"""Every kernel against its scalar twin, on every build that this machine runs, bit for bit."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.kernels import (
    attention,
    functions,
    gather,
    mixers,
    network,
    neurons,
    reference,
    reference_attention,
    reference_functions,
    reference_mixers,
    reference_rwkv,
    reference_sampling,
    rwkv,
    sampling,
)

TWINS = {
    attention: reference_attention,
    functions: reference_functions,
    gather: reference,
    mixers: reference_mixers,
    network: reference,
    neurons: reference,
    rwkv: reference_rwkv,
    sampling: reference_sampling,
}
MANY_SIZES = (1, 2, 15, 16, 17, 63, 64, 65, 100, 4095, 4096, 4097)


pytestmark = pytest.mark.usefixtures("build")


def same(a, b):
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def read_only(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


def unaligned(array):
    """A read-only copy one element off the start of its memory, rows apart."""
    array = np.asarray(array)
    space = np.zeros((array.shape[0], array.shape[1] + 3), array.dtype)
    space[:, 1:-2] = array
    space.flags.writeable = False
    return space[:, 1:-2]


def nan(*shape):
    return np.full(shape, np.nan, np.float32)


def events_of(rng, rows, density, high=32767):
    y = rng.integers(1, high + 1, rows).astype(np.int16)
    y[rng.random(rows) >= density] = 0
    index = np.flatnonzero(y).astype(np.int32)
    return y, read_only(index), read_only(y[index])


def columns(rng, size):
    scale = read_only(rng.uniform(1e-6, 1e-3, size).astype(np.float32))
    return scale, read_only(rng.normal(size=size).astype(np.float32))


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
    rows=st.integers(0, 40),
    size=st.integers(0, 150),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_bfloat16_gather_is_its_twin_and_float32s(build, seed, rows, size, density):
    rng = np.random.default_rng(seed)
    floats = np.ldexp(rng.normal(size=(rows, size)), rng.integers(-40, 40, (rows, size)))
    bits = floats.astype(np.float32).view(np.uint32) >> 16
    weight = unaligned(bits.astype(np.uint16))
    _, index, value = events_of(rng, rows, density)
    value = read_only(value.astype(np.float32) * np.float32(1 / 32767))
    bias = read_only(rng.normal(size=size).astype(np.float32))
    out, expected, widened = nan(size), nan(size), nan(size)
    gather.gather_bfloat16(weight, index, value, bias, out)
    reference.gather_bfloat16(weight, index, value, bias, expected)
    gather.gather_float32((bits << 16).view(np.float32), index, value, bias, widened)
    assert same(out, expected)
    assert same(out, widened)


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 40),
    size=st.integers(0, 150),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_int8_gather_is_its_twin(build, seed, rows, size, density):
    rng = np.random.default_rng(seed)
    weight = unaligned(rng.integers(-128, 128, (rows, size)).astype(np.int8))
    _, index, value = events_of(rng, rows, density)
    scale, bias = columns(rng, size)
    out, expected = nan(size), nan(size)
    gather.gather_int8(weight, index, value, scale, bias, out)
    reference.gather_int8(weight, index, value, scale, bias, expected)
    assert same(out, expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 40),
    size=st.integers(0, 90),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_float32_gather_is_its_twin(build, seed, rows, size, density):
    rng = np.random.default_rng(seed)
    weight = unaligned(rng.normal(size=(rows, size)).astype(np.float32))
    _, index, value = events_of(rng, rows, density)
    value = read_only(value.astype(np.float32) * np.float32(1 / 32767))
    _, bias = columns(rng, size)
    out, expected = nan(size), nan(size)
    gather.gather_float32(weight, index, value, bias, out)
    reference.gather_float32(weight, index, value, bias, expected)
    assert same(out, expected)


@pytest.mark.parametrize("size", MANY_SIZES)
def test_widths_around_every_block_agree_with_plain_integer_sums(build, size):
    rng = np.random.default_rng(size)
    weight = rng.integers(-127, 128, (21, size)).astype(np.int8)
    y, index, value = events_of(rng, 21, 0.7)
    scale, bias = columns(rng, size)
    sums = y.astype(np.int64) @ weight.astype(np.int64)
    expected = sums.astype(np.float32) * scale + bias
    out = nan(size)
    gather.gather_int8(read_only(weight), index, value, scale, bias, out)
    assert same(out, expected)
    batch = nan(3, size)
    gather.batch_int8(read_only(weight), read_only(np.stack([y, 0 * y, y])), scale, bias, batch)
    assert same(batch[0], expected)
    assert same(batch[1], bias)
    assert same(batch[2], expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    lanes=st.integers(0, 32),
    rows=st.integers(0, 20),
    size=st.integers(0, 70),
    density=st.sampled_from([0.0, 0.2, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_a_batch_is_each_vector_alone(build, seed, lanes, rows, size, density):
    rng = np.random.default_rng(seed)
    codes = unaligned(rng.integers(-127, 128, (rows, size)).astype(np.int8))
    weight = unaligned(rng.normal(size=(rows, size)).astype(np.float32))
    vectors = np.zeros((lanes, rows), np.int16)
    for lane in range(lanes):
        vectors[lane] = events_of(rng, rows, density)[0]
    vectors = read_only(vectors)
    floats = read_only(vectors.astype(np.float32) / np.float32(32767))
    scale, bias = columns(rng, size)
    out, out_float, out_half = nan(lanes, size), nan(lanes, size), nan(lanes, size)
    halves = unaligned((weight.copy().view(np.uint32) >> 16).astype(np.uint16))
    gather.batch_bfloat16(halves, floats, bias, out_half)
    gather.batch_int8(codes, vectors, scale, bias, out)
    gather.batch_float32(weight, floats, bias, out_float)
    for lane in range(lanes):
        alone, alone_float = nan(size), nan(size)
        index = np.flatnonzero(vectors[lane]).astype(np.int32)
        gather.gather_int8(codes, index, vectors[lane][index], scale, bias, alone)
        gather.gather_float32(weight, index, floats[lane][index], bias, alone_float)
        assert same(out[lane], alone)
        assert same(out_float[lane], alone_float)
        gather.gather_bfloat16(halves, index, floats[lane][index], bias, alone_float)
        assert same(out_half[lane], alone_float)


@pytest.mark.parametrize("lanes", [11, 12, 32])
@pytest.mark.parametrize("size", [63, 64, 200])
def test_lanes_with_too_much_for_int32_share_a_batch_with_others(build, lanes, size):
    """Every third lane has so many full events that only parts of their sum fit."""
    rng = np.random.default_rng(lanes + size)
    codes = read_only(rng.integers(120, 128, (700, size)).astype(np.int8))
    vectors = rng.integers(0, 32768, (lanes, 700)) * (rng.random((lanes, 700)) < 0.3)
    vectors[::3] = 32767
    scale, bias = columns(rng, size)
    out = nan(lanes, size)
    gather.batch_int8(codes, read_only(vectors.astype(np.int16)), scale, bias, out)
    sums = (vectors @ codes.astype(np.int64)).astype(np.float32)
    assert abs(vectors @ codes.astype(np.int64)).max() > 2**31
    assert same(out, sums * scale + bias)


def test_small_batches_are_their_twins(build):
    rng = np.random.default_rng(5)
    codes = read_only(rng.integers(-127, 128, (9, 21)).astype(np.int8))
    vectors = read_only(np.stack([events_of(rng, 9, d)[0] for d in (0.0, 0.4, 1.0)]))
    scale, bias = columns(rng, 21)
    for name, arguments in {
        "batch_int8": (codes, vectors, scale, bias),
        "batch_float32": (codes.astype(np.float32), vectors.astype(np.float32), bias),
        "batch_bfloat16": (
            (codes.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16),
            vectors.astype(np.float32),
            bias,
        ),
    }.items():
        out, expected = nan(3, 21), nan(3, 21)
        getattr(gather, name)(*arguments, out)
        getattr(reference, name)(*arguments, expected)
        assert same(out, expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    lanes=st.integers(0, 5),
    rows=st.integers(0, 30),
    size=st.integers(0, 70),
)
@settings(max_examples=25, deadline=None)
def test_dense_int8_is_its_twin(build, seed, lanes, rows, size):
    rng = np.random.default_rng(seed)
    weight = unaligned(rng.integers(-127, 128, (rows, size)).astype(np.int8))
    codes = read_only(rng.integers(-127, 128, (lanes, rows)).astype(np.int16))
    code_scale = read_only(rng.uniform(0, 1, lanes).astype(np.float32))
    scale, bias = columns(rng, size)
    out, expected = nan(lanes, size), nan(lanes, size)
    gather.dense_int8(weight, codes, code_scale, scale, bias, out)
    reference.dense_int8(weight, codes, code_scale, scale, bias, expected)
    assert same(out, expected)


@pytest.mark.parametrize("count", [511, 512, 513, 1023, 1024, 1025, 2100])
@pytest.mark.parametrize("code", [-128, -127, 127])
def test_sums_are_exact_where_int32_would_overflow(build, count, code):
    """512 full events of 32767 just fit: 512 * 32767 = 16776704 <= 16777215."""
    weight = np.full((count, 70), code, np.int8)
    value = np.full(count, 32767, np.int16)
    index = np.arange(count, dtype=np.int32)
    scale, bias = np.ones(70, np.float32), np.zeros(70, np.float32)
    expected = np.full(70, np.float32(count * 32767 * code))
    out = nan(70)
    gather.gather_int8(weight, index, value, scale, bias, out)
    assert same(out, expected)
    few = np.where(np.arange(count) < 3, 32767, 0).astype(np.int16)
    batch = nan(3, 70)
    gather.batch_int8(weight, np.stack([few, value, few]), scale, bias, batch)
    assert same(batch[1], expected)
    assert same(batch[0], np.full(70, np.float32(3 * 32767 * code)))
    assert same(batch[0], batch[2])


def test_dense_sums_are_exact_at_the_widest_supported_input(build):
    weight = np.full((131072, 3), 127, np.int8)
    codes = np.full((1, 131072), -127, np.int16)
    one = np.ones(1, np.float32)
    out = nan(1, 3)
    gather.dense_int8(weight, codes, one, np.ones(3, np.float32), np.zeros(3, np.float32), out)
    assert same(out, np.full((1, 3), np.float32(-131072 * 127 * 127)))


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
        assert getattr(reference, name)(output, *twin) == count


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
    assert neurons.quantise(x, codes) == reference.quantise(x, expected)
    assert same(codes, expected)


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
        getattr(reference, name)(x, y, threshold, zoneout, expected_cell, expected)
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
    index, value = np.zeros(2, np.int32), np.ones(2, np.int16)
    codes = np.zeros((3, 4), np.int8)
    with pytest.raises(ValueError, match="out has 5 columns"):
        gather.gather_int8(codes, index, value, f4(4), f4(4), f4(5))
    with pytest.raises(ValueError, match=r"index\[0\] must be in \[0, 3\), got 3"):
        gather.gather_int8(codes, index + 3, value, f4(4), f4(4), f4(4))
    with pytest.raises(ValueError, match=r"must be in 0 \.\. 32767, got -1"):
        gather.gather_int8(codes, index, -value, f4(4), f4(4), f4(4))
    with pytest.raises(ValueError, match="contiguous rows"):
        gather.gather_int8(codes[:, ::2], index, value, f4(2), f4(2), f4(2))
    with pytest.raises(ValueError, match="at most 32"):
        gather.batch_int8(codes, np.zeros((33, 3), np.int16), f4(4), f4(4), f4(33, 4))
    with pytest.raises(ValueError, match="x and y must have 6"):
        neurons.egru_float32(f4(5), f4(6), f4(2), 0.0, f4(2), f4(2))
    with pytest.raises(ValueError, match="out has 1 elements"):
        functions.exp(f4(2), f4(1))
    with pytest.raises(ValueError, match="Buffer dtype mismatch"):
        functions.exp(np.zeros(2), f4(2))
