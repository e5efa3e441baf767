"""What a completion's reader sees: events as they come, on its event loop."""

from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from spiketrain.serving.engine.completion import Completion
from spiketrain.serving.errors import ServingError
from spiketrain.serving.request.events import Delta, Event, Finish, PromptInfo

log = structlog.get_logger()


class Source(Protocol):
    """The part of an engine that readers use."""

    def take(self, completion: Completion) -> tuple[Delta | None, Finish | ServingError | None]:
        """What is new, and the end once it is reached."""


async def read(source: Source, completion: Completion) -> AsyncIterator[Event]:
    """The events of a completion, for its event loop; raises the error it ends with."""
    yield _prompt_info(completion)
    end = None
    while end is None:
        await completion.ready.wait()
        completion.ready.clear()
        delta, end = source.take(completion)
        if delta is not None:
            yield delta
    yield _finish_or_raise(end)


def log_end(completion: Completion) -> None:
    """One line for each request; never its text."""
    usage, timings, end = completion.usage(), completion.timings(), completion.end
    log.info(
        "request ended",
        end=end.reason.value if isinstance(end, Finish) else type(end).__name__,
        prompt_tokens=usage.prompt_tokens,
        reused_tokens=completion.read_before,
        new_tokens=usage.new_tokens,
        queue_ms=round(1e3 * timings.queue_s, 1),
        prefill_ms=round(1e3 * timings.prefill_s, 1),
        decode_ms=round(1e3 * timings.decode_s, 1),
    )


def _prompt_info(completion: Completion) -> PromptInfo:
    return PromptInfo(
        len(completion.prompt_ids), completion.request.sampling.seed, completion.read_before
    )


def _finish_or_raise(end: Finish | ServingError) -> Finish:
    if isinstance(end, ServingError):
        raise end
    return end
