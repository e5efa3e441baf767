"""Random matrices in every format, and what products of them are compared with."""

import numpy as np

from spiketrain.runtime.kernels import products
from spiketrain.runtime.memory import Arena, matrix_bytes


def same(a, b):
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def read_only(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


def nan(*shape):
    return np.full(shape, np.nan, np.float32)


def events_of(rng, rows, density, high=32767):
    y = rng.integers(1, high + 1, rows).astype(np.int16)
    y[rng.random(rows) >= density] = 0
    index = np.flatnonzero(y).astype(np.int32)
    return y, read_only(index), read_only(y[index])


def rows_apart(array):
    """A read-only copy one element off the start of its memory, rows apart."""
    space = np.zeros((array.shape[0], array.shape[1] + 3), array.dtype)
    space[:, 1:-2] = array
    space.flags.writeable = False
    return space[:, 1:-2]


def nibbles(codes):
    """Codes (I, O) in [-8, 7] as bytes, the lower output in the low nibble."""
    halves = np.zeros((codes.shape[0], (codes.shape[1] + 1) // 2), np.uint8)
    shifted = (codes + 8).astype(np.uint8)
    halves[:] = shifted[:, ::2]
    halves[:, : codes.shape[1] // 2] |= shifted[:, 1::2] << 4
    return rows_apart(halves)


def bfloat16(values):
    return (np.asarray(values, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def dense_weights(rng, weights, inputs, outputs, group=32):
    """(arguments of pack but for the panels, keywords of Dense)."""
    if weights == "float32":
        return (rows_apart(rng.normal(size=(inputs, outputs)).astype(np.float32)),), {}
    if weights == "bfloat16":
        return (rows_apart(rng.integers(0x3D00, 0x4100, (inputs, outputs)).astype(np.uint16)),), {}
    if weights == "int8":
        codes = rows_apart(rng.integers(-127, 128, (inputs, outputs)).astype(np.int8))
        return (codes,), {"scale": read_only(rng.uniform(0, 1, outputs).astype(np.float32))}
    codes = nibbles(rng.integers(-8, 8, (inputs, outputs)))
    scale = read_only(bfloat16(rng.uniform(1e-3, 1, (-(-inputs // group), outputs))))
    return (codes, scale, group), {"group": group}


def pack(module, weights, arguments, inputs, outputs, group=0):
    shape = module.panels_shape(weights, inputs, outputs, group)
    space = np.zeros(shape, np.uint8)
    panels = Arena(matrix_bytes(space)).place(space)
    panels[...] = 77
    weight, *scale = arguments
    module.pack(weights, weight, panels, *scale)
    return panels


def dense(weights, arguments, keywords, inputs, outputs, module=products):
    panels = pack(products, weights, arguments, inputs, outputs, keywords.get("group", 0))
    panels.flags.writeable = False
    return module.Dense(weights, panels, inputs, outputs, **keywords)


def sparse(rng, weights, inputs, outputs, module=products):
    if weights == "float32":
        return rows_apart(rng.normal(size=(inputs, outputs)).astype(np.float32)), outputs
    if weights == "bfloat16":
        bits = rng.normal(size=(inputs, outputs)).astype(np.float32).view(np.uint32) >> 16
        return rows_apart(bits.astype(np.uint16)), outputs
    scale = read_only(rng.uniform(0, 1, outputs).astype(np.float32))
    if weights == "int8":
        codes = rows_apart(rng.integers(-127, 128, (inputs, outputs)).astype(np.int8))
        return codes, outputs, scale
    multiplier = rows_apart(rng.integers(1, 16, (inputs, -(-outputs // 128))).astype(np.uint8))
    return nibbles(rng.integers(-8, 8, (inputs, outputs))), outputs, scale, multiplier
