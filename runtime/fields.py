"""Fields of a config, each stated once: type, range, default, and the error that names all three.

A family's Spec is a dataclass whose fields are made by `whole`, `number`, `flag`, `choice` and
their like. Reading a package, the checks of a training run and an export all use these fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_RULE, _DERIVED, _CLASS = "rule", "derived", "weight class"

Values = Mapping[str, Any]
Rule = Callable[[str, Any], None]  # ValueError for a value that the named field may not have


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in [least, most]."""

    least: int
    most: int | None = None

    def __call__(self, name: str, value: Any) -> None:
        """ValueError unless the value is such a number."""
        if type(value) is int and self.least <= value and (self.most is None or value <= self.most):
            return
        if self.most is None:
            raise ValueError(f"{name} must be at least {self.least}, got {value!r:.200}")
        raise ValueError(
            f"{name} must be a whole number in [{self.least}, {self.most}], got {value!r:.200}"
        )


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number from low to high; either end may be left out of the range."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def __call__(self, name: str, value: Any) -> None:
        """ValueError unless the value is such a number."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        above = number and (value > self.low if self.without_low else value >= self.low)
        below = number and (value < self.high if self.without_high else value <= self.high)
        if not (above and below and math.isfinite(value)):
            raise ValueError(f"{name} must be {self._words()}, got {value!r:.200}")

    def _words(self) -> str:
        if self.low == -math.inf:
            return "finite"
        if self.high == math.inf:
            return f"finite and {'above' if self.without_low else 'at least'} {self.low:g}"
        first, last = "(" if self.without_low else "[", ")" if self.without_high else "]"
        return f"a number in {first}{self.low:g}, {self.high:g}{last}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some strings."""

    allowed: tuple[str, ...]

    def __call__(self, name: str, value: Any) -> None:
        """ValueError unless the value is one of them."""
        if value not in self.allowed:
            raise ValueError(f"{name} must be one of {self.allowed}, got {value!r:.200}")


@dataclass(frozen=True, slots=True)
class ListOf:
    """A JSON list, of what `holds` says."""

    holds: str

    def __call__(self, name: str, value: Any) -> None:
        """ValueError unless the value is a list."""
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list of {self.holds}, got {value!r:.200}")


@dataclass(frozen=True, slots=True)
class Maybe:
    """None, or what the rule says."""

    rule: Rule

    def __call__(self, name: str, value: Any) -> None:
        """ValueError unless the value is None or follows the rule."""
        if value is not None:
            self.rule(name, value)


def check_flag(name: str, value: Any) -> None:
    """ValueError unless the value is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r:.200}")


# --- statements ---------------------------------------------------------------------------------


def stated(
    rule: Rule, default: Any = dataclasses.MISSING, derived: Callable[[Values], Any] | None = None
) -> Any:
    """A dataclass field with a rule.

    derived: a default made of the other fields; None where they do not tell it. A field with
    neither default nor derived must be given.
    """
    if isinstance(default, (dict, list)):
        kind, content = type(default), default
        return dataclasses.field(default_factory=lambda: kind(content), metadata={_RULE: rule})
    return dataclasses.field(default=default, metadata={_RULE: rule, _DERIVED: derived})


def whole(
    least: int,
    most: int | None = None,
    default: Any = dataclasses.MISSING,
    derived: Callable[[Values], Any] | None = None,
) -> Any:
    """A field that is a whole number in [least, most]."""
    return stated(Whole(least, most), default, derived)


def number(low: float, high: float = math.inf, *, default: float, **open_ends: bool) -> Any:
    """A field that is a finite number from low to high; open_ends: those of Number."""
    return stated(Number(low, high, **open_ends), default)


def flag(default: bool) -> Any:
    """A field that is true or false."""
    return stated(check_flag, default)


def choice(*allowed: str, default: str) -> Any:
    """A field that is one of some strings."""
    return stated(Choice(allowed), default)


def sequence(holds: str, **more: Any) -> Any:
    """A field that is a list in JSON and a tuple in a Spec."""
    return stated(ListOf(holds), **more)


def weight_class() -> Any:
    """A field that is the weight format of one class of tensors, from the `spiketrain` object."""
    return dataclasses.field(metadata={_CLASS: True})


# --- what is stated -----------------------------------------------------------------------------


def rules(cls: Any) -> dict[str, Rule]:
    """Name -> rule of each field of a config, in the order in which configs are written."""
    return {f.name: f.metadata[_RULE] for f in dataclasses.fields(cls) if _RULE in f.metadata}


def weight_classes(cls: Any) -> tuple[str, ...]:
    """Names of the classes of tensors that have a weight format of their own."""
    return tuple(f.name for f in dataclasses.fields(cls) if _CLASS in f.metadata)


def completed(cls: Any, values: Values) -> dict[str, Any]:
    """The values with defaults for fields that are not there; ValueError names a missing field."""
    fields = [field for field in dataclasses.fields(cls) if _RULE in field.metadata]
    full = {**defaults(cls), **values}
    for field in fields:
        derived = field.metadata.get(_DERIVED)
        if field.name not in full and derived and (value := derived(full)) is not None:
            full[field.name] = value
    for field in fields:
        if field.name not in full:
            raise ValueError(f"{field.name} is missing")
    return full


def defaults(cls: Any) -> dict[str, Any]:
    """Name -> default of each field of a config that has one, but for derived ones."""
    fields = [field for field in dataclasses.fields(cls) if _RULE in field.metadata]
    return {f.name: value for f in fields if (value := _default(f)) is not dataclasses.MISSING}


def _default(field: Any) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def check_rules(stated_rules: Mapping[str, Rule], target: Any) -> None:
    """ValueError unless every field of `target` that has a rule follows it."""
    for name, rule in stated_rules.items():
        rule(name, getattr(target, name))
