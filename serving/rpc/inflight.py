"""InFlight: counts calls under way, and lets a shutdown wait for the last of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from spiketrain.serving.errors import Draining


class InFlight:
    """A context for each call; used on one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._over = asyncio.Event()

    def __enter__(self) -> None:
        self._count += 1
        self._idle.clear()

    def __exit__(self, *exc: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._idle.set()

    async def messages(self, sent: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """What a client sends, one by one. Raises Draining once nobody waits for more."""
        over = message = asyncio.ensure_future(self._over.wait())
        try:
            while True:
                message = asyncio.ensure_future(_next(sent))
                await asyncio.wait((message, over), return_when=asyncio.FIRST_COMPLETED)
                if not message.done():
                    raise Draining
                if (found := message.result()) is None:
                    return
                yield found
        finally:
            over.cancel()
            message.cancel()

    def wait_for_no_more(self) -> None:
        """End calls that wait for their clients."""
        self._over.set()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no call is under way; False if the time was used up first."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True


async def _next(sent: AsyncIterator[Any]) -> Any:
    return await anext(sent, None)
