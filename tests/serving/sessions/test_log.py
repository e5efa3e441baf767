"""Changes that no transaction has yet outlive the process that made them."""

import shutil
import threading

import pytest
from session_records import data, session
from small_files import small_files

from spiketrain.serving.sessions.journal import Journal
from spiketrain.serving.sessions.lmdb_store import LmdbStore
from spiketrain.serving.sessions.log import Change, SessionLog, logged

CHANGES = [
    Change("a", b"first", {"s": b"snapshot", "t": b""}),
    Change("b", b"", {"s": None}),
    Change("a", None, {}),
]


@pytest.fixture
def stuck(monkeypatch):
    """No transaction reaches the disk until this event is set, as on a disk that hangs."""
    free, commit = threading.Event(), Journal._commit

    def wait(self, group):
        free.wait()
        commit(self, group)

    monkeypatch.setattr(Journal, "_commit", wait)
    yield free
    free.set()


def test_a_change_that_was_acknowledged_survives_though_the_disk_hangs(tmp_path, stuck):
    pytest.importorskip("lmdb")
    store = LmdbStore(tmp_path / "at work", 1 << 20, synced=False)
    store.put(session("a", head="s"), data("s"), None)
    store.put(session("b", head="t"), data("t"), None)
    store.put(session("a", etag="2", head="u"), data("u"), "1")
    store.delete("b")
    shutil.copytree(tmp_path / "at work", tmp_path / "killed")
    stuck.set()
    store.close()
    for _ in range(2):  # what was restored is on disk
        after = LmdbStore(tmp_path / "killed", 1 << 20, synced=False)
        assert after.get("a") == session("a", etag="2", head="u")
        assert after.load("u") == data("u")["u"]
        assert after.load("s") is None
        assert after.get("b") is None
        assert after.count()[0] == 1
        after.close()


def test_what_is_on_disk_is_in_no_log(tmp_path):
    pytest.importorskip("lmdb")
    store = LmdbStore(tmp_path, 1 << 20, synced=False)
    store.put(session(), data("s"), None)
    store.close()
    assert not list(tmp_path.glob("changes-*"))


def test_a_log_from_before_its_transaction_changes_nothing(tmp_path, stuck):
    """As after a crash of the machine, where the log was removed and yet is there again."""
    pytest.importorskip("lmdb")
    store = LmdbStore(tmp_path, 1 << 20, synced=False)
    store.put(session("a", head="s"), data("s"), None)
    (old,) = tmp_path.glob("changes-*")
    raw = old.read_bytes()
    stuck.set()
    store.put(session("a", etag="2", head="u"), data("u"), "1")
    store.close()
    old.write_bytes(raw)
    store = LmdbStore(tmp_path, 1 << 20)
    assert store.get("a") == session("a", etag="2", head="u")
    store.close()


def written(folder, *groups):
    logs = SessionLog(folder)
    for number, changes in groups:
        for change in changes:
            logs.append(number, change)
    logs.close()
    return sorted(folder.glob("changes-*"))


def test_changes_come_back_as_they_were(tmp_path):
    written(tmp_path, (7, CHANGES), (8, CHANGES[:1]), (10, CHANGES[1:]))
    assert list(logged(tmp_path, 6)) == [(7, CHANGES), (8, CHANGES[:1]), (10, CHANGES[1:])]
    assert list(logged(tmp_path, 7)) == [(8, CHANGES[:1]), (10, CHANGES[1:])]
    assert list(logged(tmp_path, 10)) == []


def test_nothing_comes_back_after_what_is_damaged(tmp_path):
    first, second = written(tmp_path, (1, CHANGES), (2, CHANGES[:1]))
    whole = first.read_bytes()
    for size in range(len(whole)):
        first.write_bytes(whole[:size])
        found = list(logged(tmp_path, 0))
        assert found in ([], *([(1, CHANGES[:count])] for count in range(4)))
    for at in (*range(24), *range(32, len(whole))):  # there is no file before the first one
        first.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = list(logged(tmp_path, 0))
        assert found in ([], *([(1, CHANGES[:count])] for count in range(3)))
    first.unlink()
    assert list(logged(tmp_path, 0)) == []
    assert second.exists()


def test_a_change_that_does_not_fit_is_the_last_until_its_group_is_on_disk(tmp_path):
    logs = SessionLog(tmp_path)
    with small_files(500):
        logs.append(1, CHANGES[0])
        logs.append(1, Change("big", bytes(1000), {}))
        logs.append(1, CHANGES[1])
        logs.append(2, CHANGES[2])
    assert list(logged(tmp_path, 0)) == [(1, CHANGES[:1])]
    logs.drop(1)
    logs.append(3, CHANGES[2])
    logs.close()
    assert list(logged(tmp_path, 1)) == [(3, CHANGES[2:])]
