"""LmdbStore keeps sessions in a directory on disk, where they survive a restart. Needs lmdb.

The ledger of sessions is in memory; snapshots are read from disk. The journal (`journal.py`) writes
changes in groups. A call waits for the disk if the store is `synced`; else the call returns once
the system has the change. The end of the process then loses nothing. A crash of the machine may
lose the changes after the last group but one.
"""

import fcntl
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

from spiketrain.serving.errors import ConfigError
from spiketrain.serving.sessions.journal import Journal, restore
from spiketrain.serving.sessions.ledger import Ledger
from spiketrain.serving.sessions.log import SessionLog
from spiketrain.serving.sessions.session import Session

_OVERHEAD = 4  # of the map against its content: pages that are freed late, and what is on its way
_MIN_MAP_BYTES = 64 << 20
_MAX_DATABASES = 5
_DATABASES = (b"sessions", b"snapshots", b"journal")
_DATA = "data.mdb"  # as LMDB calls it


class LmdbStore:
    """Sessions in the directory `path`, which one server at a time may use. Raises ConfigError."""

    def __init__(self, path: Path, max_bytes: int, synced: bool = True) -> None:
        try:
            import lmdb
        except ImportError:
            raise ConfigError(
                "session_dir needs the package lmdb: pip install 'spiketrain[disk]'"
            ) from None
        self._synced = synced
        self._ledger = Ledger(max_bytes)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._claim = _claimed(path)
        except OSError as error:
            raise ConfigError(f"session_dir must be a directory of sessions: {error}") from None
        try:
            self._env: Any = lmdb.open(
                str(path), map_size=_map_bytes(path, max_bytes), max_dbs=_MAX_DATABASES, mode=0o600
            )
            databases = self._read(path)
        except (lmdb.Error, OSError, ValueError, TypeError, KeyError) as error:
            self._claim.close()
            raise ConfigError(f"session_dir must be a directory of sessions: {error}") from None
        self._lock = threading.Lock()  # the order of changes in the ledger is that in the journal
        self._snapshots = databases[1]
        self._journal = Journal(self._env, databases, None if synced else SessionLog(path))
        self._journal.start()

    def _read(self, path: Path) -> tuple[Any, Any, Any]:
        """Enter what there is; the databases. Raises ValueError for a file that is cut short."""
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        found = (path / _DATA).stat().st_size
        if found < needed:  # the process would end at the first page that is missing
            raise ValueError(f"{path / _DATA} has {found} of {needed} bytes")
        sessions, snapshots, done = map(self._env.open_db, _DATABASES)
        restore(self._env, (sessions, snapshots, done), path)
        with self._env.begin() as read, read.cursor(sessions) as cursor:
            for record in cursor.iternext(keys=False):
                self._ledger.enter(Session.from_json(record))
        return sessions, snapshots, done

    def get(self, session_id: str) -> Session | None:
        """See SessionStore."""
        with self._lock:
            return self._ledger.get(session_id)

    def page(self, owner: str, after: str, count: int) -> list[Session]:
        """See SessionStore."""
        with self._lock:
            return self._ledger.page(owner, after, count)

    def load(self, key: str) -> bytes | None:
        """See SessionStore."""
        with self._lock:
            if not self._ledger.knows(key):
                return None
            data = self._journal.snapshot(key)
        if data is not None:
            return data
        with self._env.begin() as read:
            found: bytes | None = read.get(key.encode(), db=self._snapshots)
            return found

    def put(self, session: Session, new: Mapping[str, bytes], etag: str | None) -> bool:
        """See SessionStore."""
        self._journal.check()
        with self._lock:
            gone = self._ledger.put(session, new, etag)
            if gone is None:
                return False
            number = self._journal.note(session.id, session.to_json(), new, gone)
        self._journal.settle(number, self._synced)
        return True

    def delete(self, session_id: str, etag: str | None = None) -> bool:
        """See SessionStore."""
        with self._lock:
            gone = self._ledger.delete(session_id, etag)
            if gone is None:
                return False
            number = self._journal.note(session_id, None, gone=gone)
        self._journal.settle(number, self._synced)
        return True

    def expire(self, now_s: float, keep: Collection[str]) -> int:
        """See SessionStore."""
        with self._lock:
            over = self._ledger.expired(now_s, keep)
            for session in over:
                gone = self._ledger.delete(session.id)
                self._journal.note(session.id, None, gone=gone or ())
            return len(over)

    def count(self) -> tuple[int, int]:
        """See SessionStore."""
        with self._lock:
            return self._ledger.count()

    def close(self) -> None:
        """See SessionStore."""
        self._journal.close()
        self._env.close()
        self._claim.close()


def _map_bytes(path: Path, max_bytes: int) -> int:
    """Room for as many bytes; and to delete what there is, though fewer are wanted now."""
    data = path / _DATA
    there = data.stat().st_size if data.exists() else 0
    return max(_MIN_MAP_BYTES, _OVERHEAD * max_bytes, 2 * there)


def _claimed(path: Path) -> IO[bytes]:
    """A file that keeps other servers out until it is closed. Raises OSError, ConfigError."""
    claim = (path / "server.lock").open("wb")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        claim.close()
        raise ConfigError(f"session_dir must be of one server, {path} is in use") from None
    return claim
