"""The EGRU family: Spec, network against its scalar twin, counters."""

import itertools
import json

import numpy as np
import pytest
from tiny import byte_tokenizer, egru_config, tiny_egru_package

from spiketrain.runtime import PackageError, SpiketrainError, load_model
from spiketrain.runtime.families import egru
from spiketrain.runtime.kernels.networks import egru as network
from spiketrain.runtime.kernels.reference import egru as reference
from spiketrain.runtime.package import read_package

VARIANTS = list(itertools.product(["int8", "float32", "bfloat16"], [True, False], [True, False]))
SIZES = (7, 9, 6)


def small_package(tmp_path, weights, tied, projection, **more):
    return tiny_egru_package(
        tmp_path / "model",
        weights,
        tied,
        projection,
        vocab=13,
        with_tokenizer=False,
        hidden_sizes=SIZES,
        embedding_size=6,
        **more,
    )


def networks(path, monkeypatch, table_bytes):
    """The compiled network and its twin on the same arrays."""
    package = read_package(path)
    compiled = egru.Model(package.spec, package.tensors, 1, table_bytes)
    with monkeypatch.context() as patch:
        patch.setattr(network, "Network", reference.Network)
        twin = egru.Model(package.spec, package.tensors, 1, table_bytes)
    assert isinstance(twin._network, reference.Network)
    return package.spec, compiled, twin


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "tied", "projection"), VARIANTS)
@pytest.mark.parametrize("table_bytes", [0, 1 << 20])
def test_a_network_is_its_twin_in_state_logits_and_counters(
    tmp_path, monkeypatch, weights, tied, projection, table_bytes
):
    path = small_package(tmp_path, weights, tied, projection, zoneout=0.1)
    spec, compiled, twin = networks(path, monkeypatch, table_bytes)
    found = [play(model, spec, np.random.default_rng(3)) for model in (compiled, twin)]
    for ours, theirs in zip(*found, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert np.array_equal(compiled.counters, twin.counters)
    assert compiled.counters[:3, 1].min() > 0


def play(model, spec, rng):
    """Steps of three sequences, then a run of 40 tokens of one; everything that came out."""
    states = [np.zeros(spec.state_nbytes, np.uint8) for _ in range(3)]
    results = []
    for _ in range(4):
        logits = np.full((3, spec.vocab_size), np.nan, np.float32)
        activity = np.zeros((3, 3), np.int64)
        model.step(states, rng.integers(0, spec.vocab_size, 3), logits, activity)
        results += [logits, activity]
    for rows in (40, 1, 0):
        logits = np.full((rows, spec.vocab_size), np.nan, np.float32)
        activity = np.zeros((1, 3), np.int64)
        model.forward(states[0], rng.integers(0, spec.vocab_size, 40), logits, activity)
        results += [logits, activity]
    return results + states


def test_a_wide_layer_whose_sums_overflow_int32_stays_exact(tmp_path, monkeypatch):
    """600 units at full scale: steps of one and of many sequences agree."""
    path = tiny_egru_package(
        tmp_path / "m", vocab=11, with_tokenizer=False, hidden_sizes=(600,), embedding_size=600
    )
    model = load_model(path)
    states = [model.new_state() for _ in range(3)]
    for number, state in enumerate(states):
        state.arrays()["output.0"][:] = 32767 if number != 1 else 3
    alone = [model.step([state.copy()], [5])[0] for state in states]
    assert np.array_equal(model.step(states, [5, 5, 5]), alone)


def test_counters_are_what_a_count_by_hand_gives(tmp_path):
    """One sequence, token by token: rows of active inputs, and the table's row."""
    model = load_model(small_package(tmp_path, "int8", True, False))
    state = model.new_state()
    arrays = state.arrays()
    events = touched = silent = 0
    for token in range(12):
        before = [int(np.count_nonzero(arrays[f"output.{layer}"])) for layer in range(3)]
        model.step([state], [token])
        after = [int(np.count_nonzero(arrays[f"output.{layer}"])) for layer in range(3)]
        events += sum(after)
        touched += 3 * SIZES[0] * 4 + after[2] * 13
        touched += sum(active * 3 * size for active, size in zip(before, SIZES, strict=True))
        touched += after[0] * 3 * SIZES[1] + after[1] * 3 * SIZES[2]
        silent += sum(SIZES) - sum(before) + sum(SIZES) - sum(after)
    activity = model.activity()
    assert activity.tokens == 12
    assert activity.events == state.events == events
    assert activity.neurons == state.neurons == 12 * sum(SIZES)
    assert activity.weight_bytes_touched == state.weight_bytes == touched
    assert activity.silent_rows == silent
    dense = 6 * 3 * 7 + 7 * 3 * 7 + 7 * 3 * 9 + 9 * 3 * 9 + 9 * 3 * 6 + 6 * 3 * 6 + 6 * 13
    assert activity.weight_bytes_dense == activity.macs_dense == 12 * dense
    assert activity.firing_rate == events / (12 * sum(SIZES))
    assert activity.weight_bytes_touched_per_token == touched / 12
    assert [layer.name for layer in activity.layers] == ["layers.0", "layers.1", "layers.2"]
    assert [layer.name for layer in activity.readout] == ["head"]
    model.reset_activity()
    assert model.activity().tokens == model.activity().neurons == 0


def test_state_bytes_are_the_stated_formula(tmp_path):
    for weights, width in (("int8", 6), ("float32", 8), ("bfloat16", 8)):
        model = load_model(small_package(tmp_path / weights, weights, True, False))
        assert model.state_nbytes == width * sum(SIZES) == model.new_state().nbytes
        assert f"= {model.state_nbytes} bytes" in model.spec.state_formula
        arrays = model.new_state().arrays()
        assert sum(array.nbytes for array in arrays.values()) == model.state_nbytes
        model.forward(state := model.new_state(), np.arange(200) % 13)
        assert state.nbytes == model.state_nbytes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number"),
        ({"vocab_size": True}, "vocab_size must be a whole number"),
        ({"embedding_size": 1 << 20}, "embedding_size must be a whole number"),
        ({"hidden_sizes": []}, "hidden_sizes must have 1 to 64 layers, got 0"),
        ({"hidden_sizes": 5}, "hidden_sizes must be a list"),
        ({"hidden_sizes": [4, "x"]}, r"hidden_sizes\[1\] must be a whole number"),
        ({"hidden_sizes": [4, 5]}, "must end with embedding_size 6"),
        ({"projection": 1}, "projection must be true or false"),
        ({"zoneout": 1.0}, r"zoneout must be a number in \[0, 1\)"),
        ({"zoneout": float("nan")}, r"zoneout must be a number in \[0, 1\)"),
        ({"carry": "cell"}, "carry must be one of"),
        ({"layers": 3}, "layers is unknown"),
        ({"model_type": "gru"}, "model_type must be 'egru'"),
    ],
)
def test_a_bad_config_is_refused_with_field_rule_and_value(change, message):
    config = egru_config("int8", True, False, 13, SIZES, 6)
    with pytest.raises(ValueError, match=message):
        egru.Spec.from_config({**config, **change})


def test_a_missing_field_is_named():
    config = egru_config("int8", True, False, 13, SIZES, 6)
    del config["hidden_sizes"]
    with pytest.raises(ValueError, match="hidden_sizes is missing"):
        egru.Spec.from_config(config)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([13], r"token_ids\[0\] must be in \[0, 13\), got 13"),
        ([0, -1], r"token_ids\[1\] must be in \[0, 13\), got -1"),
        ([0.5], "token_ids must be a flat sequence of whole numbers"),
        ([[1, 2]], "token_ids must be a flat sequence of whole numbers"),
    ],
)
def test_bad_token_ids_are_refused_and_leave_the_state_alone(tmp_path, tokens, message):
    model = load_model(small_package(tmp_path, "int8", True, False))
    state = model.new_state()
    with pytest.raises(SpiketrainError, match=message):
        model.forward(state, tokens)
    assert state.position == 0
    assert not state.buffer.any()


def test_misuse_of_states_is_refused(tmp_path):
    model = load_model(small_package(tmp_path, "int8", True, False))
    other = load_model(small_package(tmp_path / "other", "int8", True, False, seed=1))
    state = model.new_state()
    with pytest.raises(SpiketrainError, match="one of them twice"):
        model.step([state, state], [1, 2])
    with pytest.raises(SpiketrainError, match="one token a state, got 1 for 2"):
        model.step([state, model.new_state()], [1])
    with pytest.raises(SpiketrainError, match="state must belong to the model"):
        model.step([other.new_state()], [1])
    with pytest.raises(SpiketrainError, match="at least one token with last_only"):
        model.forward(state, [], last_only=True)
    assert model.forward(state, []).shape == (0, 13)
    assert model.step([], []).shape == (0, 13)


def test_a_tokenizer_with_more_pieces_than_the_model_has_tokens_is_refused(tmp_path):
    path = tiny_egru_package(tmp_path / "m", vocab=257)
    larger = json.dumps(byte_tokenizer(300))
    (path / "tokenizer.json").write_text(larger)
    with pytest.raises(PackageError, match="at most the model's 257 tokens, has 300"):
        load_model(path)


def test_threads_and_table_bytes_are_checked(tmp_path):
    path = small_package(tmp_path, "int8", True, False)
    with pytest.raises(SpiketrainError, match=r"threads must be a whole number in \[1, 256\]"):
        load_model(path, threads=0)
    with pytest.raises(SpiketrainError, match="table_bytes must be a whole number"):
        load_model(path, table_bytes=-1)
