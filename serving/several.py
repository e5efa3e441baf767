"""Several completions of one prompt, which is read once; each draws its own random numbers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

from serving.completion import Completion
from serving.errors import ServingError
from serving.events import Event, Finish
from serving.intake import Intake
from serving.job import Job
from serving.reader import Source, log_end, read
from serving.request import Request


class Entrance(Source, Protocol):
    """The part of an engine that several completions use."""

    intake: Intake

    @property
    def now_s(self) -> float:
        """The engine's time."""

    def enter(self, job: Job) -> None:
        """Queue a job."""

    def cancel(self, job: Job) -> None:
        """Free its slot."""


@asynccontextmanager
async def several(engine: Entrance, request: Request) -> AsyncIterator[AsyncIterator[Event]]:
    """`Engine.stream` for n completions, whose events bear their index.

    The first reads the prompt, the others enter the queue when it is read. An error of one ends
    all; QueueFull comes before any event.
    """
    first = await engine.intake.completion(request, None, engine.now_s)
    first.num_forks = request.n - 1
    entered, tasks = [first], list[asyncio.Task[None]]()
    engine.enter(first)
    try:
        yield _events(engine, request.n, entered, tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for completion in entered:
            engine.cancel(completion)
            log_end(completion)


async def _events(
    engine: Entrance, n: int, entered: list[Completion], tasks: list[asyncio.Task[None]]
) -> AsyncIterator[Event]:
    (first,) = entered
    events = read(engine, first)
    info, event = await anext(events), await anext(events)
    for index, fork in enumerate(first.forks, 1):
        sibling = engine.intake.sibling(first, index, fork)
        engine.enter(sibling)
        entered.append(sibling)
    first.forks = []
    yield info
    yield event
    if isinstance(event, Finish) and len(entered) < n:  # its time was over before the prompt's end
        for index in range(1, n):
            yield replace(event, index=index)
        return
    queue: asyncio.Queue[Event | ServingError] = asyncio.Queue(maxsize=1)
    sources = [events, *(_without_info(engine, sibling) for sibling in entered[1:])]
    tasks += [asyncio.create_task(_pump(source, queue)) for source in sources]
    left = n - isinstance(event, Finish)
    while left:
        given = await queue.get()
        if isinstance(given, ServingError):
            raise given
        left -= isinstance(given, Finish)
        yield given


async def _without_info(engine: Entrance, completion: Completion) -> AsyncIterator[Event]:
    events = read(engine, completion)
    await anext(events)
    async for event in events:
        yield event


async def _pump(events: AsyncIterator[Event], queue: "asyncio.Queue[Event | ServingError]") -> None:
    try:
        async for event in events:
            await queue.put(event)
    except ServingError as error:
        await queue.put(error)
