"""Dead zones and integer weights of SpikingBrain, set from text."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain.lm.conversion import error_feedback  # noqa: E402
from spiketrain.lm.conversion.dial import measure_dials  # noqa: E402
from spiketrain.lm.conversion.error_feedback import FORMATS, feedback_codes, round_with_feedback  # noqa: E402
from spiketrain.lm.conversion.sparsity import calibrate_sparsity  # noqa: E402
from spiketrain.lm.families.spikingbrain import Config, Exporter, Model  # noqa: E402
from spiketrain.lm.quantize import (  # noqa: E402
    quantize_int4_inputs,
    quantize_int4_outputs,
    quantize_int8,
)
from spiketrain.lm.shards import Held  # noqa: E402
from spiketrain.lm.stored import stored_blocks  # noqa: E402
from spiketrain.runtime.errors import RequestError  # noqa: E402

IDS = torch.randint(60, (4, 48), generator=torch.Generator().manual_seed(5))


def tiny(**fields):
    torch.manual_seed(1)
    sizes = {
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "sliding_window": 8,
        "initializer_range": 0.15,
        "spikes": True,
    }
    return Model(Config(**(sizes | fields))).eval()


def zeros(model):
    with torch.no_grad():
        return torch.stack([1 - rate for rate in model(IDS[:, :-1]).firing_rates]).mean().item()


@pytest.mark.parametrize("target", [0.4, 0.7])
def test_calibration_reaches_the_sparsity_asked_and_says_what_it_found(target):
    model = tiny()
    assert zeros(model) < 0.3
    report = calibrate_sparsity(model, IDS, target)
    assert zeros(model) == pytest.approx(target, abs=0.02)
    assert report["sparsity"] == pytest.approx(zeros(model), abs=1e-6)
    assert [place["name"] for place in report["places"]] == [
        f"layers.{i}.{place}"
        for i in range(2)
        for place in ("attn.spikes", "attn.o_spikes", "mlp.spikes", "mlp.down_spikes")
    ]
    zones = [place["dead_zone"] for place in report["places"]]
    assert all(zone > 0 for zone in zones)
    assert model.model.layers[1].mlp.spikes.dead_zone.item() == pytest.approx(zones[6])


def test_a_costly_place_keeps_more_of_its_inputs():
    model = tiny()
    with torch.no_grad():  # what this place says hardly reaches the logits
        model.model.layers[1].mlp.down_proj.weight.mul_(1e-3)
    report = calibrate_sparsity(model, IDS, 0.5)
    shares = [place["zeros"] for place in report["places"]]
    assert shares[7] == max(shares)
    assert shares[7] > 0.9


def test_no_zone_is_wider_than_a_package_takes():
    model = tiny()
    mlp = model.model.layers[1].mlp
    with torch.no_grad():  # two units are far above the others' mean, and hardly reach the logits
        mlp.up_proj.weight[:2].mul_(1e3)
        mlp.down_proj.weight.mul_(1e-5)
    report = calibrate_sparsity(model, IDS, 0.6)
    assert report["places"][7]["dead_zone"] == 16.0


def test_a_target_below_what_rounding_leaves_sets_no_zone():
    model = tiny(spike_k=0.5)
    report = calibrate_sparsity(model, IDS, 0.2)
    assert all(place["dead_zone"] == 0 for place in report["places"])
    assert report["nats_after"] == report["nats_before"]


def test_calibration_needs_spikes_and_a_share():
    with pytest.raises(ValueError, match="model must have spikes"):
        calibrate_sparsity(tiny(spikes=False), IDS, 0.5)
    with pytest.raises(ValueError, match=r"sparsity must be in \(0, 0.98\), got 1.0"):
        calibrate_sparsity(tiny(), IDS, 1.0)


def inputs():
    """Correlated inputs, one of them always silent."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(400, 12, generator=draw) @ torch.randn(12, 40, generator=draw)
    x = x + 0.1 * torch.randn(400, 40, generator=draw)
    x[:, 7] = 0.0
    return x


@pytest.mark.parametrize("form", FORMATS)
def test_feedback_loses_less_of_the_outputs_than_rounding(form):
    x = inputs()
    weight = torch.randn(40, 130, generator=torch.Generator().manual_seed(4))
    values, stored = round_with_feedback(weight, x.t() @ x, form)
    plain = stored_blocks([(0, weight)], (130, 40), form)
    assert {k: (v.shape, v.dtype) for k, v in stored.items()} == {
        k: (v.shape, v.dtype) for k, v in plain.items()
    }
    nearest = {
        "int8": lambda: quantize_int8(weight)[0] * quantize_int8(weight)[1],
        "int4-go": lambda: _outputs(*quantize_int4_outputs(weight)),
        "int4-gi": lambda: _inputs(*quantize_int4_inputs(weight)),
    }[form]()
    lost, lost_plain = (float((x @ (w - weight)).norm()) for w in (values, nearest))
    assert lost < 0.7 * lost_plain
    again = {
        "int8": lambda s: s["weight"] * s["scale"],
        "int4-go": lambda s: _outputs(s["weight"], s["multiplier"], s["scale"]),
        "int4-gi": lambda s: _inputs(s["weight"], s["scale"]),
    }[form](stored)
    torch.testing.assert_close(values, again, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("form", FORMATS)
def test_telling_later_inputs_in_blocks_changes_no_code(form, monkeypatch):
    draw = torch.Generator().manual_seed(6)
    x = torch.randn(500, 60, generator=draw) @ torch.randn(60, 300, generator=draw)
    weight = torch.randn(300, 130, generator=draw)
    _, stored = round_with_feedback(weight, x.t() @ x, form)
    monkeypatch.setattr(error_feedback, "BLOCK", 512)  # one after the other, all at once
    _, wanted = round_with_feedback(weight, x.t() @ x, form)
    assert all(torch.equal(stored[name], wanted[name]) for name in wanted)


def _codes(packed, outputs):
    codes = torch.stack([packed & 15, packed >> 4], -1).flatten(1)[:, :outputs]
    return codes.float() - 8


def _outputs(packed, multiplier, scale):
    factors = multiplier.float().repeat_interleave(128, 1)[:, : len(scale)]
    return _codes(packed, len(scale)) * factors * scale


def _inputs(packed, scale):
    rows = scale.repeat_interleave(32, 0)[: len(packed)]
    return _codes(packed, scale.shape[1]) * rows


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_codes_of_feedback_are_exported_as_they_are(weights):
    model = tiny()
    codes = feedback_codes(model, IDS, weights)
    assert len(codes) == 14  # q, k, v, o, gate, up, down of two layers
    exporter = Exporter(model.config, Held(model.state_dict()), weights, codes=codes)
    tensors = exporter.tensors("layers.1")
    for key, value in codes["layers.1.mlp.up_proj"].items():
        assert np.array_equal(tensors[f"layers.1.mlp.up_proj.{key}"], value.numpy())
    values = model.model.layers[1].mlp.up_proj.weight.detach().t()
    stored = codes["layers.1.mlp.up_proj"]
    if weights == "int8":
        torch.testing.assert_close(values, stored["weight"] * stored["scale"])
    else:
        again = _outputs(stored["weight"], stored["multiplier"], stored["scale"])
        torch.testing.assert_close(values, again)


def test_what_a_dial_does_is_what_its_dead_zones_would_do():
    model = tiny()
    rows = measure_dials(model, IDS, 4.0)
    assert [row["dial"] for row in rows] == pytest.approx([1, 2**0.5, 2, 2**1.5, 4])
    spikes = [module for module in model.modules() if hasattr(module, "dial")]
    assert {place.dial for place in spikes} == {1.0}
    for row in rows:
        for place in spikes:
            place.dead_zone.data.fill_(max(0.5, np.float32(row["dial"]) * np.float32(0.5)))
        with torch.no_grad():
            features, _, events = model.features(IDS[:, :-1])
            assert model.mean_nll(features, IDS[:, 1:]).item() == row["nats"]
        shares = [(read == 0).float().mean().item() for read in events]
        assert sum(shares) / len(shares) == row["zeros"]
    assert rows[-1]["zeros"] > 0.4 > 0.2 > rows[0]["zeros"]


def test_a_range_of_dials_that_is_none_leaves_the_model_as_it_was():
    model = tiny()
    with pytest.raises(RequestError, match="dial must be from 1 to 16"):
        measure_dials(model, IDS, 17.0)
    assert {module.dial for module in model.modules() if hasattr(module, "dial")} == {1.0}
