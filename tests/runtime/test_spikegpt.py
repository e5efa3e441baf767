"""The SpikeGPT family: Spec, network against its scalar twin, counters, state."""

import numpy as np
import pytest
from tiny_spikegpt import spikegpt_config, spikegpt_tensors, tiny_spikegpt_package

from spiketrain.runtime import PackageError, StateError, load_model
from spiketrain.runtime.families import spikegpt
from spiketrain.runtime.kernels import products
from spiketrain.runtime.kernels.networks import spikegpt as rwkv
from spiketrain.runtime.kernels.reference import products as reference_products
from spiketrain.runtime.kernels.reference import spikegpt as reference_rwkv
from spiketrain.runtime.package import read_package, write_package

KINDS = [
    {"weights": "float32"},
    {"weights": "float32", "binary_embedding": False, "neuron_position": "none"},
    {"weights": "float32", "neuron_position": "projections"},
    {"weights": "bfloat16"},
    {"weights": "bfloat16", "head": "float32", "binary_embedding": False, "pre_ffn": True},
    {"weights": "bfloat16", "neuron_position": "projections", "binary_embedding": False},
    {"weights": "float32", "head": "bfloat16", "neuron_position": "projections"},
    {"weights": "int8", "pre_ffn": True},
    {"weights": "int8", "head": "int4", "binary_embedding": False, "lif_tau": 1.7},
    {"weights": "int8", "neuron_position": "projections", "binary_embedding": False},
    {"weights": "int4"},
    {"weights": "int4", "head": "int8", "neuron_position": "projections", "pre_ffn": True},
    {"weights": "int8", "neuron_position": "projections", "max_dial": 2.0},
    {"weights": "float32", "neuron_position": "projections", "max_dial": 2.0},
]
SMALL = {"hidden_size": 20, "num_hidden_layers": 2, "intermediate_size": 36, "vocab": 17}


def package(path, **fields):
    return tiny_spikegpt_package(path / "model", with_tokenizer=False, **fields)


def networks(path, monkeypatch):
    """The compiled network and its twin, each on matrices of its own kind."""
    found = read_package(path)
    compiled = spikegpt.Model(found.spec, found.tensors, 1, 0)
    with monkeypatch.context() as patch:
        patch.setattr(rwkv, "Network", reference_rwkv.Network)
        patch.setattr(products, "Dense", reference_products.Dense)
        patch.setattr(products, "Sparse", reference_products.Sparse)
        twin = spikegpt.Model(found.spec, found.tensors, 1, 0)
    assert isinstance(twin._network, reference_rwkv.Network)
    return compiled, twin


@pytest.mark.slow
@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_a_network_is_its_twin_in_state_logits_and_counters(tmp_path, monkeypatch, fields):
    path = package(tmp_path, **SMALL, **fields)
    compiled, twin = networks(path, monkeypatch)
    model = load_model(path)
    found = [play(network, model, np.random.default_rng(3)) for network in (compiled, twin)]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert np.array_equal(compiled.counters, twin.counters)
    assert_all_fire(model, compiled, fields.get("neuron_position") != "none")


def assert_all_fire(model, network, have_neurons):
    """Every layer that has units has events."""
    for name, units, events in zip(
        model.spec.layer_names, *network.counters[:-1, :2].T.tolist(), strict=True
    ):
        assert (events > 0) == (units > 0) == (have_neurons or name.endswith(".value")), name


def play(network, model, rng):
    """Steps of three sequences, then runs of one; everything that came out."""
    more = (model.max_dial - 1.0) / 3.0
    states = [model.new_state(1.0 + number * more).buffer for number in (1, 2, 0)]
    results = []
    for _ in range(2):
        logits = np.full((3, model.vocab_size), np.nan, np.float32)
        activity = np.zeros((3, 3), np.int64)
        network.step(states, rng.integers(0, model.vocab_size, 3), logits, activity)
        results += [logits, activity]
    for rows, length in ((5, 5), (1, 4), (0, 2)):
        logits = np.full((rows, model.vocab_size), np.nan, np.float32)
        activity = np.zeros((1, 3), np.int64)
        tokens = rng.integers(0, model.vocab_size, length)
        network.forward(states[0], tokens, logits, activity)
        results += [logits, activity]
    return results + states


def test_counters_of_a_float32_model_are_what_a_count_by_hand_gives(tmp_path):
    model = load_model(package(tmp_path, weights="float32", vocab=101))
    state = model.new_state()
    model.forward(state, np.arange(30))
    activity = model.activity()
    matrices = 3 * (5 * 40 * 40 + 2 * 40 * 72) + 40 * 101
    assert activity.macs_dense == 30 * matrices
    assert activity.weight_bytes_dense == 4 * 30 * matrices
    value = [layer for layer in activity.layers if layer.name.endswith(".value")]
    assert [layer.name for layer in value] == [f"blocks.{i}.ffn.value" for i in range(3)]
    silent = sum(layer.silent_rows for layer in value)
    assert silent == 3 * 30 * 72 - sum(layer.events for layer in value) > 0
    assert activity.macs_effective == 30 * matrices - 40 * silent
    spikes = sum(layer.events for layer in activity.layers if layer not in value)
    assert activity.acs_effective == spikes > 0
    dense = 4 * (matrices - 3 * 72 * 40)
    assert state.weight_bytes == 30 * dense + 4 * 40 * sum(layer.events for layer in value)
    assert activity.weight_bytes_touched < state.weight_bytes  # 30 tokens shared one pass
    assert (state.events, state.neurons) == (activity.events, activity.neurons)


def test_spike_counts_of_one_are_additions(tmp_path):
    model = load_model(package(tmp_path, neuron_position="projections", binary_embedding=False))
    model.forward(model.new_state(), np.arange(30))
    head = model.activity().readout[0]
    assert 0 < head.events < head.neurons == 30 * 40
    assert head.silent_rows == head.neurons - head.events
    assert head.macs_effective + head.acs_effective == head.events * model.vocab_size
    assert head.acs_effective > 0


@pytest.mark.parametrize(("position", "vectors"), [("residual", 7), ("none", 5)])
def test_state_bytes_are_the_stated_formula(tmp_path, position, vectors):
    model = load_model(package(tmp_path, neuron_position=position))
    assert model.state_nbytes == 4 * vectors * 3 * 40 == model.new_state().nbytes
    assert f"= {model.state_nbytes} bytes" in model.spec.state_formula
    arrays = model.new_state().arrays()
    assert sum(array.nbytes for array in arrays.values()) == model.state_nbytes
    assert all((arrays[f"exponent.{i}"] == np.float32(-1e38)).all() for i in range(3))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("membrane1.1", 5.0, r"membrane1.1\[3\] must be in \[-1e\+15, "),
        ("denominator.0", -1.0, r"denominator.0\[3\] must be in \[0, "),
        ("att_shift.2", np.inf, r"att_shift.2\[3\] must be in"),
        ("exponent.2", np.nan, r"exponent.2\[3\] must be in"),
    ],
)
def test_a_state_out_of_bounds_is_refused(tmp_path, name, value, message):
    model = load_model(package(tmp_path))
    state = model.new_state()
    model.forward(state, [1, 2, 3])
    assert model.state_from_bytes(state.to_bytes()).to_bytes() == state.to_bytes()
    state.arrays()[name][3] = value
    with pytest.raises(StateError, match=message):
        model.state_from_bytes(state.to_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number"),
        ({"hidden_size": 1 << 20}, "hidden_size must be a whole number"),
        ({"num_hidden_layers": 257}, "num_hidden_layers must be a whole number"),
        ({"pre_ffn": 1}, "pre_ffn must be true or false"),
        ({"rescale": 6}, "rescale must be 0"),
        ({"rescale": False}, "rescale must be 0"),
        ({"neuron_position": "head"}, "neuron_position must be one of"),
        ({"lif_tau": 0.5}, "lif_tau must be a number in"),
        ({"lif_threshold": 0}, "lif_threshold must be a number in"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps must be a number in"),
        ({"layers": 3}, "layers is unknown"),
        ({"model_type": "rwkv"}, "model_type must be 'spikegpt'"),
    ],
)
def test_a_bad_config_is_refused_with_field_rule_and_value(change, message):
    with pytest.raises(ValueError, match=message):
        spikegpt.Spec.from_config({**spikegpt_config(), **change})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"body": "int3"}, "weights.body must be one of"),
        ({"body": "int4"}, "events must be 'fixed12'"),
        ({"head": "float32"}, r"weights.head must be one of \('int8', 'int4'\)"),
        ({"embedding": "int8"}, "weights.embedding must be 'bits'"),
        ({"recurrent": "int8"}, "must have a format for each of"),
    ],
)
def test_formats_that_do_not_go_together_are_refused(weights, message):
    config = spikegpt_config()
    config["spiketrain"]["weights"] |= weights
    with pytest.raises(ValueError, match=message):
        spikegpt.Spec.from_config(config)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("blocks.0.ffn.value.multiplier", 16, r"must be in \[1, 15\], got 16"),
        ("blocks.1.ffn.value.scale", 0, "finite and above 0"),
        ("blocks.1.ffn.value.threshold_scale", 1e-3, r"must be in \[0.00219733, 1.04858e\+06\]"),
    ],
)
def test_tensors_out_of_bounds_are_refused(tmp_path, name, value, message):
    config = spikegpt_config("int4", neuron_position="projections")
    tensors = spikegpt_tensors(config)
    tensors[name].flat[0] = value
    with pytest.raises(PackageError, match=message):
        write_package(tmp_path / "p", config, tensors)
    config = spikegpt_config("int8")
    tensors = spikegpt_tensors(config)
    tensors["blocks.1.lif2.threshold"][7] = 0
    with pytest.raises(PackageError, match=r"lif2\.threshold' at"):
        write_package(tmp_path / "p", config, tensors)


def test_the_published_size_has_the_published_number_of_parameters_and_state():
    fields = {"hidden_size": 768, "num_hidden_layers": 18, "intermediate_size": 3072}
    spec = spikegpt.Spec.from_config(spikegpt_config("int8", vocab=50277, **fields))
    neurons = 4 * 18 * 768  # thresholds and input scales
    assert spec.num_parameters - neurons == 2 * 50277 * 768 + 18 * (13 * 768**2 + 11 * 768) + 3072
    assert spec.state_nbytes == 387_072
