"""Products of blocks of tokens against scalar twins and plain integer sums, on every build."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.kernels import dispatch, products, reference_products
from runtime.memory import Arena, matrix_bytes

FORMATS = ("float32", "int8", "int4")
DENSE = (*FORMATS, "bfloat16")
WIDTHS = (1, 16, 63, 64, 65, 127, 128, 129, 200, 257)


@pytest.fixture(params=dispatch.runnable(), autouse=True, scope="module")
def build(request):
    before = dispatch.active()
    dispatch.select(request.param)
    yield request.param
    dispatch.select(before)


@pytest.fixture(scope="module")
def pools():
    return {threads: products.Pool(threads) for threads in (1, 2, 3)}


def same(a, b):
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def read_only(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


def nan(*shape):
    return np.full(shape, np.nan, np.float32)


def rows_apart(array):
    """A read-only copy one element off the start of its memory, rows apart."""
    space = np.zeros((array.shape[0], array.shape[1] + 3), array.dtype)
    space[:, 1:-2] = array
    space.flags.writeable = False
    return space[:, 1:-2]


def nibbles(codes):
    """Codes (I, O) in [-8, 7] as bytes, the lower output in the low nibble."""
    halves = np.zeros((codes.shape[0], (codes.shape[1] + 1) // 2), np.uint8)
    shifted = (codes + 8).astype(np.uint8)
    halves[:] = shifted[:, ::2]
    halves[:, : codes.shape[1] // 2] |= shifted[:, 1::2] << 4
    return rows_apart(halves)


def bfloat16(values):
    return (np.asarray(values, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def dense_weights(rng, weights, inputs, outputs, group=32):
    """(arguments of the pack function, keywords of Dense)."""
    if weights == "float32":
        return (rows_apart(rng.normal(size=(inputs, outputs)).astype(np.float32)),), {}
    if weights == "bfloat16":
        return (rows_apart(rng.integers(0x3D00, 0x4100, (inputs, outputs)).astype(np.uint16)),), {}
    if weights == "int8":
        codes = rows_apart(rng.integers(-127, 128, (inputs, outputs)).astype(np.int8))
        return (codes,), {"scale": read_only(rng.uniform(0, 1, outputs).astype(np.float32))}
    codes = nibbles(rng.integers(-8, 8, (inputs, outputs)))
    scale = read_only(bfloat16(rng.uniform(1e-3, 1, (-(-inputs // group), outputs))))
    return (codes, scale, group), {"group": group}


def pack(module, weights, arguments, inputs, outputs, group=0):
    shape = module.panels_shape(weights, inputs, outputs, group)
    space = np.zeros(shape, np.uint8)
    panels = Arena(matrix_bytes(space)).place(space)
    panels[...] = 77
    getattr(module, f"pack_{weights}")(*arguments, panels)
    return panels


def dense(weights, arguments, keywords, inputs, outputs, module=products):
    panels = pack(products, weights, arguments, inputs, outputs, keywords.get("group", 0))
    panels.flags.writeable = False
    return module.Dense(weights, panels, inputs, outputs, **keywords)


def sparse(rng, weights, inputs, outputs, module=products):
    if weights == "float32":
        return rows_apart(rng.normal(size=(inputs, outputs)).astype(np.float32)), outputs
    scale = read_only(rng.uniform(0, 1, outputs).astype(np.float32))
    if weights == "int8":
        codes = rows_apart(rng.integers(-127, 128, (inputs, outputs)).astype(np.int8))
        return codes, outputs, scale
    multiplier = rows_apart(rng.integers(1, 16, (inputs, -(-outputs // 128))).astype(np.uint8))
    return nibbles(rng.integers(-8, 8, (inputs, outputs))), outputs, scale, multiplier


def test_every_kernel_has_a_twin_with_the_same_arguments():
    for name, kernel in vars(products).items():
        if name.startswith("_") or getattr(kernel, "__module__", None) != products.__name__:
            continue
        twin = getattr(reference_products, name)
        if not inspect.isclass(twin):
            assert arguments_of(kernel) == arguments_of(twin), name
            continue
        for method in vars(kernel):
            if not method.startswith("_"):
                assert arguments_of(getattr(kernel, method)) == arguments_of(getattr(twin, method))


def arguments_of(function):
    return function.__code__.co_varnames[: function.__code__.co_argcount]


# --- dense -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", DENSE)
@given(
    seed=st.integers(0, 2**32 - 1),
    inputs=st.integers(0, 80),
    outputs=st.integers(0, 140),
    group=st.sampled_from([32, 64]),
)
@settings(max_examples=15, deadline=None)
def test_packed_weights_are_the_twins(build, weights, seed, inputs, outputs, group):
    rng = np.random.default_rng(seed)
    arguments, keywords = dense_weights(rng, weights, inputs, outputs, group)
    group = keywords.get("group", 0)
    packed = pack(products, weights, arguments, inputs, outputs, group)
    assert same(packed, pack(reference_products, weights, arguments, inputs, outputs, group))


@pytest.mark.parametrize("weights", DENSE)
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(0, 4),
    inputs=st.integers(0, 80),
    outputs=st.integers(0, 80),
    group=st.sampled_from([32, 64]),
)
@settings(max_examples=15, deadline=None)
def test_dense_products_are_their_twins(
    build, pools, weights, seed, tokens, inputs, outputs, group
):
    rng = np.random.default_rng(seed)
    arguments, keywords = dense_weights(rng, weights, inputs, outputs, group)
    x = read_only(rng.normal(size=(tokens, inputs)).astype(np.float32))
    y, expected = nan(tokens, outputs), nan(tokens, outputs)
    dense(weights, arguments, keywords, inputs, outputs).multiply(x, y, pools[1])
    twin = dense(weights, arguments, keywords, inputs, outputs, reference_products)
    twin.multiply(x, expected, reference_products.Pool(1))
    assert same(y, expected)


@pytest.mark.parametrize("weights", DENSE)
@pytest.mark.parametrize("outputs", WIDTHS)
def test_neither_tokens_nor_threads_change_a_bit(build, pools, weights, outputs):
    """Every size of the last block of tokens, and outputs enough for all threads."""
    rng = np.random.default_rng(outputs)
    inputs = 1024 + outputs
    arguments, keywords = dense_weights(rng, weights, inputs, outputs)
    matrix = dense(weights, arguments, keywords, inputs, outputs)
    x = read_only(rng.normal(size=(67, inputs)).astype(np.float32))
    alone = nan(67, outputs)
    for t in range(67):
        matrix.multiply(x[t : t + 1], alone[t : t + 1], pools[1])
    for tokens in (2, 3, 4, 5, 6, 7, 8, 11, 47, 48, 49, 67):
        for pool in pools.values():
            y = nan(tokens, outputs)
            matrix.multiply(x[:tokens], y, pool)
            assert same(y, alone[:tokens])


@pytest.mark.parametrize("weights", DENSE)
def test_builds_agree(weights):
    """On sizes that plain loops are too slow for."""
    rng = np.random.default_rng(7)
    arguments, keywords = dense_weights(rng, weights, 770, 330, 64)
    x = read_only(rng.normal(size=(13, 770)).astype(np.float32))
    found = {}
    before = dispatch.active()
    for name in dispatch.runnable():
        dispatch.select(name)
        found[name] = nan(13, 330)
        dense(weights, arguments, keywords, 770, 330).multiply(x, found[name], products.Pool(1))
    dispatch.select(before)
    assert all(same(y, found["generic"]) for y in found.values())


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("sign", [-1, 1])
def test_int8_sums_are_exact_at_the_widest_supported_input(build, pools, tokens, sign):
    weight = np.full((131072, 3), 127 * sign, np.int8)
    matrix = dense("int8", (weight,), {"scale": np.ones(3, np.float32)}, 131072, 3)
    x, y = np.full((tokens, 131072), -127, np.float32), nan(tokens, 3)
    matrix.multiply(x, y, pools[1])
    assert same(y, np.full((tokens, 3), np.float32(-sign * 131072 * 127 * 127)))


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("code", [-8, 7])
def test_int4_sums_are_exact_at_the_largest_codes(build, pools, tokens, code):
    halves = nibbles(np.full((128, 70), code))
    matrix = dense("int4", (halves, np.ones((2, 70), np.float32), 64), {"group": 64}, 128, 70)
    x, y = np.full((tokens, 128), -127, np.float32), nan(tokens, 70)
    matrix.multiply(x, y, pools[1])
    assert same(y, np.full((tokens, 70), np.float32(-127 * 128 * code)))


def test_several_products_run_at_once(build, pools):
    rng = np.random.default_rng(3)
    jobs, expected = [], []
    for outputs in (64, 500, 1, 1000):
        arguments, keywords = dense_weights(rng, "int8", 300, outputs)
        matrix = dense("int8", arguments, keywords, 300, outputs)
        x = read_only(rng.normal(size=(2, 300)).astype(np.float32))
        jobs.append((matrix, x, nan(2, outputs)))
        expected.append(nan(2, outputs))
        matrix.multiply(x, expected[-1], pools[1])
    for pool in pools.values():
        for _, _, y in jobs:
            y[...] = np.nan
        products.multiply_all(jobs, pool)
        assert all(same(y, e) for (_, _, y), e in zip(jobs, expected, strict=True))


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(0, 140),
    spread=st.sampled_from([0.0, 1e-30, 1.0, 1e30]),
)
@settings(max_examples=40, deadline=None)
def test_quantised_rows_are_their_twins(build, seed, size, spread):
    x = read_only((spread * np.random.default_rng(seed).normal(size=size)).astype(np.float32))
    padded = -(-size // 64) * 64
    codes, expected = np.full(padded, 99, np.int8), np.full(padded, 99, np.int8)
    sums, expected_sums = np.full(padded // 32, 9, np.int32), np.full(padded // 32, 8, np.int32)
    scale = products.quantise_row(x, codes, sums)
    assert scale == reference_products.quantise_row(x, expected, expected_sums)
    assert same(codes, expected)
    assert same(sums, expected_sums)


def test_rows_are_quantised_half_to_even(build):
    x = np.array([127.0, 0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    codes = np.zeros(64, np.int8)
    assert products.quantise_row(x, codes, np.zeros(2, np.int32)) == 1.0
    assert list(codes[:6]) == [127, 0, 2, 2, 0, -2]


# --- sparse ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("outputs", [*WIDTHS, 8200])
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
    matrix.squares(np.ones((tokens, rows), np.float32), y, pools[1])
    unit = np.float32(1) / np.float32(steps)
    assert same(y, np.full((tokens, 70), np.float32(rows * steps * code) * unit))
    for count in (-127, 127, *([-32768] if tokens == 1 else [])):
        matrix.counts(np.full((tokens, rows), count, np.int16), ones, y, pools[1])
        assert same(y, np.full((tokens, 70), np.float32(count * rows * code)))


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


# --- refusals ----------------------------------------------------------------------------------


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


def test_misfitting_arguments_are_refused_by_name(pools):
    f4 = lambda *shape: np.zeros(shape, np.float32)  # noqa: E731
    panels = Arena(256 * 64).place(np.zeros((2, 512), np.uint8))
    with pytest.raises(ValueError, match="panel bytes must be 512, got 256"):
        products.Dense("int8", panels[:, :256], 8, 70, f4(70))
    with pytest.raises(ValueError, match="multiples of 64"):
        products.Dense("int8", np.zeros(2 * 512 + 64, np.uint8)[1:1025].reshape(2, 512), 8, 70)
    with pytest.raises(ValueError, match="scale must be 70, got 3"):
        products.Dense("int8", panels, 8, 70, f4(3))
    with pytest.raises(ValueError, match=r"group must be one of \(32, 64\), got 16"):
        products.panels_shape("int4", 8, 70, 16)
    with pytest.raises(ValueError, match="bfloat16"):
        products.pack_int4(
            np.zeros((8, 1), np.uint8), np.full((1, 2), 0.1, np.float32), 32, f4(1, 288).view("u1")
        )
    matrix = products.Dense("int8", panels, 8, 70, f4(70))
    with pytest.raises(ValueError, match="x columns must be 8, got 7"):
        matrix.multiply(f4(2, 7), f4(2, 70), pools[1])
    with pytest.raises(ValueError, match="y rows must be 2, got 1"):
        matrix.multiply(f4(2, 8), f4(1, 70), pools[1])
    with pytest.raises(ValueError, match="inputs must be at most 131072"):
        products.Dense("float32", panels, 131073, 70)
    with pytest.raises(ValueError, match="weight columns must be 35, got 70"):
        products.Sparse("int4", np.zeros((3, 70), np.uint8), 70, f4(70), np.ones((3, 1), np.uint8))
    rows = products.Sparse("int8", np.zeros((3, 70), np.int8), 70, f4(70))
    with pytest.raises(ValueError, match="unit must be 2, got 1"):
        rows.counts(np.zeros((2, 3), np.int16), f4(1), f4(2, 70), pools[1])
