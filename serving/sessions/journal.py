"""Journal: one thread writes changes into an LMDB environment, in groups.

While one group waits for the disk the next group gathers, so any number of changes share a wait.
A group is one transaction, synced as a whole: a crash leaves whole groups, in order. `log.py` keeps
the changes that no caller waits for, so the end of the process loses nothing.
"""

import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import structlog

from spiketrain.serving.sessions.errors import SessionsNotKept
from spiketrain.serving.sessions.log import Change, SessionLog, logged, remove_logs

log = structlog.get_logger()

RETRY_S = 1.0  # after a group that could not be written
_LAST = b"last group"
MAX_GATHERED_BYTES = 64 << 20  # who changes more has to wait for the disk


class Group:
    """What to write together: sessions by id and snapshots by key, None for what is gone."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sessions: dict[str, bytes | None] = {}
        self.snapshots: dict[str, bytes | None] = {}
        self.nbytes = 0

    def __bool__(self) -> bool:
        return bool(self.sessions)

    def add(self, session_id: str, record: bytes | None, new: Mapping[str, bytes]) -> None:
        """Note a session as it is now, None for deleted, and its snapshots that are new."""
        self.sessions[session_id] = record
        self.snapshots.update(new)
        self.nbytes += len(record or b"") + sum(map(len, new.values()))

    def drop(self, keys: Collection[str]) -> None:
        """Note that snapshots are gone."""
        self.snapshots.update(dict.fromkeys(keys))

    def before(self, later: "Group") -> None:
        """Put what this group holds under what came later, to be written with it."""
        later.sessions = self.sessions | later.sessions
        later.snapshots = self.snapshots | later.snapshots
        later.nbytes += self.nbytes


class Journal:
    """Writes to databases of `env`. Use: start, then close.

    databases: sessions, snapshots, and what was done last. logs: for changes that no transaction
    has yet; what they hold from before is for `restore`.
    """

    def __init__(self, env: Any, databases: tuple[Any, Any, Any], logs: SessionLog | None) -> None:
        self._env = env
        self._databases = databases
        self._logs = logs
        self._changed = threading.Condition()
        done = last_done(env, databases[2])
        self._gathered, self._written = Group(done + 1), Group(0)  # what is or was last written
        self._done = done  # number of the last group that is on disk
        self._failed = done  # number of the last group that could not be written
        self._error: BaseException | None = None  # while groups cannot be written
        self._closing = False
        self._thread = threading.Thread(target=self._write, name="session-journal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Wait until everything is on disk; what cannot be written is logged and lost."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._logs is not None:
            self._logs.close()

    def check(self) -> None:
        """Raise SessionsNotKept while the disk takes nothing."""
        with self._changed:
            if self._error is not None:
                raise SessionsNotKept(str(self._error))

    def note(
        self,
        session_id: str,
        record: bytes | None,
        new: Mapping[str, bytes] | None = None,
        gone: Collection[str] = (),
    ) -> int:
        """Have a change of a session written; the number of its group."""
        with self._changed:
            self._gathered.add(session_id, record, new or {})
            self._gathered.drop(gone)
            if self._logs is not None:
                snapshots = {**(new or {}), **dict.fromkeys(gone)}
                self._logs.append(self._gathered.number, Change(session_id, record, snapshots))
            self._changed.notify_all()
            return self._gathered.number

    def snapshot(self, key: str) -> bytes | None:
        """The bytes of a snapshot that is on its way; None if it is not."""
        with self._changed:
            return self._gathered.snapshots.get(key) or self._written.snapshots.get(key)

    def settle(self, number: int, synced: bool) -> None:
        """Wait until a group is on disk, if `synced` or too much is on its way.

        Raises SessionsNotKept if it could not be written; it is tried again all the same.
        """
        with self._changed:
            while self._done < number and (synced or self._gathered.nbytes > MAX_GATHERED_BYTES):
                if self._failed >= number:
                    raise SessionsNotKept(str(self._error))
                self._changed.wait()

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._gathered and not self._closing:
                    self._changed.wait()
                if not self._gathered:
                    return
                group = self._written = self._gathered
                self._gathered = Group(group.number + 1)
            try:
                self._commit(group)
            except Exception as error:
                log.exception("sessions could not be written to disk")
                if self._give_back(group, error):
                    return
                continue
            with self._changed:
                self._written, self._done, self._error = Group(0), group.number, None
                if self._logs is not None:
                    self._logs.drop(group.number)
                self._changed.notify_all()

    def _commit(self, group: Group) -> None:
        commit(self._env, self._databases, group)

    def _give_back(self, group: Group, error: Exception) -> bool:
        """Have a group written again with the next one, after a while; True if it is too late."""
        with self._changed:
            group.before(self._gathered)
            self._written, self._failed, self._error = Group(0), group.number, error
            self._changed.notify_all()
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, RETRY_S)
                return False
            return True


def commit(env: Any, databases: tuple[Any, Any, Any], group: Group) -> None:
    """Write a group in one synced transaction."""
    *contents, done = databases
    with env.begin(write=True) as write:
        for database, entries in zip(contents, (group.sessions, group.snapshots), strict=True):
            for key, data in entries.items():
                if data is None:
                    write.delete(key.encode(), db=database)
                else:
                    write.put(key.encode(), data, db=database)
        write.put(_LAST, group.number.to_bytes(8, "little"), db=done)


def last_done(env: Any, database: Any) -> int:
    """Number of the last group on disk."""
    with env.begin() as read:
        found = read.get(_LAST, db=database)
    return 0 if found is None else int.from_bytes(found, "little")


def restore(env: Any, databases: tuple[Any, Any, Any], folder: Path) -> None:
    """Write what the logs in `folder` hold of a process that was killed, and remove them."""
    for number, changes in logged(folder, last_done(env, databases[2])):
        group = Group(number)
        for change in changes:
            group.sessions[change.session_id] = change.record
            group.snapshots.update(change.snapshots)
        commit(env, databases, group)
    remove_logs(folder)
