"""The scalar twins of the kernels in attention: see reference for how they round."""

from __future__ import annotations

import math

import numpy as np

from spiketrain.runtime.kernels.reference.functions import _clamp, _exp, _log, _single
from spiketrain.runtime.kernels.reference.mixers import _lane_sum

TILE = 64
_PI_2 = (1.57079632673412561417, 6.07710050650619224932e-11)


def rms_norm(x, weight, epsilon, out):
    """Write x / sqrt(mean(x ** 2) + epsilon) * weight to out."""
    mean = _single(_lane_sum([_single(float(v) ** 2) for v in x]) / len(x)) if len(x) else 0.0
    scale = _single(1.0 / _single(math.sqrt(_single(mean + _single(epsilon)))))
    for i in range(len(out)):
        out[i] = _single(_single(float(x[i]) * scale) * float(weight[i]))


def sincos(x, sine, cosine):
    """Write sine and cosine of x; pi / 2 is taken off in two parts, the rest has Taylor series."""
    for i in range(len(x)):
        n = (float(x[i]) * 0.6366197723675814 + 6755399441055744.0) - 6755399441055744.0
        r = (float(x[i]) - n * _PI_2[0]) - n * _PI_2[1]
        q = r * r
        s = 1 / math.factorial(13)
        for power in (11, 9, 7, 5, 3):
            s = s * q + (-1) ** (power // 2) / math.factorial(power)
        s = r + r * q * s
        c = 1 / math.factorial(12)
        for power in (10, 8, 6, 4, 2, 0):
            c = c * q + (-1) ** (power // 2) / math.factorial(power)
        sine[i], cosine[i] = ((s, c), (c, -s), (-s, -c), (-c, s))[int(n) % 4]


def rotate(cosine, sine, x):
    """Turn the pairs (x[i], x[N + i])."""
    half = len(cosine)
    for i in range(half):
        a, b, c, s = float(x[i]), float(x[half + i]), float(cosine[i]), float(sine[i])
        x[i] = _single(_single(a * c) - _single(b * s))
        x[half + i] = _single(_single(b * c) + _single(a * s))


def silu_product(gate, up, out):
    """Write gate * sigmoid(gate) * up to out."""
    for i in range(len(out)):
        g = max(float(gate[i]), -700.0)
        out[i] = _single(_single(g / (1.0 + _exp(-_clamp(g, 700.0)))) * float(up[i]))


def decay(x, normalizer, out):
    """Write sigmoid(x) ** (1 / normalizer) to out."""
    for i in range(len(out)):
        opened = 1.0 + _exp(-_clamp(float(x[i]), 700.0))
        out[i] = _single(_exp(-(_log(opened) / _single(normalizer))))


def spike_values(x, k, dead_zone, out):
    """Write round(x / V) V to out; returns V = max(mean |x| / k, 1e-5), or 0 without any x."""
    counts, v = _counts(x, k, dead_zone)
    for i, count in enumerate(counts):
        out[i] = _single(count * v)
    return v


def _counts(x, k, dead_zone):
    if not len(x):
        return [], 0.0
    mean = _single(_lane_sum([abs(float(v)) for v in x]) / len(x))
    v = max(_single(mean / _single(k)), _single(1e-5))
    ratios = [_single(float(value) / v) for value in x]
    return [0 if abs(z) < _single(dead_zone) else round(z) for z in ratios], v


def spike_list(x, k, dead_zone, most, index, value):
    """Counts that are not 0, in pieces of at most `most`; entries, V, inputs that have any."""
    counts, v = _counts(x, k, dead_zone)
    entries = []
    for i, count in enumerate(counts):
        sign = 1 if count > 0 else -1
        pieces, rest = divmod(abs(count), most)
        if count and not rest:
            pieces, rest = pieces - 1, most
        entries += [(i, sign * most)] * pieces
        entries += [(i, sign * rest)] * (rest > 0)
    for e, (i, piece) in enumerate(entries):
        index[e], value[e] = i, piece
    return len(entries), v, sum(count != 0 for count in counts)


def gla(decay, k, v, q, state, out):
    """One token of gated linear attention of a key/value head and its queries."""
    for i in range(len(decay)):
        for c in range(len(v)):
            kept = _single(float(state[i, c]) * float(decay[i]))
            state[i, c] = _single(kept + _single(float(v[c]) * float(k[i])))
    for h in range(len(q)):
        for c in range(len(v)):
            total = 0.0
            for i in range(len(decay)):
                if q[h, i]:
                    total = _single(total + _single(float(state[i, c]) * float(q[h, i])))
            out[h, c] = total


def window_tile(keys, values, q, first, last, most, total, sums):
    """Add the keys first .. last of a tile to the softmax of queries."""
    for h in range(len(q)):
        scores = [_dot(keys[:, t], q[h]) for t in range(first, last)]
        greatest = max([float(most[h]), *scores])
        kept = _single(_exp(_clamp(_single(float(most[h]) - greatest), 110.0)))
        p = [0.0] * TILE
        for t, score in zip(range(first, last), scores, strict=True):
            p[t] = _single(_exp(_clamp(_single(score - greatest), 110.0)))
        most[h] = greatest
        total[h] = _single(_single(float(total[h]) * kept) + _lane_sum(p))
        for c in range(sums.shape[1]):
            found = _single(float(sums[h, c]) * kept)
            for t in range(first, last):
                found = _single(found + _single(float(values[t, c]) * p[t]))
            sums[h, c] = found


def _dot(key, query):
    total = 0.0
    for a, b in zip(key, query, strict=True):
        total = _single(total + _single(float(a) * float(b)))
    return total


def widen_bfloat16(x, out):
    """Write the float32 whose upper half is x to out."""
    for i in range(len(x)):
        out[i] = np.array([int(x[i]) << 16], np.uint32).view(np.float32)[0]


def widen_keys(codes, scale, out):
    """Write codes * scale[t] to out, keys t in columns."""
    for c in range(codes.shape[0]):
        for t in range(TILE):
            out[c, t] = _single(int(codes[c, t]) * float(scale[t]))


def widen_values(codes, scale, out):
    """Write codes * scale[t] to out, values t in rows."""
    for t in range(TILE):
        for c in range(codes.shape[1]):
            out[t, c] = _single(int(codes[t, c]) * float(scale[t]))
