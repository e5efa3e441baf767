"""Rotation slowed for long texts: as transformers does it, in torch, packages and conversions."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402

from spiketrain import runtime  # noqa: E402
from spiketrain.lm.conversion.transformer import (  # noqa: E402
    from_transformer,
    spikingbrain_from_transformer,
)
from spiketrain.lm.conversion.transformer_settings import transformer_config  # noqa: E402
from spiketrain.lm.export import export_model  # noqa: E402
from spiketrain.lm.families.spikingbrain import Config, Model  # noqa: E402
from spiketrain.lm.shards import Shards  # noqa: E402
from spiketrain.runtime.families.spikingbrain.rotary import frequencies  # noqa: E402

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
KINDS = pytest.mark.parametrize("scaling", [LLAMA3, LINEAR], ids=["llama3", "linear"])
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
IDS = torch.arange(60)[None] * 7 % 61


@KINDS
@pytest.mark.parametrize("size", [16, 128])
def test_frequencies_are_those_of_transformers(scaling, size):
    original = {"original_max_position_embeddings": 8192} if scaling is LLAMA3 else {}
    scaling = scaling | original
    config = transformers.LlamaConfig(
        **SIZES | {"head_dim": size}, rope_parameters=scaling | {"rope_theta": 5e5}
    )
    wanted, strength = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu")
    assert strength == 1.0
    found = frequencies(5e5, size // 2, scaling)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5)
    assert (found < frequencies(5e5, size // 2)).any()


@KINDS
def test_a_copy_of_a_slowed_llama_gives_its_logits(scaling, tmp_path):
    torch.manual_seed(0)
    rope = scaling | {"rope_theta": 1e4}
    config = transformers.LlamaConfig(**SIZES, rope_parameters=rope, initializer_range=0.2)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    copy = from_transformer(Shards(tmp_path), settings)
    plain = from_transformer(Shards(tmp_path), settings | {"rope_parameters": None})
    with torch.no_grad():
        wanted = model(IDS).logits
        torch.testing.assert_close(copy(IDS).logits, wanted, atol=2e-5, rtol=1e-4)
        assert (plain(IDS).logits - wanted).abs().max() > 0.1  # so it matters
    student = spikingbrain_from_transformer(copy)
    assert student.config.rotary_scaling == scaling


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", ["rope_type", "type"])
def test_settings_of_every_age_are_read(key, kind):
    given = {kind if name == "rope_type" else name: value for name, value in LLAMA3.items()}
    config = transformer_config({"model_type": "llama", "rope_theta": 5e5} | SIZES | {key: given})
    assert (config.rotary_scaling, config.rope_theta) == (LLAMA3, 5e5)


@KINDS
def test_a_package_gives_the_logits_of_torch(scaling, tmp_path):
    torch.manual_seed(0)
    fields = SIZES | {"initializer_range": 0.2, "sliding_window": 40, "attn_layers": [0, 1]}
    model = Model(Config(**fields, rope_theta=1e4, rotary_scaling=scaling)).eval()
    export_model(model, tmp_path / "package")
    package = runtime.load_model(tmp_path / "package")
    assert package.config["rotary_scaling"] == scaling
    found = package.forward(package.new_state(), IDS[0].tolist())
    with torch.no_grad():
        wanted = model(IDS).logits[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    model.save_pretrained(tmp_path / "run")
    assert Config.from_pretrained(tmp_path / "run").rotary_scaling == scaling
