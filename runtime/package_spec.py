"""The shared part of all families' Specs: reading a config, writing a config, listing tensors.

A family's Spec is a frozen dataclass that inherits PackageSpec, states its fields by
`spiketrain.runtime.fields`, and has the members of `spiketrain.runtime.family.Spec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime import fields
from spiketrain.runtime.dial import NO_DIAL, most_dial
from spiketrain.runtime.formats import Stored
from spiketrain.runtime.operation import EventProduct
from spiketrain.runtime.tensor_table import Entry, Matrix, num_parameters, stored_tensors

FORMAT_VERSION = 1
_OTHER_KEYS = ("model_type", "architectures", "spiketrain")

Tensors = Mapping[str, NDArray[Any]]
AnySpec = TypeVar("AnySpec", bound="PackageSpec")


class PackageSpec:
    """A Spec whose tensor classes have a weight format each; a family overrides what differs.

    model_type, architecture: as config.json writes them. remarks: keys that config.json may have
    and no Spec needs, for people. max_dial: what a sequence's dial may reach, 1 for none.
    """

    __slots__ = ()

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    remarks: ClassVar[tuple[str, ...]] = ()
    max_dial: float

    @classmethod
    def from_config(cls: type[AnySpec], config: Mapping[str, Any]) -> AnySpec:
        """The Spec of config.json: unknown and missing keys are errors.

        Raises ValueError naming field, rule and value.
        """
        if config.get("model_type") != cls.model_type:
            raise ValueError(
                f"model_type must be {cls.model_type!r}, got {config.get('model_type')!r:.200}"
            )
        rules = fields.rules(cls)
        for key in sorted(set(config) - set(rules) - {*_OTHER_KEYS, *cls.remarks}):
            raise ValueError(f"{key!s:.200} is unknown")
        values = fields.completed(cls, {key: config[key] for key in rules if key in config})
        values = {name: _as_tuple(name, value, rules[name]) for name, value in values.items()}
        ours = config["spiketrain"]
        build: Callable[..., AnySpec] = cls
        spec = build(**values, **cls.read_formats(ours["weights"]), max_dial=most_dial(ours))
        if ours["events"] != spec.events:
            raise ValueError(
                f"spiketrain.events must be {spec.events!r} with {_listed(spec.formats)} weights, "
                f"got {ours['events']!r:.200}"
            )
        return spec

    def to_config(self, fidelity: str) -> dict[str, Any]:
        """config.json of a package of this Spec, but for provenance and fingerprint."""
        values = {name: _as_json(getattr(self, name)) for name in fields.rules(type(self))}
        dial = {"max_dial": self.max_dial} if self.max_dial > NO_DIAL else {}
        return {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            **{name: value for name, value in values.items() if value is not None},
            "spiketrain": {
                "format_version": FORMAT_VERSION,
                "weights": self.formats,
                "events": self.events,
                "fidelity": fidelity,
                **dial,
            },
        }

    # --- formats ----------------------------------------------------------------------------

    @classmethod
    def read_formats(cls, weights: Mapping[str, str]) -> dict[str, str]:
        """Fields of the Spec from the `weights` object of a package; ValueError."""
        classes = fields.weight_classes(cls)
        if set(weights) != set(classes):
            raise ValueError(
                f"spiketrain.weights must have a format for each of {classes}, got {weights!r:.200}"
            )
        return dict(weights)

    @property
    def formats(self) -> dict[str, str]:
        """The `weights` object: a weight format for each class of tensors."""
        return {name: getattr(self, name) for name in fields.weight_classes(type(self))}

    @property
    def events(self) -> str:
        """The form of the events that matrices read."""
        raise NotImplementedError

    # --- tensors ----------------------------------------------------------------------------

    @property
    def parts(self) -> dict[str, tuple[Entry, ...]]:
        """All tensors: part of a package -> its entries. A part is converted at once."""
        raise NotImplementedError

    @property
    def num_parameters(self) -> int:
        """Numbers that the model was fitted with; a matrix counts by its shape, however stored."""
        return sum(num_parameters(part) for part in self.parts.values())

    def tensors(self) -> Stored:
        """Name -> (dtype, shape) of every tensor in the package, weights input-major."""
        return stored_tensors(entry for part in self.parts.values() for entry in part)

    @property
    def bfloat16_scales(self) -> frozenset[str]:
        """Scales that the kernels hold as bfloat16: those of int4 matrices read as a whole."""
        entries = (entry for part in self.parts.values() for entry in part)
        return frozenset(
            f"{entry.name}.scale"
            for entry in entries
            if isinstance(entry, Matrix) and entry.format == "int4-gi"
        )

    # --- state ------------------------------------------------------------------------------

    def check_state(self, arrays: Tensors) -> str | None:
        """The rule between arrays that a state breaks, in words; None where a state keeps all."""
        return None

    # --- events -----------------------------------------------------------------------------

    @property
    def recorded(self) -> dict[str, int]:
        """Places of spike counts before matrices, and their units; {} where there are none."""
        return {}

    def spikes_in_state(self, arrays: Tensors) -> dict[str, NDArray[np.int32]]:
        """Place -> what its units (H,) sent at the last token; {}: a state shows no spikes."""
        return {}

    @property
    def event_products(self) -> tuple[EventProduct, ...]:
        """The products that read graded events: none, where events are spikes or spike counts."""
        return ()


def _as_tuple(name: str, value: Any, rule: fields.Rule) -> Any:
    """A list of JSON as a Spec holds it; ValueError where a list must be."""
    if not isinstance(rule, fields.ListOf):
        return value
    rule(name, value)
    return tuple(value)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _listed(weights: Mapping[str, str]) -> str:
    return " and ".join(dict.fromkeys(weights.values()))
