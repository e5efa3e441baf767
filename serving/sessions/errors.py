"""Errors of sessions, free of gRPC; `rpc/status.py` gives each error its status on the wire."""

from spiketrain.serving.errors import ServingError


class SessionNotFound(ServingError):  # noqa: N818
    """No session has this id: it never had one, was deleted, or its time has passed."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r:.80} does not exist, or its time has passed")
        self.resource = ("session", session_id[:80])


class CheckpointNotFound(ServingError):  # noqa: N818
    """The session has no checkpoint of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the session has no checkpoint {name!r:.80}")
        self.resource = ("checkpoint", name[:80])


class SessionChanged(ServingError):  # noqa: N818
    """The session has another etag than the one given, or than when the call began."""

    def __init__(self, given: str, found: str) -> None:
        super().__init__(f"etag must be the session's, {found!r}, got {given!r:.80}")


class SessionBusy(ServingError):  # noqa: N818
    """Another turn of the session is under way."""

    def __init__(self) -> None:
        super().__init__("another turn of this session is under way")
        self.retry_after_s = 1.0


class SessionStoreFull(ServingError):  # noqa: N818
    """The bytes set aside for sessions are used up."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"sessions use all of the {max_bytes} bytes set aside for them")
        self.retry_after_s = 60.0


class SessionsNotKept(ServingError):  # noqa: N818
    """The disk does not take sessions; what was changed last is in memory and tried again."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"sessions cannot be written to disk: {reason}")
        self.retry_after_s = 5.0


class BlobDamaged(ServingError):  # noqa: N818
    """An exported session is cut short, changed, or none at all."""


class BlobForeign(ServingError):  # noqa: N818
    """An exported session is of another model or format."""
