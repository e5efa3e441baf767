"""Several completions of one prompt, which is read once; each draws its own random numbers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

from spiketrain.serving.engine.completion import Completion
from spiketrain.serving.engine.input_processor import InputProcessor
from spiketrain.serving.engine.job import Job
from spiketrain.serving.engine.reader import Source, log_end, read
from spiketrain.serving.errors import ServingError
from spiketrain.serving.request.events import Event, Finish


class Entrance(Source, Protocol):
    """The part of an engine that several completions use."""

    input_processor: InputProcessor

    def enter(self, job: Job, begun: bool = False) -> None:
        """Queue a job, of a call that has begun or of a new one."""

    def cancel(self, job: Job) -> None:
        """Free its slot."""


@asynccontextmanager
async def parallel_sampling(
    engine: Entrance, first: Completion, events: AsyncIterator[Event]
) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a completion in the queue and of its siblings, each with its index.

    events: of `first`, which reads the prompt. The others enter the queue when it is read. An error
    of one ends all; QueueFull comes before any event.
    """
    if not first.num_forks:
        yield events
        return
    siblings, tasks = list[Completion](), list[asyncio.Task[None]]()
    try:
        yield _events(engine, first, events, siblings, tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sibling in siblings:
            engine.cancel(sibling)
            log_end(sibling)


async def _events(
    engine: Entrance,
    first: Completion,
    events: AsyncIterator[Event],
    siblings: list[Completion],
    tasks: list[asyncio.Task[None]],
) -> AsyncIterator[Event]:
    info, event = await anext(events), await anext(events)
    for index, fork in enumerate(first.forks, 1):
        sibling = engine.input_processor.sibling(first, index, fork)
        engine.enter(sibling, begun=True)
        siblings.append(sibling)
    first.forks = []
    yield info
    yield event
    if isinstance(event, Finish) and not siblings:  # its time was over before the prompt's end
        for index in range(1, first.num_forks + 1):
            yield replace(event, index=index)
        return
    queue: asyncio.Queue[Event | ServingError] = asyncio.Queue(maxsize=1)
    sources = [events, *(_without_info(engine, sibling) for sibling in siblings)]
    tasks += [asyncio.create_task(_pump(source, queue)) for source in sources]
    left = first.num_forks + 1 - isinstance(event, Finish)
    while left:
        taken = await queue.get()
        if isinstance(taken, ServingError):
            raise taken
        left -= isinstance(taken, Finish)
        yield taken


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
