"""A package and a state of format version 1, committed once, must load for ever as they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from spiketrain import runtime

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def recorded():
    return json.loads((DATA / "package-v1-results.json").read_text())


@pytest.fixture(scope="module", params=[1, 2])
def model(request):
    return runtime.load_model(DATA / "package-v1", threads=request.param)


def expected_rows(recorded):
    return {
        int(at): np.array([float.fromhex(x) for x in row], np.float32)
        for at, row in recorded["logits"].items()
    }


def test_a_version_1_package_still_loads(model, recorded):
    assert model.fingerprint == recorded["fingerprint"]
    assert model.tokenizer.decode(model.tokenizer.encode(recorded["text"])) == recorded["text"]


def test_a_version_1_package_still_gives_the_same_bits(model, recorded):
    state = model.new_state()
    model.forward(state, model.tokenizer.encode(recorded["text"]))
    logits = model.forward(state, model.tokenizer.encode(recorded["more"]))
    for at, row in expected_rows(recorded).items():
        np.testing.assert_array_equal(logits[at], row)
    assert logits.argmax(axis=1).tolist() == recorded["greedy"]


def test_a_version_1_state_still_continues_with_the_same_bits(model, recorded):
    blob = (DATA / "package-v1-state.bin").read_bytes()
    state = model.state_from_bytes(blob)
    assert state.position == len(model.tokenizer.encode(recorded["text"]))
    assert state.to_bytes() == blob
    expected = expected_rows(recorded)
    for at, token in enumerate(model.tokenizer.encode(recorded["more"])):
        logits = model.step([state], [token])[0]
        if at in expected:
            np.testing.assert_array_equal(logits, expected[at])
