"""Threads for work beside the event loop; asyncio's own threads stay free."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from spiketrain.serving.isolation.budget import Held, held
from spiketrain.serving.isolation.confinement import MAX_RUNNING, MAX_WAITING

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4  # that read, encode and answer requests
_working = ThreadPoolExecutor(THREADS, "request")
# One thread more than questions may wait for a process with limits, so that it can be refused.
_waiting = ThreadPoolExecutor(MAX_RUNNING + MAX_WAITING + 1, "confined")


async def beside(
    waits: bool, function: Callable[P, T], *arguments: P.args, **options: P.kwargs
) -> T:
    """Call a function in a thread; waits: whether it may wait for a process with limits.

    A caller who is cancelled leaves at once. The call keeps its part of the budget until the
    thread ends.
    """
    loop, share = asyncio.get_running_loop(), held()
    threads = _waiting if waits else _working
    call = partial(copy_context().run, function, *arguments, **options)
    future = threads.submit(call)
    if share is not None:
        share.share()
        future.add_done_callback(lambda _: _end_on(loop, share))
    return await asyncio.wrap_future(future)


def _end_on(loop: asyncio.AbstractEventLoop, share: Held) -> None:
    with suppress(RuntimeError):  # the loop is closed, and its budget gone
        loop.call_soon_threadsafe(share.end)
