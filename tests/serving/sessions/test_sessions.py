"""Sessions over a real tiny model, without an engine: turns are calls of the model."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_egru_package

from spiketrain.runtime import load_model
from spiketrain.runtime.errors import RequestError
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.starting_point import MAX_RECENT_IDS, Start, latest
from spiketrain.serving.errors import EngineFailure
from spiketrain.serving.sessions.blob import from_blob, to_blob
from spiketrain.serving.sessions.errors import (
    BlobDamaged,
    BlobForeign,
    CheckpointNotFound,
    SessionBusy,
    SessionChanged,
    SessionNotFound,
    SessionStoreFull,
)
from spiketrain.serving.sessions.sessions import MAX_CHECKPOINTS, Sessions
from spiketrain.serving.sessions.store import MemoryStore


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("sessions") / "model"))


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(model, clock):
    return Sessions(model, MemoryStore(1 << 20), ServingConfig(), clock)


def read(model, start, tokens):
    logits = model.forward(start.state, tokens, last_only=True)
    return Start(start.state, logits, latest(start.recent_ids, tuple(tokens)))


def turn(sessions, model, session_id, tokens):
    session, start = sessions.open(session_id)
    return sessions.commit(session, read(model, start, tokens))


def where(sessions, session_id):
    return sessions.open(session_id)[1]


def assert_same(one, other):
    assert one.state.to_bytes() == other.state.to_bytes()
    assert (one.logits is None) == (other.logits is None)
    assert one.logits is None or one.logits.tobytes() == other.logits.tobytes()
    assert one.recent_ids == other.recent_ids


def test_a_session_is_where_its_turns_have_left_it(sessions, model):
    created = sessions.create(seed=7)
    assert (created.head.num_tokens, created.seed) == (0, 7)
    first = turn(sessions, model, created.id, [1, 2, 3])
    second = turn(sessions, model, created.id, [4, 5])
    assert (first.head.num_tokens, second.head.num_tokens) == (3, 5)
    assert len({created.etag, first.etag, second.etag}) == 3
    assert sessions.get(created.id) == second
    expected = read(model, Start(model.new_state()), [1, 2, 3, 4, 5])
    assert_same(where(sessions, created.id), expected)


def test_what_a_turn_does_to_its_state_is_seen_by_nobody_before_the_commit(sessions, model):
    session = turn(sessions, model, sessions.create().id, [1, 2])
    before = where(sessions, session.id)
    _, start = sessions.open(session.id)
    read(model, start, [9, 9, 9])
    assert sessions.get(session.id) == session
    assert_same(where(sessions, session.id), before)


def test_one_change_at_a_time(sessions):
    session = sessions.create()
    sessions.occupy(session.id)
    for call in (
        sessions.occupy,
        lambda name: sessions.checkpoint(name, "c"),
        lambda name: sessions.rollback(name, "c"),
    ):
        with pytest.raises(SessionBusy):
            call(session.id)
    sessions.release(session.id)
    with pytest.raises(CheckpointNotFound):
        sessions.rollback(session.id, "c")
    sessions.checkpoint(session.id, "c")


def test_of_two_turns_from_one_point_only_one_is_committed(sessions, model):
    created = sessions.create()
    session, one = sessions.open(created.id)
    _, other = sessions.open(created.id)
    kept = sessions.commit(session, read(model, one, [1]))
    with pytest.raises(SessionChanged):
        sessions.commit(session, read(model, other, [2]))
    assert sessions.get(created.id) == kept


def test_a_turn_cannot_be_committed_to_a_deleted_session(sessions, model):
    session, start = sessions.open(sessions.create().id)
    sessions.delete(session.id)
    with pytest.raises(SessionNotFound):
        sessions.commit(session, read(model, start, [1]))
    assert sessions.count() == (0, 0)


def test_every_call_takes_an_etag(sessions, model):
    session = turn(sessions, model, sessions.create().id, [1])
    sessions.checkpoint(session.id, "c")
    old = session.etag
    for call in (
        lambda: sessions.get(session.id, old),
        lambda: sessions.open(session.id, old),
        lambda: sessions.fork(session.id, old),
        lambda: sessions.checkpoint(session.id, "d", old),
        lambda: sessions.rollback(session.id, "c", old),
        lambda: sessions.export(session.id, old),
        lambda: sessions.delete(session.id, old),
    ):
        with pytest.raises(SessionChanged, match="etag must be"):
            call()
    new = sessions.get(session.id).etag
    new = sessions.checkpoint(session.id, "d", new).etag
    new = sessions.rollback(session.id, "c", new).etag
    sessions.fork(session.id, new)
    sessions.export(session.id, new)
    sessions.delete(session.id, new)


def test_a_fork_goes_its_own_way_and_shares_what_is_common(sessions, model):
    session = turn(sessions, model, sessions.create(seed=5).id, [1, 2, 3])
    one_bytes = sessions.count()[1]
    twin = sessions.fork(session.id, seed=6)
    assert sessions.count()[1] - one_bytes < 2000, "nothing was copied"
    assert (twin.seed, twin.head) == (6, session.head)
    assert sessions.fork(session.id).seed == 5
    turn(sessions, model, twin.id, [7])
    assert sessions.get(session.id) == session
    assert_same(where(sessions, session.id), read(model, Start(model.new_state()), [1, 2, 3]))
    assert_same(where(sessions, twin.id), read(model, Start(model.new_state()), [1, 2, 3, 7]))
    sessions.delete(session.id)
    assert where(sessions, twin.id).state.position == 4


def test_rollback_takes_a_session_back_and_keeps_the_checkpoint(sessions, model):
    session = turn(sessions, model, sessions.create().id, [1, 2])
    sessions.checkpoint(session.id, "here")
    expected = where(sessions, session.id)
    for tokens in ([3], [4, 5]):
        turn(sessions, model, session.id, tokens)
        rolled = sessions.rollback(session.id, "here")
        assert rolled.head.num_tokens == 2
        assert_same(where(sessions, session.id), expected)
    fork = sessions.fork(session.id, checkpoint="here")
    assert fork.checkpoints == {}
    with pytest.raises(CheckpointNotFound):
        sessions.rollback(session.id, "there")
    with pytest.raises(CheckpointNotFound):
        sessions.fork(session.id, checkpoint="there")


def test_checkpoints_are_replaced_by_name_and_limited(sessions, model):
    session = sessions.create()
    sessions.checkpoint(session.id, "a")
    turn(sessions, model, session.id, [1])
    assert sessions.checkpoint(session.id, "a").checkpoints["a"].num_tokens == 1
    for number in range(MAX_CHECKPOINTS - 1):
        sessions.checkpoint(session.id, f"n{number}")
    with pytest.raises(RequestError, match="at most 64"):
        sessions.checkpoint(session.id, "one-more")
    for name in ("", "a b", "x" * 65, "ä", "a\n"):
        with pytest.raises(RequestError, match="name must be"):
            sessions.checkpoint(session.id, name)


def test_a_session_is_forgotten_when_its_time_has_passed(sessions, model, clock):
    short, long = sessions.create(ttl_s=10.0), sessions.create()
    clock.now_s += 9.0
    turn(sessions, model, short.id, [1])
    clock.now_s += 9.0
    assert sessions.get(short.id).expires_s == clock.now_s + 1.0
    clock.now_s += 1.0
    with pytest.raises(SessionNotFound):
        sessions.get(short.id)
    with pytest.raises(SessionNotFound):
        sessions.fork(short.id)
    assert [s.id for s in sessions.page()] == [long.id]
    assert sessions.expire() == 1
    assert sessions.count()[0] == 1


def test_a_session_does_not_expire_in_a_turn(sessions, model, clock):
    session, start = sessions.open(sessions.create(ttl_s=1.0).id)
    sessions.occupy(session.id)
    clock.now_s += 5.0
    assert sessions.expire() == 0
    sessions.commit(session, read(model, start, [1]))
    sessions.release(session.id)
    assert sessions.get(session.id).head.num_tokens == 1


@pytest.mark.parametrize("left", [None, b"damaged"])
def test_a_stored_state_that_is_gone_or_damaged_is_said_so(model, clock, left):
    store = MemoryStore(1 << 20)
    sessions = Sessions(model, store, ServingConfig(), clock)
    session = turn(sessions, model, sessions.create().id, [1])
    if left is None:
        del store._snapshots[session.head.key]
    else:
        store._snapshots[session.head.key] = left
    with pytest.raises(BlobDamaged):
        sessions.open(session.id)


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, 3601.0, float("nan"), float("inf")])
def test_a_bad_time_to_live_is_refused(sessions, ttl_s):
    with pytest.raises(RequestError, match="ttl_s must be above 0 and at most 3600"):
        sessions.create(ttl_s=ttl_s)


def test_pages_have_every_session_once(sessions):
    names = sorted(sessions.create().id for _ in range(7))
    found, after = [], ""
    while page := sessions.page(after, 3):
        found += [s.id for s in page]
        after = found[-1]
    assert found == names
    for count in (0, 1001):
        with pytest.raises(RequestError, match="page_size must be from 1 to 1000"):
            sessions.page("", count)


def test_when_the_bytes_are_used_up_no_session_is_lost(model, clock):
    one = len(to_blob(Start(model.new_state()), 0, model.fingerprint)) + 1024
    sessions = Sessions(model, MemoryStore(one), ServingConfig(), clock)
    session = sessions.create()
    with pytest.raises(SessionStoreFull):
        sessions.create()
    _, start = sessions.open(session.id)
    with pytest.raises(SessionStoreFull):
        sessions.commit(session, read(model, start, [1]))
    assert sessions.get(session.id) == session


def test_an_exported_session_goes_on_elsewhere_bit_for_bit(sessions, model, clock):
    session = turn(sessions, model, sessions.create(seed=11).id, [1, 2, 3])
    other = Sessions(model, MemoryStore(1 << 20), ServingConfig(), clock)
    imported = other.import_(sessions.export(session.id))
    assert (imported.seed, imported.head.num_tokens) == (11, 3)
    assert imported.id != session.id
    assert_same(where(other, imported.id), where(sessions, session.id))
    turn(sessions, model, session.id, [4])
    turn(other, model, imported.id, [4])
    assert other.export(imported.id) == sessions.export(session.id)


@pytest.fixture(scope="module")
def blob(model):
    return to_blob(read(model, Start(model.new_state()), [1, 2, 3]), 9, model.fingerprint)


@given(data=st.data())
@settings(max_examples=100)
def test_no_flipped_bit_goes_unnoticed(model, blob, data):
    bit = data.draw(st.integers(0, 8 * len(blob) - 1))
    damaged = bytearray(blob)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BlobDamaged):
        from_blob(bytes(damaged), model)


@given(cut=st.integers(0, 10_000))
@settings(max_examples=50)
def test_no_cut_blob_is_taken(model, blob, cut):
    with pytest.raises(BlobDamaged):
        from_blob(blob[: cut % len(blob)], model)


@given(st.binary(max_size=300))
def test_no_random_bytes_are_a_session(model, data):
    with pytest.raises(BlobDamaged):
        from_blob(data, model)


def signed(body):
    return body + hashlib.sha256(body).digest()


def test_another_format_or_model_is_refused_by_name(model, blob, tmp_path):
    newer = signed(blob[:8] + struct.pack("<I", 2) + blob[12:-32])
    with pytest.raises(BlobForeign, match="format version 1, got 2"):
        from_blob(newer, model)
    other = load_model(tiny_egru_package(tmp_path / "other", seed=1))
    with pytest.raises(BlobForeign, match=f"must be of the model {other.fingerprint}"):
        from_blob(blob, other)


def test_what_no_session_can_be_is_refused_though_its_checksum_is_right(model, blob):
    good, _ = from_blob(blob, model)
    for bad in (
        Start(good.state, np.full(model.vocab_size, np.nan, np.float32), good.recent_ids),
        Start(good.state, good.logits[:-1], good.recent_ids),
        Start(good.state, None, good.recent_ids),
        Start(model.new_state(), good.logits, ()),
        Start(good.state, good.logits, (1, 2, 3, 4)),
        Start(good.state, good.logits, (model.vocab_size,)),
    ):
        with pytest.raises(BlobDamaged, match="data must hold"):
            from_blob(to_blob(bad, 9, model.fingerprint), model)
    with pytest.raises(BlobDamaged, match="header says"):
        from_blob(signed(blob[:-32] + b"x"), model)
    for offset in range(91, 115, 8):  # the sizes, one after the other
        for size in (0, 1, 2**64 - 1):
            lying = bytearray(blob[:-32])
            lying[offset : offset + 8] = struct.pack("<Q", size)
            with pytest.raises(BlobDamaged):
                from_blob(signed(bytes(lying)), model)


def test_an_end_that_could_not_be_gone_on_with_is_not_kept(model):
    sessions = Sessions(model, MemoryStore(1 << 24), ServingConfig())
    session = sessions.create(seed=1)
    _, start = sessions.open(session.id)
    logits = model.forward(start.state, [1, 2], last_only=True)
    broken = start.state.copy()
    broken.arrays()["cell.0"][3] = np.nan
    with pytest.raises(EngineFailure, match=r"cannot be kept: state: cell\.0\[3\] must be in"):
        sessions.commit(session, Start(broken, logits, (1, 2)))
    with pytest.raises(EngineFailure, match="logits of which the greatest is not finite"):
        sessions.commit(session, Start(start.state, np.full_like(logits, np.nan), (1, 2)))
    assert sessions.get(session.id) == session
    sessions.commit(session, Start(start.state, logits, (1, 2)))
    assert sessions.open(session.id)[1].state.position == 2


def test_only_the_latest_tokens_are_kept():
    assert latest((1, 2), (3,)) == (1, 2, 3)
    assert latest((), ()) == ()
    many = tuple(range(5000))
    assert latest((1, 2), many) == many[-MAX_RECENT_IDS:]
    assert latest(many, (1,)) == (*many[-MAX_RECENT_IDS + 1 :], 1)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("read", "fork", "keep", "back", "move", "delete")),
        st.integers(0, 4),
        st.lists(st.integers(0, 256), min_size=1, max_size=6),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=40)
def test_whatever_happens_a_session_is_its_tokens_read_in_one_go(model, steps):
    """The plain reference: a session is a list of tokens, its checkpoint another one."""
    sessions = Sessions(model, MemoryStore(1 << 24), ServingConfig())
    known = {sessions.create(seed=1).id: ([], None)}
    for what, which, tokens in steps:
        name = sorted(known)[which % len(known)]
        held, kept = known[name]
        if what == "read":
            turn(sessions, model, name, tokens)
            known[name] = ([*held, *tokens], kept)
        elif what == "fork":
            known[sessions.fork(name).id] = (held, None)
        elif what == "keep":
            sessions.checkpoint(name, "k")
            known[name] = (held, held)
        elif what == "back" and kept is not None:
            sessions.rollback(name, "k")
            known[name] = (kept, kept)
        elif what == "move":
            known[sessions.import_(sessions.export(name)).id] = (held, None)
        elif what == "delete" and len(known) > 1:
            sessions.delete(name)
            del known[name]
    assert [session.id for session in sessions.page("", 1000)] == sorted(known)
    for name, (held, _) in known.items():
        start = Start(model.new_state())
        expected = read(model, start, held) if held else start
        assert_same(where(sessions, name), expected)
        assert sessions.get(name).head.num_tokens == len(held)
    for name in known:
        sessions.delete(name)
    assert sessions.count() == (0, 0)


def test_a_session_exported_by_format_version_1_still_loads():
    data = Path(__file__).parents[2] / "data"
    model = load_model(data / "package-v1")
    recorded = json.loads((data / "package-v1-results.json").read_text())
    start, seed = from_blob((data / "session-v1.bin").read_bytes(), model)
    tokens = model.tokenizer.encode(recorded["text"])
    assert (seed, start.state.position, start.recent_ids) == (5, len(tokens), tuple(tokens))
    assert start.state.to_bytes() == (data / "package-v1-state.bin").read_bytes()
    logits = model.forward(model.new_state(), tokens, last_only=True)
    assert start.logits.tobytes() == logits.tobytes()
    more = model.forward(start.state, model.tokenizer.encode(recorded["more"]))
    assert [x.hex() for x in map(float, more[0])] == recorded["logits"]["0"]
