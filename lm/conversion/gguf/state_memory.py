"""Whether a package and one sequence's state fit the machine: no tensor bounds a context."""

import os
from dataclasses import replace

import numpy as np

from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.families.spikingbrain.spec import Spec


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_state_memory(spec: Spec, memory_bytes: int) -> None:
    """SpiketrainError naming the most window keys that fit, unless weights and a state do."""
    weights = sum(
        np.dtype(dtype).itemsize * int(np.prod(shape, dtype=object))
        for dtype, shape in spec.tensors().values()
    )
    room = memory_bytes - weights
    if spec.state_nbytes <= room:
        return
    most = _most_window_keys(spec, room)
    size = f"{memory_bytes / 1e9:.2f} GB of memory"
    if not most:
        raise SpiketrainError(f"the weights, {weights / 1e9:.2f} GB, must fit the {size}")
    raise SpiketrainError(
        f"--window-keys must be at most {most} for a state beside {weights / 1e9:.2f} GB of weights"
        f" in {size}, got {spec.window_keys}"
    )


def _most_window_keys(spec: Spec, room: int) -> int:
    """The most keys with which a state has at most `room` bytes; 0 if one is too many."""
    low, high = 0, spec.window_keys
    while high - low > 1:
        middle = (low + high) // 2
        fits = replace(spec, window_keys=middle).state_nbytes <= room
        low, high = (middle, high) if fits else (low, middle)
    return low
