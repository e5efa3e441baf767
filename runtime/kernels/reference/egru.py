"""The scalar twin of the EGRU network: one token of one sequence after another, the same bits.

Its matrices are the twins in reference.products, its neurons those in reference.neurons.
"""

from __future__ import annotations

import numpy as np

from spiketrain.runtime.kernels.reference.neurons import egru_float32, egru_int16, quantise
from spiketrain.runtime.kernels.reference.products import Sparse

MAX_TOKENS = 32
_WEIGHTS = {"float32": "float32", "uint16": "bfloat16", "int8": "int8"}


def _widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Network:
    """A whole EGRU network; see kernels.networks.egru. Threads and table change nothing."""

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
        for at in range(0, len(states), MAX_TOKENS):
            lanes = range(at, min(at + MAX_TOKENS, len(states)))
            outputs = [self._token(states[b], tokens[b], activity[b]) for b in lanes]
            for products in zip(*outputs, strict=True):
                self._count([product for product in products if product is not None])
            self._head([output[-1][3] for output in outputs], logits[at:], activity[at:])

    def forward(self, state, tokens, logits, activity, cancelled=None):
        """Consecutive tokens of one sequence; how many were read."""
        for at in range(0, len(tokens), MAX_TOKENS):
            if cancelled is not None and cancelled[0]:
                return at
            block = tokens[at : at + MAX_TOKENS]
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
        self._sparse(matrix).graded(vector[None], out[None], None)

    def _codes(self, matrix, codes, code_scale, out):
        self._sparse(matrix).counts(codes[None], code_scale[None], out[None], None)

    def _sparse(self, matrix):
        weight, scale, bias = matrix
        return Sparse(_WEIGHTS[weight.dtype.name], weight, weight.shape[1], scale, bias=bias)

    def _embed(self, token, x, activity):
        """First layer's input product; a product to count unless it is a table's row."""
        matrix = self.layers[0][0]
        rows, scale = self.embedding
        row = np.ascontiguousarray(rows[token])
        row = _widened(row) if row.dtype == np.uint16 else row
        if self.is_int8:
            self._codes(matrix, row, scale[token], x)
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
        weight = self.head[0]
        reads = [
            np.ones_like(y) if s is not None else y for y, s in zip(outputs, scales, strict=True)
        ]
        self._count([(layers + 1, self.head, read, None) for read in reads])
        for b, output in enumerate(outputs):
            activity[b][2] += np.count_nonzero(reads[b]) * weight[0].nbytes
            if scales[b] is None:
                self._product(self.head, output, logits[b])
            else:
                self._codes(self.head, output, scales[b], logits[b])
