"""A package of bfloat16 weights is one of float32 with rounded weights, to the last bit."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain import runtime  # noqa: E402
from spiketrain.lm.export import export_model  # noqa: E402
from spiketrain.lm.families import egru, spikegpt  # noqa: E402
from spiketrain.lm.quantize import bits_of_bfloat16  # noqa: E402
from spiketrain.runtime.formats import widened  # noqa: E402
from spiketrain.runtime.package import read_package  # noqa: E402

VOCAB = 90
IDS = np.random.default_rng(3).integers(0, VOCAB, 64)
EGRU = {"embedding_size": 32, "hidden_sizes": [48, 40, 32], "initial_preactivation": 1.5}
GPT = {"hidden_size": 64, "num_hidden_layers": 3}
MODELS = {
    "egru": lambda: egru.Model(egru.Config(vocab_size=VOCAB, **EGRU)),
    "egru untied projection": lambda: egru.Model(
        egru.Config(vocab_size=VOCAB, projection=True, tie_word_embeddings=False, **EGRU)
    ),
    "spikegpt": lambda: spikegpt.Model(spikegpt.Config(vocab_size=VOCAB, **GPT)),
    "spikegpt projections": lambda: spikegpt.Model(
        spikegpt.Config(
            vocab_size=VOCAB, neuron_position="projections", binary_embedding=False, **GPT
        )
    ),
    "spikegpt none": lambda: spikegpt.Model(
        spikegpt.Config(vocab_size=VOCAB, neuron_position="none", binary_embedding=False, **GPT)
    ),
}


@torch.no_grad()
def round_matrices(model):
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.copy_(parameter.to(torch.bfloat16))


@pytest.mark.parametrize("name", MODELS)
def test_a_bfloat16_package_is_a_float32_one_of_rounded_weights(tmp_path, name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    export_model(model, tmp_path / "half", weights="bfloat16")
    round_matrices(model)
    export_model(model, tmp_path / "rounded", weights="bfloat16")
    export_model(model, tmp_path / "whole", weights="float32")
    found = {}
    for kind in ("half", "rounded", "whole"):
        loaded = runtime.load_model(tmp_path / kind, threads=2)
        state = loaded.new_state()
        logits = loaded.forward(state, IDS)
        touched = loaded.activity().total.weight_bytes_touched
        found[kind] = loaded, logits, [a.tobytes() for a in state.arrays().values()], touched
    assert np.array_equal(found["half"][1], found["whole"][1])
    assert np.array_equal(found["rounded"][1], found["whole"][1])
    assert found["half"][2] == found["whole"][2]
    fidelity = [found[kind][0].config["spiketrain"]["fidelity"] for kind in found]
    assert fidelity == ["weight-only", "exact", "exact"]
    assert found["half"][3] < found["whole"][3]


def test_values_are_rounded_half_to_even():
    values = torch.tensor([1.0, 1.00390625, 1.01171875, -2.0078125, 3e-40])
    wanted = np.float32([1.0, 1.0, 1.015625, -2.0, 0.0])
    found = widened(bits_of_bfloat16(values).numpy())
    assert np.allclose(found, wanted, rtol=0, atol=1e-39)


def test_a_weight_that_bfloat16_makes_infinite_is_refused(tmp_path):
    model = MODELS["egru"]()
    with torch.no_grad():
        model.layers[0].kernel[0, 0] = 3.4e38
    with pytest.raises(ValueError, match="must be finite"):
        export_model(model, tmp_path / "p", weights="bfloat16")


def test_parts_of_a_package_are_bits(tmp_path):
    model = MODELS["egru untied projection"]()
    export_model(model, tmp_path / "p", weights="bfloat16")
    tensors = read_package(tmp_path / "p").tensors
    for name in ("layers.1.input", "projection", "head", "embedding"):
        assert tensors[f"{name}.weight"].dtype == np.uint16
        assert f"{name}.scale" not in tensors
    head = model.head.weight.detach().t().to(torch.bfloat16).float().numpy()
    assert np.array_equal(widened(tensors["head.weight"]), head)
