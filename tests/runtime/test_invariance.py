"""A sequence's logits depend on its package, state and tokens alone, bit for bit."""

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from package_kinds import KINDS, PACKAGES, VOCAB, write
from tiny import tiny_egru_package

from spiketrain.runtime import load_model
from spiketrain.runtime.errors import CallCancelled
from spiketrain.runtime.families import NAMES
from spiketrain.runtime.kernels.isa import dispatch


def test_every_family_is_tested():
    assert set(PACKAGES) == set(NAMES) == {kind.split()[0] for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def models(request, tmp_path_factory):
    """The same package on one thread, on two, on three without a table."""
    path = tmp_path_factory.mktemp("invariance") / "model"
    write(path, request.param)
    return [
        load_model(path),
        load_model(path, threads=2),
        load_model(path, threads=3, table_bytes=0),
    ]


tokens = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=70)


def dialled(model, number):
    """A new state; sequences of different numbers have different dials where there is one."""
    return model.new_state(1.0 + (model.max_dial - 1.0) * (number % 4) / 3.0)


def one_by_one(model, ids, state=None):
    state = state or dialled(model, 1)
    return np.array([model.step([state], [token])[0] for token in ids]), state


@given(ids=tokens, cuts=st.lists(st.integers(0, 70), max_size=4), which=st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_any_cut_of_the_prompt_gives_the_logits_of_single_steps(models, ids, cuts, which):
    expected, end = one_by_one(models[0], ids)
    model = models[which]
    state = dialled(model, 1)
    edges = sorted({0, len(ids), *(min(cut, len(ids)) for cut in cuts)})
    parts = [ids[a:b] for a, b in itertools.pairwise(edges)]
    logits = np.concatenate([model.forward(state, part) for part in parts])
    assert logits.tobytes() == expected.tobytes()
    assert state.to_bytes() == end.to_bytes()
    assert (state.position, state.events, state.neurons) == (len(ids), end.events, end.neurons)
    assert state.weight_bytes == end.weight_bytes or which == 2  # no table: other bytes
    state = dialled(model, 1)
    assert model.forward(state, ids, last_only=True).tobytes() == expected[-1].tobytes()


@pytest.mark.slow
@given(
    batch=st.lists(tokens, min_size=1, max_size=40),
    which=st.integers(0, 2),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=20, deadline=None)
def test_company_in_a_batch_changes_nothing(models, batch, which, order):
    alone = [
        one_by_one(models[0], ids[:6], dialled(models[0], b))[0] for b, ids in enumerate(batch)
    ]
    model = models[which]
    states = [dialled(model, b) for b in range(len(batch))]
    for step in range(max(min(len(ids), 6) for ids in batch)):
        lanes = [b for b, ids in enumerate(batch) if step < min(len(ids), 6)]
        order.shuffle(lanes)
        logits = model.step([states[b] for b in lanes], [batch[b][step] for b in lanes])
        for b, row in zip(lanes, logits, strict=True):
            assert row.tobytes() == alone[b][step].tobytes()


@given(ids=tokens, more=tokens, which=st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_copies_and_stored_states_continue_as_the_original(models, ids, more, which):
    model = models[which]
    state = dialled(model, 2)
    model.forward(state, ids)
    twin = state.copy()
    stored = models[0].state_from_bytes(state.to_bytes())
    expected = models[0].forward(stored, more)
    assert stored.position == len(ids) + len(more)
    assert model.forward(twin, more).tobytes() == expected.tobytes()
    assert model.forward(state, more).tobytes() == expected.tobytes()
    assert state.to_bytes() == twin.to_bytes() == stored.to_bytes()


SCRIPT = """
import hashlib, sys
from spiketrain.runtime import load_model
from spiketrain.runtime.errors import CallCancelled
from spiketrain.runtime.kernels.isa import dispatch
model = load_model(sys.argv[1], threads=2)
state = model.new_state(model.max_dial)
logits = model.forward(state, [i * 7 % 101 for i in range(60)])
print(dispatch.active(), hashlib.sha256(logits.tobytes() + state.to_bytes()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_instruction_sets_give_the_same_bits(tmp_path, kind):
    path = write(tmp_path / "model", kind)
    found = {}
    for build in dispatch.runnable():
        name, digest = run_script(SCRIPT, path, SPIKETRAIN_ISA=build).stdout.split()
        assert name == build
        found[build] = digest
    assert len(set(found.values())) == 1, found


def test_an_unknown_instruction_set_is_refused_by_name(tmp_path):
    result = run_script(SCRIPT, tmp_path, SPIKETRAIN_ISA="sse9", check=False)
    assert result.returncode != 0
    assert "SPIKETRAIN_ISA must be one of" in result.stderr
    assert "'sse9'" in result.stderr


def run_script(script, *arguments, check=True, **environment):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=check,
    )


def test_a_forked_child_computes_the_same_and_the_parent_goes_on(tmp_path):
    script = """
import os, sys, warnings
import numpy as np
from spiketrain.runtime import load_model
from spiketrain.runtime.errors import CallCancelled
warnings.simplefilter("ignore")
model = load_model(sys.argv[1], threads=2)
ids = list(range(50))
expected = model.forward(model.new_state(), ids)
child = os.fork()
if not child:
    same = np.array_equal(model.forward(model.new_state(), ids), expected)
    del model
    os._exit(0 if same else 1)
assert np.array_equal(model.forward(model.new_state(), ids), expected)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    path = tiny_egru_package(
        tmp_path / "m", vocab=700, with_tokenizer=False, hidden_sizes=(600, 400), embedding_size=400
    )
    run_script(script, path)


def test_models_in_several_python_threads_do_not_disturb_one_another(models):
    import concurrent.futures

    model = models[1]
    ids = [[(7 * b + i) % VOCAB for i in range(40)] for b in range(6)]
    expected = [one_by_one(models[0], sequence)[0] for sequence in ids]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda sequence: one_by_one(model, sequence)[0], ids))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_a_prompt_of_several_passes_gives_the_bits_of_its_tokens(models):
    """Longer than a pass over the weights, and than any window and its ring."""
    ids = np.random.default_rng(6).integers(0, VOCAB, 700)
    expected, read = one_by_one(models[0], ids)
    for model in models:
        for cut in (0, 1, 300):
            state = dialled(model, 1)
            found = [model.forward(state, part) for part in (ids[:cut], ids[cut:]) if part.size]
            assert np.concatenate(found).tobytes() == expected.tobytes()
            assert state.to_bytes() == read.to_bytes()


def test_a_cancelled_call_leaves_the_state_between_two_tokens(models):
    ids = np.random.default_rng(4).integers(0, VOCAB, 3000)
    for model in models:
        for at_once in (True, False):
            cancelled = np.array([at_once], np.uint8)
            state, twin = model.new_state(), model.new_state()
            with ThreadPoolExecutor(1) as pool:
                call = pool.submit(model.forward, state, ids, True, cancelled)
                cancelled[0] = 1
            if call.exception() is None:
                assert state.position == ids.size
            else:
                assert isinstance(call.exception(), CallCancelled)
                assert state.position == call.exception().read < ids.size
            assert state.position == 0 or not at_once
            model.forward(twin, ids[: state.position])
            assert twin.to_bytes() == state.to_bytes()
