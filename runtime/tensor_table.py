"""The tensors of a package, entry by entry: arrays, matrices and embeddings.

A family lists its entries once, part by part. A reader expects the tensors that they are stored
in, and an export makes these tensors of a model's parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from spiketrain.runtime.formats import FLOATS, Stored, corrected, format_named, stored_format


@dataclass(frozen=True, slots=True)
class Array:
    """A float32 tensor of that name and shape.

    fitted: whether its numbers are parameters. input_major: a small matrix (inputs, outputs).
    """

    name: str
    shape: tuple[int, ...]
    fitted: bool = True
    input_major: bool = False

    @property
    def parameters(self) -> int:
        """Numbers that the model was fitted with."""
        return prod(self.shape) if self.fitted else 0

    def stored(self) -> Stored:
        """Name -> (dtype, shape) of its tensor."""
        return {self.name: ("float32", self.shape)}


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix in the format `weights`, which may depend on the way of reading the matrix.

    by_rows: only the rows of events are read. counts: these events are spike counts whose threshold
    is a tensor `threshold_scale`. corrections: codes outside int8.
    """

    name: str
    inputs: int
    outputs: int
    weights: str
    by_rows: bool = False
    counts: bool = False
    corrections: int = 0
    bias: bool = False

    @property
    def format(self) -> str:
        """The name of its weight format."""
        return stored_format(self.weights, self.by_rows)

    @property
    def group(self) -> int:
        """Inputs that share a row of scales where spikes are counted in groups, else 0.

        With corrections, int8 is one group.
        """
        return format_named(self.format).input_group or (self.inputs if self.corrections else 0)

    @property
    def parameters(self) -> int:
        """Numbers that the model was fitted with, however they are stored."""
        return self.inputs * self.outputs + self.outputs * self.bias + self.counts

    def stored(self) -> Stored:
        """Name -> (dtype, shape) of its tensors."""
        tensors = format_named(self.format).matrix(self.inputs, self.outputs)
        if self.corrections:
            tensors |= corrected(self.inputs, self.corrections)
        if self.bias:
            tensors["bias"] = ("float32", (self.outputs,))
        if self.counts:
            tensors = {"threshold_scale": ("float32", (1,)), **tensors}
        return {f"{self.name}.{key}": entry for key, entry in tensors.items()}


@dataclass(frozen=True, slots=True)
class Embedding:
    """A row of `width` values for each token, in the format `weights`."""

    name: str
    rows: int
    width: int
    weights: str

    @property
    def parameters(self) -> int:
        """Numbers that the model was fitted with, however they are stored."""
        return self.rows * self.width

    def stored(self) -> Stored:
        """Name -> (dtype, shape) of its tensors."""
        tensors = format_named(self.weights).rows(self.rows, self.width)
        return {f"{self.name}.{key}": entry for key, entry in tensors.items()}


Entry = Array | Matrix | Embedding


def stored_tensors(entries: Iterable[Entry]) -> Stored:
    """Name -> (dtype, shape) of every tensor of the entries, in their order."""
    return {name: entry for part in entries for name, entry in part.stored().items()}


def num_parameters(entries: Iterable[Entry]) -> int:
    """Numbers that a model of these entries was fitted with; scales of codes are none."""
    return sum(entry.parameters for entry in entries)


def reads_rows(spikes: bool, weights: str) -> bool:
    """Whether a matrix that reads spike counts is read by rows: one of floats is read whole."""
    return spikes and weights not in FLOATS
