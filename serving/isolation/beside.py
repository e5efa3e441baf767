"""Work beside the event loop: what may wait long has threads of its own, asyncio's stay free."""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from spiketrain.serving.isolation.confinement import MOST_RUNNING, MOST_WAITING

P = ParamSpec("P")
T = TypeVar("T")

# One more than may wait for a process with limits, so that it can be refused.
_waiting = ThreadPoolExecutor(MOST_RUNNING + MOST_WAITING + 1, thread_name_prefix="confined")


async def beside(
    waits: bool, function: Callable[P, T], *arguments: P.args, **options: P.kwargs
) -> T:
    """Call a function in a thread; waits: whether it may wait for a process with limits."""
    if not waits:
        return await asyncio.to_thread(function, *arguments, **options)
    call = functools.partial(contextvars.copy_context().run, function, *arguments, **options)
    return await asyncio.get_running_loop().run_in_executor(_waiting, call)
