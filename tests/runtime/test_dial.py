"""The dial of a sequence: its range, what it silences, and that it is part of the state."""

import numpy as np
import pytest
from tiny import tiny_egru_package
from tiny_spikegpt import spikegpt_config, spikegpt_tensors, tiny_spikegpt_package
from tiny_spikingbrain import (
    spikingbrain_config,
    spikingbrain_tensors,
    tiny_spikingbrain_package,
)

from spiketrain.runtime import PackageError, StateError, load_model
from spiketrain.runtime.errors import RequestError
from spiketrain.runtime.package import write_package

IDS = np.random.default_rng(2).integers(0, 101, 40)
DRIVEN = {"neuron_position": "projections"}
MAKERS = {
    "spikegpt": lambda path, **more: tiny_spikegpt_package(path, **DRIVEN, **more),
    "spikingbrain": tiny_spikingbrain_package,
    "spikingbrain float32": lambda path, **more: tiny_spikingbrain_package(
        path, weights="float32", spikes=True, **more
    ),
}


def loaded(path, kind, max_dial=4.0):
    return load_model(MAKERS[kind](path / "model", with_tokenizer=False, max_dial=max_dial))


@pytest.fixture(params=MAKERS)
def model(tmp_path, request):
    return loaded(tmp_path, request.param)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_dial_of_one_gives_the_bits_of_a_package_without_one(tmp_path, kind):
    with_dial = loaded(tmp_path / "with", kind)
    without = loaded(tmp_path / "without", kind, None)
    states = with_dial.new_state(1.0), without.new_state()
    logits = [
        model.forward(state, IDS) for model, state in zip((with_dial, without), states, strict=True)
    ]
    assert logits[0].tobytes() == logits[1].tobytes()
    assert (states[0].events, states[0].neurons) == (states[1].events, states[1].neurons)
    plain = states[1].arrays()
    for name, array in states[0].arrays().items():
        assert name == "dial" or array.tobytes() == plain[name].tobytes()
    assert with_dial.state_nbytes > without.state_nbytes  # nothing is added without a dial
    assert "dial" not in plain


def test_a_dial_silences_more_the_further_it_is_turned(model):
    events, logits = [], []
    for dial in (1.0, 1.2, 1.5, 2.0):
        state = model.new_state(dial)
        logits.append(model.forward(state, IDS))
        events.append(state.events)
    assert sorted(events, reverse=True) == events
    assert len(set(events)) == 4
    assert len({row.tobytes() for row in logits}) == 4


@pytest.mark.parametrize("dial", [1.25, 3.0])
@pytest.mark.parametrize("weights", ["int8", "int4-go", "bfloat16"])
def test_a_spikingbrains_dial_multiplies_its_dead_zones_of_at_least_a_half(tmp_path, dial, weights):
    fields = {"weights": weights, "spikes": True}
    config = spikingbrain_config(max_dial=4.0, **fields)
    tensors = spikingbrain_tensors(config)
    write_package(tmp_path / "dial", config, tensors)
    for name, value in tensors.items():
        if name.endswith("spikes"):
            value[1] = np.float32(dial) * max(value[1], np.float32(0.5))
    write_package(tmp_path / "zones", spikingbrain_config(**fields), tensors)
    turned, zones = load_model(tmp_path / "dial"), load_model(tmp_path / "zones")
    found = turned.forward(turned.new_state(dial), IDS)
    assert found.tobytes() == zones.forward(zones.new_state(), IDS).tobytes()


def test_a_spikegpts_dial_leaves_counts_that_reach_it(tmp_path):
    """Counts recorded with a dial are those without one where no input lies between."""
    config = spikegpt_config(max_dial=4.0, **DRIVEN)
    write_package(tmp_path / "model", config, spikegpt_tensors(config))
    model = load_model(tmp_path / "model")
    plain = model.record(model.new_state(), IDS[:1])
    turned = model.record(model.new_state(2.0), IDS[:1])
    first = next(iter(plain))  # what comes later reads what was silenced here
    wanted = np.where(np.abs(plain[first]) >= 2, plain[first], 0)
    np.testing.assert_array_equal(turned[first], wanted)
    assert (wanted != plain[first]).any()
    assert wanted.any()


def test_a_dial_is_stored_copied_and_kept_with_its_state(model):
    state = model.new_state(2.7)
    assert state.dial == 2.7
    assert state.arrays()["dial"][0] == np.float32(2.7)
    model.forward(state, IDS[:9])
    twin, stored = state.copy(), model.state_from_bytes(state.to_bytes())
    assert twin.dial == stored.dial == state.dial
    wanted = model.forward(state, IDS[9:])
    assert model.forward(twin, IDS[9:]).tobytes() == wanted.tobytes()
    assert model.forward(stored, IDS[9:]).tobytes() == wanted.tobytes()
    other = model.new_state()
    model.forward(other, IDS[:9])
    assert model.forward(other, IDS[9:]).tobytes() != wanted.tobytes()


def test_a_state_may_be_turned_between_tokens(model):
    state, parts = model.new_state(2.0), []
    for dial, part in ((2.0, IDS[:9]), (1.0, IDS[9:20]), (1.5, IDS[20:])):
        model.set_dial(state, dial)
        parts.append(model.forward(state, part))
        assert state.dial == dial
    for dial, part, logits in ((1.0, IDS[:9], parts[0]), (2.0, IDS[:9], parts[0])):
        same = model.forward(model.new_state(dial), part).tobytes() == logits.tobytes()
        assert same == (dial == 2.0)
    for bad in (0.5, 4.5, float("nan")):
        with pytest.raises(RequestError, match="dial must be from 1 to 4"):
            model.set_dial(state, bad)
    assert state.dial == 1.5


def test_a_model_may_be_loaded_with_a_dial_for_all_its_states(model):
    turned = load_model(model.path, dial=3.0)
    assert turned.new_state().dial == 3.0
    assert turned.new_state(1.0).dial == 1.0
    wanted = model.forward(model.new_state(3.0), IDS)
    assert turned.forward(turned.new_state(), IDS).tobytes() == wanted.tobytes()
    with pytest.raises(RequestError, match="dial must be from 1 to 4, got 5"):
        load_model(model.path, dial=5)


@pytest.mark.parametrize(
    "dial", [0.999, 0, -2.0, 4.01, float("nan"), float("inf"), 1e300, "2", True]
)
def test_a_dial_out_of_range_is_refused(model, dial):
    with pytest.raises(RequestError, match="dial must be from 1 to 4, got"):
        model.new_state(dial)


@pytest.mark.parametrize("most", [1.1, 1.2, 1.3, 15.9])
def test_the_end_of_the_range_is_in_it_however_it_is_rounded(tmp_path, most):
    model = loaded(tmp_path, "spikegpt", most)
    state = model.new_state(most)
    assert model.max_dial == state.dial == most
    assert model.state_from_bytes(state.to_bytes()).dial == most
    with pytest.raises(RequestError, match="dial must be from 1 to"):
        model.new_state(most + 1e-5)


@pytest.mark.parametrize("dial", [0.5, 4.5, np.nan, np.inf])
def test_a_stored_dial_out_of_range_is_refused(model, dial):
    state = model.new_state()
    state.arrays()["dial"][0] = dial
    with pytest.raises(StateError, match=r"state: dial\[0\] must be in \[1, 4\], got"):
        model.state_from_bytes(state.to_bytes())


@pytest.mark.parametrize("make", [tiny_egru_package, tiny_spikegpt_package, MAKERS["spikegpt"]])
def test_packages_without_the_field_have_a_dial_of_one_alone(tmp_path, make):
    model = load_model(make(tmp_path / "model", with_tokenizer=False))
    assert model.max_dial == model.new_state().dial == model.new_state(1).dial == 1.0
    with pytest.raises(RequestError, match=r"dial must be 1: this model has no other, got 1\.5"):
        model.new_state(1.5)


@pytest.mark.parametrize("value", [1, 1.0, 0.5, 16.5, "2", True, None, [2]])
@pytest.mark.parametrize(
    ("make", "tensors", "fields"),
    [(spikegpt_config, spikegpt_tensors, DRIVEN), (spikingbrain_config, spikingbrain_tensors, {})],
)
def test_a_bad_range_is_refused(tmp_path, make, tensors, fields, value):
    config = make(**fields)
    good = tensors(config)
    config["spiketrain"]["max_dial"] = value
    with pytest.raises(PackageError, match="max_dial must be a number above 1 and at most 16, got"):
        write_package(tmp_path / "model", config, good)


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (tiny_spikegpt_package, {}),
        (tiny_spikegpt_package, {"neuron_position": "none"}),
        (tiny_spikingbrain_package, {"weights": "float32"}),
    ],
)
def test_a_range_where_no_counts_are_made_is_refused(tmp_path, make, fields):
    with pytest.raises(PackageError, match="max_dial must be left out where no spike counts"):
        make(tmp_path / "model", with_tokenizer=False, max_dial=2.0, **fields)


def test_a_range_of_an_egru_is_refused(tmp_path):
    config = load_model(tiny_egru_package(tmp_path / "model")).config
    config["spiketrain"]["max_dial"] = 2.0
    with pytest.raises(PackageError, match="max_dial must be left out where no spike counts"):
        write_package(tmp_path / "other", config, {})
