"""What a store on disk promises beside what every store does."""

import itertools
import shutil
import threading
from dataclasses import replace

import pytest
from session_records import data, session

from spiketrain.serving.errors import ConfigError
from spiketrain.serving.sessions import journal as session_journal
from spiketrain.serving.sessions import lmdb_store as session_store_lmdb
from spiketrain.serving.sessions.errors import SessionsNotKept, SessionStoreFull
from spiketrain.serving.sessions.journal import Journal
from spiketrain.serving.sessions.ledger import RECORD_BYTES
from spiketrain.serving.sessions.lmdb_store import LmdbStore


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


def raw(path, count, record=None):
    """`count` sessions with a state each, written at once and without room to spare."""
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), max_dbs=2, map_size=1 << 26) as env:
        databases = [env.open_db(name) for name in (b"sessions", b"snapshots")]
        with env.begin(write=True) as write:
            for number in range(count):
                name = f"n{number}"
                stored = record or session(name, head=name).to_json()
                write.put(name.encode(), stored, db=databases[0])
                write.put(name.encode(), bytes(9000), db=databases[1])


@pytest.mark.parametrize("record", [b"{", b"[]", b"{}", b'{"id": "a"}'])
def test_sessions_that_cannot_be_read_are_an_error(tmp_path, record):
    raw(tmp_path, 1, record)
    for _ in range(2):  # nor does the first try keep the directory
        with pytest.raises(ConfigError, match="session_dir must be a directory of sessions"):
            LmdbStore(tmp_path, 1 << 20)


@pytest.mark.parametrize("damage", ["cut short", "overwritten"])
def test_a_damaged_file_is_an_error(tmp_path, damage):
    raw(tmp_path, 300)
    whole = (tmp_path / "data.mdb").read_bytes()
    third = len(whole) // 3
    left = whole[:third] if damage == "cut short" else whole[:8192] + b"x" * (len(whole) - 8192)
    (tmp_path / "data.mdb").write_bytes(left)
    with pytest.raises(ConfigError, match="session_dir must be a directory of sessions"):
        LmdbStore(tmp_path, 1 << 20)


def test_with_fewer_bytes_than_there_are_sessions_can_still_be_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(session_store_lmdb, "_MIN_MAP_BYTES", 1)
    raw(tmp_path, 300)
    store = LmdbStore(tmp_path, 1 << 16)
    with pytest.raises(SessionStoreFull):
        store.put(session(), data("s"), None)
    for number in range(300):
        assert store.delete(f"n{number}")
    assert store.put(session(), data("s"), None)
    store.close()


def test_one_server_at_a_time_has_a_directory(tmp_path):
    pytest.importorskip("lmdb")
    store = LmdbStore(tmp_path, 1 << 20)
    with pytest.raises(ConfigError, match="is in use"):
        LmdbStore(tmp_path, 1 << 20)
    store.close()
    LmdbStore(tmp_path, 1 << 20).close()


@pytest.fixture
def gated(tmp_path, monkeypatch):
    """A store of which every group waits for `gate` before it is written, and sets `waiting`."""
    pytest.importorskip("lmdb")
    commit = Journal._commit
    gate, waiting = threading.Semaphore(0), threading.Event()

    def wait_and_commit(journal, group):
        waiting.set()
        gate.acquire()
        commit(journal, group)

    monkeypatch.setattr(Journal, "_commit", wait_and_commit)
    store = LmdbStore(tmp_path, 1 << 20, synced=False)
    yield store, gate, waiting
    gate.release(1000)
    store.close()


def test_what_is_on_its_way_to_the_disk_is_there(gated):
    store, *_ = gated
    assert store.put(session(), data("s"), None)
    assert store.put(session("b", head="t"), data("t"), None)
    assert store.put(session("c", head="s"), {}, None)
    assert store.delete("a")
    assert [s.id for s in store.page("", "", 10)] == ["b", "c"]
    assert (store.load("s"), store.load("t")) == (b"s.........", b"t.........")


def test_a_synced_change_waits_for_the_disk_and_shares_the_wait(gated):
    store, gate, waiting = gated
    store._synced = True
    names = [f"n{number}" for number in range(8)]
    threads = [
        threading.Thread(target=store.put, args=(session(name, head=name), data(name), None))
        for name in names
    ]
    threads[0].start()
    waiting.wait()  # with the first change alone
    for thread in threads[1:]:
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


def test_a_map_that_is_full_is_said_and_what_was_kept_before_stays(tmp_path, monkeypatch):
    pytest.importorskip("lmdb")
    monkeypatch.setattr(session_store_lmdb, "_map_bytes", lambda path, max_bytes: 256 << 10)
    store = LmdbStore(tmp_path, 64 << 20)
    assert store.put(session(), data("s"), None)
    with pytest.raises(SessionsNotKept, match="MDB_MAP_FULL"):
        store.put(session("b", head="t"), {"t": bytes(1 << 20)}, None)
    store.close()
    again = LmdbStore(tmp_path, 64 << 20)
    assert again.load("s") == b"s........."
    again.close()
