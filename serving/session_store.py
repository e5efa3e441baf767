"""SessionStore: what keeps sessions, and the one that keeps them in memory.

A store holds sessions by id and snapshots (bytes) by key. It keeps a snapshot while any session
refers to it, so that forks and checkpoints share what they have in common. Calls come from any
thread; each happens as a whole or not at all. `tests/serving/test_session_store.py` is what every
store has to pass.
"""

import threading
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Protocol

from serving.session import Session
from serving.session_errors import SessionStoreFull

RECORD_BYTES = 1024  # a session counts as this many beside its snapshots


class SessionStore(Protocol):
    """Keeps sessions; `max_bytes` for all of them, RECORD_BYTES each and every snapshot once."""

    def get(self, session_id: str) -> Session | None:
        """The session of this id."""

    def page(self, after: str, count: int) -> list[Session]:
        """The first `count` sessions with an id greater than `after`, in order of their ids."""

    def load(self, key: str) -> bytes | None:
        """The bytes of a snapshot; None once no session refers to it."""

    def put(self, session: Session, new: Mapping[str, bytes], etag: str | None) -> bool:
        """Keep a session with the snapshots it refers to that are new.

        False, and nothing happens, unless the stored session has this etag (None: there is none)
        and the other snapshots are stored. Raises SessionStoreFull.
        """

    def delete(self, session_id: str, etag: str | None = None) -> bool:
        """Forget a session; False if there is none, or none with this etag where one is given."""

    def expire(self, now_s: float, keep: Collection[str]) -> int:
        """Forget the sessions that expire until `now_s` but those of `keep`; how many it were."""

    def count(self) -> tuple[int, int]:
        """Sessions, and bytes they use."""

    def close(self) -> None:
        """Let go of whatever is open; no call comes after this one."""


class MemoryStore:
    """Sessions in this process, gone with it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used = 0
        self._sessions: dict[str, Session] = {}
        self._ids: list[str] = []  # in order
        self._snapshots: dict[str, bytes] = {}
        self._references: Counter[str] = Counter()
        self._lock = threading.Lock()

    def get(self, session_id: str) -> Session | None:
        """See SessionStore."""
        with self._lock:
            return self._sessions.get(session_id)

    def page(self, after: str, count: int) -> list[Session]:
        """See SessionStore."""
        with self._lock:
            start = bisect_right(self._ids, after)
            return [self._sessions[name] for name in self._ids[start : start + count]]

    def load(self, key: str) -> bytes | None:
        """See SessionStore."""
        with self._lock:
            return self._snapshots.get(key)

    def put(self, session: Session, new: Mapping[str, bytes], etag: str | None) -> bool:
        """See SessionStore."""
        with self._lock:
            old = self._sessions.get(session.id)
            known = all(s.key in new or s.key in self._snapshots for s in session.snapshots())
            if (old.etag if old else None) != etag or not known:
                return False
            added = sum(map(len, new.values())) + (0 if old else RECORD_BYTES)
            freed = self._freed(old, session)
            if self._used + added - freed > self._max_bytes:
                raise SessionStoreFull(self._max_bytes)
            self._snapshots.update(new)
            self._used += added
            self._references.update(s.key for s in session.snapshots())
            if old:
                self._let_go(old)
            else:
                insort(self._ids, session.id)
            self._sessions[session.id] = session
            return True

    def delete(self, session_id: str, etag: str | None = None) -> bool:
        """See SessionStore."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or etag not in (None, session.etag):
                return False
            self._forget(session)
            return True

    def expire(self, now_s: float, keep: Collection[str]) -> int:
        """See SessionStore."""
        with self._lock:
            over = [s for s in self._sessions.values() if s.expires_s <= now_s and s.id not in keep]
            for session in over:
                self._forget(session)
            return len(over)

    def count(self) -> tuple[int, int]:
        """See SessionStore."""
        with self._lock:
            return len(self._sessions), self._used

    def close(self) -> None:
        """See SessionStore."""

    def _freed(self, old: Session | None, session: Session) -> int:
        """Bytes of snapshots that only `old` refers to, once `session` takes its place."""
        kept = {s.key for s in session.snapshots()}
        gone = [s for s in (old.snapshots() if old else ()) if s.key not in kept]
        return sum(s.nbytes for s in gone if self._references[s.key] == 1)

    def _forget(self, session: Session) -> None:
        del self._sessions[session.id]
        self._ids.remove(session.id)
        self._used -= RECORD_BYTES
        self._let_go(session)

    def _let_go(self, session: Session) -> None:
        for snapshot in session.snapshots():
            self._references[snapshot.key] -= 1
            if not self._references[snapshot.key]:
                del self._references[snapshot.key]
                self._used -= len(self._snapshots.pop(snapshot.key))
