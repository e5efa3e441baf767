"""Spike counts that the runtime records are those that its products read."""

import numpy as np
import pytest
import tiny
import tiny_spikegpt
import tiny_spikingbrain
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrain import runtime
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.package import read_package

MAKERS = {
    "int8": lambda path: tiny_spikingbrain.tiny_spikingbrain_package(path),
    "int4": lambda path: tiny_spikingbrain.tiny_spikingbrain_package(
        path, "int4-go", head="int4-gi", parallel=True
    ),
    "float": lambda path: tiny_spikingbrain.tiny_spikingbrain_package(path, "float32", spikes=True),
    "published": lambda path: tiny_spikingbrain.tiny_spikingbrain_package(
        path, "int8", down="float32", down_proj="published"
    ),
    "experts": lambda path: tiny_spikingbrain.tiny_spikingbrain_package(
        path, num_experts=3, num_shared_experts=2, moe_intermediate_size=20, dense_layers=[0]
    ),
    "spikegpt": lambda path: tiny_spikegpt.tiny_spikegpt_package(
        path, neuron_position="projections", binary_embedding=False, pre_ffn=True
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: runtime.load_model(make(folder / name)) for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_events_are_those_of_the_counters_and_the_state_is_that_of_steps(models, name):
    model, ids = models[name], np.random.default_rng(3).integers(0, 256, 30)
    state, twin = model.new_state(), model.new_state()
    model.reset_activity()
    for token in ids:
        model.step([twin], [token])
    expected = model.activity()
    model.reset_activity()
    counts = model.record(state, ids)
    assert model.activity() == expected
    assert state.to_bytes() == twin.to_bytes()
    assert (state.position, state.events) == (30, twin.events)
    assert {place: array.shape for place, array in counts.items()} == {
        place: (30, size) for place, size in model.records.items()
    }
    left = dict(counts)
    layers = sorted((*expected.readout, *expected.layers), key=lambda layer: -len(layer.name))
    for layer in layers:
        own = [place for place in left if f"{place}.".startswith(f"{layer.name}.")]
        assert sum(int((left.pop(place) != 0).sum()) for place in own) == layer.events
    assert not left
    assert any(np.abs(array).max() > 1 for array in counts.values())


def test_counts_are_the_rounded_inputs_of_the_first_place(models):
    model = models["float"]
    package = read_package(model.path)
    row = package.tensors["embeddings.weight"][7].astype(np.float64)
    row = row / np.sqrt((row * row).mean() + 1e-6) * package.tensors["layers.0.attn_norm.weight"]
    k, dead_zone = package.tensors["layers.0.attn.spikes"]
    z = row / (np.abs(row).mean() / k)
    expected = np.where(np.abs(z) < dead_zone, 0, np.rint(z))
    found = model.record(model.new_state(), [7])["layers.0.attn.qkv"][0]
    assert np.array_equal(found, expected)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 256), max_size=12), st.integers(0, 12))
def test_cutting_a_text_changes_no_count(models, ids, cut):
    for name in ("int4", "spikegpt"):
        model = models[name]
        whole = model.record(model.new_state(), ids)
        state = model.new_state()
        parts = [model.record(state, ids[:cut]), model.record(state, ids[cut:])]
        for place, counts in whole.items():
            assert np.array_equal(counts, np.concatenate([part[place] for part in parts]))


@pytest.mark.parametrize("make", [
    tiny.tiny_egru_package,
    tiny_spikegpt.tiny_spikegpt_package,
    lambda path: tiny_spikingbrain.tiny_spikingbrain_package(path, "float32"),
])  # fmt: skip
def test_models_without_spike_counts_record_none(tmp_path, make):
    model = runtime.load_model(make(tmp_path / "p"))
    assert not model.records
    with pytest.raises(SpiketrainError, match="must make spike counts before products"):
        model.record(model.new_state(), [1])


def test_the_network_checks_how_many_counts_there_are(models):
    model = models["int8"]
    size, state = sum(model.records.values()), model.new_state()
    logits, activity = np.empty((1, 257), np.float32), np.zeros((1, 3), np.int64)
    for wrong in (size - 1, size + 1):
        with pytest.raises(ValueError, match="counts must be as many"):
            model._network.record(
                state.buffer, np.array([1]), logits, activity, np.zeros(wrong, np.int32)
            )
    model.step([state], [1])  # and records no more
