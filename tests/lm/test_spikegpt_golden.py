"""SpikeGPT against tensors made by the official code (tests/data/spikegpt)."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.families.spikegpt import Config, Model  # noqa: E402
from spiketrain.lm.kernels.lif import lif, lif_reference  # noqa: E402

DATA = Path(__file__).parent.parent / "data" / "spikegpt"
NAMES = ("v77_l3", "v97_l3")


def load(name, **fields):
    tensors = torch.load(DATA / f"{name}.pth", weights_only=True)
    vocab, width = tensors["emb.weight"].shape
    config = Config(vocab_size=vocab, hidden_size=width, num_hidden_layers=3, **fields)
    model = Model(config)
    wrong = model.load_state_dict(tensors, strict=False)
    assert not wrong.unexpected_keys
    assert all(".lif" in key for key in wrong.missing_keys)
    return model.eval()


def golden(name):
    return {key: torch.from_numpy(value) for key, value in np.load(DATA / f"{name}.npz").items()}


def check(name, prefix, model):
    """Logits, spikes and membranes of one pass over the golden tokens; returns its state."""
    wanted = golden(name)
    ids = wanted["tokens"][None, :-1]
    with torch.no_grad():
        features, state, events = model.features(ids)
        logits = model.logits(features)[:, 0]
    torch.testing.assert_close(logits, wanted[f"{prefix}logits"], atol=1e-4, rtol=0)
    spikes = torch.stack(events)[:, :, 0].unflatten(0, (3, 2))
    assert torch.equal(spikes, wanted[f"{prefix}spikes"].float())
    membranes = torch.stack([torch.cat(layer[5:]) for layer in state])
    torch.testing.assert_close(membranes, wanted[f"{prefix}v_final"], atol=1e-5, rtol=0)
    return spikes, state, wanted


@pytest.mark.parametrize("name", NAMES)
def test_the_training_model_is_reproduced(name):
    spikes, state, wanted = check(name, "", load(name))
    assert torch.equal(spikes.sum((2, 3)).long(), wanted["spike_count"])
    shifts = torch.stack([torch.cat(layer[:2]) for layer in state], 1)
    torch.testing.assert_close(shifts[0], wanted["final_shift_att"], atol=1e-5, rtol=0)
    torch.testing.assert_close(shifts[1], wanted["final_shift_ffn"], atol=1e-5, rtol=0)
    sums = torch.stack([torch.cat(layer[2:5]) for layer in state])
    torch.testing.assert_close(sums, wanted["final_wkv_pqo"], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_inference_script_is_reproduced_when_its_semantics_are_chosen(name):
    check(name, "run_", load(name, binary_embedding=name == "v77_l3", rescale=6))


def test_gradients_are_the_official_ones_with_l2_wrap():
    model = load("v77_l3", l2_wrap=1e-4).double().train()
    wanted, tokens = golden("v77_l3_grad"), golden("v77_l3")["tokens"][None]
    features, _, _ = model.features(tokens[:, :-1])
    loss = model.mean_nll(features, tokens[:, 1:])
    loss.backward()
    assert loss.item() == pytest.approx(wanted["loss"].item(), rel=1e-9)
    checked = 0
    for name, parameter in model.named_parameters():
        if f"norm__{name}" in wanted:
            norm = wanted[f"norm__{name}"].item()
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-6), name
            checked += 1
        if f"grad__{name}" in wanted:
            grad = wanted[f"grad__{name}"].double()  # some are stored in float32
            torch.testing.assert_close(parameter.grad, grad, atol=1e-6 * grad.norm(), rtol=0)
    assert checked == 60
    row = wanted["grad__blocks.1.ffn.value.weight_row0"]
    found = model.blocks[1].ffn.value.weight.grad[0]
    torch.testing.assert_close(found, row, atol=1e-6 * row.norm(), rtol=0)


@pytest.mark.parametrize("run", [lif, lif_reference])
def test_a_lif_layer_has_the_official_spikes_and_gradient(run):
    wanted = golden("v77_l3_grad")
    x = wanted["lif_x"][:, None].clone().requires_grad_()
    ones = torch.ones(16, dtype=torch.float64)
    spikes, membrane = run(x, torch.zeros(1, 16, dtype=torch.float64), ones, ones)
    assert torch.equal(spikes[:, 0], wanted["lif_spikes"])
    torch.testing.assert_close(membrane[0], wanted["lif_vseq"][-1], atol=1e-12, rtol=0)
    spikes.backward(wanted["lif_grad_out"][:, None])
    torch.testing.assert_close(x.grad[:, 0], wanted["lif_grad_x"], atol=1e-9, rtol=0)
