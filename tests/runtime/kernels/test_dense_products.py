"""Dense products of blocks of tokens against scalar twins and integer sums, on every build."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_matrices import (
    dense,
    dense_weights,
    nan,
    nibbles,
    pack,
    read_only,
    same,
)

from spiketrain.runtime.kernels import products
from spiketrain.runtime.kernels.isa import dispatch
from spiketrain.runtime.kernels.products import dense as dense_products
from spiketrain.runtime.kernels.products import events as event_products
from spiketrain.runtime.kernels.reference import products as reference_products
from spiketrain.runtime.memory import Arena

pytestmark = pytest.mark.usefixtures("build")

FORMATS = ("float32", "int8", "int4", "bfloat16")
WIDTHS = (1, 16, 63, 64, 65, 127, 128, 129, 200, 257)


@pytest.mark.parametrize("module", [dense_products, event_products])
def test_every_kernel_has_a_twin_with_the_same_arguments(module):
    kernels = [
        (name, kernel)
        for name, kernel in vars(module).items()
        if not name.startswith("_") and getattr(kernel, "__module__", None) == module.__name__
    ]
    assert len(kernels) > 2
    for name, kernel in kernels:
        twin = getattr(reference_products, name)
        if not inspect.isclass(twin):
            assert arguments_of(kernel) == arguments_of(twin), name
            continue
        for method in vars(kernel):
            if not method.startswith("_"):
                assert arguments_of(getattr(kernel, method)) == arguments_of(getattr(twin, method))


def arguments_of(function):
    return function.__code__.co_varnames[: function.__code__.co_argcount]


@pytest.mark.parametrize("weights", FORMATS)
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


@pytest.mark.parametrize("weights", FORMATS)
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


@pytest.mark.parametrize("weights", FORMATS)
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


@pytest.mark.parametrize("weights", FORMATS)
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
    panel = np.zeros((1, 1152), np.uint8)
    with pytest.raises(ValueError, match="bfloat16"):
        products.pack("int4", np.zeros((8, 1), np.uint8), panel, f4(1, 2) + np.float32(0.1), 32)
    with pytest.raises(ValueError, match="weight must be uint16, got float32"):
        products.pack("bfloat16", f4(8, 70), np.zeros((2, 1024), np.uint8))
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
