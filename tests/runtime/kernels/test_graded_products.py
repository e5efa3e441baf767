"""Products of graded events, of one vector or several, against their scalar twins, bit for bit."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_matrices import events_of, nan, read_only, rows_apart, same

from spiketrain.runtime.kernels import products
from spiketrain.runtime.kernels.reference import products as reference_products

MANY_SIZES = (1, 2, 15, 16, 17, 63, 64, 65, 100, 4095, 4096, 4097)
ONE_LIST = {
    "seed": st.integers(0, 2**32 - 1),
    "rows": st.integers(0, 40),
    "size": st.integers(0, 150),
    "density": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
}
ALONE = products.Pool(1)

pytestmark = pytest.mark.usefixtures("build")


def columns(rng, size):
    scale = read_only(rng.uniform(1e-6, 1e-3, size).astype(np.float32))
    return scale, read_only(rng.normal(size=size).astype(np.float32))


def bits_of(floats):
    return (floats.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def graded(weights, weight, vectors, scale, bias, module=products, pool=ALONE):
    """Products (B, O) of vectors (B, I), or of one vector (I,)."""
    scale = scale if weights == "int8" else None
    matrix = module.Sparse(weights, weight, weight.shape[1], scale, bias=bias)
    y = nan(len(vectors), weight.shape[1])
    matrix.graded(vectors, y, pool)
    return y


def counts(weight, codes, unit, scale, bias, module=products):
    y = nan(len(codes), weight.shape[1])
    matrix = module.Sparse("int8", weight, weight.shape[1], scale, bias=bias)
    matrix.counts(codes, unit, y, ALONE)
    return y


@given(**ONE_LIST)
@settings(max_examples=40, deadline=None)
def test_bfloat16_products_are_their_twins_and_float32s(build, seed, rows, size, density):
    rng = np.random.default_rng(seed)
    floats = np.ldexp(rng.normal(size=(rows, size)), rng.integers(-40, 40, (rows, size)))
    bits = bits_of(floats)
    y, _, _ = events_of(rng, rows, density)
    vector = read_only(y[None].astype(np.float32) * np.float32(1 / 32767))
    arguments = vector, None, columns(rng, size)[1]
    out = graded("bfloat16", rows_apart(bits), *arguments)
    widened = (bits.astype(np.uint32) << 16).view(np.float32)
    assert same(out, graded("bfloat16", bits, *arguments, reference_products))
    assert same(out, graded("float32", widened, *arguments))


@pytest.mark.parametrize("weights", ["int8", "float32"])
@given(**ONE_LIST)
@settings(max_examples=40, deadline=None)
def test_products_of_one_vector_are_their_twins(build, weights, seed, rows, size, density):
    rng = np.random.default_rng(seed)
    if weights == "int8":
        weight = rows_apart(rng.integers(-128, 128, (rows, size)).astype(np.int8))
    else:
        weight = rows_apart(rng.normal(size=(rows, size)).astype(np.float32))
    vector = events_of(rng, rows, density)[0][None]
    if weights == "float32":
        vector = vector.astype(np.float32) * np.float32(1 / 32767)
    arguments = weights, weight, read_only(vector), *columns(rng, size)
    assert same(graded(*arguments), graded(*arguments, reference_products))


@pytest.mark.parametrize("size", MANY_SIZES)
def test_widths_around_every_block_agree_with_plain_integer_sums(build, size):
    rng = np.random.default_rng(size)
    weight = rng.integers(-127, 128, (21, size)).astype(np.int8)
    y, _, _ = events_of(rng, 21, 0.7)
    scale, bias = columns(rng, size)
    sums = y.astype(np.int64) @ weight.astype(np.int64)
    expected = sums.astype(np.float32) * scale + bias
    assert same(graded("int8", read_only(weight), y[None], scale, bias)[0], expected)
    batch = graded("int8", read_only(weight), read_only(np.stack([y, 0 * y, y])), scale, bias)
    assert same(batch[0], expected)
    assert same(batch[1], bias)
    assert same(batch[2], expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    lanes=st.integers(0, 34),
    rows=st.integers(0, 20),
    size=st.integers(0, 70),
    density=st.sampled_from([0.0, 0.2, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_a_batch_is_each_vector_alone(build, seed, lanes, rows, size, density):
    rng = np.random.default_rng(seed)
    codes = rows_apart(rng.integers(-127, 128, (rows, size)).astype(np.int8))
    weight = rng.normal(size=(rows, size)).astype(np.float32)
    vectors = np.zeros((lanes, rows), np.int16)
    for lane in range(lanes):
        vectors[lane] = events_of(rng, rows, density)[0]
    vectors = read_only(vectors)
    floats = read_only(vectors.astype(np.float32) / np.float32(32767))
    scale, bias = columns(rng, size)
    for weights, matrix, rows_of in (
        ("int8", codes, vectors),
        ("float32", rows_apart(weight), floats),
        ("bfloat16", rows_apart(bits_of(weight)), floats),
    ):
        out = graded(weights, matrix, rows_of, scale, bias)
        for lane in range(lanes):
            alone = graded(weights, matrix, rows_of[lane : lane + 1], scale, bias)
            assert same(out[lane], alone[0])


@pytest.mark.parametrize("weights", ["int8", "float32", "bfloat16"])
@pytest.mark.parametrize("lanes", [1, 3, 12, 40])
def test_threads_change_no_bit_of_graded_products(build, pools, weights, lanes):
    rng = np.random.default_rng(lanes)
    floats = rng.normal(size=(400, 9000)).astype(np.float32)
    weight = {"float32": floats, "bfloat16": bits_of(floats)}.get(weights)
    if weights == "int8":
        weight = rng.integers(-127, 128, floats.shape).astype(np.int8)
    vectors = rng.integers(0, 32768, (lanes, 400)) * (rng.random((lanes, 400)) < 0.2)
    vectors = vectors.astype(np.int16 if weights == "int8" else np.float32)
    scale, bias = columns(rng, 9000)
    expected = graded(weights, weight, vectors, scale, bias)
    for pool in pools.values():
        assert same(graded(weights, weight, vectors, scale, bias, pool=pool), expected)


@pytest.mark.parametrize("lanes", [11, 12, 32, 33])
@pytest.mark.parametrize("size", [63, 64, 200])
def test_lanes_with_too_much_for_int32_share_a_batch_with_others(build, lanes, size):
    """Every third lane has so many full events that only parts of their sum fit."""
    rng = np.random.default_rng(lanes + size)
    codes = read_only(rng.integers(120, 128, (700, size)).astype(np.int8))
    vectors = rng.integers(0, 32768, (lanes, 700)) * (rng.random((lanes, 700)) < 0.3)
    vectors[::3] = 32767
    scale, bias = columns(rng, size)
    out = graded("int8", codes, read_only(vectors.astype(np.int16)), scale, bias)
    sums = vectors @ codes.astype(np.int64)
    assert abs(sums).max() > 2**31
    assert same(out, sums.astype(np.float32) * scale + bias)


def test_small_batches_are_their_twins(build):
    rng = np.random.default_rng(5)
    codes = read_only(rng.integers(-127, 128, (9, 21)).astype(np.int8))
    vectors = read_only(np.stack([events_of(rng, 9, d)[0] for d in (0.0, 0.4, 1.0)]))
    floats, vectors_float = codes.astype(np.float32), vectors.astype(np.float32)
    scale, bias = columns(rng, 21)
    for arguments in (
        ("int8", codes, vectors, scale, bias),
        ("float32", floats, vectors_float, scale, bias),
        ("bfloat16", bits_of(floats), vectors_float, scale, bias),
    ):
        assert same(graded(*arguments), graded(*arguments, reference_products))


@given(
    seed=st.integers(0, 2**32 - 1),
    lanes=st.integers(0, 14),
    rows=st.integers(0, 30),
    size=st.integers(0, 70),
)
@settings(max_examples=25, deadline=None)
def test_codes_with_a_bias_are_their_twins(build, seed, lanes, rows, size):
    """What an embedding or a projection hands to the next matrix: hardly a zero among them."""
    rng = np.random.default_rng(seed)
    weight = rows_apart(rng.integers(-127, 128, (rows, size)).astype(np.int8))
    codes = read_only(rng.integers(-127, 128, (lanes, rows)).astype(np.int16))
    unit = read_only(rng.uniform(0, 1, lanes).astype(np.float32))
    arguments = weight, codes, unit, *columns(rng, size)
    assert same(counts(*arguments), counts(*arguments, reference_products))


@pytest.mark.filterwarnings("ignore:This process")
def test_a_pool_works_in_a_forked_child(build):
    """Its workers stay behind, and it must not wait for them."""
    rng = np.random.default_rng(6)
    weight = read_only(rng.integers(-127, 128, (400, 3000)).astype(np.int8))
    vectors = read_only(rng.integers(1, 9, (2, 400)).astype(np.int16))
    arguments = "int8", weight, vectors, *columns(rng, 3000), products
    pool = products.Pool(2)
    expected = graded(*arguments, pool)
    child = os.fork()
    if not child:
        fits = same(graded(*arguments, pool), expected)
        del pool
        os._exit(0 if fits else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert same(graded(*arguments, pool), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_bias_is_added_to_parts_of_a_list_that_threads_sum(build, pools, threads):
    rng = np.random.default_rng(threads)
    weight = read_only(rng.integers(-127, 128, (900, 700)).astype(np.int8))
    codes = read_only(rng.integers(-127, 128, (1, 900)).astype(np.int16))
    unit, (scale, bias) = np.float32([0.5]), columns(rng, 700)
    y = nan(1, 700)
    products.Sparse("int8", weight, 700, scale, bias=bias).counts(codes, unit, y, pools[threads])
    sums = (codes.astype(np.int64) @ weight.astype(np.int64)).astype(np.float32)
    assert same(y, sums * unit * scale + bias)


@pytest.mark.parametrize("count", [511, 512, 513, 1023, 1024, 1025, 2100])
@pytest.mark.parametrize("code", [-128, -127, 127])
def test_sums_are_exact_where_int32_would_overflow(build, count, code):
    """512 full events of 32767 just fit: 512 * 32767 = 16776704 <= 16777215."""
    weight = np.full((count, 70), code, np.int8)
    value = np.full(count, 32767, np.int16)
    scale, bias = np.ones(70, np.float32), np.zeros(70, np.float32)
    expected = np.full(70, np.float32(count * 32767 * code))
    assert same(graded("int8", weight, value[None], scale, bias)[0], expected)
    few = np.where(np.arange(count) < 3, 32767, 0).astype(np.int16)
    batch = graded("int8", weight, np.stack([few, value, few]), scale, bias)
    assert same(batch[1], expected)
    assert same(batch[0], np.full(70, np.float32(3 * 32767 * code)))
    assert same(batch[0], batch[2])


def test_sums_of_codes_are_exact_at_the_widest_supported_input(build):
    weight = np.full((131072, 3), 127, np.int8)
    codes = np.full((1, 131072), -127, np.int16)
    one, bias = np.ones(1, np.float32), np.zeros(3, np.float32)
    out = counts(weight, codes, one, np.ones(3, np.float32), bias)
    assert same(out, np.full((1, 3), np.float32(-131072 * 127 * 127)))
