"""The scalar twins of the kernels for events and neurons and of EGRU's network.

Same names and arguments, plain loops, the same bits; numbers are rounded as in reference_functions.
"""

from __future__ import annotations

import numpy as np

from spiketrain.runtime.kernels.reference_functions import _clamp, _sigmoid, _single, _tanh

MAX_LANES = 32


# --- neurons -----------------------------------------------------------------------------------


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


# --- gather ------------------------------------------------------------------------------------


def gather_float32(weight, index, value, bias, out):
    """Sum value[e] * weight[index[e]] over e in order, then add the bias."""
    for o in range(len(out)):
        total = 0.0
        for row, factor in zip(index, value, strict=True):
            total = _single(total + _single(float(factor) * float(weight[row, o])))
        out[o] = _single(total + float(bias[o]))


def gather_bfloat16(weight, index, value, bias, out):
    """gather_float32 of weights whose bits are given."""
    gather_float32(_widened(weight), index, value, bias, out)


def _widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def gather_int8(weight, index, value, scale, bias, out):
    """Sum value[e] * weight[index[e]] exactly; out is float32 of that * scale + bias."""
    for o in range(len(out)):
        total = sum(int(v) * int(weight[row, o]) for row, v in zip(index, value, strict=True))
        out[o] = _scaled(total, 1.0, scale[o], bias[o])


def batch_float32(weight, vector, bias, out):
    """gather_float32 of the non-zero elements of each vector."""
    for lane in range(len(vector)):
        events = np.flatnonzero(vector[lane])
        gather_float32(weight, events, vector[lane][events], bias, out[lane])


def batch_bfloat16(weight, vector, bias, out):
    """batch_float32 of weights whose bits are given."""
    batch_float32(_widened(weight), vector, bias, out)


def batch_int8(weight, vector, scale, bias, out):
    """gather_int8 of the non-zero elements of each vector."""
    for lane in range(len(vector)):
        events = np.flatnonzero(vector[lane])
        gather_int8(weight, events, vector[lane][events], scale, bias, out[lane])


def dense_int8(weight, codes, code_scale, scale, bias, out):
    """out[b] = float32(exact sum of codes[b, i] * weight[i]) * code_scale[b] * scale + bias."""
    for lane in range(len(codes)):
        for o in range(out.shape[1]):
            total = sum(int(c) * int(w) for c, w in zip(codes[lane], weight[:, o], strict=True))
            out[lane, o] = _scaled(total, code_scale[lane], scale[o], bias[o])


def _scaled(total, lane_scale, scale, bias):
    value = _single(_single(total) * float(lane_scale))
    return _single(_single(value * float(scale)) + float(bias))


# --- network -----------------------------------------------------------------------------------


class Network:
    """A whole EGRU network; see kernels.network. Threads and table change nothing."""

    def __init__(self, layers, projection, head, embedding, zoneout, threads, table=None):
        self.layers = layers
        self.projection = projection
        self.head = head
        self.embedding = embedding
        self.zoneout = zoneout
        self.table = table
        self.is_int8 = head[0].dtype == np.int8
        self.counters = np.zeros((len(layers) + 2, 7), np.int64)

    def step(self, states, tokens, logits, activity):
        """One token for each sequence."""
        for at in range(0, len(states), MAX_LANES):
            lanes = range(at, min(at + MAX_LANES, len(states)))
            outputs = [self._token(states[b], tokens[b], activity[b]) for b in lanes]
            for products in zip(*outputs, strict=True):
                self._count([product for product in products if product is not None])
            self._head([output[-1][3] for output in outputs], logits[at:], activity[at:])

    def forward(self, state, tokens, logits, activity, cancelled=None):
        """Consecutive tokens of one sequence; how many were read."""
        for at in range(0, len(tokens), MAX_LANES):
            if cancelled is not None and cancelled[0]:
                return at
            block = tokens[at : at + MAX_LANES]
            outputs = [self._token(state, token, activity[0]) for token in block]
            for which, products in enumerate(zip(*outputs, strict=True)):
                found = [product for product in products if product is not None]
                if which % 3 == 1:  # the recurrence shares no rows
                    for product in found:
                        self._count([product])
                else:
                    self._count(found)
            last = [output[-1][3] for output in outputs]
            same = [activity[0]] * len(last)
            if len(logits) == len(tokens):
                self._head(last, logits[at:], same)
            elif len(logits) == 1 and at + len(block) == len(tokens):
                self._head(last[-1:], logits, same)
        return len(tokens)

    def _token(self, state, token, activity):
        """Advance one sequence and return its products, (layer, matrix, input, output).

        They come in threes: input, recurrence, and a mark that holds the layer's output.
        """
        products = []
        previous = None
        for number, (matrix, recurrent, threshold) in enumerate(self.layers):
            size = len(recurrent[0])
            cell, output = self._views(state)[number]
            old = output.copy()
            x = np.empty(3 * size, np.float32)
            y = np.empty(3 * size, np.float32)
            if number:
                self._product(matrix, previous, x)
                products.append((number, matrix, previous, None))
            else:
                products.append(self._embed(token, x, activity))
            self._product(recurrent, old, y)
            products.append((number, recurrent, old, None))
            update = egru_int16 if self.is_int8 else egru_float32
            update(x, y, threshold, self.zoneout, cell, output)
            self.counters[number, 0] += size
            self.counters[number, 1] += np.count_nonzero(output)
            activity[0] += np.count_nonzero(output)
            activity[1] += size
            for product in products[-2:]:
                if product is not None:
                    activity[2] += np.count_nonzero(product[2]) * product[1][0][0].nbytes
            previous = output.copy()
            products.append((number, None, None, previous))
        return products

    def _views(self, state):
        """(cell, output) of each layer in a state: all cells, then all outputs."""
        sizes = [len(recurrent[0]) for _, recurrent, _ in self.layers]
        cells = state[: 4 * sum(sizes)].view(np.float32)
        outputs = state[4 * sum(sizes) :].view(np.int16 if self.is_int8 else np.float32)
        ends = np.cumsum([0, *sizes])
        spans = [slice(ends[i], ends[i + 1]) for i in range(len(sizes))]
        return [(cells[span], outputs[span]) for span in spans]

    def _product(self, matrix, vector, out):
        weight, scale, bias = matrix
        events = np.flatnonzero(vector)
        if self.is_int8:
            gather_int8(weight, events, vector[events], scale, bias, out)
        else:
            gather = gather_bfloat16 if weight.dtype == np.uint16 else gather_float32
            gather(weight, events, vector[events], bias, out)

    def _embed(self, token, x, activity):
        """First layer's input product; a product to count unless it is a table's row."""
        matrix = self.layers[0][0]
        rows, scale = self.embedding
        row = np.ascontiguousarray(rows[token])
        row = _widened(row) if row.dtype == np.uint16 else row
        if self.is_int8:
            weight, columns, bias = matrix
            dense_int8(weight, row[None], scale[token][None], columns, bias, x[None])
        else:
            self._product(matrix, row, x)
        if self.table is None:
            return (0, matrix, np.ones_like(row) if self.is_int8 else row, None)
        dense = matrix[0].size
        self.counters[0, 3:6] += [x.nbytes, dense * matrix[0].itemsize, dense]
        activity[2] += x.nbytes
        return None

    def _count(self, products):
        """Count products of several vectors with one matrix, a row read once for all."""
        if not products or products[0][1] is None:
            return
        number, (weight, _, _), _, _ = products[0]
        row = weight[0].nbytes
        active = sum(np.count_nonzero(vector) for _, _, vector, _ in products)
        read = np.count_nonzero(np.any([vector != 0 for _, _, vector, _ in products], axis=0))
        counters = self.counters[number]
        counters[2] += weight.shape[0] * len(products) - active
        counters[3] += read * row
        counters[4] += weight.shape[0] * row * len(products)
        counters[5] += weight.size * len(products)
        counters[6] += active * weight.shape[1]

    def _head(self, outputs, logits, activity):
        layers = len(self.layers)
        scales = [None] * len(outputs)
        if self.projection is not None:
            weight = self.projection[0]
            self._count([(layers, self.projection, output, None) for output in outputs])
            for b, output in enumerate(outputs):
                activity[b][2] += np.count_nonzero(output) * weight[0].nbytes
                features = np.empty(weight.shape[1], np.float32)
                self._product(self.projection, output, features)
                outputs[b] = features
                if self.is_int8:
                    outputs[b] = np.empty(weight.shape[1], np.int16)
                    scales[b] = np.float32(quantise(features, outputs[b]))
        weight, scale, bias = self.head
        reads = [
            np.ones_like(y) if s is not None else y for y, s in zip(outputs, scales, strict=True)
        ]
        self._count([(layers + 1, self.head, read, None) for read in reads])
        for b, output in enumerate(outputs):
            activity[b][2] += np.count_nonzero(reads[b]) * weight[0].nbytes
            if scales[b] is None:
                self._product(self.head, output, logits[b])
            else:
                dense_int8(weight, output[None], scales[b][None], scale, bias, logits[b][None])
