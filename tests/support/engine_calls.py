"""An engine's config, and what tests do with its streams."""

import asyncio

from fake_model import PATIENCE_S

from spiketrain.serving.config import ServingConfig
from spiketrain.serving.request.events import Delta


def config(**fields):
    return ServingConfig(**{"flush_interval_s": 0.0, "max_batch_size": 2, **fields})


async def collect(engine, request):
    async with engine.stream(request) as events:
        return [event async for event in events]


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


def tokens_of(events):
    return [token for event in events if isinstance(event, Delta) for token in event.token_ids]


async def until(condition):
    """Let the loop run until a condition of the engine holds."""

    async def turn():
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turn(), PATIENCE_S)
