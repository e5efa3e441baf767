"""Published SpikingBrain directories: sharded, read knowingly, refused whole."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from spiketrain.lm.checkpoint import CheckpointError, UpstreamChoices, read_checkpoint  # noqa: E402

DATA = Path(__file__).parent.parent / "data" / "spikingbrain"
IDS = torch.arange(40)[None] * 11 % 199


def directory(folder, name="fp", change=None, shards=1, **settings):
    """A copy of a golden directory with changed tensors and settings, in several files."""
    tensors = load_file(DATA / name / "model.safetensors")
    for key, value in (change or {}).items():
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    names = sorted(tensors)
    places = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        own = {key: tensors[key].contiguous() for key in names[i::shards]}
        save_file(own, folder / file)
        places |= dict.fromkeys(own, file)
    if shards > 1:
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    stated = json.loads((DATA / name / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(stated))
    return folder


@torch.no_grad()
def logits(found):
    return found.model(IDS).logits


def test_shards_and_half_precision_load(tmp_path):
    tensors = load_file(DATA / "fp" / "model.safetensors")
    half = {name: value.bfloat16() for name, value in tensors.items()}
    found = read_checkpoint(directory(tmp_path, change=half, shards=3))
    assert found.model.dtype == torch.float32
    whole = found.model.state_dict()
    assert all(torch.equal(whole[name], value.float()) for name, value in half.items())


def test_what_is_decided_is_said():
    said = "\n".join(read_checkpoint(DATA / "fp").decisions)
    assert "no spikes" in said
    assert "window_keys 17: sliding_window + 1, as in training and prefill" in said
    found = read_checkpoint(DATA / "w8_g32", UpstreamChoices(window_keys=16, down_proj="spiked"))
    said = "\n".join(found.decisions)
    assert "window_keys 16: chosen by --window-keys" in said
    assert "down_proj spiked: chosen by --down-proj" in said
    assert "groups of 32" in said
    config = found.model.config
    assert (config.window_keys, config.down_proj, config.gate) == (16, "spiked", "merged")


def test_the_group_size_is_that_of_the_scales_whatever_the_config_says(tmp_path):
    found = read_checkpoint(directory(tmp_path, "w8_g32", quant_weight_group_size=128))
    assert found.model.config.quant_weight_group_size == 32
    assert any("groups of 128" in line for line in found.decisions)
    assert torch.equal(logits(found), logits(read_checkpoint(DATA / "w8_g32")))


def test_codes_outside_int8_are_kept_and_counted(tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    weight = load_file(DATA / "w8_g32" / "model.safetensors")[name]
    before = read_checkpoint(DATA / "w8_g32")
    weight[3, 5] += 9.0
    weight[7, 40] -= 9.0
    found = read_checkpoint(directory(tmp_path, "w8_g32", {name: weight}))
    codes = [found.model.model.layers[1].mlp.up_proj.codes().flatten(1)[i] for i in (3, 7)]
    assert codes[0][5].abs() > 128
    assert codes[1][40].abs() > 128
    counts = [int(f.decisions[-1].split()[0]) for f in (before, found)]
    assert counts[1] - counts[0] == 2
    assert "weight codes are outside int8 and kept" in found.decisions[-1]


def test_the_published_down_projection_ignores_its_scales(tmp_path):
    scales = "model.layers.0.mlp.down_proj.weight_quantizer.scales"
    lacking = directory(tmp_path, "w8_g32", {scales: None})
    assert torch.equal(logits(read_checkpoint(lacking)), logits(read_checkpoint(DATA / "w8_g32")))
    with pytest.raises(CheckpointError, match=f"{scales} is missing"):
        read_checkpoint(lacking, UpstreamChoices(down_proj="spiked"))


def test_every_wrong_key_is_listed_at_once(tmp_path):
    change = {
        "model.norm.weight": None,
        "model.layers.2.attn.gk_proj.1.weight": torch.zeros(64, 8),
        "model.layers.9.attn.q_proj.weight": torch.zeros(2),
    }
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(directory(tmp_path, change=change))
    for text in (
        "model.norm.weight is missing",
        "model.layers.2.attn.gk_proj.1.weight is (64, 8), expected (64, 16)",
        "model.layers.9.attn.q_proj.weight is unknown",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_short_conv": True}, "use_short_conv must be False, got True"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'swish', got 'gelu'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings must be False"),
        ({"num_attention_heads": 3}, "multiple of num_key_value_heads 2, got 3"),
        ({"attn_layers": [4]}, "attn_layers must be different layers"),
        ({"attn_layers": 3}, "attn_layers must be a list of layers, got 3"),
        ({"hidden_size": "128"}, r"hidden_size must be a whole number in .*, got '128'"),
        ({"hidden_size": 128.0}, r"hidden_size must be a whole number in .*, got 128.0"),
        ({"num_hidden_layers": 10**7}, r"num_hidden_layers must be a whole number in \[1, 256\]"),
        ({"norm_eps": "x"}, r"norm_eps must be a number in .*, got 'x'"),
        ({"rope_theta": "x"}, r"rope_theta must be a number in .*, got 'x'"),
        ({"sliding_window": None}, "config.json: sliding_window is missing"),
        ({"intermediate_size": None}, "config.json: intermediate_size is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling must be None"),
        ({"enable_spike": True}, "enable_spike must be False, got True"),
    ],
)
def test_a_config_that_the_model_cannot_have_is_refused(tmp_path, settings, message):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(directory(tmp_path, **settings))


def test_the_gates_fields_are_the_configs(tmp_path):
    fields = {"gate_logit_normalizer": 4, "gate_low_rank_dim": 8}
    change = {}
    for name, value in load_file(DATA / "fp" / "model.safetensors").items():
        if ".gk_proj.0." in name:
            change[name] = value[:8]
        elif name.endswith(".gk_proj.1.weight"):
            change[name] = value[:, :8]
    found = read_checkpoint(directory(tmp_path, change=change, **fields))
    assert found.model.config.gate_rank == 8
    own = logits(found)
    found.model.config.gate_logit_normalizer = 16
    assert (logits(found) - own).abs().max() > 1e-3


def test_weights_that_are_no_floats_are_refused(tmp_path):
    name = "model.layers.0.attn.q_proj.weight"
    folder = directory(tmp_path, change={name: torch.zeros(128, 128, dtype=torch.int32)})
    with pytest.raises(CheckpointError, match=f"{name} must be one of .*, got I32"):
        read_checkpoint(folder)


def test_broken_shards_are_refused(tmp_path):
    folder = directory(tmp_path, shards=2)
    first = folder / "model-00001-of-00002.safetensors"
    content = first.read_bytes()
    first.write_bytes(content[:100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_checkpoint(folder)
    first.unlink()
    with pytest.raises(CheckpointError, match="lacks model-00001-of-00002"):
        read_checkpoint(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x"}}')
    with pytest.raises(CheckpointError, match="weight_map must name files beside it"):
        read_checkpoint(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold an object weight_map"):
        read_checkpoint(folder)


def test_options_of_other_checkpoints_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="semantics says nothing about this kind"):
        read_checkpoint(DATA / "fp", UpstreamChoices(semantics="rwkv4"))
    spikegpt = DATA.parent / "spikegpt" / "v77_l3.pth"
    with pytest.raises(CheckpointError, match="window_keys says nothing about this kind"):
        read_checkpoint(spikegpt, UpstreamChoices(window_keys=5))
