"""Arrivals: requests on their way to the server, of which only so many may be large or late.

gRPC takes in a whole message once somebody reads it, and nobody can see how much has come. So only
few calls read at once. A request that is small is there at once; one that is not makes way for
others, and of those that are late the oldest are ended first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from spiketrain.serving.errors import RequestLate, ServerBusy

LANES = 4  # calls whose request is expected at once
PROMPT_S = 0.05  # what is not there after this is late
MAX_LATE = 8  # requests that are late

Read = Callable[[], Awaitable[Any]]


class _Arrival:
    """A request that somebody reads."""

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.task = task
        self.error: Exception | None = None

    def end(self, error: Exception) -> None:
        """Have its reader raise an error."""
        if self.error is None:
            self.error = error
            self.task.cancel()


class Arrivals:
    """Who reads now. Used on one event loop. timeout_s: most time that a request may take."""

    def __init__(self, timeout_s: float, idle_s: float) -> None:
        """idle_s: most time between the messages of a stream."""
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._lanes = asyncio.Semaphore(LANES)
        self._late: dict[_Arrival, None] = {}

    @property
    def num_late(self) -> int:
        """Requests that are late."""
        return len(self._late)

    async def request(self, read: Read) -> Any:
        """The request of a call that has one. Raises RequestLate, ServerBusy."""
        await self._lanes.acquire()
        arrival = _Arrival(_this_task())
        loop = asyncio.get_running_loop()
        prompt = loop.call_later(PROMPT_S, self._is_late, arrival)
        try:
            return await self._within(self._timeout_s, arrival, read)
        finally:
            prompt.cancel()
            if arrival in self._late:
                del self._late[arrival]
            else:
                self._lanes.release()

    async def message(self, read: Read) -> Any:
        """The next message of a stream. Raises RequestLate."""
        return await self._within(self._idle_s, _Arrival(_this_task()), read)

    async def _within(self, timeout_s: float, arrival: _Arrival, read: Read) -> Any:
        late = asyncio.get_running_loop().call_later(timeout_s, arrival.end, RequestLate(timeout_s))
        try:
            return await read()
        except asyncio.CancelledError:
            if arrival.error is None:
                raise
            raise arrival.error from None
        finally:
            late.cancel()

    def _is_late(self, arrival: _Arrival) -> None:
        """Let others read beside it, and end the oldest that is late where there are too many."""
        self._late[arrival] = None
        self._lanes.release()
        if len(self._late) > MAX_LATE:
            oldest = next(other for other in self._late if other.error is None)
            oldest.end(ServerBusy(f"{MAX_LATE} other requests are on their way as well"))


def _this_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task
