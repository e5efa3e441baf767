"""Inputs in a fork with limits of time and memory: whatever they do, they do it there."""

import faulthandler
import gc
import json
import os
import resource
import signal
import traceback
from dataclasses import dataclass

from surface import Call, Surface

MEMORY_BYTES = 2 << 30  # beyond what the process has when it starts
START_S, INPUT_S = 60, 5  # of a worker, and for an input that takes very long
TYPICAL_S = 0.05  # of processor time, for an input of a batch, on a slow machine
HANG_FACTOR = 4  # time on the clock that a worker has, in its processor time: cores are shared


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that was dealt with in a way that no document says."""

    input: bytes
    what: str


def findings(surface: Surface, inputs: list[bytes]) -> list[Finding]:
    """Try the inputs in a fork; if it fails as a whole, split them until each one is alone."""
    if not inputs:
        return []
    raised, failure = _fork(surface, inputs)
    if failure is None:
        return [Finding(inputs[place], what) for place, what in raised]
    if len(inputs) == 1:
        return [Finding(inputs[0], failure)]
    half = len(inputs) // 2
    parts = findings(surface, inputs[:half]) + findings(surface, inputs[half:])
    return parts or [Finding(b"", f"{len(inputs)} inputs together, none alone: {failure}")]


def _fork(surface: Surface, inputs: list[bytes]) -> tuple[list[tuple[int, str]], str | None]:
    """(place, exception) of inputs that raised, and how the worker failed, None if it did not."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.close(reads)
        _work(surface, inputs, writes)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        told = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return [], f"the worker died of {signal.Signals(os.WTERMSIG(status)).name}"
    if os.WEXITSTATUS(status):
        return [], f"the worker failed: {told.decode(errors='replace')[-2000:]}"
    return [(place, what) for place, what in json.loads(told)], None


def _work(surface: Surface, inputs: list[bytes], pipe: int) -> None:
    """Be the worker; never returns."""
    code = 1
    try:
        _limit(len(inputs))
        told = json.dumps(_try_all(surface, inputs)).encode()
        code = 0
    except BaseException:
        told = traceback.format_exc().encode(errors="replace")
    try:
        signal.alarm(START_S)
        _write(pipe, told)
    finally:
        os._exit(code)


def _write(pipe: int, told: bytes) -> None:
    with os.fdopen(pipe, "wb") as file:
        file.write(told)


def _limit(count: int) -> None:
    """No core dump, no word on the terminal; seconds and bytes that the kernel watches."""
    faulthandler.disable()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    seconds = int(START_S + INPUT_S + TYPICAL_S * count)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(HANG_FACTOR * seconds)


def _try_all(surface: Surface, inputs: list[bytes]) -> list[tuple[int, str]]:
    allowed, raised = surface.module.allowed(), []
    gc.freeze()
    with surface.module.open_calls(surface.seeds) as call:
        for place, data in enumerate(inputs):
            what = _tried(call, data, allowed)
            if what is not None:
                raised.append((place, what))
    return raised


def _tried(call: Call, data: bytes, allowed: tuple[type[BaseException], ...]) -> str | None:
    """The traceback of what is raised against the documents, None if nothing is."""
    try:
        call(data)
    except allowed:
        return None
    except BaseException:
        return traceback.format_exc(limit=-6)
    return None
