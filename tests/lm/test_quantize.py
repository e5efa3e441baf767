"""Integer codes: what they stand for, how far off, and that the runtime reads them the same way."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spiketrain.lm.quantize import quantize_int4_inputs, quantize_int4_outputs  # noqa: E402
from spiketrain.runtime.kernels import products  # noqa: E402
from spiketrain.runtime.memory import Arena, matrix_bytes  # noqa: E402

SHAPES = ((1, 1), (32, 5), (33, 128), (70, 129), (256, 300))


def weights(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes_of(halves, outputs):
    low, high = halves & 15, halves >> 4
    return torch.stack([low, high], 2).flatten(1)[:, :outputs].to(torch.float32) - 8


def from_inputs(halves, scale, inputs, outputs, group):
    return codes_of(halves, outputs) * scale.repeat_interleave(group, 0)[:inputs]


def from_outputs(halves, multiplier, scale, outputs):
    factors = multiplier.repeat_interleave(128, 1)[:, :outputs].to(torch.float32)
    return codes_of(halves, outputs) * factors * scale


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_groups_along_inputs_are_within_half_a_step_or_the_clipped_end(shape, group):
    weight = weights(shape)
    halves, scale = quantize_int4_inputs(weight, group)
    assert halves.shape == (shape[0], (shape[1] + 1) // 2)
    assert halves.dtype == torch.uint8
    assert scale.shape == (-(-shape[0] // group), shape[1])
    assert torch.equal(scale, scale.to(torch.bfloat16).to(torch.float32))
    assert bool((scale > 0).all())
    wide = scale.repeat_interleave(group, 0)[: shape[0]]
    error = (from_inputs(halves, scale, *shape, group) - weight).abs()
    clipped = (weight > 7 * wide) | (weight < -8 * wide)
    assert bool((error[~clipped] <= 0.5001 * wide[~clipped]).all())
    assert bool((error <= 1.6 * wide).all())


def test_large_matrices_lose_about_a_tenth_in_int4():
    weight = weights((768, 256), 3)
    halves, scale = quantize_int4_inputs(weight)
    along_inputs = from_inputs(halves, scale, 768, 256, 32)
    along_outputs = from_outputs(*quantize_int4_outputs(weight), 256)
    assert float((along_inputs - weight).square().mean().sqrt()) < 0.09
    assert float((along_outputs - weight).square().mean().sqrt()) < 0.11


@pytest.mark.parametrize("shape", SHAPES)
def test_groups_along_outputs_share_a_small_multiplier(shape):
    weight = weights(shape, 1)
    halves, multiplier, scale = quantize_int4_outputs(weight)
    assert halves.shape == (shape[0], (shape[1] + 1) // 2)
    assert multiplier.shape == (shape[0], -(-shape[1] // 128))
    assert multiplier.dtype == torch.uint8
    assert 1 <= int(multiplier.min()) <= int(multiplier.max()) <= 15
    assert bool((scale > 0).all())
    error = from_outputs(halves, multiplier, scale, shape[1]) - weight
    assert float(error.square().mean()) <= 0.12**2 * float(weight.square().mean())


def test_multipliers_have_the_least_squared_error():
    weight = weights((600, 130)).double()
    scale = (weight.abs().amax(0) / 105).float().double()
    steps = torch.nn.functional.pad(weight / scale, (0, 126)).view(600, 2, 128)
    tried = torch.arange(1, 16.0, dtype=torch.float64).view(-1, 1, 1, 1)
    errors = ((steps / tried).round().clamp(-8, 7) * tried - steps).square().sum(3)
    _, multiplier, _ = quantize_int4_outputs(weight.float())
    own = errors.gather(0, multiplier.long()[None] - 1)[0]
    assert torch.allclose(own, errors.amin(0), rtol=1e-4)


def test_zeros_stay_zero_with_scales_of_one():
    halves, scale = quantize_int4_inputs(torch.zeros(40, 3))
    assert torch.equal(scale, torch.ones(2, 3))
    assert torch.equal(codes_of(halves, 3), torch.zeros(40, 3))
    halves, _, scale = quantize_int4_outputs(torch.zeros(40, 3))
    assert torch.equal(scale, torch.ones(3))
    assert torch.equal(codes_of(halves, 3), torch.zeros(40, 3))


def test_what_is_not_finite_is_refused():
    for quantize in (quantize_int4_inputs, quantize_int4_outputs):
        with pytest.raises(ValueError, match="not finite"):
            quantize(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ValueError, match="group must be 32 or 64, got 16"):
        quantize_int4_inputs(torch.zeros(2, 2), 16)


@pytest.mark.parametrize("group", [32, 64])
def test_dense_products_read_the_same_weights(group):
    weight = weights((200, 130), 5)
    halves, scale = quantize_int4_inputs(weight, group)
    panels = np.zeros(products.panels_shape("int4", 200, 130, group), np.uint8)
    panels = Arena(matrix_bytes(panels)).place(panels)
    products.pack("int4", halves.numpy(), panels, scale.numpy(), group)
    x = np.zeros((1, 200), np.float32)
    x[0, ::3] = 127.0  # codes of 127 and 0 alone
    y = np.empty((1, 130), np.float32)
    products.Dense("int4", panels, 200, 130, group=group).multiply(x, y, products.Pool(1))
    expected = x.astype(np.float64) @ from_inputs(halves, scale, 200, 130, group).double().numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-3)


def test_event_driven_products_read_the_same_weights():
    weight = weights((200, 130), 6)
    halves, multiplier, scale = quantize_int4_outputs(weight)
    count = np.zeros((1, 200), np.int16)
    count[0, ::7] = -2
    count[0, 1::9] = 11
    y = np.empty((1, 130), np.float32)
    matrix = products.Sparse("int4", halves.numpy(), 130, scale.numpy(), multiplier.numpy())
    matrix.counts(count, np.ones(1, np.float32), y, products.Pool(1))
    expected = count @ from_outputs(halves, multiplier, scale, 130).double().numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)
