"""The training kernels of SpikeGPT against plain autograd loops, in every dtype they take."""

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from spiketrain.lm.kernels.lif import lif, lif_reference  # noqa: E402
from spiketrain.lm.kernels.relu2 import relu2, relu2_reference  # noqa: E402
from spiketrain.lm.kernels.spike_counts import spike_counts, spike_counts_reference  # noqa: E402
from spiketrain.lm.kernels.token_mix import token_mix, token_mix_reference  # noqa: E402
from spiketrain.lm.kernels.wkv import NOTHING_YET, gated_wkv, gated_wkv_reference  # noqa: E402
from spiketrain.lm.spikes import any_spike, count, heaviside_atan  # noqa: E402

SHAPES = [(1, 1, 1), (9, 3, 37), (5, 2, 64)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-2}


def draws(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


def compare(kernel, reference, dtype, data, parameters):
    """Outputs and gradients: `data` rounded to dtype for both, `parameters` in float32 or 64."""
    real = torch.promote_types(dtype, torch.float32)
    data = [x.detach().to(dtype) for x in data]
    sides = []
    for run, exact in ((kernel, False), (reference, True)):
        leaves = [(x.double() if exact else x).clone().requires_grad_() for x in data]
        for x in parameters:
            rounded = x.detach().to(real)
            leaves.append((rounded.double() if exact else rounded).clone().requires_grad_())
        out = run(*leaves)
        weight = torch.cos(torch.arange(out.numel(), dtype=torch.float64)).reshape(out.shape)
        (out.double() * weight).sum().backward()
        grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
        sides.append([out.detach(), *grads])
    tolerance = TOLERANCE[dtype]
    for found, wanted in zip(*sides, strict=True):
        scale = float(wanted.abs().max()) + 1.0
        torch.testing.assert_close(found.double(), wanted, atol=tolerance * scale, rtol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("start", ["empty", "old"])
def test_the_wkv_scan_has_the_values_and_gradients_of_the_plain_loop(dtype, shape, start):
    _, B, C = shape
    k, v, r, decay, bonus, p, q, o = draws(1, shape, shape, shape, C, C, (B, C), (B, C), (B, C))
    sums = (p, q.exp(), o)
    if start == "empty":
        sums = (0 * p, 0 * q, torch.full_like(o, NOTHING_YET))

    def run(scan):
        return lambda k, v, r, w, u: scan(k, v, r, -w.exp(), u, tuple(s.to(w.dtype) for s in sums))

    def value(scan):
        return lambda *args: run(scan)(*args)[0]

    parts = ([2.0 * k, v, r], [decay, bonus])
    compare(value(gated_wkv), value(gated_wkv_reference), dtype, *parts)
    args = [x.to(dtype) for x in parts[0]], [x.to(torch.float64) for x in parts[1]]
    real = torch.promote_types(dtype, torch.float32)
    _, found = run(gated_wkv)(*args[0], *(x.to(real) for x in args[1]))
    _, wanted = run(gated_wkv_reference)(*(x.double() for x in args[0]), *args[1])
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == real
        torch.testing.assert_close(a.double(), b, atol=TOLERANCE[real], rtol=TOLERANCE[real])


def test_the_wkv_scan_survives_exponents_of_any_size():
    for size in (1e-30, 1.0, 80.0, 1e4, 1e30):
        k = torch.tensor([size, -size, 0.0, size])[:, None, None]
        w, u = torch.tensor([-1e-3]), torch.tensor([0.5])
        k.requires_grad_()
        empty = (torch.zeros(1, 1), torch.zeros(1, 1), torch.full((1, 1), NOTHING_YET))
        out, sums = gated_wkv(k, torch.ones_like(k), torch.zeros_like(k), w, u, empty)
        torch.testing.assert_close(out, torch.full_like(out, 0.5))
        out.sum().backward()
        assert all(x.isfinite().all() for x in (k.grad, *sums))


@seed(1)
@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 40), st.data())
def test_scans_have_the_same_bits_in_any_chunks_and_batches(T, B, C, data):
    cut, lane = data.draw(st.integers(0, T)), data.draw(st.integers(0, B - 1))
    shape = (T, B, C)
    k, v, r, x, w, u = (y.float() for y in draws(T * B * C, shape, shape, shape, shape, C, C))
    zero, empty = torch.zeros(B, C), torch.full((B, C), NOTHING_YET)
    w, one = -w.exp(), torch.ones(C)
    whole, end = gated_wkv(k, v, r, w, u, (zero, zero, empty))
    spikes, membrane = lif(3.0 * x, zero, one, one)
    parts, sums, fired, units = [], (zero, zero, empty), [], zero
    for chunk in (slice(0, cut), slice(cut, T)):
        out, sums = gated_wkv(k[chunk], v[chunk], r[chunk], w, u, sums)
        parts.append(out)
        s, units = lif(3.0 * x[chunk], units, one, one)
        fired.append(s)
    for a, b in zip(
        (whole, *end, spikes, membrane),
        (torch.cat(parts), *sums, torch.cat(fired), units),
        strict=True,
    ):
        assert torch.equal(a, b)
    alone = slice(lane, lane + 1)
    start = (zero[alone], zero[alone], empty[alone])
    out, _ = gated_wkv(k[:, alone], v[:, alone], r[:, alone], w, u, start)
    assert torch.equal(out, whole[:, alone])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_lif_scan_has_the_spikes_and_gradients_of_the_plain_loop(dtype, shape):
    _, B, C = shape
    x, v, scale, threshold = draws(2, shape, (B, C), C, C)
    cost = 0.1 * torch.sin(torch.arange(C, dtype=torch.float64))
    units = [1.0 + 0.2 * scale.tanh(), 1.0 + 0.3 * threshold.tanh()]

    def run(scan):
        def spikes(x, scale, threshold):
            start = v.to(torch.promote_types(x.dtype, torch.float32))
            return scan(x, start, scale, threshold, cost.to(threshold.dtype), tau=3.0)[0]

        return spikes

    compare(run(lif), run(lif_reference), dtype, [3.0 * x], units)


def test_bfloat16_currents_give_float32_membranes():
    (x,) = draws(3, (6, 2, 20))
    x, one, v = x.bfloat16() * 3, torch.ones(20), torch.zeros(2, 20)
    for found, wanted in zip(lif(x, v, one, one), lif_reference(x, v, one, one), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_spike_counts_have_the_values_and_gradients_of_plain_autograd(dtype, shape):
    (x,) = draws(4, shape)
    cost = 0.05 * torch.cos(torch.arange(shape[-1], dtype=torch.float64))
    theta = torch.tensor([0.9], dtype=torch.float64)

    def run(counts):
        return lambda x, theta: counts(x, theta, cost.to(theta.dtype))

    compare(run(spike_counts), run(spike_counts_reference), dtype, [x], [theta])


def test_spike_counts_are_whole_multiples_of_a_tokens_threshold():
    x = torch.tensor([[0.5, -0.25, 1.0, -2.25], [0.0, 0.0, 0.0, 0.0], [-3.0, 3.0, 0.1, 0.0]])
    out = spike_counts(x, torch.tensor([0.5]))
    wanted = torch.tensor([[0.5, 0.0, 1.0, -2.0], [0.0] * 4, [-2.2875, 2.2875, 0.0, 0.0]])
    torch.testing.assert_close(out, wanted)
    rounded = spike_counts(x.bfloat16(), torch.tensor([0.5]))
    torch.testing.assert_close(rounded.float(), out, atol=0.01, rtol=0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_token_mix_has_the_values_and_gradients_of_plain_autograd(dtype, shape):
    _, B, C = shape
    real = torch.promote_types(dtype, torch.float32)
    y, before, mu = draws(5, shape, (B, C), (3, C))

    def run(mix, to):
        return lambda y, mu: mix(y, before.to(y.dtype), mu, to)

    wide = [y.to(real).double(), mu]
    kernel, plain = run(token_mix, dtype), run(token_mix_reference, torch.float64)
    if dtype != torch.bfloat16:
        compare(kernel, plain, dtype, wide[:1], wide[1:])
        return
    got, want = kernel(y.float(), mu.float()), plain(*wide)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_squared_relu_has_the_gradient_of_plain_autograd(dtype):
    compare(relu2, relu2_reference, dtype, draws(6, (3, 5, 7)), [])


def test_neurons_fire_at_exactly_the_threshold():
    v = torch.tensor([-1e-7, 0.0, 1e-7], requires_grad=True)
    assert heaviside_atan(v).tolist() == [0.0, 1.0, 1.0]
    z = torch.tensor([0.0, 0.99, 1.0, 1.99, 2.0])
    assert count(z).tolist() == [0.0, 0.0, 1.0, 1.0, 2.0]
    assert any_spike(z).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    x, one = torch.tensor([2.0, 1.99])[:, None, None], torch.ones(1)
    for run in (lif, lif_reference):
        spikes, _ = run(x, torch.zeros(1, 1), one, one)
        assert spikes.flatten().tolist() == [1.0, 0.0]


def test_surrogates_are_as_steep_as_said():
    for rule, z, slopes in (
        (heaviside_atan, [0.0, 1.0], [1.0, 1.0 / (1.0 + torch.pi**2)]),
        (count, [0.0, 0.5, 1.0, 3.2], [0.0, 0.5, 1.0, 1.0]),
        (any_spike, [0.0, 0.5, 1.0, 1.5, 3.0], [0.0, 0.5, 1.0, 0.5, 0.0]),
    ):
        drive = torch.tensor(z, requires_grad=True)
        rule(drive).sum().backward()
        torch.testing.assert_close(drive.grad, torch.tensor(slopes))


def test_bad_shapes_and_pairings_are_refused():
    from spiketrain.lm.kernels import rwkv

    half, whole = torch.zeros(2, 3).numpy(), torch.zeros(3).numpy()
    with pytest.raises(ValueError, match=r"out is \(2, 3\), expected \(3, 3\)"):
        rwkv.counts_forward(1.0, torch.zeros(3, 3).numpy(), half)
    with pytest.raises(TypeError, match="float64"):
        rwkv.counts_backward(1.0, half, whole.astype("float64"), half, half)
