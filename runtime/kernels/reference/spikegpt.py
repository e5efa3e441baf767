"""The scalar twin of the SpikeGPT network: one token of one sequence after another, the same bits.

Its matrices are the twins in reference.products, its elementwise parts those in reference.mixers.
"""

from __future__ import annotations

import numpy as np

from spiketrain.runtime.kernels.reference.mixers import (
    add_counts,
    add_vector,
    count_spikes,
    gate,
    layer_norm,
    lif,
    square_relu,
    token_shift,
    wkv,
)
from spiketrain.runtime.kernels.reference.products import FLOATS

MAX_TOKENS = 128
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
_COLUMNS = 8


def _floats(size):
    return np.zeros(size, np.float32)


class Network:
    """A whole network; see spiketrain.runtime.kernels.networks.spikegpt. Threads change nothing."""

    def __init__(
        self,
        position,
        tau,
        epsilon,
        embedding,
        first_norm,
        last_norm,
        sublayers,
        head,
        head_scale,
        state_size,
        dial,
        threads,
    ):
        self.position, self.tau, self.epsilon = position, tau, epsilon
        self.embedding, self.first_norm, self.last_norm = embedding, first_norm, last_norm
        self.sublayers, self.head, self.head_scale = sublayers, head, head_scale
        self.dial = dial
        self.width = len(first_norm[0])
        rows = 1 + sum(2 if sublayer.kind == "channel" else 1 for sublayer in sublayers)
        self.counters = np.zeros((rows, _COLUMNS), np.int64)

    def step(self, states, tokens, logits, activity):
        """One token for each sequence."""
        for at in range(0, len(states), MAX_TOKENS):
            lanes = range(at, min(at + MAX_TOKENS, len(states)))
            work = [
                self._token(states[b], tokens[b], logits[b], activity[b : b + 1]) for b in lanes
            ]
            self._count(work)

    def forward(self, state, tokens, logits, activity, cancelled=None):
        """Consecutive tokens of one sequence; how many were read."""
        for at in range(0, len(tokens), MAX_TOKENS):
            if cancelled is not None and cancelled[0]:
                return at
            work = []
            for t in range(at, min(at + MAX_TOKENS, len(tokens))):
                out = logits[t] if len(logits) == len(tokens) else None
                if len(logits) == 1 and t == len(tokens) - 1:
                    out = logits[0]
                work.append(self._token(state, tokens[t], out, activity))
            self._count(work)
        return len(tokens)

    def _token(self, state, token, logits, activity):
        """Advance a state by a token; returns its products as (row, matrix, values or None)."""
        state = state.view(np.float32)
        self._products, self._activity = [], activity[0]
        self._least = 1.0 if self.dial is None else state[self.dial]
        residual, count = _floats(self.width), np.zeros(self.width, np.int32)
        layer_norm(self._embed(token), *self.first_norm, self.epsilon, residual)
        row = 0
        for sublayer in self.sublayers:
            if sublayer.kind == "time":
                branch = self._time_mix(state, sublayer, row, residual, count)
            else:
                branch = self._channel_mix(state, sublayer, row, residual, count)
            if self.position == "residual":
                membrane = state[sublayer.membrane : sublayer.membrane + self.width]
                spikes = lif(branch, sublayer.scale, sublayer.threshold, self.tau, membrane, count)
                self._units(row, self.width, spikes)
                self.counters[row, 7] += spikes
            else:
                add_vector(branch, residual)
            row += 1 if sublayer.kind == "time" else 2
        if logits is not None:
            y = self._normed(self.last_norm, residual, count)
            self._out(row, self.head, y, self.head_scale, logits)
        return self._products

    def _embed(self, token):
        rows, scale = self.embedding
        if rows.dtype == np.uint8:
            bits = np.unpackbits(rows[token], count=self.width, bitorder="little")
            return bits.astype(np.float32)
        if rows.dtype == np.uint16:
            return (rows[token].astype(np.uint32) << 16).view(np.float32)
        return rows[token].astype(np.float32) * (1 if scale is None else scale[token])

    def _normed(self, norm, residual, count):
        x, y = _floats(self.width), _floats(self.width)
        add_counts(residual, count, x)
        layer_norm(x, *norm, self.epsilon, y)
        return y

    def _project(self, state, sublayer, row, residual, count, sizes):
        """What the matrices of a sublayer make of its shifted input, one array each."""
        now = self._normed(sublayer.norm, residual, count)
        before = state[sublayer.shift : sublayer.shift + self.width]
        mixed = [_floats(self.width) for _ in sublayer.mix]
        for mix, x in zip(sublayer.mix, mixed, strict=True):
            token_shift(now, before, mix, x)
        before[:] = now
        if sublayer.fused is not None:
            y = _floats(sum(sizes))
            self._counts(row, sublayer.fused, mixed[0], sublayer.input_scale, y)
            return np.split(y, np.cumsum(sizes)[:-1])
        found = [_floats(size) for size in sizes]
        for matrix, x, y in zip(sublayer.matrices, mixed, found, strict=True):
            self._dense(row, matrix, x, y)
        return found

    def _time_mix(self, state, sublayer, row, residual, count):
        width = self.width
        r, k, v = self._project(state, sublayer, row, residual, count, [width] * 3)
        p, q, o = state[sublayer.recurrence : sublayer.recurrence + 3 * width].reshape(3, width)
        x, branch = _floats(width), _floats(width)
        wkv(r, k, v, sublayer.decay, sublayer.bonus, p, q, o, x)
        matrix = sublayer.output if sublayer.value is None else sublayer.value
        self._out(row, matrix, x, sublayer.value_scale, branch)
        return branch

    def _channel_mix(self, state, sublayer, row, residual, count):
        sizes = [sublayer.inner, self.width]
        k, r = self._project(state, sublayer, row, residual, count, sizes)
        y, branch = _floats(self.width), _floats(self.width)
        if sublayer.fused is not None:
            square = _floats(sublayer.inner)
            square_relu(k, square)
            self._counts(row + 1, sublayer.value, square, sublayer.value_scale, y)
        else:
            sublayer.value.squares(k[None], y[None], None)
            steps = self._steps(sublayer.value, k)
            self._units(row + 1, sublayer.inner, np.count_nonzero(steps))
            self._read(row + 1, sublayer.value, steps, False)
        gate(r, y, branch)
        return branch

    def _steps(self, matrix, k):
        """Which squares a product reads: all that are not 0, or that are not 0 in its steps."""
        square = _floats(len(k))
        square_relu(k, square)
        if matrix.weights in FLOATS:
            return square
        most = {"int8": 32767, "int4": 4095}[matrix.weights]
        unit = np.float32(square.max() / np.float32(most))
        return np.rint(square / unit) if unit > 0 else np.zeros_like(square)

    def _out(self, row, matrix, x, scale, y):
        if self.position == "projections":
            self._counts(row, matrix, x, scale, y)
        else:
            self._dense(row, matrix, x, y)

    def _dense(self, row, matrix, x, y):
        matrix.multiply(x[None], y[None], None)
        self._activity[2] += _dense_bytes(matrix)
        self._products.append((row, matrix, None, False))

    def _counts(self, row, matrix, x, scale, y):
        counts = np.zeros(len(x), np.int16)
        unit = np.array([count_spikes(x, scale, self._least, counts)], np.float32)
        matrix.counts(counts[None], unit, y[None], None)
        self._units(row, len(x), np.count_nonzero(counts))
        self._read(row, matrix, counts, True)

    def _read(self, row, matrix, values, are_counts):
        self._activity[2] += np.count_nonzero(values) * _row_bytes(matrix)
        self._products.append((row, matrix, values, are_counts))

    # --- counters -----------------------------------------------------------------------------

    def _units(self, row, units, fired):
        self.counters[row, :2] += [units, fired]
        if row < len(self.counters) - 1:  # how often the head runs depends on the calls
            self._activity[:2] += [fired, units]

    def _count(self, work):
        """Count the products of a pass, a row read once for all of its tokens."""
        for products in zip(*self._aligned(work), strict=True):
            found = [product for product in products if product is not None]
            for row, matrix, values, _ in found[:1]:
                if values is None:
                    self.counters[row, 3] += _dense_bytes(matrix)
                else:
                    read = np.any([product[2] != 0 for product in found], axis=0).sum()
                    self.counters[row, 3] += read * _row_bytes(matrix)
            for product in found:
                self._count_one(*product)

    def _aligned(self, work):
        """Tokens without logits have no product with the head."""
        most = max(map(len, work))
        return [products + [None] * (most - len(products)) for products in work]

    def _count_one(self, row, matrix, values, are_counts):
        counters = self.counters[row]
        if values is None:
            macs = matrix.inputs * matrix.outputs
            counters[4:7] += [_dense_bytes(matrix), macs, macs]
            return
        size, outputs = len(values), matrix.outputs
        active = np.count_nonzero(values)
        ones = np.count_nonzero(np.abs(values.astype(np.int64)) == 1) if are_counts else 0
        counters[2] += size - active
        counters[4] += size * _row_bytes(matrix)
        counters[5:8] += [size * outputs, (active - ones) * outputs, ones * outputs]


def _dense_bytes(matrix):
    weights = matrix.inputs * matrix.outputs
    if matrix.group:
        return -(-weights // 2) + 2 * -(-matrix.inputs // matrix.group) * matrix.outputs
    return weights * WEIGHT_BYTES[matrix.weights]


def _row_bytes(matrix):
    if matrix.weights == "int4":
        return -(-matrix.outputs // 2) + -(-matrix.outputs // 128)
    return matrix.outputs * WEIGHT_BYTES[matrix.weights]
