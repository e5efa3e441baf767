"""The scalar twins of runtime.kernels.vectors.neurons: same names and arguments, plain loops.

Numbers are rounded as in reference.functions, so the bits are the same.
"""

from __future__ import annotations

from spiketrain.runtime.kernels.reference.functions import _clamp, _sigmoid, _single, _tanh


def list_float32(output, index, value):
    """List the non-zero outputs in ascending order and return their number."""
    count = 0
    for i in range(len(output)):
        if output[i] != 0:
            index[count] = i
            value[count] = output[i]
            count += 1
    return count


list_int16 = list_float32


def quantise(x, codes):
    """Symmetric codes in [-127, 127], half to even; returns the scale, max |x| / 127."""
    most = max((abs(float(v)) for v in x), default=0.0)
    scale = _single(most / 127.0)
    for i in range(len(x)):
        code = _single(float(x[i]) / scale) if scale > 0.0 else 0.0
        codes[i] = round(_clamp(code, 127.0))
    return scale


def egru_float32(x, y, threshold, zoneout, cell, output):
    """One step of a layer: gates, cell, event, reset."""
    _egru(x, y, threshold, zoneout, cell, output, lambda fired: fired)


def egru_int16(x, y, threshold, zoneout, cell, output):
    """As egru_float32, with outputs in steps of 1/32767, half to even."""
    _egru(x, y, threshold, zoneout, cell, output, lambda fired: round(_single(fired * 32767.0)))


def _egru(x, y, threshold, zoneout, cell, output, coded):
    size = len(cell)
    zoneout = _single(zoneout)
    x, y = [float(v) for v in x], [float(v) for v in y]
    for i in range(size):
        c = float(cell[i])
        z = _sigmoid(_single(x[i] + y[i]))
        r = _sigmoid(_single(x[size + i] + y[size + i]))
        g = _tanh(_single(x[2 * size + i] + _single(r * y[2 * size + i])))
        following = _single(_single(z * c) + _single(_single(1.0 - z) * g))
        c = _single(_single(zoneout * c) + _single(_single(1.0 - zoneout) * following))
        above = _single(c - float(threshold[i]))
        cell[i] = above if above > 0 else c
        output[i] = coded(c if above > 0 else 0.0)
