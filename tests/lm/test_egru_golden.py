"""EGRU against tensors made by the official implementation (tests/data/egru)."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spiketrain.lm.checkpoint import load_checkpoint  # noqa: E402
from spiketrain.lm.kernels.egru import scan, scan_reference  # noqa: E402

DATA = Path(__file__).parent.parent / "data" / "egru"
SCANS = {"fused": scan, "reference": scan_reference}


def load(name):
    tensors = torch.load(DATA / f"{name}.pt", weights_only=True)
    return tensors, {k: torch.from_numpy(v) for k, v in np.load(DATA / f"{name}.npz").items()}


def run_layer(run, tensors, x, y0, **surrogate):
    """x (B, T, I) -> events (B, T, H), last cell."""
    time_major = x.transpose(0, 1)
    xk = time_major @ tensors["kernel"] + tensors["bias"]
    c0 = torch.zeros_like(y0)
    theta = tensors["thr"].clamp(0, 1)
    args = (xk, y0, c0, tensors["recurrent_kernel"], tensors["recurrent_bias"], theta)
    y, cell = run(*args, **surrogate)
    return y.transpose(0, 1), cell


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("start", ["zero", "y0"])
def test_a_layer_gives_the_official_events_and_values(name, start):
    tensors, golden = load("layer_i24_h40")
    y0 = golden["y0"] if start == "y0" else torch.zeros_like(golden["y0"])
    suffix = "_from_y0" if start == "y0" else ""
    y, cell = run_layer(SCANS[name], tensors, golden["x"], y0)
    want_cell = golden["cell_from_y0" if start == "y0" else "cell_after_reset"]
    assert torch.equal(y != 0, golden["event" + suffix].bool())
    torch.testing.assert_close(y, golden["y" + suffix], atol=1e-5, rtol=0)
    torch.testing.assert_close(cell, want_cell[:, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SCANS)
def test_gradients_are_the_official_ones(name):
    tensors, golden = load("grad_i8_h12")
    names = ("kernel", "recurrent_kernel", "bias", "recurrent_bias", "thr")
    leaves = {k: tensors[k].double().clone().requires_grad_() for k in names}
    x = golden["x"].clone().requires_grad_()
    y0 = torch.zeros(2, 12, dtype=torch.float64)
    surrogate = {
        "damp": tensors["dampening_factor"].item(),
        "support": tensors["pseudo_derivative_support"].item(),
    }
    y, _ = run_layer(SCANS[name], leaves, x, y0, **surrogate)
    assert torch.equal(y != 0, golden["event"].bool())
    (y * golden["grad_y"]).sum().backward()
    torch.testing.assert_close(x.grad, golden["g_x"], atol=1e-9, rtol=0)
    for key in names:
        torch.testing.assert_close(leaves[key].grad, golden[f"g_{key}"], atol=1e-9, rtol=0)


@pytest.fixture(scope="module")
def language_model():
    model = load_checkpoint(DATA / "lm_tied_noproj.cpt")
    golden = {k: torch.from_numpy(v) for k, v in np.load(DATA / "lm_tied_noproj.npz").items()}
    return model, golden


@torch.no_grad()
def test_the_official_checkpoint_gives_its_logits_and_events(language_model):
    model, golden = language_model
    ids = golden["tokens"][None, :-1]
    _, _, events = model.features(ids)
    for layer, y in enumerate(events):
        assert torch.equal(y[:, 0] != 0, golden[f"event_l{layer}"].bool())
        torch.testing.assert_close(y[:, 0], golden[f"y_l{layer}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(model(ids).logits[0], golden["logits"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_carrying_the_output_alone_repeats_the_published_chunks(language_model):
    model, golden = language_model
    assert model.config.carry == "output"
    ids, size = golden["tokens"][None, :-1], int(golden["bptt"])
    state, got = None, []
    for at in range(0, ids.shape[1], size):
        out = model(ids[:, at : at + size], state=state)
        state = model.carried(out.state)
        got.append(out.logits[0].log_softmax(-1))
    torch.testing.assert_close(torch.cat(got), golden["log_probs_chunked"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_carrying_the_state_equals_one_pass(language_model):
    model, golden = language_model
    ids, state, got = golden["tokens"][None, :-1], None, []
    for at in range(0, 64, 16):
        out = model(ids[:, at : at + 16], state=state)
        state = out.state
        got.append(out.logits[0].log_softmax(-1))
    torch.testing.assert_close(torch.cat(got), golden["log_probs"], atol=1e-4, rtol=0)
