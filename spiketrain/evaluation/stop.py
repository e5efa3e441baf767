"""Stop: Ctrl-C as a request to stop. Long work checks the request between two steps.

A second Ctrl-C interrupts at once. Where interrupts are ignored they stay ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether work should end."""

    def __init__(self) -> None:
        self.requested = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """A handler of SIGINT."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


NEVER = Stop()


@contextmanager
def stop_on_interrupt() -> Iterator[Stop]:
    """A Stop that SIGINT turns on. For the main thread."""
    stop, before = Stop(), signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        yield stop
        return
    signal.signal(signal.SIGINT, stop.on_signal)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
