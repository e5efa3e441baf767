"""Wake readers of completions from another thread: one call into each event loop."""

import asyncio
from collections.abc import Iterable

from serving.completion import Completion


def wake(completions: Iterable[Completion]) -> list[Completion]:
    """Set `ready` of each; those whose event loop is closed are given back."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Completion]] = {}
    for completion in completions:
        if completion.loop is None:
            completion.ready.set()
        else:
            by_loop.setdefault(completion.loop, []).append(completion)
    closed = [loop for loop, readers in by_loop.items() if not _wake_on(loop, readers)]
    return [completion for loop in closed for completion in by_loop[loop]]


def _wake_on(loop: asyncio.AbstractEventLoop, completions: list[Completion]) -> bool:
    """Set `ready` of each on its loop; False if the loop is closed."""
    try:
        loop.call_soon_threadsafe(_set_each, completions)
    except RuntimeError:
        return False
    return True


def _set_each(completions: list[Completion]) -> None:
    for completion in completions:
        completion.ready.set()
