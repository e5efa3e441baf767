"""Ledger: the sessions of a store, the snapshots that they refer to, and their bytes.

A ledger holds no snapshot's bytes and has no lock: the stores that keep the bytes have a lock.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Collection

from spiketrain.serving.sessions.errors import SessionStoreFull
from spiketrain.serving.sessions.session import Session

RECORD_BYTES = 1024  # a session counts as this many beside its snapshots
CHECKPOINT_BYTES = 512  # and as this many more for the name of each checkpoint


def record_bytes(session: Session) -> int:
    """What a session counts as, without the bytes of its snapshots."""
    return RECORD_BYTES + CHECKPOINT_BYTES * len(session.checkpoints)


class Ledger:
    """At most `max_bytes`: every session's record, and every snapshot once."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used = 0
        self._sessions: dict[str, Session] = {}
        self._ids: dict[str, list[str]] = {}  # of each owner, in order
        self._references: Counter[str] = Counter()  # to snapshots, by key

    def get(self, session_id: str) -> Session | None:
        """The session of this id."""
        return self._sessions.get(session_id)

    def page(self, owner: str, after: str, count: int) -> list[Session]:
        """The owner's first `count` sessions with an id greater than `after`, in order."""
        ids = self._ids.get(owner, [])
        start = bisect_right(ids, after)
        return [self._sessions[name] for name in ids[start : start + count]]

    def knows(self, key: str) -> bool:
        """Whether any session refers to a snapshot."""
        return key in self._references

    def count(self) -> tuple[int, int]:
        """Sessions, and bytes they use."""
        return len(self._sessions), self._used

    def expired(self, now_s: float, keep: Collection[str]) -> list[Session]:
        """Sessions that expire until `now_s` but those of `keep`."""
        return [s for s in self._sessions.values() if s.expires_s <= now_s and s.id not in keep]

    def put(self, session: Session, new: Collection[str], etag: str | None) -> list[str] | None:
        """Take a session in place of the one with this etag (None: of none).

        Gives the keys of snapshots that nobody refers to any more; None, and nothing happens,
        where there is another one or a snapshot neither is known nor in `new`. SessionStoreFull.
        """
        old = self._sessions.get(session.id)
        known = all(s.key in new or s.key in self._references for s in session.snapshots())
        if (old.etag if old else None) != etag or not known:
            return None
        if self._used + self._growth(old, session) > self._max_bytes:
            raise SessionStoreFull(self._max_bytes)
        return self.enter(session)

    def enter(self, session: Session) -> list[str]:
        """`put` without a question."""
        old = self._sessions.get(session.id)
        for snapshot in session.snapshots():
            self._used += 0 if self._references[snapshot.key] else snapshot.nbytes
            self._references[snapshot.key] += 1
        self._used += record_bytes(session)
        if old is None:
            insort(self._ids.setdefault(session.owner, []), session.id)
        self._sessions[session.id] = session
        return [] if old is None else self._let_go(old)

    def delete(self, session_id: str, etag: str | None = None) -> list[str] | None:
        """Forget a session, if it has this etag where one is given; gives what `put` gives."""
        session = self._sessions.get(session_id)
        if session is None or etag not in (None, session.etag):
            return None
        del self._sessions[session.id]
        ids = self._ids[session.owner]
        del ids[bisect_left(ids, session.id)]
        if not ids:
            del self._ids[session.owner]
        return self._let_go(session)

    def _growth(self, old: Session | None, session: Session) -> int:
        """Bytes that a session needs more than the one whose place it takes."""
        keys = {s.key for s in session.snapshots()}
        more = sum(s.nbytes for s in session.snapshots() if s.key not in self._references)
        more += record_bytes(session)
        if old is None:
            return more
        left = (s for s in old.snapshots() if s.key not in keys)
        less = sum(s.nbytes for s in left if self._references[s.key] == 1)
        return more - less - record_bytes(old)

    def _let_go(self, session: Session) -> list[str]:
        gone = []
        self._used -= record_bytes(session)
        for snapshot in session.snapshots():
            self._references[snapshot.key] -= 1
            if not self._references[snapshot.key]:
                del self._references[snapshot.key]
                self._used -= snapshot.nbytes
                gone.append(snapshot.key)
        return gone
