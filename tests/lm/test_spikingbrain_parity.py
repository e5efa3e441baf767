"""SpikingBrain in the runtime against the torch model that it was exported from."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from spiketrain import runtime  # noqa: E402
from spiketrain.lm.dial import set_dial  # noqa: E402
from spiketrain.lm.export import export_model  # noqa: E402
from spiketrain.lm.families.spikingbrain import Config, Model  # noqa: E402

VARIANTS = {
    "float": {},
    "all linear": {"attn_layers": [], "gate": "merged"},
    "all windows": {"attn_layers": [0, 1], "window_keys": 3, "num_sink_tokens": 2},
    "spikes": {"spikes": True, "dead_zone": 1.2},
    "raw down": {"spikes": True, "down_proj": "published"},
    "76B": {
        "parallel": True,
        "full_attn_layers": [1],
        "max_position_embeddings": 64,
        "gate": "tied",
        "feature_map": "sigmoid",
        "num_sink_tokens": 3,
        "num_experts": 3,
        "dense_layers": [0],
        "moe_intermediate_size": 24,
    },
    "Qwen3": {"head_dim": 8, "qk_norm": True, "tie_word_embeddings": True},
}
IDS = [int(x) for x in torch.arange(64) * 7 % 50]


@pytest.mark.parametrize(
    ("variant", "dial"), [(name, 1.0) for name in VARIANTS] + [("spikes", 1.7), ("raw down", 2.5)]
)
def test_float_packages_give_the_logits_of_torch(variant, dial, tmp_path):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "sliding_window": 12,
        "initializer_range": 0.15,
    }
    model = Model(Config(**(sizes | VARIANTS[variant]))).eval()
    set_dial(model, dial)
    export_model(model, tmp_path / "package", max_dial=4.0 if model.config.spikes else None)
    package = runtime.load_model(tmp_path / "package", dial=dial)
    found = torch.from_numpy(package.forward(package.new_state(), IDS).copy())
    with torch.no_grad():
        wanted = model(torch.tensor([IDS])).logits[0]
    off = (found - wanted).abs().amax(1)
    # a count next to a rounding tie may flip, and is seen by all later tokens
    assert (off < 1e-4).float().mean() >= (0.5 if model.config.spikes else 1.0)
    assert off[:8].max() < 1e-4
