"""SpikingBrain -> config and tensors of the runtime package, a file's worth at a time.

The source is a model in memory or the shards of a directory that need not fit memory: a matrix is
read and quantised in blocks of outputs.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.lm.families.spikingbrain.formats import Formats
from spiketrain.lm.families.spikingbrain.model import Model
from spiketrain.lm.keys import finite
from spiketrain.lm.package_tensors import spec_of
from spiketrain.lm.shards import Held, Shards
from spiketrain.lm.stored import MAX_CODE, Stored, stored_blocks, stored_int8, stored_row_blocks
from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.families.spikingbrain.packing import MIN_K
from spiketrain.runtime.families.spikingbrain.spec import MAX_K, Spec
from spiketrain.runtime.formats import SPAN, group_of
from spiketrain.runtime.tensor_table import Array, Embedding, Entry, Matrix, stored_tensors

BLOCK_BYTES = 128 << 20  # of float32 weights that are quantised at once

Arrays = dict[str, np.ndarray]


def to_runtime(
    model: Model,
    weights: str,
    head: str | None = None,
    codes: Mapping[str, Stored] | None = None,
) -> tuple[dict[str, Any], Arrays]:
    """Config and tensors of the runtime package, all weights input-major.

    weights: of WEIGHT_FORMATS; head: the head's, the same unless told.  A model whose weights are
    quantised already keeps its codes and scales with int8.  codes: see Exporter.
    """
    exporter = Exporter(model.config, Held(model.state_dict()), weights, head, codes)
    tensors: Arrays = {}
    for part in exporter.parts:
        tensors |= exporter.tensors(part)
    return exporter.package_config(), tensors


class Exporter:
    """What a package says and holds, part by part: the embedding, each layer, the head.

    codes: name of a matrix -> its stored tensors, where they were chosen better than by rounding.
    """

    def __init__(
        self,
        config: Config,
        source: Shards | Held,
        weights: str,
        head: str | None = None,
        codes: Mapping[str, Stored] | None = None,
    ) -> None:
        self.config, self.source = config, source
        self.codes = codes or {}
        self.block_bytes = BLOCK_BYTES
        self.window_cache = "int8" if config.attention_spikes else "float32"
        self.max_dial: float | None = None
        self.rounds = weights == "bfloat16" and not source.half_precision
        self.formats = Formats.of(config, weights, head)
        self.corrections: dict[str, int] = {}
        self.dead = False

    @property
    def spec(self) -> Spec:
        """The Spec of the package, with the corrections of the parts that are made."""
        spec: Spec = spec_of(
            self.config.statement,
            self.config,
            **self.formats.classes,
            window_cache=self.window_cache,
            corrections=dict(sorted(self.corrections.items())),
            max_dial=NO_DIAL if self.max_dial is None else self.max_dial,
        )
        return spec

    @property
    def parts(self) -> tuple[str, ...]:
        """What the package is made of, one after the other."""
        return tuple(self.spec.parts)

    def tensors(self, part: str) -> Arrays:
        """The tensors of one of `parts` under their names in the package."""
        stored: Stored = {}
        for entry in self.spec.parts[part]:
            stored |= self._stored(entry)
        for name, value in stored.items():
            if name.endswith(".extra"):
                self.corrections[name.removesuffix(".extra")] = value.numel()
        return {name: value.contiguous().numpy() for name, value in stored.items()}

    def remember(self, part: Mapping[str, np.ndarray]) -> None:
        """Take note of a part that an earlier run made."""
        for name, value in part.items():
            if name.endswith(".extra"):
                self.corrections[name.removesuffix(".extra")] = value.size
            if name.endswith("spikes") and value[1] > 0:
                self.dead = True

    def part_bytes(self, part: str) -> int:
        """Bytes that `tensors` of this part has, corrections aside; ValueError as from Spec."""
        return sum(
            np.dtype(dtype).itemsize * math.prod(shape)
            for dtype, shape in stored_tensors(self.spec.parts[part]).values()
        )

    def working_bytes(self, part: str) -> int:
        """What making a part takes beside its tensors: stored codes are read a matrix at a time."""
        if part in ("embeddings", "head") or not group_of(self.formats.body):
            return 0
        return 16 * max(size for _, size in self._sizes(part))

    def _sizes(self, part: str) -> list[tuple[str, int]]:
        """Tensors of the source that a part is made of, with their elements."""
        prefix = {"embeddings": "model.embeddings.", "head": "lm_head."}.get(part, f"model.{part}.")
        entries = self.source.items()
        return [(name, math.prod(e.shape)) for name, e in entries if name.startswith(prefix)]

    def package_config(self) -> dict[str, Any]:
        """config.json; to be asked for when all parts are made."""
        fidelity = "weight-only" if self.rounds else self.formats.fidelity
        fidelity = "approximate" if self.dead else fidelity
        return self.spec.to_config(fidelity)

    def _stored(self, entry: Entry) -> Stored:
        """The tensors of an entry under their names in the package."""
        if isinstance(entry, Matrix):
            return self._matrix(entry)
        if isinstance(entry, Embedding):
            name = f"model.{entry.name}.weight"
            blocks = self._blocks(entry.rows, entry.width)
            read = ((start, self._read(name, start, stop)) for start, stop in blocks)
            stored = stored_row_blocks(read, (entry.rows, entry.width), entry.weights)
            return {f"{entry.name}.{key}": value for key, value in stored.items()}
        return {entry.name: self._array(entry)}

    def _array(self, entry: Array) -> Tensor:
        """A tensor of the source in the package's shape."""
        if entry.name.endswith("spikes"):
            return self._thresholds(entry.name)
        value = self._read(f"model.{entry.name}")
        return value.t() if entry.input_major else value.reshape(entry.shape)

    def _thresholds(self, place: str) -> Tensor:
        """K and dead zone of a place of spikes: the model's, or the config's."""
        name = f"model.{place}"
        values = torch.tensor([self.config.spike_k, self.config.dead_zone])
        if f"{name}.k" in self.source:
            values = torch.cat([self._read(f"{name}.{x}") for x in ("k", "dead_zone")])
        for what, value, least in (("k", values[0], MIN_K), ("dead_zone", values[1], 0.0)):
            if not least <= value <= MAX_K:
                rule = f"must be in [{least:g}, {MAX_K:g}]"
                raise SpiketrainError(f"{name}.{what} {rule}, got {value:g}")
        self.dead = self.dead or bool(values[1] > 0)
        return values

    def _matrix(self, matrix: Matrix) -> Stored:
        """The tensors of a matrix in its format, and its bias if it has one."""
        source = matrix.name if matrix.name == "lm_head" else f"model.{matrix.name}"
        if matrix.name in self.codes:
            stored = dict(self.codes[matrix.name])
        elif group_of(matrix.format):
            scales = self._scales(source).squeeze(2)
            stored = stored_int8(self._codes(source), scales.t())
        else:
            shape = (matrix.outputs, matrix.inputs)
            stored = stored_blocks(self._weights(source), shape, matrix.format)
        if matrix.bias:
            stored["bias"] = self._read(f"{source}.bias")
        return {f"{matrix.name}.{key}": value for key, value in stored.items()}

    def _weights(self, source: str) -> Iterator[tuple[int, Tensor]]:
        """(first output, weights (inputs, some outputs)) of a matrix, in order."""
        scales = f"{source}.weight_quantizer.scales"
        quantised = scales in self.source and self._is_read_quantised(source)
        rows, inputs = self.source[f"{source}.weight"].shape
        for start, stop in self._blocks(rows, inputs):
            block = self._read(f"{source}.weight", start, stop)
            if quantised:
                scale = self._scales(source, start, stop)
                block = torch.round(block.unflatten(1, (scale.shape[1], -1)) / scale) * scale
                block = block.flatten(1)
            yield start, block.t()

    def _codes(self, source: str) -> Tensor:
        """Whole numbers (inputs, outputs), int32, of a matrix with its own scales."""
        rows, inputs = self.source[f"{source}.weight"].shape
        whole = torch.empty(inputs, rows, dtype=torch.int32)
        for start, stop in self._blocks(rows, inputs):
            scale = self._scales(source, start, stop)
            block = self._read(f"{source}.weight", start, stop)
            codes = torch.round(block.unflatten(1, (scale.shape[1], -1)) / scale)
            most = codes.abs().max().item()
            if most > MAX_CODE:  # before a cast that would wrap
                raise SpiketrainError(
                    f"{source}.weight must have codes within +-{MAX_CODE}, got {most:g}"
                )
            whole[:, start:stop] = codes.flatten(1).t()
        return whole

    def _read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of a tensor of the source; SpiketrainError unless all are finite."""
        return finite(self.source.read(name, start, stop), name, start)

    def _scales(self, source: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Scales (rows, I / group, 1) of rows of a matrix; SpiketrainError unless above 0."""
        name = f"{source}.weight_quantizer.scales"
        scales = self._read(name, start, stop)
        if not bool((scales > 0).all()):
            raise SpiketrainError(f"{name} must be above 0, got {scales.min().item()}")
        return scales

    def _is_read_quantised(self, source: str) -> bool:
        """The published code reads a down projection raw, though it has scales."""
        return self.config.down_proj == "spiked" or not source.endswith(".down_proj")

    def _blocks(self, rows: int, width: int):
        """Ranges of rows of at most block_bytes in float32; all but the last are whole groups."""
        step = max(SPAN, self.block_bytes // (4 * width) // SPAN * SPAN)
        return [(start, min(rows, start + step)) for start in range(0, rows, step)]
