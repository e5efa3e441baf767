"""The runtime against outputs of the official EGRU implementation (tests/data/egru)."""

from pathlib import Path

import numpy as np
import pytest
from tiny import egru_config

from spiketrain.runtime import load_model
from spiketrain.runtime.kernels import products
from spiketrain.runtime.kernels.vectors import neurons
from spiketrain.runtime.package import write_package

DATA = Path(__file__).parents[1] / "data" / "egru"
LAYERS = 3


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "language_model.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "model"
    config = egru_config("float32", True, False, 101, (64, 64, 48), 48)
    names = [name for name in golden if name.startswith(("layers.", "head."))]
    write_package(path, config, {name: golden[name] for name in names})
    return load_model(path)


def run(model, tokens, chunk):
    """Logits, outputs and cells after each token; the cell is zeroed before every `chunk`."""
    state = model.new_state()
    arrays = state.arrays()
    logits, outputs, cells = [], [], []
    for position, token in enumerate(tokens):
        if chunk and position % chunk == 0:
            for layer in range(LAYERS):
                arrays[f"cell.{layer}"][:] = 0
        logits.append(model.step([state], [token])[0])
        outputs.append([arrays[f"output.{layer}"].copy() for layer in range(LAYERS)])
        cells.append([arrays[f"cell.{layer}"].copy() for layer in range(LAYERS)])
    return np.array(logits), outputs, cells


def test_events_values_cells_and_logits_are_those_of_the_official_model(model, golden):
    logits, outputs, cells = run(model, golden["tokens"][:-1], None)
    for layer in range(LAYERS):
        y = np.array([output[layer] for output in outputs])
        cell = np.array([c[layer] for c in cells])
        assert np.array_equal(y != 0, golden[f"event.{layer}"] != 0)
        np.testing.assert_allclose(y, golden[f"y.{layer}"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(cell, golden[f"cell.{layer}"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4, rtol=0)


def test_zeroing_the_cell_every_chunk_gives_the_published_protocol(model, golden):
    logits, outputs, _ = run(model, golden["tokens"][:-1], int(golden["bptt"]))
    for layer in range(LAYERS):
        fired = np.array([output[layer] for output in outputs]) != 0
        assert np.array_equal(fired, golden[f"event_chunked.{layer}"] != 0)
    log_probs = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_probs, golden["log_probs_chunked"], atol=1e-4, rtol=0)


def test_forward_gives_what_steps_give(model, golden):
    tokens = golden["tokens"][:-1]
    assert np.array_equal(model.forward(model.new_state(), tokens), run(model, tokens, None)[0])


@pytest.mark.parametrize(
    ("start", "y", "cell", "event"),
    [
        (False, "y", "cell_after_reset", "event"),
        (True, "y_from_y0", "cell_from_y0", "event_from_y0"),
    ],
)
def test_one_layer_on_dense_input_is_the_official_layer(start, y, cell, event):
    with np.load(DATA / "layer.npz") as arrays:
        layer = dict(arrays)
    for b in range(2):
        output = layer["y0"][b].copy() if start else np.zeros(40, np.float32)
        state = np.zeros(40, np.float32)
        for t in range(64):
            x_sum, y_sum = (np.full(120, np.nan, np.float32) for _ in range(2))
            product(layer, "input", layer["x"][b, t], x_sum)
            product(layer, "recurrent", output, y_sum)
            neurons.egru_float32(x_sum, y_sum, layer["threshold"], 0.0, state, output)
            assert np.array_equal(output != 0, layer[event][b, t] != 0)
            np.testing.assert_allclose(output, layer[y][b, t], atol=1e-5, rtol=0)
            np.testing.assert_allclose(state, layer[cell][b, t], atol=1e-5, rtol=0)


def product(layer, name, vector, out):
    weight, bias = layer[f"{name}.weight"], layer[f"{name}.bias"]
    matrix = products.Sparse("float32", weight, out.size, bias=bias)
    matrix.graded(vector[None], out[None], products.Pool(1))
