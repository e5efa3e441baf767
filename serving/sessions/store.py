"""SessionStore is the interface of all stores of sessions; MemoryStore keeps sessions in memory.

A store holds sessions by id and snapshots (bytes) by key. A store keeps a snapshot while any
session refers to it, so forks and checkpoints share their common snapshots. Calls come from any
thread; each call happens as a whole or not at all. Every store passes
`tests/serving/sessions/test_store.py`.
"""

import threading
from collections.abc import Collection, Mapping
from typing import Protocol

from spiketrain.serving.sessions.ledger import Ledger
from spiketrain.serving.sessions.session import Session


class SessionStore(Protocol):
    """Keeps sessions; `max_bytes` for all, `record_bytes` of each and every snapshot once."""

    def get(self, session_id: str) -> Session | None:
        """The session of this id."""

    def page(self, owner: str, after: str, count: int) -> list[Session]:
        """The owner's first `count` sessions with an id greater than `after`, in order of ids."""

    def load(self, key: str) -> bytes | None:
        """The bytes of a snapshot; None once no session refers to it."""

    def put(self, session: Session, new: Mapping[str, bytes], etag: str | None) -> bool:
        """Keep a session with the snapshots it refers to that are new.

        False, and nothing happens, unless the stored session has this etag (None: there is none)
        and the other snapshots are stored. A session's owner never changes. Raises
        SessionStoreFull, SessionsNotKept.
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
        self._ledger = Ledger(max_bytes)
        self._snapshots: dict[str, bytes] = {}
        self._lock = threading.Lock()

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
            return self._snapshots.get(key)

    def put(self, session: Session, new: Mapping[str, bytes], etag: str | None) -> bool:
        """See SessionStore."""
        with self._lock:
            gone = self._ledger.put(session, new, etag)
            if gone is None:
                return False
            self._snapshots.update(new)
            self._drop(gone)
            return True

    def delete(self, session_id: str, etag: str | None = None) -> bool:
        """See SessionStore."""
        with self._lock:
            gone = self._ledger.delete(session_id, etag)
            if gone is None:
                return False
            self._drop(gone)
            return True

    def expire(self, now_s: float, keep: Collection[str]) -> int:
        """See SessionStore."""
        with self._lock:
            over = self._ledger.expired(now_s, keep)
            for session in over:
                self._drop(self._ledger.delete(session.id) or ())
            return len(over)

    def count(self) -> tuple[int, int]:
        """See SessionStore."""
        with self._lock:
            return self._ledger.count()

    def close(self) -> None:
        """See SessionStore."""

    def _drop(self, keys: Collection[str]) -> None:
        for key in keys:
            del self._snapshots[key]
