"""What every store of sessions has to pass; another store is one more entry of STORES."""

import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_records import data, session, snapshot

from spiketrain.serving.errors import ConfigError
from spiketrain.serving.sessions.errors import SessionStoreFull
from spiketrain.serving.sessions.ledger import CHECKPOINT_BYTES, RECORD_BYTES, record_bytes
from spiketrain.serving.sessions.lmdb_store import LmdbStore
from spiketrain.serving.sessions.session import Session
from spiketrain.serving.sessions.store import MemoryStore

STORES = {
    "memory": lambda path, max_bytes: MemoryStore(max_bytes),
    "lmdb": LmdbStore,
    "lmdb, unsynced": lambda path, max_bytes: LmdbStore(path, max_bytes, synced=False),
}


@pytest.fixture(params=STORES)
def make(request, tmp_path):
    if request.param != "memory":
        pytest.importorskip("lmdb")
    made = []

    def make(max_bytes=1 << 20):
        made.append(STORES[request.param](tmp_path / str(len(made)), max_bytes))
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_what_was_put_is_there(make):
    store = make()
    kept = session(one="t")
    assert store.put(kept, data("s", "t"), None)
    assert store.get("a") == kept
    assert (store.load("s"), store.load("t")) == (b"s.........", b"t.........")
    assert store.count() == (1, 20 + RECORD_BYTES + CHECKPOINT_BYTES)


def test_what_was_never_put_is_not_there(make):
    store = make()
    assert store.get("a") is None
    assert store.get("") is None
    assert store.get("x" * 5000) is None
    assert store.load("s") is None
    assert store.page("", "", 10) == []
    assert store.count() == (0, 0)
    assert not store.delete("a")


def test_a_session_is_replaced_only_by_who_knows_its_etag(make):
    store = make()
    assert store.put(session(), data("s"), None)
    assert not store.put(session(etag="2", head="t"), data("t"), None)
    assert not store.put(session(etag="2", head="t"), data("t"), "0")
    assert store.load("t") is None
    assert store.get("a") == session()
    assert store.put(session(etag="2", head="t"), data("t"), "1")
    assert store.get("a").etag == "2"


def test_a_deleted_session_cannot_be_replaced(make):
    store = make()
    store.put(session(), data("s"), None)
    assert store.delete("a")
    assert not store.put(session(etag="2", head="t"), data("t"), "1")
    assert store.count() == (0, 0)


def test_a_session_cannot_refer_to_a_snapshot_that_is_not_stored(make):
    store = make()
    assert not store.put(session(), {}, None)
    assert store.count() == (0, 0)


def test_a_snapshot_lives_as_long_as_a_session_refers_to_it(make):
    store = make()
    store.put(session("a"), data("s"), None)
    store.put(session("b", one="s"), {}, None)
    assert store.count() == (2, 10 + 2 * RECORD_BYTES + CHECKPOINT_BYTES)
    assert store.put(session("a", "2", head="t"), data("t"), "1")
    assert store.load("s") is not None
    assert store.delete("b")
    assert store.load("s") is None
    assert store.load("t") is not None
    assert store.delete("a")
    assert store.load("t") is None
    assert store.count() == (0, 0)


def test_delete_goes_by_the_etag_where_one_is_given(make):
    store = make()
    store.put(session(), data("s"), None)
    assert not store.delete("a", "2")
    assert store.delete("a", "1")
    assert not store.delete("a", "1")


def test_pages_are_in_order_of_ids(make):
    store = make()
    for name in ("c", "a", "bb", "b"):
        store.put(session(name, head=name), data(name), None)
    assert [s.id for s in store.page("", "", 3)] == ["a", "b", "bb"]
    assert [s.id for s in store.page("", "b", 10)] == ["bb", "c"]
    assert [s.id for s in store.page("", "bbb", 10)] == ["c"]
    assert store.page("", "c", 10) == []


def test_pages_have_one_owners_sessions_alone(make):
    store = make()
    for name, owner in (("a", "x"), ("b", "y"), ("c", "x"), ("d", "")):
        store.put(replace(session(name, head=name), owner=owner), data(name), None)
    assert [s.id for s in store.page("x", "", 10)] == ["a", "c"]
    assert [s.id for s in store.page("x", "a", 10)] == ["c"]
    assert [s.id for s in store.page("", "", 10)] == ["d"]
    store.delete("b")
    assert store.page("y", "", 10) == []


def test_what_expired_is_forgotten_but_what_is_kept_back(make):
    store = make()
    for name, expires_s in (("a", 1.0), ("b", 2.0), ("c", 2.5), ("d", 2.0)):
        store.put(session(name, head=name, expires_s=expires_s), data(name), None)
    assert store.expire(2.0, {"d"}) == 2
    assert [s.id for s in store.page("", "", 10)] == ["c", "d"]
    assert store.load("a") is None
    assert store.expire(2.0, {"d"}) == 0
    assert store.expire(2.0, set()) == 1


def test_a_new_time_to_live_takes_the_place_of_the_old_one(make):
    store = make()
    store.put(session(expires_s=1.0), data("s"), None)
    store.put(session(etag="2", expires_s=9.0), {}, "1")
    assert store.expire(5.0, set()) == 0
    assert store.expire(9.0, set()) == 1


def test_a_full_store_refuses_and_stays_as_it_was(make):
    store = make(max_bytes=RECORD_BYTES + 15)
    store.put(session(), data("s"), None)
    with pytest.raises(SessionStoreFull, match=str(RECORD_BYTES + 15)):
        store.put(session("b"), {}, None)
    with pytest.raises(SessionStoreFull):
        store.put(session(etag="2", head="t", one="s"), data("t"), "1")
    assert store.load("t") is None
    assert store.get("a") == session()
    assert store.put(session(etag="2", head="t"), data("t"), "1"), "it frees what it replaces"
    assert store.count() == (1, RECORD_BYTES + 10)


def test_checkpoints_count_though_their_states_are_shared(make):
    store = make(max_bytes=RECORD_BYTES + 10 + CHECKPOINT_BYTES)
    store.put(session(), data("s"), None)
    assert store.put(session(etag="2", one="s"), {}, "1")
    with pytest.raises(SessionStoreFull):
        store.put(session(etag="3", one="s", two="s"), {}, "2")
    assert store.put(session(etag="3"), {}, "2")
    assert store.count() == (1, RECORD_BYTES + 10)


@pytest.mark.parametrize("count", [0, 1, 64])
def test_a_record_takes_no_more_than_it_counts_as(count):
    names = {f"{number:064}": f"{number:032}" for number in range(count)}
    stored = session("x" * 32, etag="e" * 16, head="k" * 32, expires_s=1763778512.123456, **names)
    assert len(stored.to_json()) < record_bytes(stored)


def test_of_many_threads_that_replace_one_session_each_time_one_wins(make):
    store = make()
    store.put(session(etag="0"), data("s"), None)
    wins = []

    def race(thread):
        for turn in range(20):
            key = f"{thread}-{turn}"
            found = store.get("a")
            changed = replace(found, etag=key, head=snapshot(key))
            if store.put(changed, data(key), found.etag):
                wins.append((found.etag, key))

    threads = [threading.Thread(target=race, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    followers = [before for before, _ in wins]
    assert len(set(followers)) == len(followers) >= 20
    assert store.get("a").head.key == store.get("a").etag
    assert store.count() == (1, RECORD_BYTES + 10)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("pdf"), st.integers(0, 3), st.integers(0, 3))))
def test_nothing_is_left_of_what_was_deleted(tmp_path_factory, steps):
    """put, delete and fork at random: snapshots are there exactly while they are referred to."""
    stores = [MemoryStore(1 << 20)]
    try:
        stores.append(LmdbStore(tmp_path_factory.mktemp("store"), 1 << 20))
    except ConfigError:
        pytest.skip("lmdb is not installed")
    expected: dict[str, Session] = {}
    for number, (what, one, other) in enumerate(steps):
        name = f"n{one}"
        old = expected.get(name)
        if what == "d":
            wanted, fresh = None, {}
        elif what == "p":
            wanted, fresh = session(name, str(number), head=f"k{number}"), data(f"k{number}")
        elif f"n{other}" in expected:
            head = expected[f"n{other}"].head.key
            wanted, fresh = session(name, str(number), head=head), {}
        else:
            continue
        for store in stores:
            if wanted is None:
                assert store.delete(name) == (old is not None)
            else:
                assert store.put(wanted, fresh, old.etag if old else None)
        if wanted is None:
            expected.pop(name, None)
        else:
            expected[name] = wanted
        alive = {s.head.key for s in expected.values()}
        for store in stores:
            assert store.count() == (len(expected), RECORD_BYTES * len(expected) + 10 * len(alive))
            for key in [f"k{n}" for n in range(number + 1)]:
                assert (store.load(key) is not None) == (key in alive)
    for store in stores:
        store.close()
