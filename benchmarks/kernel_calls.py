"""What benchmarks/kernels.py times: products with copies of a matrix that no cache holds.

The copies of a matrix fill 128 MB of huge pages and take turns. Event lists are disjoint parts of
the rows while there are enough rows for that, so that a row is not read again before the other
copies were: rows come from memory, also at low densities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np

from spiketrain.runtime.kernels import products
from spiketrain.runtime.kernels.vectors import functions, neurons
from spiketrain.runtime.memory import Arena, matrix_bytes

COPIES_BYTES = 128 << 20
TORCH_BYTES = 64 << 20  # copies of torch's layers, which are slow to make
GROUP = 32
SPAN = products.SPAN
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}

Call = Callable[[], object]


def copies_of(arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
    """The arrays in huge pages, as often as fill the copies' bytes."""
    count = max(1, COPIES_BYTES // sum(array.nbytes for array in arrays))
    arena = Arena(count * sum(matrix_bytes(array) for array in arrays))
    return [[arena.place(array) for array in arrays] for _ in range(count)]


def lists_of(inputs: int, density: float) -> list[np.ndarray]:
    """Sorted rows, a density's share of them in every list; at most 128 lists."""
    count = max(1, round(density * inputs))
    order = np.random.default_rng(0).permutation(inputs).astype(np.int32)
    return [np.sort(order[i * count : (i + 1) * count]) for i in range(min(128, inputs // count))]


def turns(copies: list[Any], lists: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Every copy with the first list, then every copy with the next, for ever."""
    for one in cycle(lists):
        for copy in copies:
            yield copy, one


def plain_weights(rng: np.random.Generator, weights: str, inputs: int, outputs: int) -> np.ndarray:
    """float32, bits of bfloat16, or int8."""
    codes = rng.integers(-127, 128, (inputs, outputs))
    if weights == "bfloat16":
        return (codes.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return codes.astype(weights)


class Rows:
    """Event-driven products with one format of weights: `graded` events, or spike `counts`."""

    def __init__(self, weights: str, inputs: int, outputs: int) -> None:
        rng = np.random.default_rng(0)
        self.weights, self.inputs, self.outputs = weights, inputs, outputs
        self.scale, self.bias = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
        if weights == "int4":
            codes = rng.integers(0, 256, (inputs, outputs // 2), np.uint8)
            arrays = [codes, rng.integers(1, 16, (inputs, -(-outputs // SPAN)), np.uint8)]
        else:
            arrays = [plain_weights(rng, weights, inputs, outputs)]
        self.copies = copies_of(arrays)
        self.row_bytes = sum(array.nbytes for array in arrays) // inputs

    def touched(self, density: float) -> int:
        """Bytes of the rows that are read."""
        return max(1, round(density * self.inputs)) * self.row_bytes

    def graded(self, density: float) -> Call:
        """Products of 16-bit events, or float32 ones of weights that are floats, as EGRU's."""
        rng = np.random.default_rng(1)
        scale = None if self.weights != "int8" else self.scale
        matrices = [
            products.Sparse(self.weights, codes, self.outputs, scale, bias=self.bias)
            for (codes,) in self.copies
        ]
        lists = []
        for index in lists_of(self.inputs, density):
            output = np.zeros((1, self.inputs), np.int16)
            output[0, index] = rng.integers(1, 8000, len(index))
            if self.weights != "int8":
                output = output.astype(np.float32)
            lists.append(products.Events(self.weights, output, graded=True))
        return self._call(matrices, lists)

    def counts(self, density: float) -> Call:
        """Products of spike counts from 1 to 7, as SpikingBrain's."""
        rng = np.random.default_rng(1)
        matrices = [
            products.Sparse(self.weights, codes, self.outputs, self.scale, *multiplier)
            for codes, *multiplier in self.copies
        ]
        lists = []
        for index in lists_of(self.inputs, density):
            count = np.zeros((1, self.inputs), np.int16)
            count[0, index] = rng.integers(1, 8, len(index))
            lists.append(products.Events(self.weights, count, np.ones(1, np.float32)))
        return self._call(matrices, lists)

    def _call(self, matrices: list[Any], lists: list[Any]) -> Call:
        """Products of the next list with the next copy."""
        y, pool = np.empty((1, self.outputs), np.float32), products.Pool(1)
        order = turns(matrices, lists)

        def call() -> None:
            matrix, events = next(order)
            matrix.multiply(events, y, pool)

        return call


def call_dense(weights: str, inputs: int, outputs: int) -> Call:
    """Products of one token with copies of packed weights; integer ones quantise it as well."""
    rng = np.random.default_rng(0)
    group = GROUP if weights == "int4" else 0
    panels = np.zeros(products.panels_shape(weights, inputs, outputs, group), np.uint8)
    scale = np.ones(outputs, np.float32)
    if weights == "int4":
        codes = rng.integers(0, 256, (inputs, outputs // 2), np.uint8)
        scales = np.ones((-(-inputs // GROUP), outputs), np.float32)
        products.pack(weights, codes, panels, scales, group)
    else:
        products.pack(weights, plain_weights(rng, weights, inputs, outputs), panels)
    matrices = [
        products.Dense(weights, copy, inputs, outputs, scale, group)
        for (copy,) in copies_of([panels])
    ]
    x = rng.normal(size=(1, inputs)).astype(np.float32)
    y, pool, order = np.empty((1, outputs), np.float32), products.Pool(1), cycle(matrices)
    return lambda: next(order).multiply(x, y, pool)


def dense_bytes(weights: str, inputs: int, outputs: int) -> int:
    """Bytes of packed weights, a bfloat16 scale for each group of int4 ones."""
    if weights == "int4":
        return inputs * outputs // 2 + 2 * -(-inputs // GROUP) * outputs
    return inputs * outputs * BYTES[weights]


def torch_calls(inputs: int, outputs: int) -> dict[str, Call]:
    """One thread of torch: a Linear in bfloat16, one quantised dynamically to int8."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    layer = torch.nn.Linear(inputs, outputs, bias=False)
    half = layer.weight.detach().to(torch.bfloat16)
    x = torch.randn(1, inputs)
    x_half = x.to(torch.bfloat16)
    halves = cycle([half.clone() for _ in range(max(1, TORCH_BYTES // (2 * half.numel())))])
    codes = cycle(
        [
            torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), dtype=torch.qint8)
            for _ in range(max(1, TORCH_BYTES // half.numel()))
        ]
    )

    def run(product: Callable[[], Any]) -> Call:
        def call() -> None:
            with torch.inference_mode():
                product()

        return call

    return {
        "torch bfloat16": run(lambda: torch.nn.functional.linear(x_half, next(halves))),
        "torch int8": run(lambda: next(codes)(x)),
    }


def update_calls() -> dict[str, Call]:
    """Calls that read no weights: a layer's update, its event list, functions."""
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=4050).astype(np.float32) for _ in range(2))
    threshold, cell = np.full(1350, 0.01, np.float32), np.zeros(1350, np.float32)
    output, index = np.zeros(1350, np.int16), np.zeros(1350, np.int32)
    value, out = np.zeros(1350, np.int16), np.zeros(4050, np.float32)
    calls: dict[str, Call] = {
        "egru_int16, 1350 units": lambda: neurons.egru_int16(x, y, threshold, 0.0, cell, output),
        "list_int16, 1350 units": lambda: neurons.list_int16(output, index, value),
    }
    for name in ("exp", "sigmoid", "tanh", "softmax"):
        function = getattr(functions, name)
        calls[f"{name}, 4050 values"] = lambda function=function: function(x, out)
    return calls
