"""Whatever numbers a package or a state holds: it is refused by name, or it can be gone on with."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from package_kinds import KINDS, write

from spiketrain.runtime import load_model
from spiketrain.runtime.errors import PackageError, StateError
from spiketrain.runtime.package import compute_fingerprint, read_package
from spiketrain.runtime.tensor_file import write_tensors

NUMBERS = st.sampled_from(
    [0.0, -0.0, 1e-45, -1e-39, 1e-30, 1e-3, 0.1, 1 / 3, 0.5, 1.0, -1.0, 16.0, 100.0, -1e4, 1e9,
     1e12, -1e15, 1e20, -1e20, 1e38, -1e38, 3.4028235e38, -3.4028235e38]
)  # fmt: skip
BITS = st.integers(0, 2**32 - 1).map(lambda bits: float(np.uint32(bits).view(np.float32)))
relaxed = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def spoil(data, array, numbers):
    """Put one number in one place of an array, in all from there on, or everywhere."""
    flat = array.reshape(-1)
    if not flat.size:
        return
    at = data.draw(st.integers(0, flat.size - 1))
    place = data.draw(st.sampled_from([at, slice(at, None), slice(None)]))
    if flat.dtype == np.float32:
        flat[place] = data.draw(numbers)
    else:
        limits = np.iinfo(flat.dtype)
        edges = st.sampled_from([limits.min, limits.max, 0, 1])
        flat[place] = data.draw(edges | st.integers(limits.min, limits.max))


@pytest.fixture(scope="module", params=KINDS)
def package(request, tmp_path_factory):
    return read_package(write(tmp_path_factory.mktemp("p") / "p", request.param))


@pytest.fixture(scope="module")
def model(package):
    return load_model(package.path)


def rewritten(package, path, tensors):
    """The package with other tensors and their fingerprint, though no writer would write it."""
    config = json.loads(json.dumps(package.config))
    config["spiketrain"]["fingerprint"] = compute_fingerprint(config, tensors)
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").unlink(missing_ok=True)
    write_tensors(path / "model.safetensors", tensors)


def loaded_or_refused(path):
    try:
        return load_model(path), ""
    except PackageError as error:
        return None, str(error)


@relaxed
@given(data=st.data())
def test_any_tensor_makes_a_model_or_is_refused_by_file_and_name(package, tmp_path, data):
    tensors = {name: np.array(array) for name, array in package.tensors.items()}
    names = data.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=3))
    for name in names:
        spoil(data, tensors[name], NUMBERS | BITS | st.sampled_from([np.inf, np.nan]))
    rewritten(package, tmp_path / "p", tensors)
    model, said = loaded_or_refused(tmp_path / "p")
    if model is None:
        assert str(tmp_path / "p" / "model.safetensors") in said
        spoilt = [name.removesuffix("_row").removesuffix("_column") for name in names]
        assert any(name in said for name in spoilt)
        return
    state = model.new_state()
    model.forward(state, [1, 2, 3])
    assert state.position == 3


@relaxed
@given(data=st.data())
def test_any_state_that_is_taken_can_be_gone_on_with_and_stored_again(model, data):
    state = model.new_state()
    if data.draw(st.booleans()):
        model.forward(state, list(range(20)))
    arrays = state.arrays()
    for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=3)):
        spoil(data, arrays[name], NUMBERS | BITS)
    try:
        state = model.state_from_bytes(state.to_bytes())
    except StateError:
        return
    if "position" in arrays and state.arrays()["position"][0] > 2**31 - 100:
        return  # near the last position that there is, see below
    for tokens in ([5], [6, 7, 8], list(range(9, 40))):
        logits = model.forward(state, tokens)
        assert np.isfinite(logits).all()
        state = model.state_from_bytes(state.to_bytes())


def test_a_state_at_the_last_count_of_tokens_stays_there(model):
    state = model.new_state()
    state.position = 2**63 - 1
    again = model.state_from_bytes(state.to_bytes())
    model.forward(again, [1, 2])
    assert model.state_from_bytes(again.to_bytes()).position == 2**63 - 1


def test_a_state_at_the_last_position_of_a_window_says_that_it_cannot_go_on(tmp_path):
    model = load_model(write(tmp_path / "p", "spikingbrain float32"))
    state = model.new_state()
    state.arrays()["position"][0] = 2**31
    again = model.state_from_bytes(state.to_bytes())
    assert np.isfinite(model.forward(again, [1, 2])).all()
    with pytest.raises(StateError, match=r"position\[0\] must be in \[0, 2.14748e\+09\], got 214"):
        again.check()


def test_a_state_says_that_it_cannot_be_stored(model):
    state = model.new_state()
    state.check()
    array = next(a for a in state.arrays().values() if a.dtype == np.float32 and a.size > 1)
    array.reshape(-1)[1] = np.nan
    with pytest.raises(StateError, match=r"\[1\] must be in .* got nan"):
        state.check()
