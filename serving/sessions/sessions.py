"""Sessions: create, fork, checkpoint, roll back, export, import, and turns. Imports no gRPC.

Every change replaces a session in the store as a whole, unless another caller replaced it
meanwhile. Calls come from any thread and may wait for the store; no call runs the model.
"""

import re
import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from spiketrain.runtime.dial import checked_dial
from spiketrain.runtime.errors import RequestError
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.starting_point import Start
from spiketrain.serving.model import Model
from spiketrain.serving.sessions.blob import check_end, from_blob, max_blob_bytes, to_blob
from spiketrain.serving.sessions.errors import (
    BlobDamaged,
    CheckpointNotFound,
    SessionBusy,
    SessionChanged,
    SessionNotFound,
)
from spiketrain.serving.sessions.session import Session, Snapshot
from spiketrain.serving.sessions.store import SessionStore

ID_BYTES = 16
SEED_BITS = 32  # of a seed chosen here: short enough to type again
MAX_SEED = 2**64 - 1
MAX_PAGE = 1000
MAX_ID = 80  # characters of an id that anything is looked up by
DEFAULT_PAGE = 100
MAX_CHECKPOINTS = 64
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class Sessions:
    """The sessions of one model. clock: seconds since 1970.

    owner: who asks. Sessions of others are not found, as if they did not exist.
    """

    def __init__(
        self,
        model: Model,
        store: SessionStore,
        config: ServingConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._model = model
        self._store = store
        self._ttl_s = config.session_ttl_s
        self._clock = clock
        self._busy: set[tuple[str, str]] = set()  # owner and id: nobody keeps another one busy
        self._lock = threading.Lock()  # guards _busy

    @property
    def max_blob_bytes(self) -> int:
        """What no session of the model has more bytes than."""
        return max_blob_bytes(self._model)

    def create(
        self,
        ttl_s: float | None = None,
        seed: int | None = None,
        owner: str = "",
        dial: float | None = None,
    ) -> Session:
        """A session that has read nothing. Raises RequestError, SessionStoreFull."""
        chosen = _checked(secrets.randbits(SEED_BITS) if seed is None else seed)
        start = Start(self._model.new_state(dial))
        return self._begin(start, self._ttl(ttl_s), chosen, owner)

    def get(self, session_id: str, etag: str = "", owner: str = "") -> Session:
        """What is known of a session. Raises SessionNotFound, SessionChanged."""
        session = self._store.get(session_id) if len(session_id) <= MAX_ID else None
        if session is None or session.owner != owner or session.expires_s <= self._clock():
            raise SessionNotFound(session_id)
        if etag and etag != session.etag:
            raise SessionChanged(etag, session.etag)
        return session

    def page(self, after: str = "", count: int | None = None, owner: str = "") -> list[Session]:
        """The owner's sessions with ids greater than `after`, in order, at most `count`."""
        count = DEFAULT_PAGE if count is None else count
        if not 1 <= count <= MAX_PAGE:
            raise RequestError("page_size", f"be from 1 to {MAX_PAGE}", count)
        if len(after) > MAX_ID:
            raise RequestError("page_token", "be that of the page before", after[:MAX_ID])
        now_s = self._clock()
        found: list[Session] = []
        while len(found) < count:
            some = self._store.page(owner, after, count - len(found))
            if not some:
                break
            after = some[-1].id
            found += [session for session in some if session.expires_s > now_s]
        return found

    def delete(self, session_id: str, etag: str = "", owner: str = "") -> None:
        """Forget a session; a turn under way cannot be committed any more."""
        session = self.get(session_id, etag, owner)
        if not self._store.delete(session_id, session.etag if etag else None):
            raise SessionNotFound(session_id)

    def fork(
        self,
        session_id: str,
        etag: str = "",
        checkpoint: str = "",
        ttl_s: float | None = None,
        seed: int | None = None,
        owner: str = "",
        dial: float | None = None,
    ) -> Session:
        """Another session that starts where this one is, or was at a checkpoint.

        With another dial it reads further tokens by that one. Raises RequestError.
        """
        session = self.get(session_id, etag, owner)
        head = _checkpoint(session, checkpoint) if checkpoint else session.head
        lifetime_s = session.ttl_s if ttl_s is None else self._ttl(ttl_s)
        chosen = session.seed if seed is None else _checked(seed)
        turned = session.dial if dial is None else checked_dial(dial, self._model.max_dial)
        if turned != session.dial:
            _, blob = self._load(session_id, etag, owner, checkpoint)
            start = from_blob(blob, self._model)[0]
            self._model.set_dial(start.state, turned)
            return self._begin(start, lifetime_s, chosen, owner)
        twin = self._new(head, lifetime_s, chosen, owner, session.dial)
        if not self._store.put(twin, {}, None):
            raise SessionNotFound(session_id)  # deleted since it was read
        return twin

    def checkpoint(self, session_id: str, name: str, etag: str = "", owner: str = "") -> Session:
        """Keep where a session is under a name."""
        if not _NAME.fullmatch(name):
            raise RequestError("name", "be 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'", name[:80])
        with self._occupied(session_id, owner):
            session = self.get(session_id, etag, owner)
            kept = {**session.checkpoints, name: session.head}
            if len(kept) > MAX_CHECKPOINTS:
                rule = f"be one of at most {MAX_CHECKPOINTS} checkpoints of a session"
                raise RequestError("name", rule, name)
            return self._replace(session, {}, checkpoints=dict(sorted(kept.items())))

    def rollback(self, session_id: str, name: str, etag: str = "", owner: str = "") -> Session:
        """Take a session back to a checkpoint."""
        with self._occupied(session_id, owner):
            session = self.get(session_id, etag, owner)
            return self._replace(session, {}, head=_checkpoint(session, name))

    def export(self, session_id: str, etag: str = "", owner: str = "") -> bytes:
        """A session without its checkpoints and its owner, as bytes."""
        return self._load(session_id, etag, owner)[1]

    def import_(self, blob: bytes, ttl_s: float | None = None, owner: str = "") -> Session:
        """A session from exported bytes. Raises BlobDamaged, BlobForeign, SessionStoreFull."""
        lifetime_s = self._ttl(ttl_s)
        start, seed = from_blob(blob, self._model)
        return self._begin(start, lifetime_s, seed, owner)

    def occupy(self, session_id: str, owner: str = "") -> None:
        """Keep other changes of a session out until `release`. Raises SessionBusy."""
        with self._lock:
            if (owner, session_id) in self._busy:
                raise SessionBusy
            self._busy.add((owner, session_id))

    def release(self, session_id: str, owner: str = "") -> None:
        """Let the next change begin."""
        with self._lock:
            self._busy.discard((owner, session_id))

    def busy(self) -> frozenset[str]:
        """Ids of sessions with a change under way."""
        with self._lock:
            return frozenset(session_id for _, session_id in self._busy)

    def open(self, session_id: str, etag: str = "", owner: str = "") -> tuple[Session, Start]:
        """A session and a copy of where it is, which may go on from there."""
        session, blob = self._load(session_id, etag, owner)
        return session, from_blob(blob, self._model)[0]

    def commit(self, session: Session, end: Start) -> Session:
        """Put a turn's end in place of what `open` gave. Raises SessionChanged, EngineFailure."""
        check_end(end)
        blob = to_blob(end, session.seed, self._model.fingerprint)
        head = Snapshot(secrets.token_hex(ID_BYTES), end.state.position, len(blob))
        return self._replace(session, {head.key: blob}, head=head)

    def expire(self) -> int:
        """Forget sessions whose time has passed, but those with a turn under way."""
        return self._store.expire(self._clock(), self.busy())

    def count(self) -> tuple[int, int]:
        """Sessions, and bytes they use."""
        return self._store.count()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    @contextmanager
    def _occupied(self, session_id: str, owner: str) -> Generator[None, None, None]:
        self.occupy(session_id, owner)
        try:
            yield
        finally:
            self.release(session_id, owner)

    def _begin(self, start: Start, ttl_s: float, seed: int, owner: str) -> Session:
        blob = to_blob(start, seed, self._model.fingerprint)
        head = Snapshot(secrets.token_hex(ID_BYTES), start.state.position, len(blob))
        session = self._new(head, ttl_s, seed, owner, start.state.dial)
        self._store.put(session, {head.key: blob}, None)
        return session

    def _new(self, head: Snapshot, ttl_s: float, seed: int, owner: str, dial: float) -> Session:
        now_s = self._clock()
        return Session(
            id=secrets.token_hex(ID_BYTES),
            etag=_etag(),
            seed=seed,
            head=head,
            ttl_s=ttl_s,
            created_s=now_s,
            changed_s=now_s,
            expires_s=now_s + ttl_s,
            owner=owner,
            dial=dial,
        )

    def _replace(self, session: Session, new: dict[str, bytes], **changes: Any) -> Session:
        now_s = self._clock()
        changed = replace(session, etag=_etag(), changed_s=now_s, **changes)
        changed = replace(changed, expires_s=now_s + session.ttl_s)
        if not self._store.put(changed, new, session.etag):
            found = self._store.get(session.id)
            if found is None:
                raise SessionNotFound(session.id)
            raise SessionChanged(session.etag, found.etag)
        return changed

    def _load(
        self, session_id: str, etag: str, owner: str, checkpoint: str = ""
    ) -> tuple[Session, bytes]:
        """A session and the bytes of where it is, or was at a checkpoint."""
        before = None
        while True:
            session = self.get(session_id, etag, owner)
            if session == before:
                raise BlobDamaged("what was stored of the session is gone")
            head = _checkpoint(session, checkpoint) if checkpoint else session.head
            blob = self._store.load(head.key)
            if blob is not None:  # else it was changed or deleted since it was read
                return session, blob
            before = session

    def _ttl(self, ttl_s: float | None) -> float:
        if ttl_s is None:
            return self._ttl_s
        if not 0.0 < ttl_s <= self._ttl_s:
            raise RequestError("ttl_s", f"be above 0 and at most {self._ttl_s:g} s", ttl_s)
        return ttl_s


def _etag() -> str:
    return secrets.token_hex(8)


def _checked(seed: int) -> int:
    if not 0 <= seed <= MAX_SEED:
        raise RequestError("seed", "be from 0 to 2^64 - 1", seed)
    return seed


def _checkpoint(session: Session, name: str) -> Snapshot:
    if name not in session.checkpoints:
        raise CheckpointNotFound(name)
    return session.checkpoints[name]
