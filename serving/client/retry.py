"""When a call may be made again, and how long to wait first. Knows errors, opens nothing.

A call that was refused (QUEUE_FULL) or given up at shutdown (SHUTTING_DOWN) left nothing behind and
may be made again. After a lost connection nobody knows what was done: only calls that change
nothing are repeated. Nothing is repeated once a part of an answer has come.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from spiketrain.serving.errors import ConfigError, ServingError
from spiketrain.serving.request.request import Request

REFUSED = ("QUEUE_FULL", "SHUTTING_DOWN")


def unguarded(request: Request) -> bool:
    """Whether a request, made twice, may do twice what it does once: a turn that no etag guards."""
    return request.session is not None and not request.session.etag


class ServerError(ServingError):
    """The server refused a request, failed on it, or is not there.

    code: canonical name. reason: of ErrorInfo. field: that broke a rule. retry_after_s: when to
    come back, if the server said so. request_id: to be found in the server's log. '' or None
    where the server did not say.
    """

    def __init__(self, error: Any) -> None:
        self.code: str = error.code().name
        self.reason = self.field = self.request_id = ""
        self.retry_after_s: float | None = None
        super().__init__(f"server: {self.code}: {error.details()}")
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            self._take(detail)

    def _take(self, detail: Any) -> None:
        if info := _unpacked(detail, error_details_pb2.ErrorInfo):
            self.reason = info.reason
        elif retry := _unpacked(detail, error_details_pb2.RetryInfo):
            self.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
        elif request := _unpacked(detail, error_details_pb2.RequestInfo):
            self.request_id = request.request_id
        elif bad := _unpacked(detail, error_details_pb2.BadRequest):
            self.field = bad.field_violations[0].field if bad.field_violations else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how soon.

    attempts: calls in all, 1 for no retries. base_s: first wait where the server names none,
    doubled each time. longest_s: longest single wait. Waits vary by up to a quarter.
    """

    attempts: int = field(default=4, kw_only=False)
    base_s: float = 0.1
    longest_s: float = 5.0
    chance: random.Random = field(default_factory=random.Random, compare=False)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"attempts must be at least 1, got {self.attempts}")
        if not 0.0 <= self.base_s <= self.longest_s < float("inf"):
            raise ConfigError(f"base_s must be from 0 to longest_s, got {self.base_s}")

    def wait_s(self, error: ServerError, attempt: int, changes: bool) -> float | None:
        """Seconds to wait after the `attempt`-th try (from 1) failed; None to give up.

        changes: whether the call changes something that it must not change twice.
        """
        lost = error.code == "UNAVAILABLE" and not error.reason
        safe = error.reason in REFUSED or (lost and not changes)
        if not safe or attempt >= self.attempts:
            return None
        wait_s = error.retry_after_s
        if wait_s is None:
            wait_s = self.base_s * 2 ** (attempt - 1)
        return min(wait_s, self.longest_s) * self.chance.uniform(0.75, 1.0)


def _unpacked(detail: Any, kind: Any) -> Any:
    if not detail.Is(kind.DESCRIPTOR):
        return None
    message = kind()
    detail.Unpack(message)
    return message
