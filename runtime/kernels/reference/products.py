"""The scalar twins of kernels.products: same names and arguments, plain loops, same bits.

Packed weights are read back from their panels here, so a twin depends on the layout alone.
"""

from __future__ import annotations

import itertools

import numpy as np

from spiketrain.runtime.kernels.reference.functions import _clamp, _single

PANEL = 64
SPAN = 128
FLOATS = ("float32", "bfloat16")
_STEPS = {"int8": 32767, "int4": 4095}


# --- packing -----------------------------------------------------------------------------------


def panels_shape(weights, inputs, outputs, group=0):
    """Shape of the bytes of packed weights."""
    size = {
        "float32": inputs * PANEL * 4,
        "bfloat16": inputs * PANEL * 2,
        "int8": -(-inputs // 4) * 4 * PANEL,
        "int4": -(-inputs // max(group, 1)) * (group // 2 + 2) * PANEL,
    }[weights]
    return -(-outputs // PANEL), size


def pack(weights, weight, panels, scale=None, group=0):
    """Fill the panels from weight (I, O), or (I, (O + 1) // 2) for int4."""
    packers = {
        "float32": _pack_float32,
        "bfloat16": _pack_bfloat16,
        "int8": _pack_int8,
        "int4": _pack_int4,
    }
    packers[weights](weight, panels, scale, group)


def _pack_float32(weight, panels, scale, group):
    """Inputs in order, PANEL floats each."""
    panels[...] = 0
    for i in range(weight.shape[0]):
        for o in range(weight.shape[1]):
            _float(panels, i, o)[0] = weight[i, o]


def _pack_bfloat16(weight, panels, scale, group):
    """Inputs in order, the bits of PANEL values each."""
    panels[...] = 0
    for i in range(weight.shape[0]):
        for o in range(weight.shape[1]):
            _bf16(panels, i, o)[0] = weight[i, o]


def _pack_int8(weight, panels, scale, group):
    """Quads of inputs: byte 4 j + k is the code of input k and output j, + 128."""
    panels[...] = 128
    for i in range(weight.shape[0]):
        for o in range(weight.shape[1]):
            panels[_int8_at(i, o)] = int(weight[i, o]) + 128


def _pack_int4(weight, panels, scale, group):
    """Groups of inputs: PANEL bfloat16 scales, then byte 4 j + k holds inputs k and 4 + k."""
    panels[...] = 0x88
    groups, outputs = scale.shape
    size = (group // 2 + 2) * PANEL
    for g in range(groups):
        for panel in range(panels.shape[0]):
            panels[panel, g * size : g * size + 2 * PANEL] = 0
        for o in range(outputs):
            _bfloat16(panels, g, o, size)[0] = scale[g, o : o + 1].view(np.uint32)[0] >> 16
    for i in range(weight.shape[0]):
        for o in range(outputs):
            at, shift = _int4_at(i, o, group)
            code = int(weight[i, o // 2]) >> (o % 2 * 4) & 15
            panels[at] = int(panels[at]) & (15 << (4 - shift)) | code << shift


def _float(panels, i, o):
    at = (i * PANEL + o % PANEL) * 4
    return panels[o // PANEL, at : at + 4].view(np.float32)


def _bf16(panels, i, o):
    at = (i * PANEL + o % PANEL) * 2
    return panels[o // PANEL, at : at + 2].view(np.uint16)


def _widened(bits):
    return float(np.array([int(bits) << 16], np.uint32).view(np.float32)[0])


def _int8_at(i, o):
    return o // PANEL, i // 4 * 4 * PANEL + o % PANEL * 4 + i % 4


def _int4_at(i, o, group):
    """(panel, byte) and shift of a code."""
    within = i % group
    at = i // group * (group // 2 + 2) * PANEL + 2 * PANEL + within // 8 * 4 * PANEL
    return (o // PANEL, at + o % PANEL * 4 + i % 4), 4 if within % 8 >= 4 else 0


def _bfloat16(panels, g, o, size):
    at = g * size + o % PANEL * 2
    return panels[o // PANEL, at : at + 2].view(np.uint16)


# --- dense -------------------------------------------------------------------------------------


def quantise_row(x, codes, sums):
    """Symmetric codes in [-127, 127], half to even; returns the scale, 1 for a zero vector."""
    scale = _single(max((abs(float(v)) for v in x), default=0.0) / 127.0) or 1.0
    codes[...] = 0
    for i in range(len(x)):
        codes[i] = round(_clamp(_single(float(x[i]) / scale), 127.0))
    for g in range(len(sums)):
        sums[g] = sum(int(code) for code in codes[32 * g : 32 * g + 32])
    return scale


class Pool:
    """Threads; plain loops need none."""

    def __init__(self, threads):
        pass


class Dense:
    """Packed weights of one matrix."""

    def __init__(self, weights, panels, inputs, outputs, scale=None, group=0):
        self.weights, self.panels, self.inputs, self.outputs = weights, panels, inputs, outputs
        self.scale, self.group = scale, group
        self._dot = getattr(self, f"_{weights}")
        self._is_float = weights in FLOATS

    def multiply(self, x, y, pool):
        """Write x (T, I) times the weights to y (T, O)."""
        padded = -(-self.inputs // 64) * 64
        for t in range(len(x)):
            codes, unit = x[t], 1.0
            if not self._is_float:
                codes = np.zeros(padded, np.int8)
                unit = quantise_row(x[t], codes, np.zeros(padded // 32, np.int32))
            for o in range(self.outputs):
                y[t, o] = self._dot(codes, unit, o)

    def _float32(self, x, unit, o):
        total = 0.0
        for i in range(self.inputs):
            total = _single(total + _single(float(x[i]) * float(_float(self.panels, i, o)[0])))
        return total

    def _bfloat16(self, x, unit, o):
        total = 0.0
        for i in range(self.inputs):
            weight = _widened(_bf16(self.panels, i, o)[0])
            total = _single(total + _single(float(x[i]) * weight))
        return total

    def _int8(self, codes, unit, o):
        total = sum(
            int(codes[i]) * (int(self.panels[_int8_at(i, o)]) - 128) for i in range(self.inputs)
        )
        return _single(_single(_single(total) * unit) * float(self.scale[o]))

    def _int4(self, codes, unit, o):
        total, size = 0.0, (self.group // 2 + 2) * PANEL
        for g in range(-(-self.inputs // self.group)):
            part = 0
            for i in range(g * self.group, min((g + 1) * self.group, self.inputs)):
                at, shift = _int4_at(i, o, self.group)
                part += int(codes[i]) * ((int(self.panels[at]) >> shift & 15) - 8)
            scale = _widened(_bfloat16(self.panels, g, o, size)[0])
            total = _single(total + _single(_single(part) * scale))
        return _single(total * unit)


def multiply_all(products, pool):
    """Run several (Dense, x, y)."""
    for dense, x, y in products:
        dense.multiply(x, y, pool)


# --- sparse ------------------------------------------------------------------------------------


class Sparse:
    """Input-major weights of one matrix, of which only the rows of events are read."""

    def __init__(
        self, weights, weight, outputs, scale=None, multiplier=None, group=0, extra=None, bias=None
    ):
        self.weights, self.weight, self.outputs = weights, weight, outputs
        self.scale, self.multiplier, self.group, self.bias = scale, multiplier, group, bias
        self.extra = {}
        if extra is not None:
            rows, columns, values = extra
            check_extra(rows, columns, values, *weight.shape)
            for i in range(len(rows) - 1):
                for e in range(rows[i], rows[i + 1]):
                    self.extra[i, int(columns[e])] = int(values[e])

    def graded(self, output, y, pool):
        """Write output (T, I) times the weights to y (T, O)."""
        self.multiply(Events(self.weights, output, None, True), y, pool)

    def squares(self, x, y, pool):
        """Write max(x, 0) ** 2, in steps of a token's largest, times the weights to y (T, O)."""
        self.multiply(Events(self.weights, x), y, pool)

    def counts(self, count, unit, y, pool):
        """Write count (T, I) times the weights times unit (T,) to y (T, O)."""
        self.multiply(Events(self.weights, count, unit), y, pool)

    def multiply(self, events, y, pool):
        """Write the events' products to y (T, O)."""
        for t, (values, unit) in enumerate(events.tokens):
            self._multiply(values, unit, y[t])
            for o in range(self.outputs if self.bias is not None else 0):
                y[t, o] = _single(float(y[t, o]) + float(self.bias[o]))

    def _multiply(self, values, unit, y):
        if self.weights == "int8-groups":
            self._multiply_groups(values, unit, y)
            return
        for o in range(self.outputs):
            is_float = self.weights in FLOATS
            total = 0.0 if is_float else 0
            for i, value in enumerate(values):
                if value and is_float:
                    total = _single(total + _single(value * self._float(i, o)))
                elif value:
                    total += value * self._code(i, o)
            if not is_float:
                total = _single(_single(_single(total) * unit) * float(self.scale[o]))
            y[o] = total

    def _multiply_groups(self, values, unit, y):
        for o in range(self.outputs):
            total = 0.0
            for g in range(len(self.scale)):
                rows = range(g * self.group, min((g + 1) * self.group, len(values)))
                part = sum(values[i] * self._code(i, o) for i in rows)
                total = _single(total + _single(_single(part) * float(self.scale[g, o])))
            y[o] = _single(total * unit)

    def _float(self, i, o):
        weight = self.weight[i, o]
        return float(weight) if self.weights == "float32" else _widened(weight)

    def _code(self, i, o):
        if self.weights != "int4":
            return int(self.weight[i, o]) + self.extra.get((i, o), 0)
        code = (int(self.weight[i, o // 2]) >> (o % 2 * 4) & 15) - 8
        return code * int(self.multiplier[i, o // SPAN])


class Events:
    """Values and unit of T tokens.

    Counts (T, I) with unit (T,), x (T, I) to be squared, or graded outputs (T, I).
    """

    def __init__(self, weights, values, unit=None, graded=False):
        self.tokens = []
        for t in range(len(values)):
            if graded:
                self.tokens.append((values[t].tolist(), 1.0))
            elif unit is None:
                self.tokens.append(_squares(weights, values[t]))
            else:
                scale = float(unit[t])
                counts = [int(c) for c in values[t]]
                if weights in FLOATS:
                    counts = [_single(c * scale) for c in counts]
                self.tokens.append((counts, scale))


def _squares(weights, x):
    values = [_single(max(float(v), 0.0) ** 2) for v in x]
    if weights in FLOATS:
        return values, 1.0
    most = _STEPS[weights]
    unit = _single(max(values, default=0.0) / most)
    return [min(round(_single(v / unit)), most) if unit else 0 for v in values], unit


def check_extra(rows, columns, values, inputs, outputs):
    """ValueError unless these are corrections of a matrix (inputs, outputs)."""
    good = len(rows) == inputs + 1 and len(columns) == len(values) > 0
    edges = [0, *rows[1:], len(values)]
    good = good and rows[0] == 0 and all(a <= b for a, b in itertools.pairwise(edges))
    good = good and rows[-1] == len(values)
    for begin, end in itertools.pairwise(rows):
        row = [-1, *columns[begin:end], outputs]
        good = good and all(a < b for a, b in itertools.pairwise(row))
    if not good:
        raise ValueError(f"extra must hold corrections of a matrix ({inputs}, {outputs})")
