"""The SpikingBrain family: Spec, variants of layers, counters, state, bad packages."""

import numpy as np
import pytest
from tiny_spikingbrain import (
    spikingbrain_config,
    spikingbrain_tensors,
    tiny_spikingbrain_package,
)

from spiketrain.runtime import PackageError, StateError, load_model
from spiketrain.runtime.families.spikingbrain import Spec
from spiketrain.runtime.package import write_package


def package(path, **fields):
    return tiny_spikingbrain_package(path / "model", with_tokenizer=False, **fields)


def spec_of(*arguments, **fields):
    return Spec.from_config(spikingbrain_config(*arguments, **fields))


def write_and_load(path, config, tensors):
    write_package(path, config, tensors)
    return load_model(path)


def test_corrections_are_what_wider_codes_would_give(tmp_path):
    """Codes beyond int8, kept in two parts, against plain products of the whole codes."""
    name = "layers.0.mlp.gate_proj"
    model = load_model(
        package(
            tmp_path,
            weights="int8-gi16",
            num_hidden_layers=1,
            attn_layers=[],
            corrections={name: 200},
            vocab=23,
        )
    )
    config = spikingbrain_config(
        "int8-gi16", num_hidden_layers=1, attn_layers=[], corrections={name: 200}, vocab=23
    )
    tensors = spikingbrain_tensors(config)
    codes = tensors[f"{name}.weight"].astype(np.int64)
    rows = np.repeat(np.arange(36), np.diff(tensors[f"{name}.extra_row"]))
    codes[rows, tensors[f"{name}.extra_column"]] += tensors[f"{name}.extra"]
    assert (np.abs(codes) > 127).any()
    gates = (codes * np.repeat(tensors[f"{name}.scale"], 16, axis=0)[:36]).astype(np.float32)
    plain = spikingbrain_config(
        "float32", num_hidden_layers=1, attn_layers=[], spikes=True, vocab=23
    )
    plain["spiketrain"]["events"] = "counts"
    floats = {
        key: value
        for key, value in tensors.items()
        if not key.rpartition(".")[2].startswith("extra")
    }
    for key in [key for key in floats if key.endswith(".scale")]:
        weight, scale = floats[f"{key[:-6]}.weight"], floats.pop(key)
        if key == "embeddings.scale":
            scale = scale[:, None]
        elif scale.ndim == 2:
            scale = np.repeat(scale, 16, axis=0)[: len(weight)]
        floats[f"{key[:-6]}.weight"] = weight.astype(np.float32) * scale
    floats[f"{name}.weight"] = gates
    write_package(tmp_path / "plain", plain, floats)
    wide = load_model(tmp_path / "plain")
    ids = np.arange(20)
    ours, theirs = (m.forward(m.new_state(), ids) for m in (model, wide))
    close = np.abs(ours - theirs).max(1) < 0.05 * np.abs(theirs).max()
    assert close.mean() > 0.7  # a count next to a tie may flip, and the head reads int8 inputs


def test_only_the_routed_expert_is_read(tmp_path):
    fields = {"num_experts": 4, "num_shared_experts": 1, "moe_intermediate_size": 24}
    model = load_model(package(tmp_path, weights="float32", dense_layers=[0], **fields))
    state = model.new_state()
    model.forward(state, [1])
    layers = {layer.name: layer for layer in model.activity().layers}
    assert layers["layers.1.mlp"].macs_effective == 36 * 4 + 2 * 3 * 36 * 24
    assert layers["layers.0.mlp"].macs_effective == 3 * 36 * 50


def test_what_other_experts_hold_changes_nothing(tmp_path):
    fields = {"num_experts": 3, "num_shared_experts": 0, "moe_intermediate_size": 24}
    config = spikingbrain_config("float32", **fields)
    tensors = spikingbrain_tensors(config)
    for layer in range(3):
        router = tensors[f"layers.{layer}.mlp.router.weight"]
        router[:] = 0  # all equal: the first is taken, with a third of its output
    write_package(tmp_path / "a", config, tensors)
    for name in [name for name in tensors if ".experts.2." in name]:
        tensors[name] = np.full_like(tensors[name], 7.0)
    write_package(tmp_path / "b", config, tensors)
    a, b = (load_model(tmp_path / name) for name in "ab")
    ids = np.arange(30)
    assert a.forward(a.new_state(), ids).tobytes() == b.forward(b.new_state(), ids).tobytes()


def test_counters_are_what_a_count_by_hand_gives(tmp_path):
    model = load_model(package(tmp_path, weights="int8"))
    state = model.new_state()
    model.forward(state, np.arange(30))
    activity = model.activity()
    narrow = 36 * 32 + 2 * 36 * 16 + 32 * 36
    gates = 2 * (36 * 16 + 16 * 16)
    matrices = 3 * (narrow + 3 * 36 * 50) + gates + 36 * 101
    assert activity.macs_dense == 30 * matrices
    assert activity.neurons == 30 * 3 * (36 + 32 + 36 + 50)
    assert 0 < activity.events < activity.neurons
    assert (state.events, state.neurons) == (activity.events, activity.neurons)
    feed = next(layer for layer in activity.layers if layer.name == "layers.0.mlp")
    assert feed.macs_effective + feed.acs_effective < feed.macs_dense
    assert 0 < feed.weight_bytes_touched <= 3 * 36 * 50
    assert activity.readout[0].macs_effective == 30 * 36 * 101


def test_state_does_not_grow_and_its_bytes_are_the_stated_formula(tmp_path):
    model = load_model(package(tmp_path, weights="int8"))
    state = model.new_state()
    before = state.nbytes
    model.forward(state, np.arange(500) % 101)
    assert state.nbytes == before == model.state_nbytes
    assert f"= {model.state_nbytes} bytes" in model.spec.state_formula
    keys = 2 * 192 * 2 * 8 * 4
    assert model.state_nbytes == 64 + 2 * 4 * 2 * 8 * 8 + keys


def test_the_published_size_has_the_published_number_of_parameters_and_state():
    fields = {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 18944,
        "sliding_window": 4096, "attn_layers": list(range(1, 28, 2)),
    }  # fmt: skip
    spec = spec_of("int4-go", vocab=152064, window_cache="bfloat16", **fields)
    assert 7.6e9 < spec.num_parameters < 7.7e9
    linear = 14 * 4 * 128 * 128 * 4
    window = 14 * 2 * (4096 + 128 + 64 - 64) * 4 * 128 * 2
    assert linear == 3_670_016
    assert spec.state_nbytes == 64 + linear + window


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("position", 0, -1, r"position\[0\] must be in \[0, "),
        ("state.0", (1, 2, 3), np.nan, r"state.0\[83\] must be in"),
        ("keys.1", (0, 0, 0, 3), 0x7F80, r"keys.1\[3\] must be in \[0, 65535\], got 32640"),
    ],
)
def test_a_state_out_of_bounds_is_refused(tmp_path, name, at, value, message):
    model = load_model(package(tmp_path, window_cache="bfloat16"))
    state = model.new_state()
    model.forward(state, [1, 2, 3])
    assert model.state_from_bytes(state.to_bytes()).to_bytes() == state.to_bytes()
    state.arrays()[name][at] = value
    with pytest.raises(StateError, match=message):
        model.state_from_bytes(state.to_bytes())


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads 3"),
        ({"attn_layers": [3]}, r"attn_layers must be different layers in \[0, 3\), got \[3\]"),
        ({"attn_layers": [1, 1]}, "attn_layers must be different layers"),
        ({"attn_layers": 1}, "attn_layers must be a list"),
        ({"full_attn_layers": [0]}, "full_attn_layers must be among attn_layers"),
        ({"gate": "none"}, "gate must be one of"),
        ({"window_cache": "int4"}, "window_cache must be one of"),
        ({"attention_spikes": True}, "window_cache must be 'int8' with attention_spikes"),
        ({"norm_eps": "x"}, "norm_eps must be a number in"),
        ({"corrections": {"lm": 3}}, "corrections must be of int8 matrices, got 'lm'"),
        ({"corrections": {"lm_head": 0}}, "corrections of lm_head must be a whole number"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings must be false"),
        ({"layers": 3}, "layers is unknown"),
        ({"rotary_scaling": 8.0}, "rotary_scaling must have rope_type 'linear' or 'llama3', got 8"),
        ({"rotary_scaling": {"rope_type": "yarn"}}, "must have rope_type 'linear' or 'llama3'"),
        ({"rotary_scaling": {"rope_type": "linear"}}, "of linear must have factor, got"),
        ({"rotary_scaling": LLAMA3 | {"factor": 0}}, "factor must be above 0 and at most 1e[+]09"),
        ({"rotary_scaling": LLAMA3 | {"factor": True}}, "rotary_scaling.factor must be above 0"),
        ({"rotary_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "must be below high_freq_factor 4"),
        ({"model_type": "gla_swa"}, "model_type must be 'spikingbrain'"),
    ],
)
def test_a_bad_config_is_refused_with_field_rule_and_value(change, message):
    with pytest.raises(ValueError, match=message):
        Spec.from_config({**spikingbrain_config(), **change})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"body": "int4-gi"}, "weights.body must be float32, bfloat16, int8, int8-gi<group>"),
        ({"body": "int8-gi0"}, "weights.body must be"),
        ({"down": "float32"}, r"weights.down must be one of \('int8',\)"),
        ({"head": "int4-go"}, "weights.head must be one of"),
        ({"embedding": "int4-gi"}, "weights.embedding must be one of"),
        ({"gate": "int8"}, "must have a format for each of"),
    ],
)
def test_formats_that_do_not_go_together_are_refused(weights, message):
    config = spikingbrain_config()
    config["spiketrain"]["weights"] |= weights
    with pytest.raises(ValueError, match=message):
        Spec.from_config(config)


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("layers.0.attn.spikes", 0, 17.0, r"must be in \[0, 16\], got 17"),
        ("layers.0.attn.spikes", 0, 0.0, "k must be at least 0.001, got 0"),
        ("layers.0.mlp.gate_proj.extra_row", 3, 90, "extra rows must ascend"),
        (
            "layers.0.mlp.gate_proj.extra_column",
            2,
            50,
            r"must ascend in each row and lie in \[0, 50",
        ),
        ("layers.0.mlp.gate_proj.extra_column", 1, 0, "must ascend in each row"),
        ("norm.weight", 5, np.inf, "must be finite"),
    ],
)
def test_bad_tensors_are_refused(tmp_path, name, at, value, message):
    config = spikingbrain_config("int8-gi16", corrections={"layers.0.mlp.gate_proj": 180})
    tensors = spikingbrain_tensors(config)
    tensors[name][at] = value
    with pytest.raises(PackageError, match=message):
        write_and_load(tmp_path / "p", config, tensors)


def test_infinite_bfloat16_is_refused(tmp_path):
    config = spikingbrain_config("bfloat16")
    tensors = spikingbrain_tensors(config)
    tensors["lm_head.weight"][3, 4] = 0xFF80
    with pytest.raises(PackageError, match=r"'lm_head.weight' at \(3, 4\) must be finite"):
        write_package(tmp_path / "p", config, tensors)
