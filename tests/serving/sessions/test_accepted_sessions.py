"""Whatever a session's blob holds: it is refused, or it can be gone on with and stored again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from package_kinds import KINDS, VOCAB, write

from spiketrain.runtime import load_model
from spiketrain.serving.engine.starting_point import Start, latest
from spiketrain.serving.sessions.blob import BlobDamaged, check_end, from_blob, to_blob

LOGITS = st.sampled_from([0.0, -0.0, 1e-45, 1.0, -1e38, 3.4e38, -np.inf, np.inf, np.nan])
SPOILT = st.sampled_from([0.0, 1.0, -1.0, 1e-45, 1e9, -1e15, 1e20, 3.4e38, -3.4e38, np.nan])


@pytest.fixture(scope="module", params=KINDS)
def model(request, tmp_path_factory):
    return load_model(write(tmp_path_factory.mktemp("p") / "p", request.param))


def left(data, model):
    """Where a sequence was left, with some numbers changed."""
    state = model.new_state()
    logits = model.forward(state, list(range(10)), last_only=True)
    for name in data.draw(st.lists(st.sampled_from(sorted(state.arrays())), max_size=2)):
        array = state.arrays()[name].reshape(-1)
        at = data.draw(st.integers(0, array.size - 1))
        if array.dtype == np.float32:
            array[at] = data.draw(SPOILT)
    for at in data.draw(st.lists(st.integers(0, VOCAB - 1), max_size=3)):
        logits[at] = data.draw(LOGITS)
    recent = tuple(data.draw(st.lists(st.integers(0, VOCAB), max_size=12)))
    state.position = data.draw(st.sampled_from([0, 1, 10, 2**31, 2**63 - 1]))
    return Start(state, logits, recent), data.draw(st.integers(0, 2**64 - 1))


@given(data=st.data())
@settings(max_examples=25)
def test_a_blob_that_is_taken_can_be_gone_on_with_and_stored_again(model, data):
    start, seed = left(data, model)
    try:
        start, seed = from_blob(to_blob(start, seed, model.fingerprint), model)
    except BlobDamaged:
        return
    for tokens in ((5,), (6, 7, 8), tuple(range(9, 40))):
        logits = model.forward(start.state, tokens, last_only=True)
        end = Start(start.state, logits, latest(start.recent_ids, tokens))
        check_end(end)
        start, again = from_blob(to_blob(end, seed, model.fingerprint), model)
        assert again == seed
        assert start.recent_ids == end.recent_ids
