"""A SessionStore in a directory on disk: sessions survive a restart. Needs the package lmdb.

Every change is one transaction, synced before the call returns: a crash leaves the sessions as they
were before or after it.
"""

import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from serving.errors import ConfigError
from serving.session import Session
from serving.session_errors import SessionStoreFull
from serving.session_store import RECORD_BYTES

_OVERHEAD = 2  # pages, of which LMDB keeps old ones until nobody reads them, against their content
_LEAST_MAP_BYTES = 64 << 20
_COUNT = struct.Struct("<Q")
_EXPIRY = struct.Struct(">Q")  # milliseconds: sorts like the number
_USED, _NUMBER = b"used", b"number"


class LmdbStore:
    """Sessions in the directory `path`, which one server at a time may use."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        try:
            import lmdb
        except ImportError:
            raise ConfigError(
                "session_dir needs the package lmdb: pip install 'spiketrain[disk]'"
            ) from None
        self._full = lmdb.MapFullError
        self._max_bytes = max_bytes
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._env: Any = lmdb.open(
                str(path),
                map_size=max(_LEAST_MAP_BYTES, _OVERHEAD * max_bytes),
                max_dbs=5,
                mode=0o600,
            )
        except (lmdb.Error, OSError) as error:
            raise ConfigError(f"session_dir must be a directory of sessions: {error}") from None
        self._sessions = self._env.open_db(b"sessions")
        self._snapshots = self._env.open_db(b"snapshots")
        self._references = self._env.open_db(b"references")
        self._expiries = self._env.open_db(b"expiries")
        self._totals = self._env.open_db(b"totals")

    def get(self, session_id: str) -> Session | None:
        """See SessionStore."""
        with self._env.begin() as read:
            return self._get(read, session_id)

    def page(self, after: str, count: int) -> list[Session]:
        """See SessionStore."""
        found: list[Session] = []
        with self._env.begin() as read, read.cursor(self._sessions) as cursor:
            more = cursor.set_range(after.encode() + b"\0")
            while more and len(found) < count:
                found.append(Session.from_json(cursor.value()))
                more = cursor.next()
        return found

    def load(self, key: str) -> bytes | None:
        """See SessionStore."""
        with self._env.begin() as read:
            found: bytes | None = read.get(key.encode(), db=self._snapshots)
            return found

    def put(self, session: Session, new: Mapping[str, bytes], etag: str | None) -> bool:
        """See SessionStore."""
        try:
            with self._env.begin(write=True) as write:
                old = self._get(write, session.id)
                if (old.etag if old else None) != etag or not self._known(write, session, new):
                    return False
                for key, data in new.items():
                    write.put(key.encode(), data, db=self._snapshots)
                    self._add(write, _USED, len(data))
                for snapshot in session.snapshots():
                    self._refer(write, snapshot.key, 1)
                if old:
                    self._let_go(write, old)
                else:
                    self._add(write, _USED, RECORD_BYTES)
                    self._add(write, _NUMBER, 1)
                if self._total(write, _USED) > self._max_bytes:
                    raise SessionStoreFull(self._max_bytes)
                write.put(session.id.encode(), session.to_json(), db=self._sessions)
                write.put(_expiry(session), b"", db=self._expiries)
                return True
        except self._full:
            raise SessionStoreFull(self._max_bytes) from None

    def delete(self, session_id: str, etag: str | None = None) -> bool:
        """See SessionStore."""
        with self._env.begin(write=True) as write:
            session = self._get(write, session_id)
            if session is None or etag not in (None, session.etag):
                return False
            self._forget(write, session)
            return True

    def expire(self, now_s: float, keep: Collection[str]) -> int:
        """See SessionStore."""
        with self._env.begin(write=True) as write:
            over = []
            with write.cursor(self._expiries) as cursor:
                for key in cursor.iternext(values=False):
                    if _EXPIRY.unpack_from(key)[0] > 1000 * now_s:
                        break
                    session = self._get(write, key[_EXPIRY.size :].decode())
                    if session and session.expires_s <= now_s and session.id not in keep:
                        over.append(session)
            for session in over:
                self._forget(write, session)
            return len(over)

    def count(self) -> tuple[int, int]:
        """See SessionStore."""
        with self._env.begin() as read:
            return self._total(read, _NUMBER), self._total(read, _USED)

    def close(self) -> None:
        """See SessionStore."""
        self._env.close()

    def _get(self, transaction: Any, session_id: str) -> Session | None:
        if not 0 < len(session_id.encode()) <= self._env.max_key_size():
            return None
        data = transaction.get(session_id.encode(), db=self._sessions)
        return None if data is None else Session.from_json(data)

    def _known(self, transaction: Any, session: Session, new: Mapping[str, bytes]) -> bool:
        """Whether every snapshot that a session refers to is new or stored."""
        keys = [s.key for s in session.snapshots() if s.key not in new]
        return all(transaction.get(key.encode(), db=self._references) for key in keys)

    def _forget(self, write: Any, session: Session) -> None:
        write.delete(session.id.encode(), db=self._sessions)
        self._add(write, _USED, -RECORD_BYTES)
        self._add(write, _NUMBER, -1)
        self._let_go(write, session)

    def _let_go(self, write: Any, session: Session) -> None:
        write.delete(_expiry(session), db=self._expiries)
        for snapshot in session.snapshots():
            if not self._refer(write, snapshot.key, -1):
                write.delete(snapshot.key.encode(), db=self._snapshots)
                self._add(write, _USED, -snapshot.nbytes)

    def _refer(self, write: Any, key: str, change: int) -> int:
        """Count references to a snapshot; how many are left."""
        number = _number(write.get(key.encode(), db=self._references)) + change
        if number:
            write.put(key.encode(), _COUNT.pack(number), db=self._references)
        else:
            write.delete(key.encode(), db=self._references)
        return number

    def _total(self, transaction: Any, name: bytes) -> int:
        return _number(transaction.get(name, db=self._totals))

    def _add(self, write: Any, name: bytes, change: int) -> None:
        write.put(name, _COUNT.pack(self._total(write, name) + change), db=self._totals)


def _number(data: bytes | None) -> int:
    return 0 if data is None else int(_COUNT.unpack(data)[0])


def _expiry(session: Session) -> bytes:
    """Key that sorts by the end of a session's time."""
    return _EXPIRY.pack(round(1000 * session.expires_s)) + session.id.encode()
