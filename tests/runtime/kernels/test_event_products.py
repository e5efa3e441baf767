"""Event-driven products of blocks of tokens against scalar twins and plain integer sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_matrices import nan, nibbles, read_only, rows_apart, same, sparse

from spiketrain.runtime.kernels import products
from spiketrain.runtime.kernels.isa import dispatch
from spiketrain.runtime.kernels.reference import products as reference_products

pytestmark = pytest.mark.usefixtures("build")

FORMATS = ("float32", "bfloat16", "int8", "int4")
WIDTHS = (1, 16, 63, 64, 65, 127, 128, 129, 200, 257)


@pytest.mark.parametrize("weights", FORMATS)
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(0, 3),
    inputs=st.integers(0, 40),
    outputs=st.integers(0, 140),
    active=st.sampled_from([-9.0, -1.0, 0.0, 9.0]),
)
@settings(max_examples=15, deadline=None)
def test_squares_are_their_twins(build, pools, weights, seed, tokens, inputs, outputs, active):
    rng = np.random.default_rng(seed)
    arguments = sparse(rng, weights, inputs, outputs)
    x = read_only((rng.normal(size=(tokens, inputs)) + active).astype(np.float32))
    y, expected = nan(tokens, outputs), nan(tokens, outputs)
    products.Sparse(weights, *arguments).squares(x, y, pools[1])
    reference_products.Sparse(weights, *arguments).squares(x, expected, None)
    assert same(y, expected)


@pytest.mark.parametrize("weights", FORMATS)
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(0, 3),
    inputs=st.integers(0, 40),
    outputs=st.integers(0, 140),
    most=st.sampled_from([0, 1, 8, 9, 127, 300]),
)
@settings(max_examples=15, deadline=None)
def test_counts_are_their_twins(build, pools, weights, seed, tokens, inputs, outputs, most):
    rng = np.random.default_rng(seed)
    arguments = sparse(rng, weights, inputs, outputs)
    count = rng.integers(-most, most + 1, (tokens, inputs)).astype(np.int16)
    count[rng.random(count.shape) < 0.5] = 0
    unit = read_only(rng.uniform(0, 1, tokens).astype(np.float32))
    y, expected = nan(tokens, outputs), nan(tokens, outputs)
    products.Sparse(weights, *arguments).counts(read_only(count), unit, y, pools[1])
    reference_products.Sparse(weights, *arguments).counts(count, unit, expected, None)
    assert same(y, expected)


@pytest.mark.slow
@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("outputs", [*WIDTHS, 1000, 8192, 8193, 10300])
def test_neither_tokens_nor_threads_change_an_event_driven_bit(build, pools, weights, outputs):
    rng = np.random.default_rng(outputs)
    matrix = products.Sparse(weights, *sparse(rng, weights, 900, outputs))
    x = read_only(rng.normal(size=(9, 900)).astype(np.float32))
    count = read_only((3 * x).astype(np.int16))
    unit = read_only(rng.uniform(0, 1, 9).astype(np.float32))
    for call in (
        lambda rows, y, pool: matrix.squares(x[rows], y, pool),
        lambda rows, y, pool: matrix.counts(count[rows], unit[rows], y, pool),
    ):
        alone = nan(9, outputs)
        for t in range(9):
            call(slice(t, t + 1), alone[t : t + 1], pools[1])
        for pool in pools.values():
            y = nan(9, outputs)
            call(slice(0, 9), y, pool)
            assert same(y, alone)


def test_events_are_listed_once_for_all_matrices_that_read_them(build, pools):
    rng = np.random.default_rng(4)
    x = read_only(rng.normal(size=(2, 40)).astype(np.float32))
    count, unit = read_only((3 * x).astype(np.int16)), read_only(np.float32([0.5, 2.0]))
    for weights in FORMATS:
        squares = products.Events(weights, x)
        counts = products.Events(weights, count, unit)
        for outputs in (7, 130):
            matrix = products.Sparse(weights, *sparse(rng, weights, 40, outputs))
            for events, call, arguments in (
                (squares, matrix.squares, (x,)),
                (counts, matrix.counts, (count, unit)),
            ):
                y, expected = nan(2, outputs), nan(2, outputs)
                matrix.multiply(events, y, pools[2])
                call(*arguments, expected, pools[1])
                assert same(y, expected)


def test_events_of_other_formats_and_sizes_are_refused(build, pools):
    rng = np.random.default_rng(4)
    matrix = products.Sparse("int8", *sparse(rng, "int8", 40, 7))
    for weights, inputs, tokens, message in (
        ("int4", 40, 1, "events must be of weights of the matrix's format"),
        ("int8", 39, 1, "input columns"),
        ("int8", 40, 2, "y rows"),
    ):
        events = products.Events(weights, np.ones((tokens, inputs), np.float32))
        with pytest.raises(ValueError, match=message):
            matrix.multiply(events, nan(1, 7), pools[1])
    with pytest.raises(ValueError, match="unit"):
        products.Events("int8", np.ones((2, 40), np.int16), np.ones(1, np.float32))


def block(rng, tokens, inputs, density, most=127):
    """Inputs of squares, and counts: `density` of them active, but none of every seventh input."""
    x = np.abs(rng.normal(size=(tokens, inputs))).astype(np.float32)
    count = rng.integers(1, most + 1, (tokens, inputs)) * rng.choice([-1, 1], (tokens, inputs))
    silent = rng.random((tokens, inputs)) >= density
    silent[:, ::7] = True
    x[silent], count[silent] = -1.0, 0
    return read_only(x), read_only(count.astype(np.int16))


@pytest.mark.parametrize("weights", ["int8", "int4"])
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(11, 14),
    inputs=st.integers(1, 24),
    outputs=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    most=st.sampled_from([1, 8, 127, 130]),
)
@settings(max_examples=5, deadline=None)
def test_blocks_of_tokens_are_their_twins(
    build, pools, weights, seed, tokens, inputs, outputs, density, most
):
    """Enough tokens to share rows: at several densities, with counts that fit a byte and not."""
    rng = np.random.default_rng(seed)
    arguments = sparse(rng, weights, inputs, outputs)
    x, count = block(rng, tokens, inputs, density, most)
    unit = read_only(rng.uniform(0, 1, tokens).astype(np.float32))
    matrix = products.Sparse(weights, *arguments)
    twin = reference_products.Sparse(weights, *arguments)
    y, expected = nan(2, tokens, outputs), nan(2, tokens, outputs)
    matrix.squares(x, y[0], pools[1])
    matrix.counts(count, unit, y[1], pools[1])
    twin.squares(x, expected[0], None)
    twin.counts(count, unit, expected[1], None)
    assert same(y, expected)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("outputs", [64, 141])
def test_tokens_that_share_rows_get_the_bits_of_one(build, pools, weights, density, outputs):
    """More inputs than are packed at a time, more tokens than wait at a time."""
    rng = np.random.default_rng(outputs)
    matrix = products.Sparse(weights, *sparse(rng, weights, 2100, outputs))
    x, count = block(rng, 131, 2100, density)
    unit = read_only(rng.uniform(0, 1, 131).astype(np.float32))
    alone = nan(2, 131, outputs)
    for t in range(131):
        matrix.squares(x[t : t + 1], alone[0, t : t + 1], pools[1])
        matrix.counts(count[t : t + 1], unit[t : t + 1], alone[1, t : t + 1], pools[1])
    for tokens, pool in ((12, pools[1]), (17, pools[3]), (131, pools[2])):
        y = nan(2, tokens, outputs)
        matrix.squares(x[:tokens], y[0], pool)
        matrix.counts(count[:tokens], unit[:tokens], y[1], pool)
        assert same(y, np.ascontiguousarray(alone[:, :tokens]))


@pytest.mark.parametrize("weights", FORMATS)
def test_builds_agree_on_event_driven_products(weights):
    rng = np.random.default_rng(11)
    arguments = sparse(rng, weights, 1500, 777)
    x = read_only(rng.normal(size=(3, 1500)).astype(np.float32))
    count = read_only(rng.integers(-200, 200, (3, 1500)).astype(np.int16))
    unit = read_only(rng.uniform(0, 1, 3).astype(np.float32))
    found, before = [], dispatch.active()
    for name in dispatch.runnable():
        dispatch.select(name)
        y = nan(2, 3, 777)
        matrix = products.Sparse(weights, *arguments)
        matrix.squares(x, y[0], products.Pool(1))
        matrix.counts(count, unit, y[1], products.Pool(1))
        found.append(y)
    dispatch.select(before)
    assert all(same(y, found[0]) for y in found)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 12])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_event_sums_are_exact_where_int32_would_overflow(build, pools, weights, tokens):
    rows = 5000
    ones, multiplier = np.ones(70, np.float32), np.full((rows, 1), 15, np.uint8)
    if weights == "int8":
        matrix = products.Sparse("int8", np.full((rows, 70), -127, np.int8), 70, ones)
        code, steps = -127, 32767
    else:
        matrix = products.Sparse("int4", nibbles(np.full((rows, 70), -8)), 70, ones, multiplier)
        code, steps = -120, 4095
    y, ones = nan(tokens, 70), np.ones(tokens, np.float32)
    unit = np.float32(1) / np.float32(steps)
    for pool in pools.values():
        matrix.squares(np.ones((tokens, rows), np.float32), y, pool)
        assert same(y, np.full((tokens, 70), np.float32(rows * steps * code) * unit))
        for count in (-127, 127, *([-32768] if tokens == 1 else [])):
            matrix.counts(np.full((tokens, rows), count, np.int16), ones, y, pool)
            assert same(y, np.full((tokens, 70), np.float32(count * rows * code)))


@pytest.mark.parametrize("code", [-8, 7])
@pytest.mark.parametrize("rows", [4697, 4698, 9400])
def test_sums_of_int4_counts_are_exact_on_both_sides_of_what_high_halves_hold(
    build, pools, rows, code
):
    """4697 * 127 * 15 * 15 < 2**27 < 4698 * 127 * 15 * 15."""
    multiplier = np.full((rows, 2), 15, np.uint8)
    weight, ones = nibbles(np.full((rows, 130), code)), np.ones(130, np.float32)
    matrix, y = products.Sparse("int4", weight, 130, ones, multiplier), nan(1, 130)
    for count in (-127, 127):
        for pool in pools.values():
            matrix.counts(np.full((1, rows), count, np.int16), ones[:1], y, pool)
            assert same(y, np.full((1, 130), np.float32(count * rows * 15 * code)))


@pytest.mark.parametrize("tokens", [1, 12])
@pytest.mark.parametrize("rows", [65792, 65793, 131072])
def test_event_sums_are_exact_at_the_most_rows(build, pools, rows, tokens):
    """On both sides of the most rows whose low bytes add up to less than 2**31."""
    weight = np.full((rows, 2), -128, np.int8)
    matrix = products.Sparse("int8", weight, 2, np.ones(2, np.float32))
    y, ones = nan(tokens, 2), np.ones(tokens, np.float32)
    matrix.squares(np.ones((tokens, rows), np.float32), y, pools[1])
    unit = np.float32(1) / np.float32(32767)
    assert same(y, np.full((tokens, 2), np.float32(-128 * 32767 * rows) * unit))
    matrix.counts(np.full((tokens, rows), 127, np.int16), ones, y, pools[1])
    assert same(y, np.full((tokens, 2), np.float32(-128 * 127 * rows)))


def test_builds_agree_on_groups_of_int8(build, pools):
    """Spike counts, groups that end anywhere, corrections or none, more threads or tokens."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        inputs, outputs, group = (int(v) for v in rng.integers(1, (60, 200, 40)))
        codes = rows_apart(rng.integers(-127, 128, (inputs, outputs)).astype(np.int8))
        scale = read_only(rng.uniform(0, 1, (-(-inputs // group), outputs)).astype(np.float32))
        places = np.flatnonzero(rng.random(inputs * outputs) < 0.1) if seed % 3 else []
        extra = None
        if len(places):
            counts = np.bincount(places // outputs, minlength=inputs)
            rows = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
            values = rng.integers(-400, 400, len(places)).astype(np.int16)
            extra = (rows, (places % outputs).astype(np.int32), values)
        arguments = (codes, outputs, scale, None, group, extra)
        count = rng.integers(-300, 301, (3, inputs)).astype(np.int16)
        count[rng.random(count.shape) < 0.4] = 0
        unit = read_only(rng.uniform(0, 1, 3).astype(np.float32))
        expected = nan(3, outputs)
        reference_products.Sparse("int8-groups", *arguments).counts(count, unit, expected, None)
        matrix = products.Sparse("int8-groups", *arguments)
        for pool in pools.values():
            y, single = nan(3, outputs), nan(1, outputs)
            matrix.counts(read_only(count), unit, y, pool)
            matrix.counts(read_only(count[1:2]), unit[1:2], single, pool)
            assert same(y, expected)
            assert same(single[0], expected[1])


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("group", [128, 700])
def test_sums_of_groups_are_exact_where_int32_would_overflow(build, pools, group, corrected):
    """Outlier counts, and the largest corrections that there are."""
    rows, outputs = 1400, 70
    codes = np.full((rows, outputs), 127, np.int8)
    scale = np.ones((-(-rows // group), outputs), np.float32)
    extra = None
    if corrected:
        starts = np.arange(rows + 1, dtype=np.int32) * outputs
        columns = np.tile(np.arange(outputs, dtype=np.int32), rows)
        extra = (starts, columns, np.full(rows * outputs, 32767, np.int16))
    matrix = products.Sparse("int8-groups", codes, outputs, scale, None, group, extra)
    code = 127 + 32767 * corrected
    for count in (-32768, 32767):
        expected = np.float32(0)
        for first in range(0, rows, group):
            expected += np.float32(min(group, rows - first) * count * code)
        for pool in pools.values():
            y = nan(1, outputs)
            matrix.counts(np.full((1, rows), count, np.int16), np.ones(1, np.float32), y, pool)
            assert same(y, np.full((1, outputs), expected))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([0, 1, 3], [0, 1, 2]),
        ([0, 2, 1, 3], [0, 1, 2]),
        ([0, 1, 3, 3], [0, 2, 2]),
        ([0, 1, 3, 3], [0, 2, 1]),
        ([0, 1, 3, 3], [0, -1, 1]),
        ([0, 1, 3, 3], [0, 1, 4]),
        ([0, 1, 3, 4], [0, 1, 2]),
        ([1, 1, 3, 3], [0, 1, 2]),
    ],
)
def test_bad_corrections_are_refused_by_kernel_and_twin(rows, columns):
    values = np.ones(3, np.int16)
    arrays = np.array(rows, np.int32), np.array(columns, np.int32), values
    for module in (products, reference_products):
        module.check_extra(np.array([0, 1, 3, 3], "i"), np.array([0, 1, 3], "i"), values, 3, 4)
        with pytest.raises(ValueError, match="extra"):
            module.check_extra(*arrays, 3, 4)
