"""A request's events for a reader without an event loop, who gets one that runs while it waits."""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager

from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.request.events import Event
from spiketrain.serving.request.request import Request


@contextmanager
def sync_stream(engine: Engine, request: Request) -> Generator[Iterator[Event], None, None]:
    """`Engine.stream`, whose events come one after the other; leaving frees the slot."""
    loop = asyncio.new_event_loop()
    opened = engine.stream(request)
    try:
        events = loop.run_until_complete(opened.__aenter__())
        try:
            yield _each(loop, events)
        finally:
            loop.run_until_complete(_cancel_others())
            loop.run_until_complete(opened.__aexit__(None, None, None))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _each(loop: asyncio.AbstractEventLoop, events: AsyncIterator[Event]) -> Iterator[Event]:
    while (event := loop.run_until_complete(_next(events))) is not None:
        yield event


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


async def _cancel_others() -> None:
    """Cancel what an interrupt has left waiting."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
