"""Wake readers of jobs from another thread: one call into each event loop.

A reader that has taken lately is woken when its time to gather is over; what is urgent, at once.
"""

import asyncio
import time
from collections.abc import Iterable

from spiketrain.serving.engine.job import Job


def notify(jobs: Iterable[Job], gather_s: float) -> list[Job]:
    """Set `ready` of each, `gather_s` after it last took or at once if that is urgent.

    Those whose event loop is closed are given back.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    closed = [loop for loop, readers in by_loop.items() if not _notify_on(loop, readers, gather_s)]
    return [job for loop in closed for job in by_loop[loop]]


def left_to_gather_s(job: Job, now_s: float, gather_s: float) -> float:
    """How long its reader should let tokens gather from `now_s` (time.monotonic) on."""
    return 0.0 if job.urgent else max(0.0, job.taken_s + gather_s - now_s)


def _notify_on(loop: asyncio.AbstractEventLoop, jobs: list[Job], gather_s: float) -> bool:
    """Set `ready` of each on its loop; False if the loop is closed."""
    try:
        loop.call_soon_threadsafe(_set_each, loop, jobs, gather_s)
    except RuntimeError:
        return False
    return True


def _set_each(loop: asyncio.AbstractEventLoop, jobs: list[Job], gather_s: float) -> None:
    now_s = time.monotonic()
    for job in jobs:
        wait_s = left_to_gather_s(job, now_s, gather_s)
        if wait_s:
            loop.call_later(wait_s, job.ready.set)
        else:
            job.ready.set()
