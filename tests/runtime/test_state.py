"""States stored and taken back: damaged, hostile and foreign blobs."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_egru_package

from spiketrain.runtime import StateError, load_model
from spiketrain.runtime.state import _HEADER


@pytest.fixture(scope="module", params=["int8", "float32", "bfloat16"])
def model(request, tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("m") / "m", request.param))


@pytest.fixture
def state(model):
    state = model.new_state()
    model.forward(state, [1, 2, 3])
    return state


def sealed(blob):
    """`blob` with the checksum that fits its content."""
    return bytes(blob[:-32]) + hashlib.sha256(blob[:-32]).digest()


def with_bytes(blob, at, data):
    return sealed(blob[:at] + data + blob[at + len(data) :])


def test_a_stored_state_comes_back_whole(model, state):
    twin = model.state_from_bytes(memoryview(state.to_bytes()))
    assert twin.to_bytes() == state.to_bytes()
    assert twin.position == 3
    assert all(np.array_equal(a, twin.arrays()[name]) for name, a in state.arrays().items())


def test_views_write_through(model):
    state = model.new_state()
    state.arrays()["cell.1"][2] = 0.5
    assert state.copy().arrays()["cell.1"][2] == 0.5


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_flipped_bit_goes_unnoticed(model, data):
    state = model.new_state()
    model.forward(state, [4, 5])
    blob = bytearray(state.to_bytes())
    at = data.draw(st.integers(0, 8 * len(blob) - 1))
    blob[at // 8] ^= 1 << at % 8
    with pytest.raises(StateError, match="state: "):
        model.state_from_bytes(blob)


@given(blob=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_no_random_bytes_are_a_state(model, blob):
    with pytest.raises(StateError, match="state: "):
        model.state_from_bytes(blob)


def test_cut_and_padded_blobs_are_refused(model, state):
    blob = state.to_bytes()
    for wrong in (b"", blob[:10], blob[:-1], blob + b"\0", blob[: _HEADER.size]):
        with pytest.raises(StateError, match="bytes"):
            model.state_from_bytes(wrong)


def test_each_part_of_the_header_is_checked_by_name(model, state):
    blob = state.to_bytes()
    for at, data, message in [
        (0, b"X", "must begin with"),
        (8, struct.pack("<H", 2), "format version must be 1, got 2"),
        (10, struct.pack("<H", 7), "header must have"),
        (12, b"lstm", "family must be 'egru', got b'lstm'"),
        (32, b"\0" * 32, "fingerprint must be sha256:"),
        (64, b"\xff" * 8, "position must be at most"),
        (72, struct.pack("<Q", 1 << 60), "bytes of arrays"),
    ]:
        with pytest.raises(StateError, match=message):
            model.state_from_bytes(with_bytes(blob, at, data))


@pytest.mark.parametrize("value", [1.0000001, -1.5, np.nan, np.inf, -np.inf, 3e38])
def test_cells_out_of_bounds_are_refused(model, state, value):
    state.arrays()["cell.1"][5] = value
    with pytest.raises(StateError, match=r"cell\.1\[5\] must be in \[-1, 1\]"):
        model.state_from_bytes(state.to_bytes())


@pytest.mark.parametrize("value", [1.0, -1.0, 0.0])
def test_cells_at_the_bound_are_taken(model, state, value):
    state.arrays()["cell.1"][5] = value
    assert model.state_from_bytes(state.to_bytes()).arrays()["cell.1"][5] == value


def test_outputs_out_of_bounds_are_refused(model, state):
    output = state.arrays()["output.2"]
    for value in (-1, -32768) if output.dtype == np.int16 else (-0.1, 1.1, np.nan):
        output[0] = value
        with pytest.raises(StateError, match=r"output\.2\[0\] must be in \[0, "):
            model.state_from_bytes(state.to_bytes())


def test_a_state_of_another_package_is_refused(model, tmp_path, state):
    other = load_model(tiny_egru_package(tmp_path / "m", seed=9))
    with pytest.raises(StateError, match="fingerprint must be"):
        other.state_from_bytes(state.to_bytes())


def test_what_is_not_bytes_is_refused(model):
    with pytest.raises(StateError, match="must be bytes, got str"):
        model.state_from_bytes("state")
