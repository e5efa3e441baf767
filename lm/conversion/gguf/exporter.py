"""A GGUF source -> config and tensors of its package, a file's worth at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from spiketrain.lm.conversion.gguf.rounding import Array as Values
from spiketrain.lm.conversion.gguf.rounding import Float32, Stored, stored_matrix, stored_rows
from spiketrain.lm.conversion.transformer_names import their_name
from spiketrain.lm.sources.gguf import Source
from spiketrain.runtime.families.spikingbrain.spec import Spec
from spiketrain.runtime.formats import FLOATS
from spiketrain.runtime.tensor_table import Array, Embedding, Entry, Matrix, stored_tensors

BLOCK_BYTES = 16 << 20  # of float32 weights that are rounded at once
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass
class GgufExporter:
    """What a package says and holds, part by part: the embedding, each layer, the head.

    spikes: k and dead zone of every place, which a Spec with spikes needs.
    """

    spec: Spec
    source: Source
    spikes: tuple[float, float] | None = None
    block_bytes: int = BLOCK_BYTES

    @property
    def parts(self) -> tuple[str, ...]:
        """What the package is made of, one after the other."""
        return tuple(self.spec.parts)

    def tensors(self, part: str) -> dict[str, Values]:
        """The tensors of one of `parts` under their names in the package."""
        stored: dict[str, Values] = {}
        for entry in self.spec.parts[part]:
            stored |= self._stored(entry)
        return stored

    def remember(self, part: Mapping[str, Values]) -> None:
        """Take note of a part that an earlier run made, of which nothing is needed here."""

    def part_bytes(self, part: str) -> int:
        """Bytes that `tensors` of this part has."""
        entries = stored_tensors(self.spec.parts[part]).values()
        return sum(np.dtype(dtype).itemsize * prod(shape) for dtype, shape in entries)

    def working_bytes(self, part: str) -> int:
        """What making a part takes beside its tensors and blocks: nothing."""
        return 0

    def package_config(self) -> dict[str, Any]:
        """config.json of the package."""
        return self.spec.to_config(self._fidelity())

    def _fidelity(self) -> str:
        if self.spikes is not None and self.spikes[1] > 0:
            return "approximate"
        if self.spec.body not in FLOATS:
            return "integer"
        rounded = "bfloat16" in self.spec.formats.values()
        lost = any(kind != "BF16" for kind in self._formats_of_matrices())
        return "weight-only" if rounded and lost else "exact"

    def _formats_of_matrices(self) -> Iterator[str]:
        for name, kind in self.source.formats.items():
            if len(self.source.shapes[name]) == 2:
                yield kind

    def _stored(self, entry: Entry) -> dict[str, Values]:
        """The tensors of an entry under their names in the package."""
        if isinstance(entry, Array):
            return {entry.name: self._array(entry)}
        if isinstance(entry, Embedding):
            shape = (entry.rows, entry.width)
            stored = stored_rows(self._blocks(_EMBEDDING, shape), shape, entry.weights)
        else:
            stored = self._matrix(entry)
        return {f"{entry.name}.{key}": value for key, value in stored.items()}

    def _array(self, entry: Array) -> Values:
        """A norm, or k and dead zone of a place."""
        if entry.name.endswith("spikes"):
            return np.array(self.spikes, np.float32)
        return self.source.read(their_name(f"model.{entry.name}")).reshape(entry.shape)

    def _matrix(self, matrix: Matrix) -> Stored:
        """The tensors of a matrix; a bias that the file does not have is 0."""
        shape = (matrix.outputs, matrix.inputs)
        name = self._source_name(matrix)
        stored = stored_matrix(self._blocks(name, shape), shape, matrix.format)
        if matrix.bias:
            bias = f"{name.removesuffix('weight')}bias"
            stored["bias"] = (
                self.source.read(bias)
                if bias in self.source.shapes
                else np.zeros(matrix.outputs, np.float32)
            )
        return stored

    def _source_name(self, matrix: Matrix) -> str:
        """The tensor of the file that a matrix is; a tied head is the embedding."""
        if matrix.name != "lm_head":
            return their_name(f"model.{matrix.name}.weight")
        return _HEAD if _HEAD in self.source.shapes else _EMBEDDING

    def _blocks(self, name: str, shape: tuple[int, int]) -> Iterator[tuple[int, Float32]]:
        """(First row, rows) of a tensor, at most block_bytes at once."""
        rows, width = shape
        step = max(1, self.block_bytes // (4 * width))
        for start in range(0, rows, step):
            yield start, self.source.read(name, start, min(rows, start + step))
