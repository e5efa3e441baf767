"""The fields of a model's config: those of its package, and those of training alone.

The runtime's Spec of the family states the package's fields with their ranges and defaults. A
Config adds the fields of training alone, and starting values for fields that a package always has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spiketrain.runtime import fields
from spiketrain.runtime.fields import Rule, choice

Made = Callable[[Mapping[str, Any]], Any]


@dataclass(kw_only=True)
class Training:
    """Fields of every family's training; a family adds its own by inheritance.

    compute_dtype: of products in training.
    """

    compute_dtype: str = choice("float32", "bfloat16", "float64", default="float32")


@dataclass(frozen=True)
class Statement:
    """The fields of a family's Config.

    package: the runtime's Spec. training: a dataclass whose fields `runtime.fields` made; it may
    state a field of the package anew. start: values, or functions of the other values, of fields
    that nobody tells. export: fields of the package that an export decides.
    """

    package: Any
    training: Any
    start: Mapping[str, Any] = field(default_factory=dict)
    export: tuple[str, ...] = ()

    @property
    def rules(self) -> dict[str, Rule]:
        """Name -> rule of every field."""
        stated = fields.rules(self.package) | fields.rules(self.training)
        return {name: rule for name, rule in stated.items() if name not in self.export}

    def fill(self, config: Any, told: dict[str, Any]) -> dict[str, Any]:
        """Set and check every field of `config`; return what of `told` is no field.

        A field that is None or not told has its default. Raises ValueError naming field, rule and
        value.
        """
        rules = self.rules
        values = {name: told.pop(name) for name in rules if name in told}
        full = self._completed({k: v for k, v in values.items() if v is not None})
        for name, rule in rules.items():
            value = full[name]
            setattr(config, name, list(value) if isinstance(rule, fields.ListOf) else value)
        fields.check_rules(rules, config)
        return told

    def package_values(self, config: Any) -> dict[str, Any]:
        """The fields of a Spec that the config tells."""
        names = [name for name in fields.rules(self.package) if name not in self.export]
        values = {name: getattr(config, name) for name in names}
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

    def _completed(self, values: dict[str, Any]) -> dict[str, Any]:
        plain = {name: value for name, value in self.start.items() if not callable(value)}
        known = fields.defaults(self.package) | fields.defaults(self.training) | plain | values
        for name, make in self.start.items():
            if callable(make) and name not in values:
                known[name] = make(known)
        return known | fields.completed(self.package, known)
