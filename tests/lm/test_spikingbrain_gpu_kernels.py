"""Kernels of other libraries for GPUs: how they are called, when, and on a GPU what they give."""

import sys
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402, N812 - its usual name

from spiketrain.lm.families.spikingbrain import gpu_kernels  # noqa: E402
from spiketrain.lm.families.spikingbrain.linear_attention import chunked, recurrent, scan  # noqa: E402
from spiketrain.lm.families.spikingbrain.window_attention import attend  # noqa: E402

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def forget():
    for find in (gpu_kernels.chunk_gla, gpu_kernels.flash_attention):
        find.cache_clear()
    yield
    for find in (gpu_kernels.chunk_gla, gpu_kernels.flash_attention):
        find.cache_clear()


def install(monkeypatch, name, **contents):
    """A module of that name for this test."""
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def documented_gla(q, k, v, g, scale, initial_state, output_final_state):
    """What flash-linear-attention documents: q, k, v, g (B, T, H, d), a state for each head."""
    assert output_final_state
    out, state = recurrent(q.unsqueeze(3) * scale, k, v, g, initial_state)
    return out.squeeze(3), state


def documented_flash(q, k, v, causal, window_size):
    """What flash-attn documents: query i sees keys i + Tk - Tq - left .. i + Tk - Tq."""
    assert causal
    assert window_size[1] == 0
    older = k.shape[1] - q.shape[1]
    at = torch.arange(older, k.shape[1])[:, None]
    own = torch.arange(k.shape[1])
    mask = (own <= at) & (own >= at - window_size[0])
    out = F.scaled_dot_product_attention(
        *(x.transpose(1, 2).float() for x in (q, k, v)), mask, enable_gqa=True
    )
    return out.transpose(1, 2).to(q.dtype)


def gla_inputs(device="cpu", steps=70, width=16):
    draw = torch.Generator().manual_seed(5)
    q = torch.randn(2, steps, 2, 3, width, generator=draw) / width**0.5
    k, v, g = torch.randn(3, 2, steps, 2, width, generator=draw)
    state = torch.randn(2, 2, width, width, generator=draw)
    return [x.to(device) for x in (q, k, v, -g.abs(), state)]


def test_a_scan_by_the_library_is_ours(monkeypatch):
    install(monkeypatch, "fla", __version__="0.6.0")
    install(monkeypatch, "fla.ops", gla=install(monkeypatch, "g", chunk_gla=documented_gla))
    inputs = gla_inputs()
    found = gpu_kernels.scan(gpu_kernels.chunk_gla(), *inputs)
    for ours, its in zip(chunked(*inputs), found, strict=True):
        torch.testing.assert_close(its, ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("version", ["0.1.2", "0.2.1"])
def test_a_library_that_puts_heads_first_is_not_used(monkeypatch, version):
    install(monkeypatch, "fla", __version__=version)
    install(monkeypatch, "fla.ops", gla=install(monkeypatch, "g", chunk_gla=documented_gla))
    assert gpu_kernels.chunk_gla() is None


@pytest.mark.parametrize("older", [0, 7, 300])
@pytest.mark.parametrize("visible", [1, 5, 400])
def test_window_attention_by_the_library_is_ours(monkeypatch, older, visible):
    install(monkeypatch, "flash_attn", flash_attn_func=documented_flash)
    draw = torch.Generator().manual_seed(6)
    q = torch.randn(2, 290, 4, 8, generator=draw)
    k, v = torch.randn(2, 2, older + 290, 2, 8, generator=draw)
    ours = attend(q, k, v, torch.full((2,), older), visible)
    kernel = gpu_kernels.flash_attention()
    its = gpu_kernels.attend(kernel, q, k, v, visible, torch.float32)
    torch.testing.assert_close(its, ours, atol=1e-5, rtol=1e-5)


def test_missing_libraries_are_none(monkeypatch):
    for name in ("fla", "fla.ops", "flash_attn"):
        monkeypatch.setitem(sys.modules, name, None)
    assert gpu_kernels.chunk_gla() is None
    assert gpu_kernels.flash_attention() is None


def test_on_a_cpu_libraries_are_left_alone(monkeypatch):
    def refuse():
        raise AssertionError

    monkeypatch.setattr(gpu_kernels, "chunk_gla", refuse)
    monkeypatch.setattr(gpu_kernels, "flash_attention", refuse)
    inputs = gla_inputs()
    torch.testing.assert_close(scan(*inputs), chunked(*inputs))
    q = torch.ones(1, 3, 2, 8)
    assert attend(q, q, q, torch.zeros(1), 2, dtype=torch.bfloat16).shape == q.shape


@needs_gpu
def test_triton_gives_the_chunked_scan_and_its_gradients():
    pytest.importorskip("fla", reason="needs flash-linear-attention")
    ours, its = gla_inputs("cuda", 200, 64), gla_inputs("cuda", 200, 64)
    for x in ours + its:
        x.requires_grad_()
    wanted = chunked(*ours)
    found = gpu_kernels.scan(gpu_kernels.chunk_gla(), *its)
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=2e-2)
    for out in (wanted, found):
        (out[0].square().mean() + out[1].square().mean()).backward()
    for a, b in zip(its, ours, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=2e-2, rtol=2e-2)


@needs_gpu
def test_flash_attention_gives_ours():
    pytest.importorskip("flash_attn", reason="needs flash-attn")
    draw = torch.Generator().manual_seed(7)
    q = torch.randn(2, 290, 4, 64, generator=draw).cuda()
    k, v = torch.randn(2, 2, 297, 2, 64, generator=draw).cuda()
    before = torch.full((2,), 7, device="cuda")
    its = attend(q, k, v, before, 33, dtype=torch.bfloat16)
    torch.testing.assert_close(its, attend(q, k, v, before, 33), atol=3e-2, rtol=3e-2)
