"""How the matrices of a SpikingBrain package are stored: a format a class, and its tensors."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from spiketrain.lm.families.spikingbrain.config import Config
from spiketrain.lm.quantize import (
    bits_of_bfloat16,
    quantize_int4_inputs,
    quantize_int4_outputs,
    quantize_int8,
)
from spiketrain.runtime.errors import SpiketrainError

Stored = dict[str, Tensor]
MOST_CODE = 127 + 32767  # int8 and what is missing, in 16 bits
_EMBEDDING = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8", "int4": "int8"}
_HEAD = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8", "int4": "int4-gi"}


@dataclass(frozen=True, slots=True)
class Formats:
    """Format of each class of matrices, and what is said of events and fidelity."""

    embedding: str
    body: str
    down: str
    head: str
    events: str
    fidelity: str

    @classmethod
    def of(cls, config: Config, weights: str, head: str | None = None) -> "Formats":
        """Formats of a package asked for in `weights` (and `head`): float32, bfloat16, int8, int4.

        int4 has its groups along the outputs where spikes are read, else along the inputs.  int8 of
        a model with int8 weights of its own (W8ASpike) keeps them, and everything else in float32:
        the published model, exactly.
        """
        group = config.quant_weight_group_size
        real = weights in ("float32", "bfloat16")
        own = weights == "int8" and group is not None
        if own and group is not None and group % 4:
            raise SpiketrainError(f"quant_weight_group_size must be a multiple of 4, got {group}")
        body = f"int8-gi{group}" if own else weights
        if weights == "int4":
            body = "int4-go" if config.spikes else "int4-gi"
        raw = config.spikes and config.down_proj == "published" and not real
        rest = "float32" if own else weights
        events = "counts" if config.spikes else "float32" if real else "int8"
        return cls(
            embedding=_EMBEDDING[rest],
            body=body,
            down="float32" if raw else body,
            head=_HEAD[rest if head is None else head],
            events=events,
            fidelity="exact" if real or own else "integer",
        )

    @property
    def classes(self) -> dict[str, str]:
        """The `weights` object of the package."""
        return {name: getattr(self, name) for name in ("embedding", "body", "down", "head")}


def quantize(blocks: Iterable[tuple[int, Tensor]], shape: tuple[int, ...], form: str) -> Stored:
    """Stored tensors of a matrix of `shape` (outputs, inputs) from (first output, weights (I, .)).

    Every block but the last starts and ends at whole groups of 128 outputs.
    """
    whole: Stored = {}
    for start, block in blocks:
        for name, part in _quantized(block.contiguous(), form).items():
            halves = form.startswith("int4") and name == "weight"
            outputs = -(-shape[0] // (2 if halves else 128 if name == "multiplier" else 1))
            first = start // 2 if halves else start // 128 if name == "multiplier" else start
            if name not in whole:
                whole[name] = torch.empty(*part.shape[:-1], outputs, dtype=part.dtype)
            whole[name][..., first : first + part.shape[-1]] = part
    return whole


def _quantized(weight: Tensor, form: str) -> Stored:
    """Stored tensors of weights (I, O)."""
    if form == "float32":
        return {"weight": weight}
    if form == "bfloat16":
        return {"weight": bits_of_bfloat16(weight)}
    if form == "int8":
        return dict(zip(("weight", "scale"), quantize_int8(weight), strict=True))
    if form == "int4-go":
        names = ("weight", "multiplier", "scale")
        return dict(zip(names, quantize_int4_outputs(weight), strict=True))
    return dict(zip(("weight", "scale"), quantize_int4_inputs(weight), strict=True))


def stored_int8(codes: Tensor, scale: Tensor) -> Stored:
    """Stored tensors of int8-gi: codes (I, O) int32 of any size, scale (I / group, O).

    What does not fit +-127 is in rows of (output, excess): extra_row (I + 1,), extra_column and
    extra (N,).  Codes are within +-MOST_CODE.
    """
    clipped = codes.clamp(-127, 127)
    excess = codes - clipped
    found = {"weight": clipped.to(torch.int8), "scale": scale.contiguous()}
    rows, columns = excess.nonzero(as_tuple=True)
    if not len(rows):
        return found
    values = excess[rows, columns]
    counts = torch.bincount(rows, minlength=codes.shape[0]).cumsum(0)
    return found | {
        "extra_row": torch.cat([counts.new_zeros(1), counts]).to(torch.int32),
        "extra_column": columns.to(torch.int32),
        "extra": values.to(torch.int16),
    }
