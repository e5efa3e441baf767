"""The scalar twins of kernels.vectors.functions: plain loops, the same bits.

Python floats are float64; `_single` rounds to float32 after each operation that a kernel does in
float32. Sums, differences, products and quotients of float32 rounded that way are the float32
results (53 bits are more than twice 24 and two).
"""

from __future__ import annotations

import math
import struct

import numpy as np

_LANES = 16
_TO_INTEGER = 6755399441055744.0
_LOG2_E = 1.4426950408889634
_LN_2 = 0.6931471805599453
_TAYLOR = (1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0)


def exp(x, out):
    """Write e ** x to out."""
    for i in range(len(x)):
        out[i] = x[i] if x[i] != x[i] else _single(_exp(_clamp(float(x[i]), 110.0)))


def sigmoid(x, out):
    """Write 1 / (1 + e ** -x) to out."""
    for i in range(len(x)):
        out[i] = _sigmoid(float(x[i]))


def tanh(x, out):
    """Write the hyperbolic tangent of x to out."""
    for i in range(len(x)):
        out[i] = _tanh(float(x[i]))


def softmax(x, out):
    """Write e ** x over its sum to out; ValueError without a finite greatest, or for NaN."""
    if not len(x):
        return
    terms = _terms(x)
    share = 1.0 / _sum_in_parts(terms)
    for i, term in enumerate(terms):
        out[i] = _single(_single(term) * share)


def nats(logits, target, out):
    """Write -ln of the softmax of each row of logits at its target to out."""
    for t in range(len(target)):
        row = logits[t]
        above = float(max(row)) - float(row[target[t]])
        out[t] = _log(_sum_in_parts(_terms(row))) + above


def _terms(x):
    """Powers e ** (x - greatest), 0 below e ** -700."""
    if any(v != v for v in x) or not math.isfinite(max(x)):
        raise ValueError("x must have a finite greatest element, and no NaN")
    below = [float(v) - float(max(x)) for v in x]
    return [0.0 if v < -700.0 else _exp(v) for v in below]


def _sum_in_parts(terms):
    """Sixteen partial sums, then added in halves."""
    sums = [0.0] * _LANES
    for i, term in enumerate(terms):
        sums[i % _LANES] += term
    half = _LANES // 2
    while half:
        for j in range(half):
            sums[j] += sums[j + half]
        half //= 2
    return sums[0]


def _log(x):
    bits = _bits(x)
    exponent = (bits - 0x3FE6A09E667F3BCD) >> 52
    m = _double(bits - (exponent << 52))
    z = (m - 1.0) / (m + 1.0)
    s, p = z * z, 1 / 17
    for power in (15, 13, 11, 9, 7, 5, 3, 1):
        p = p * s + 1 / power
    return exponent * _LN_2 + 2.0 * z * p


def _exp(x):
    shifted = x * _LOG2_E + _TO_INTEGER
    n = shifted - _TO_INTEGER
    r = x - n * _LN_2
    p = _TAYLOR[0]
    for coefficient in _TAYLOR[1:]:
        p = p * r + coefficient
    return _double(_bits(p) + (int(n) << 52))


def _bits(x):
    return struct.unpack("<q", struct.pack("<d", x))[0]


def _double(bits):
    return struct.unpack("<d", struct.pack("<q", bits))[0]


def _clamp(x, bound):
    return min(max(x, -bound), bound)


def _sigmoid(x):
    if x != x:
        return x
    return _single(1.0 / (1.0 + _exp(-_clamp(x, 110.0))))


def _tanh(x):
    if x != x:
        return x
    v = _clamp(x, 20.0)
    if abs(v) < 2.0**-12:
        return _single(v - v * v * v * (1.0 / 3.0))
    e = _exp(2.0 * v)
    return _single((e - 1.0) / (e + 1.0))


def _single(value):
    """`value` rounded to float32."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))
