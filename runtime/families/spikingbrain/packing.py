"""SpikingBrain's tensors as the kernels read them: vectors, and matrices packed and placed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.families.spikingbrain.spec import Spec
from spiketrain.runtime.formats import FLOATS, GROUP, SPAN
from spiketrain.runtime.memory import Arena, row_bytes
from spiketrain.runtime.tensor_file import release
from spiketrain.runtime.tensor_table import Matrix

MIN_K = 1e-3

_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Product:
    """A packed matrix (Dense or Sparse) and what is added to its outputs.

    matrices: how many of the package's lie side by side in it.
    """

    matrix: Any
    bias: _Floats | None = None
    matrices: int = 1


class Packing:
    """The tensors of one package; products: the module spiketrain.runtime.kernels.products."""

    def __init__(self, spec: Spec, tensors: Mapping[str, NDArray[Any]], products: Any) -> None:
        self._spec = spec
        self._tensors = tensors
        self._products = products
        self._arena = Arena(sum(self._arena_bytes()))

    # --- vectors ----------------------------------------------------------------------------

    def vector(self, name: str) -> _Floats:
        """A private float32 copy that no file backs."""
        return np.array(self._tensors[name], np.float32, order="C")

    def optional(self, name: str) -> _Floats | None:
        """The same of a tensor that not every package has."""
        return self.vector(name) if name in self._tensors else None

    def spikes(self, name: str) -> tuple[float, float] | None:
        """K and dead zone of a place, if it makes spikes."""
        if name not in self._tensors:
            return None
        k, dead_zone = (float(value) for value in self._tensors[name])
        if k < MIN_K:
            raise PackageError(f"tensor {name!r}: k must be at least {MIN_K:g}, got {k:g}")
        return k, dead_zone

    @property
    def most_k(self) -> float:
        """The largest k of any place; 0 without spikes."""
        layers = range(self._spec.num_hidden_layers)
        names = (f"layers.{i}.{place}" for i in layers for place in self._spec.places)
        return max((found[0] for found in map(self.spikes, names) if found), default=0.0)

    # --- matrices ---------------------------------------------------------------------------

    def floats(self, name: str) -> Product:
        """A small float32 matrix of its own."""
        weight = self._tensors[f"{name}.weight"]
        matrix = Matrix(name, weight.shape[0], weight.shape[1], "float32")
        return Product(self._dense(matrix, weight), self.optional(f"{name}.bias"))

    def product(self, *matrices: Matrix) -> Product:
        """Packed and placed, several side by side; the file's pages are given back."""
        first, *_ = matrices
        if first.by_rows:
            packed = self._sparse(matrices)
        else:
            weight = self._tensors[f"{first.name}.weight"]
            packed = self._dense(first, weight)
            release(weight)
        bias = None
        if first.bias:
            bias = np.concatenate([self.vector(f"{m.name}.bias") for m in matrices])
        return Product(packed, bias, len(matrices))

    def _sparse(self, matrices: tuple[Matrix, ...]) -> Any:
        first, outputs = matrices[0], sum(m.outputs for m in matrices)
        rows = self._side_by_side(matrices, "weight")
        scale = np.concatenate(
            [self.vector(f"{m.name}.scale").reshape(-1, m.outputs) for m in matrices], axis=1
        )
        if first.weights == "int4-go":
            multiplier = self._side_by_side(matrices, "multiplier")
            return self._products.Sparse("int4", rows, outputs, scale[0], multiplier)
        if not first.group:
            return self._products.Sparse("int8", rows, outputs, scale[0])
        extra = self._extra(first)
        return self._products.Sparse("int8-groups", rows, outputs, scale, None, first.group, extra)

    def _side_by_side(self, matrices: tuple[Matrix, ...], suffix: str) -> NDArray[Any]:
        """A row of each matrix's tensor, one after another, in every row."""
        parts = [self._tensors[f"{m.name}.{suffix}"] for m in matrices]
        columns = sum(part.shape[1] for part in parts)
        placed = self._arena.room((parts[0].shape[0], columns), parts[0].dtype)
        at = 0
        for part in parts:
            placed[:, at : at + part.shape[1]] = part
            at += part.shape[1]
            release(part)
        return placed

    def _extra(self, matrix: Matrix) -> tuple[NDArray[Any], ...] | None:
        """Corrections of codes outside int8."""
        if not matrix.corrections:
            return None
        name = matrix.name
        found = tuple(
            np.array(self._tensors[f"{name}.{key}"])
            for key in ("extra_row", "extra_column", "extra")
        )
        try:
            self._products.check_extra(*found, matrix.inputs, matrix.outputs)
        except ValueError as error:
            raise PackageError(f"tensor '{name}.extra': {error}") from None
        return found

    def _dense(self, matrix: Matrix, weight: NDArray[Any]) -> Any:
        kind, group = _dense_kind(matrix)
        panels = self._arena.room(self._panels(matrix), np.uint8)
        scale = None if kind in FLOATS else self.vector(f"{matrix.name}.scale")
        self._products.pack(kind, weight, panels, scale, group)
        return self._products.Dense(kind, panels, matrix.inputs, matrix.outputs, scale, group)

    def _panels(self, matrix: Matrix) -> tuple[int, int]:
        kind, group = _dense_kind(matrix)
        shape: tuple[int, int] = self._products.panels_shape(
            kind, matrix.inputs, matrix.outputs, group
        )
        return shape

    def _arena_bytes(self) -> Iterator[int]:
        """Bytes of each matrix there."""
        spec = self._spec
        joined = [joined_matrices(spec, i) for i in range(spec.num_hidden_layers)]
        among = {matrix.name for matrices in joined for matrix in matrices}
        for matrix in (*spec.matrices(), *self._float_matrices()):
            if matrix.by_rows and matrix.name not in among:
                joined.append((matrix,))
            elif not matrix.by_rows:
                panels, size = self._panels(matrix)
                yield panels * row_bytes(size, 1)
        for matrices in filter(None, joined):
            for suffix in ("weight", "multiplier"):
                found = (self._tensors.get(f"{matrix.name}.{suffix}") for matrix in matrices)
                arrays = [array for array in found if array is not None]
                columns = sum(array.shape[1] for array in arrays)
                if arrays:
                    yield arrays[0].shape[0] * row_bytes(columns, arrays[0].itemsize)

    def _float_matrices(self) -> Iterator[Matrix]:
        """The low-rank gates' and routers' matrices."""
        for layer in range(self._spec.num_hidden_layers):
            for key in ("attn.gk_proj.0", "attn.gk_proj.1", "mlp.router"):
                weight = self._tensors.get(f"layers.{layer}.{key}.weight")
                if weight is not None:
                    name = f"layers.{layer}.{key}"
                    yield Matrix(name, weight.shape[0], weight.shape[1], "float32")


def joined_matrices(spec: Spec, layer: int) -> tuple[Matrix, ...]:
    """Those of q, k, v and a merged gate, where one row can hold a row of each; else none."""
    matrices = tuple(m for m in spec.attention_matrices(layer) if not m.name.endswith(".o_proj"))
    first, *_ = matrices
    alike = all(
        m.by_rows and not m.corrections and (m.weights, m.bias) == (first.weights, first.bias)
        for m in matrices
    )
    whole = first.weights != "int4-go" or all(m.outputs % SPAN == 0 for m in matrices[:-1])
    return matrices if alike and whole else ()


def _dense_kind(matrix: Matrix) -> tuple[str, int]:
    """The packing of a matrix that is read as a whole, and the inputs of a group."""
    if matrix.weights == "int4-gi":
        return "int4", GROUP
    assert matrix.weights in (*FLOATS, "int8")
    return matrix.weights, 0
