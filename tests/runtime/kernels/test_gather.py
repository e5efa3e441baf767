"""Event-driven and dense sums of one vector or several against their scalar twins, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_matrices import events_of, nan, read_only, rows_apart, same

from spiketrain.runtime.kernels import gather, reference

MANY_SIZES = (1, 2, 15, 16, 17, 63, 64, 65, 100, 4095, 4096, 4097)
ONE_LIST = {
    "seed": st.integers(0, 2**32 - 1),
    "rows": st.integers(0, 40),
    "size": st.integers(0, 150),
    "density": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
}

pytestmark = pytest.mark.usefixtures("build")


def columns(rng, size):
    scale = read_only(rng.uniform(1e-6, 1e-3, size).astype(np.float32))
    return scale, read_only(rng.normal(size=size).astype(np.float32))


@given(**ONE_LIST)
@settings(max_examples=40, deadline=None)
def test_bfloat16_gather_is_its_twin_and_float32s(build, seed, rows, size, density):
    rng = np.random.default_rng(seed)
    floats = np.ldexp(rng.normal(size=(rows, size)), rng.integers(-40, 40, (rows, size)))
    bits = floats.astype(np.float32).view(np.uint32) >> 16
    weight = rows_apart(bits.astype(np.uint16))
    _, index, value = events_of(rng, rows, density)
    value = read_only(value.astype(np.float32) * np.float32(1 / 32767))
    bias = read_only(rng.normal(size=size).astype(np.float32))
    out, expected, widened = nan(size), nan(size), nan(size)
    gather.gather_bfloat16(weight, index, value, bias, out)
    reference.gather_bfloat16(weight, index, value, bias, expected)
    gather.gather_float32((bits << 16).view(np.float32), index, value, bias, widened)
    assert same(out, expected)
    assert same(out, widened)


@given(**ONE_LIST)
@settings(max_examples=40, deadline=None)
def test_int8_gather_is_its_twin(build, seed, rows, size, density):
    rng = np.random.default_rng(seed)
    weight = rows_apart(rng.integers(-128, 128, (rows, size)).astype(np.int8))
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
    weight = rows_apart(rng.normal(size=(rows, size)).astype(np.float32))
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
    codes = rows_apart(rng.integers(-127, 128, (rows, size)).astype(np.int8))
    weight = rows_apart(rng.normal(size=(rows, size)).astype(np.float32))
    vectors = np.zeros((lanes, rows), np.int16)
    for lane in range(lanes):
        vectors[lane] = events_of(rng, rows, density)[0]
    vectors = read_only(vectors)
    floats = read_only(vectors.astype(np.float32) / np.float32(32767))
    scale, bias = columns(rng, size)
    out, out_float, out_half = nan(lanes, size), nan(lanes, size), nan(lanes, size)
    halves = rows_apart((weight.copy().view(np.uint32) >> 16).astype(np.uint16))
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
    weight = rows_apart(rng.integers(-127, 128, (rows, size)).astype(np.int8))
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
