"""Session: the small, immutable record of one session. Stores keep its states."""

import json
from dataclasses import asdict, dataclass, field

from spiketrain.runtime.dial import NO_DIAL


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A stored state, by the key of its bytes. num_tokens: read so far; nbytes: bytes stored."""

    key: str
    num_tokens: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session as it was committed; times are seconds since 1970.

    etag: another one for every commit. head: where it is. checkpoints: by name. ttl_s: how long it
    may stay unused before it is forgotten, which is at expires_s. owner: who created it, '' where
    nobody had to say. dial: that of its states.
    """

    id: str
    etag: str
    seed: int
    head: Snapshot
    ttl_s: float
    created_s: float
    changed_s: float
    expires_s: float
    checkpoints: dict[str, Snapshot] = field(default_factory=dict)
    owner: str = ""
    dial: float = NO_DIAL

    def snapshots(self) -> tuple[Snapshot, ...]:
        """All that it refers to, each once."""
        return tuple({s.key: s for s in (self.head, *self.checkpoints.values())}.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all it refers to."""
        return sum(snapshot.nbytes for snapshot in self.snapshots())

    def to_json(self) -> bytes:
        """The stored form."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Session":
        """The session that `to_json` stored."""
        values = json.loads(data)
        values["head"] = Snapshot(**values["head"])
        found = values["checkpoints"].items()
        values["checkpoints"] = {name: Snapshot(**snapshot) for name, snapshot in found}
        return cls(**values)
