"""What every store of sessions has to pass; another store is one more entry of STORES."""

import itertools
import shutil
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import session_journal
from serving.errors import ConfigError
from serving.session import Session, Snapshot
from serving.session_errors import SessionsNotKept, SessionStoreFull
from serving.session_journal import Journal
from serving.session_ledger import RECORD_BYTES
from serving.session_store import MemoryStore
from serving.session_store_lmdb import LmdbStore

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


def snapshot(key, size=10):
    return Snapshot(key, num_tokens=3, nbytes=size)


def session(name="a", etag="1", head="s", expires_s=100.0, **checkpoints):
    return Session(
        id=name,
        etag=etag,
        seed=2**64 - 1,
        head=snapshot(head),
        ttl_s=60.0,
        created_s=1.5,
        changed_s=2.5,
        expires_s=expires_s,
        checkpoints={name: snapshot(key) for name, key in checkpoints.items()},
    )


def data(*keys, size=10):
    return {key: key.encode().ljust(size, b".") for key in keys}


def test_what_was_put_is_there(make):
    store = make()
    kept = session(one="t")
    assert store.put(kept, data("s", "t"), None)
    assert store.get("a") == kept
    assert (store.load("s"), store.load("t")) == (b"s.........", b"t.........")
    assert store.count() == (1, 20 + RECORD_BYTES)


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
    assert store.count() == (2, 10 + 2 * RECORD_BYTES)
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


@pytest.mark.parametrize("synced", [True, False])
def test_sessions_on_disk_survive(tmp_path, synced):
    pytest.importorskip("lmdb")
    store = LmdbStore(tmp_path, 1 << 20, synced)
    store.put(replace(session(), owner="x"), data("s"), None)
    store.put(session("b", head="t"), data("t"), None)
    store.delete("b")
    store.close()
    store = LmdbStore(tmp_path, 1 << 20, synced)
    assert store.page("x", "", 10) == [store.get("a")] == [replace(session(), owner="x")]
    assert store.load("s") == b"s........."
    assert store.load("t") is None
    assert store.count() == (1, RECORD_BYTES + 10)
    store.close()


def test_a_directory_that_cannot_be_one_is_an_error(tmp_path):
    pytest.importorskip("lmdb")
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(ConfigError, match="session_dir must be"):
        LmdbStore(tmp_path / "file", 1 << 20)


def test_one_server_at_a_time_has_a_directory(tmp_path):
    pytest.importorskip("lmdb")
    store = LmdbStore(tmp_path, 1 << 20)
    with pytest.raises(ConfigError, match="is in use"):
        LmdbStore(tmp_path, 1 << 20)
    store.close()
    LmdbStore(tmp_path, 1 << 20).close()


@pytest.fixture
def gated(tmp_path, monkeypatch):
    """A store of which every group waits for `gate` before it is written."""
    pytest.importorskip("lmdb")
    commit = Journal._commit
    gate = threading.Semaphore(0)

    def wait_and_commit(journal, group):
        gate.acquire()
        commit(journal, group)

    monkeypatch.setattr(Journal, "_commit", wait_and_commit)
    store = LmdbStore(tmp_path, 1 << 20, synced=False)
    yield store, gate
    gate.release(1000)
    store.close()


def test_what_is_on_its_way_to_the_disk_is_there(gated):
    store, _ = gated
    assert store.put(session(), data("s"), None)
    assert store.put(session("b", head="t"), data("t"), None)
    assert store.put(session("c", head="s"), {}, None)
    assert store.delete("a")
    assert [s.id for s in store.page("", "", 10)] == ["b", "c"]
    assert (store.load("s"), store.load("t")) == (b"s.........", b"t.........")


def test_a_synced_change_waits_for_the_disk_and_shares_the_wait(gated):
    store, gate = gated
    store._synced = True
    names = [f"n{number}" for number in range(8)]
    threads = [
        threading.Thread(target=store.put, args=(session(name, head=name), data(name), None))
        for name in names
    ]
    for thread in threads:
        thread.start()
    while store.count()[0] < len(names):
        pass
    assert all(thread.is_alive() for thread in threads)
    gate.release(2)  # the first change, then all others
    for thread in threads:
        thread.join()
    assert not gate.acquire(blocking=False)


def test_a_crash_leaves_whole_groups(tmp_path):
    """A copy of the files, taken while a group waits, opens with what was written before."""
    pytest.importorskip("lmdb")
    store = LmdbStore(tmp_path / "live", 1 << 20)
    store.put(session(), data("s"), None)
    shutil.copytree(tmp_path / "live", tmp_path / "dead")
    store.put(session(etag="2", head="t"), data("t"), "1")
    store.close()
    found = LmdbStore(tmp_path / "dead", 1 << 20)
    assert found.get("a") == session()
    assert found.load("s") == b"s........."
    found.close()


def put_until_refused(store):
    for number in itertools.count():
        before = store.get("b")
        changed = session("b", str(number), head="b")
        store.put(changed, data("b"), before.etag if before else None)


@pytest.mark.parametrize("synced", [True, False])
def test_a_disk_that_takes_nothing_is_said_so_and_tried_again(tmp_path, monkeypatch, synced):
    pytest.importorskip("lmdb")
    commit, broken = Journal._commit, threading.Event()

    def fail_or_commit(journal, group):
        if broken.is_set():
            raise OSError("no space left")
        commit(journal, group)

    monkeypatch.setattr(Journal, "_commit", fail_or_commit)
    monkeypatch.setattr(session_journal, "RETRY_S", 0.01)
    store = LmdbStore(tmp_path, 1 << 20, synced)
    store.put(session(), data("s"), None)
    broken.set()
    with pytest.raises(SessionsNotKept, match="no space left"):
        put_until_refused(store)
    assert store.get("a") == session()
    broken.clear()
    while True:
        try:
            assert store.put(session("c", head="c"), data("c"), None)
            break
        except SessionsNotKept:
            continue
    kept = store.page("", "", 1000)
    store.close()
    found = LmdbStore(tmp_path, 1 << 20, synced)
    assert found.page("", "", 1000) == kept
    assert all(found.load(s.head.key) for s in kept)
    found.close()
