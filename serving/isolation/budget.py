"""Budget: calls under way, and bytes of requests that are not yet in the engine's queue.

A request costs more than its bytes: they are copied, parsed, encoded and answered. So many times
its size it holds of the budget until it is a job, which the queue counts, or until it is answered.
"""

import asyncio
from collections import Counter, OrderedDict
from contextvars import ContextVar
from typing import TypeVar

from spiketrain.serving.errors import ServerBusy
from spiketrain.serving.isolation.trimming import Trimming

COST = 40  # bytes that a byte of text takes while it is encoded, lists of tokens included
SMALL_BYTES = 16 << 10  # a request up to here never waits: the number of calls bounds them all
PARTS = 4  # one request holds at most such a part of the budget; so much may wait beside it

Result = TypeVar("Result")


class Held:
    """What one call holds of a budget, until it has ended and no thread works for it."""

    def __init__(self, budget: "Budget", caller: str) -> None:
        self.caller = caller
        self.nbytes = 0
        self._budget = budget
        self._users = 1

    def shrink(self, nbytes: int) -> None:
        """Hold no more than so many bytes from now on."""
        if nbytes < self.nbytes:
            freed, self.nbytes = self.nbytes - nbytes, nbytes
            self._budget.free(self.caller, freed)

    def share(self) -> None:
        """Hold it for one more, who calls `end` as well."""
        self._users += 1

    def end(self) -> None:
        """Give it back once nobody holds it any more."""
        self._users -= 1
        if not self._users:
            self.shrink(0)
            self._budget.leave(self.caller)


_HELD: ContextVar[Held | None] = ContextVar("held", default=None)


def settle() -> None:
    """Free what the request of this call holds: it is a job now, which the queue counts."""
    held = _HELD.get()
    if held is not None:
        held.shrink(0)


def held() -> Held | None:
    """What the call of this context holds; None outside a call."""
    return _HELD.get()


class Budget:
    """What all callers may have under way, and a caller with a name at most half of it.

    Used on one event loop.
    """

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._most_each = max_bytes // PARTS
        self._most_waiting = max_bytes // PARTS
        self._calls: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._waiting: OrderedDict[asyncio.Future[None], tuple[str, int]] = OrderedDict()
        self.num_waiting_bytes = 0
        self._trimming = Trimming()

    @property
    def num_calls(self) -> int:
        """Calls under way."""
        return self._calls.total()

    @property
    def num_bytes(self) -> int:
        """Bytes that are held."""
        return self._bytes.total()

    def enter(self, caller: str) -> Held:
        """Begin a call of this task; `end` of what it holds has to follow. Raises ServerBusy."""
        self.check_call(caller)
        self._calls[caller] += 1
        held = Held(self, caller)
        _HELD.set(held)
        return held

    def check_call(self, caller: str) -> None:
        """Raise ServerBusy where the caller may begin no call."""
        if self._is_above(self._calls, caller, 1, self._max_calls):
            raise ServerBusy(f"{self.num_calls} calls are under way")

    def leave(self, caller: str) -> None:
        """End a call."""
        self._remove(self._calls, caller, 1)

    async def hold(self, held: Held, size: int) -> None:
        """Hold what a request of so many bytes takes, once there is room. Raises ServerBusy."""
        cost = min(COST * size, self._most_each)
        if size > SMALL_BYTES and (self._waiting or self._is_full(held.caller, cost)):
            await self._wait(held.caller, cost, size)
        else:
            self._bytes[held.caller] += cost
        held.nbytes += cost

    def free(self, caller: str, nbytes: int) -> None:
        """Take bytes back, and let those go on for whom there is room now, in their order."""
        self._remove(self._bytes, caller, nbytes)
        self._trimming.freed(nbytes)
        for turn, (other, cost) in list(self._waiting.items()):
            if self.num_bytes + cost > self._max_bytes:
                return
            if not turn.done() and not self._is_full(other, cost):
                self._bytes[other] += cost
                turn.set_result(None)

    async def _wait(self, caller: str, cost: int, size: int) -> None:
        if self.num_waiting_bytes + size > self._most_waiting:
            raise ServerBusy(f"requests of {self.num_waiting_bytes} bytes are waiting")
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = caller, cost
        self.num_waiting_bytes += size
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.free(caller, cost)
            raise
        finally:
            del self._waiting[turn]
            self.num_waiting_bytes -= size

    def _is_full(self, caller: str, cost: int) -> bool:
        return self._is_above(self._bytes, caller, cost, self._max_bytes)

    @staticmethod
    def _is_above(counts: Counter[str], caller: str, more: int, most: int) -> bool:
        if caller and counts[caller] + more > max(most // 2, more):
            return True
        return counts.total() + more > most

    @staticmethod
    def _remove(counts: Counter[str], caller: str, count: int) -> None:
        counts[caller] -= count
        if not counts[caller]:
            del counts[caller]
