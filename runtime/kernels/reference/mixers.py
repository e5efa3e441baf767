"""The scalar twins of the kernels in mixers: see reference for how they round."""

from __future__ import annotations

import math

from spiketrain.runtime.kernels.reference.functions import _clamp, _exp, _sigmoid, _single

LANES = 16


def _lane_sum(values):
    """Sixteen partial sums, element i in number i mod 16, added in halves."""
    lanes = [0.0] * LANES
    for i, value in enumerate(values):
        lanes[i % LANES] = _single(lanes[i % LANES] + value)
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [_single(lanes[j] + lanes[j + half]) for j in range(half)]
    return lanes[0]


def layer_norm(x, weight, bias, epsilon, out):
    """Write (x - mean) / sqrt(variance + epsilon) * weight + bias to out."""
    x = [float(v) for v in x]
    mean = _single(_lane_sum(x) / len(x))
    apart = [_single(v - mean) for v in x]
    variance = _single(_lane_sum([_single(v * v) for v in apart]) / len(x))
    deviation = _single(math.sqrt(_single(variance + _single(epsilon))))
    scale = _single(1.0 / deviation)
    for i, v in enumerate(apart):
        weighted = _single(_single(v * scale) * float(weight[i]))
        out[i] = _single(weighted + float(bias[i]))


def token_shift(now, before, mix, out):
    """Write now * mix + before * (1 - mix) to out."""
    for i in range(len(out)):
        m = float(mix[i])
        a = _single(float(now[i]) * m)
        b = _single(float(before[i]) * _single(1.0 - m))
        out[i] = _single(a + b)


def wkv(r, k, v, decay, bonus, p, q, o, out):
    """Write sigmoid(r) * wkv of one token to out and advance p, q, o."""
    for i in range(len(out)):
        key, value = float(k[i]), float(v[i])
        top, bottom, _ = _blend(p[i], q[i], o[i], _single(float(bonus[i]) + key), value)
        out[i] = _single(_sigmoid(float(r[i])) * _single(top / bottom))
        faded = _single(float(o[i]) + float(decay[i]))
        p[i], q[i], o[i] = _blend(p[i], q[i], faded, key, value)


def _blend(p, q, exponent, key, value):
    """A p + B v, A q + B and n = max(exponent, key) with A = e^(exponent - n), B = e^(key - n)."""
    p, q, exponent = float(p), float(q), float(exponent)
    apart = _single(_exp(_clamp(-abs(_single(exponent - key)), 110.0)))
    old = exponent >= key
    a, b = (1.0, apart) if old else (apart, 1.0)
    top = _single(_single(a * p) + _single(b * value))
    return top, _single(_single(a * q) + b), exponent if old else key


def lif(x, scale, threshold, tau, membrane, count):
    """One token of leaky integrate and fire; returns the number of spikes."""
    spikes = 0
    for i in range(len(count)):
        v = float(membrane[i])
        drive = _single(float(scale[i]) * float(x[i]))
        h = _single(v + _single(_single(drive - v) / _single(tau)))
        fires = h >= float(threshold[i])
        membrane[i] = 0.0 if fires else h
        count[i] += fires
        spikes += fires
    return spikes


def gate(r, x, out):
    """Write sigmoid(r) * x to out."""
    for i in range(len(out)):
        out[i] = _single(_sigmoid(float(r[i])) * float(x[i]))


def square_relu(x, out):
    """Write max(x, 0) ** 2 to out."""
    for i in range(len(out)):
        out[i] = _single(max(float(x[i]), 0.0) ** 2)


def add_counts(x, count, out):
    """Write x + count to out."""
    for i in range(len(out)):
        out[i] = _single(float(x[i]) + int(count[i]))


def add_vector(x, out):
    """Add x to out."""
    for i in range(len(out)):
        out[i] = _single(float(out[i]) + float(x[i]))


def count_spikes(x, scale, dial, counts):
    """Write sign(x) floor(|x| / V), V = scale * mean |x|, to counts; returns V, or 0.

    A count is 0 where |x| / V is below the dial.
    """
    if not len(x):
        return 0.0
    mean = _single(_lane_sum([abs(float(v)) for v in x]) / len(x))
    threshold = _single(_single(scale) * mean)
    threshold = threshold if threshold >= 2.0**-100 else 0.0
    for i in range(len(counts)):
        size = _single(abs(float(x[i])) / threshold) if threshold else 0.0
        size = min(size, 32767.0)
        count = int(size) if size >= _single(dial) else 0
        counts[i] = -count if x[i] < 0 else count
    return threshold
