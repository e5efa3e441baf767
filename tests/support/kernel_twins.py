"""A kernel beside its twin: the same results and the same written arrays, bit for bit."""

import numpy as np


def normal(rng, *shape, spread=1.0):
    """Read-only random float32."""
    array = (spread * rng.normal(size=shape)).astype(np.float32)
    array.flags.writeable = False
    return array


def both(modules, name, inputs, outputs):
    """Result and written arrays of the function `name`, the same in both modules."""
    found = []
    for module in modules:
        mine = [array.copy() for array in outputs]
        found.append((getattr(module, name)(*inputs, *mine), mine))
    (ours, our_arrays), (theirs, their_arrays) = found
    assert ours == theirs
    for a, b in zip(our_arrays, their_arrays, strict=True):
        assert a.tobytes() == b.tobytes(), name
    return ours, our_arrays
