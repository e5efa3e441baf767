"""Official SpikingBrain checkpoints give the official logits, in one pass and token by token."""

import numpy as np
import pytest
from golden_spikingbrain import GOLDEN, golden_package

from spiketrain.runtime import load_model

CASES = {
    "fp": ("fp", "logits_full", {}),
    "fp, w keys": ("fp", "logits_step", {"window_keys": 16}),
    "W8": ("w8_g32", "logits_full_f64", {}),
    "W8, w keys": ("w8_g32", "logits_step_f64", {"window_keys": 16}),
    "W8, spiked down": ("w8_g32", "logits_full_spiked_down_f64", {"down_proj": "spiked"}),
    "W8, spiked down, w keys": (
        "w8_g32",
        "logits_step_spiked_down_f64",
        {"down_proj": "spiked", "window_keys": 16},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_official_logits_are_reproduced(tmp_path, case):
    name, wanted, fields = CASES[case]
    golden = np.load(GOLDEN / f"{name}.npz")
    model = load_model(golden_package(tmp_path / "model", name, **fields))
    ids = golden["tokens"]
    whole = model.forward(model.new_state(), ids)
    state = model.new_state()
    single = np.concatenate([model.step([state], [token]) for token in ids])
    assert whole.tobytes() == single.tobytes()
    np.testing.assert_allclose(whole, golden[wanted], atol=1e-4)


def test_one_linear_state_serves_all_queries_of_a_key_head(tmp_path):
    golden = np.load(GOLDEN / "fp.npz")
    model = load_model(golden_package(tmp_path / "model", "fp", window_keys=16))
    state = model.new_state()
    model.forward(state, golden["tokens"])
    for layer in (0, 2):
        ours, theirs = state.arrays()[f"state.{layer}"], golden[f"gla_state_l{layer}"]
        assert ours.shape == (2, 32, 32)  # half as many as theirs
        np.testing.assert_allclose(np.repeat(ours, 2, axis=0), theirs, atol=1e-4)


def test_a_bfloat16_window_is_close_and_half_as_large(tmp_path):
    golden = np.load(GOLDEN / "fp.npz")
    models = [
        load_model(golden_package(tmp_path / cache, "fp", window_cache=cache))
        for cache in ("float32", "bfloat16", "int8")
    ]
    sizes = [model.new_state().arrays()["keys.1"].nbytes for model in models]
    assert sizes == [4 * sizes[2], 2 * sizes[2], sizes[2]]
    for model, near in zip(models, (1e-4, 0.02, 0.05), strict=True):
        logits = model.forward(model.new_state(), golden["tokens"])
        np.testing.assert_allclose(logits, golden["logits_full"], atol=near)
