"""The contract of a model family, as the rest of the program uses it.

`runtime/families/<name>/` holds a FAMILY. A name in that folder is a family; no list needs an edit.
docs/architecture.md says what a new family, field or weight format needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.compiled import CompiledModel
from spiketrain.runtime.formats import Stored
from spiketrain.runtime.operation import EventProduct, Operation
from spiketrain.runtime.state import StateArray
from spiketrain.runtime.tensor_table import Entry

Tensors = Mapping[str, NDArray[Any]]


class Spec(Protocol):
    """The checked config of one package, and what follows from it.

    model_type: the family's name. `runtime.package_spec.PackageSpec` has what families share.
    """

    model_type: ClassVar[str]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Spec:
        """The Spec that config.json describes; ValueError names field, rule and value."""

    def to_config(self, fidelity: str) -> dict[str, Any]:
        """config.json of a package of this Spec, but for provenance and fingerprint."""

    @property
    def formats(self) -> dict[str, str]:
        """The `weights` object: a weight format for each class of tensors."""

    @property
    def events(self) -> str:
        """The form of the events that matrices read."""

    @property
    def body_format(self) -> str:
        """The weight format of the layers' matrices."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""

    @property
    def max_dial(self) -> float:
        """What a sequence's dial may reach; 1 for none."""

    @property
    def parts(self) -> dict[str, tuple[Entry, ...]]:
        """All tensors: part of a package -> its entries. A part is converted at once."""

    @property
    def num_parameters(self) -> int:
        """Numbers that the model was fitted with; a matrix counts by its shape, however stored."""

    def tensors(self) -> Stored:
        """Name -> (dtype, shape) of every tensor in the package, weights input-major."""

    def bounds(self, name: str) -> tuple[float, float]:
        """Least and greatest value of the tensor `name`."""

    @property
    def bfloat16_scales(self) -> frozenset[str]:
        """Names of the scale tensors whose values must be numbers that bfloat16 holds."""

    @property
    def state_nbytes(self) -> int:
        """Bytes of one sequence's state."""

    @property
    def state_formula(self) -> str:
        """`state_nbytes` in words, for people."""

    def state_arrays(self, tensors: Tensors) -> tuple[StateArray, ...]:
        """The arrays of one sequence's state."""

    def check_state(self, arrays: Tensors) -> str | None:
        """The rule between arrays that a state breaks, in words; None where a state keeps all."""

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers that have units, as activity counters name them."""

    @property
    def readout_names(self) -> tuple[str, ...]:
        """Names of the matrices after the last layer."""

    @property
    def event_rows(self) -> tuple[int, ...]:
        """Weight rows that events may read in a token, for each layer and readout matrix."""

    @property
    def recorded(self) -> dict[str, int]:
        """Places of spike counts before matrices, and their units; {} where there are none."""

    def spikes_in_state(self, arrays: Tensors) -> dict[str, NDArray[np.int32]]:
        """Place -> what its units (H,) sent at the last token, where a state shows it; else {}."""

    @property
    def event_products(self) -> tuple[EventProduct, ...]:
        """The products that read graded events; () in a family of spikes or spike counts."""

    def operations(self) -> Iterator[Operation]:
        """What the network computes for a token."""


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models.

    network: (spec, tensors, threads, table_bytes) -> the compiled network of one package.
    """

    spec: type[Spec]
    network: Callable[[Any, Tensors, int, int], CompiledModel]


def load_family(name: Any) -> Family:
    """The family of that name; ValueError names the known ones. No other name is imported."""
    from spiketrain.runtime import families

    if not isinstance(name, str) or name not in families.NAMES:
        known = ", ".join(families.NAMES)
        raise ValueError(f"model_type must be one of {known}, got {name!r:.200}")
    family: Family = importlib.import_module(f"spiketrain.runtime.families.{name}").FAMILY
    return family
