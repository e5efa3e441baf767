"""A field of an options object as a flag on the command line, and back."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from spiketrain.commands.convert.rules import Rule


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a field says about its flag: Annotated[type, Option(...)].

    spelling: where the flag is not named for the field.  rule: for each value.  not_for: the rule
    that a kind of source without this flag names.  of_attempt: the flag is about one attempt, and
    the recorded command leaves it out.  argument: the value stands without a flag.
    """

    help: str
    spelling: str | None = None
    rule: Rule = lambda value: None
    not_for: str | None = None
    of_attempt: bool = False
    argument: bool = False


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One field with its Option; fixed: the kind of source has one value, which chooses it."""

    name: str
    type: Any
    default: Any
    fixed: bool
    option: Option

    @property
    def spelling(self) -> str:
        """The flag, such as --target-sparsity."""
        return self.option.spelling or f"--{self.name.replace('_', '-')}"

    @property
    def repeats(self) -> bool:
        """Whether the flag may be given several times; its value is a tuple."""
        return get_origin(self.type) is tuple

    def check(self, value: Any) -> None:
        """Raise the usage error for a value that breaks the rule; the default breaks none."""
        if value == self.default:
            return
        for item in value if self.repeats else (value,):
            broken = self.option.rule(item)
            if broken is not None:
                raise self.refusal(broken, item)

    def refusal(self, rule: str, value: Any) -> typer.BadParameter:
        """The usage error that names the flag, the rule and the value."""
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        return typer.BadParameter(f"{rule}, got {shown}", param_hint=self.spelling)

    def words(self, value: Any) -> list[str]:
        """The flag with its value as words of a command line; none for the default."""
        if value == self.default and not self.fixed:
            return []
        if value is True:
            return [self.spelling]
        values = value if self.repeats else (value,)
        return [word for item in values for word in (self.spelling, str(item))]

    def parameter(self, kinds: str) -> inspect.Parameter:
        """The parameter that typer makes the flag of; kinds: which have it, "" for all."""
        text = f"{self.option.help} For {kinds}." if kinds else self.option.help
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=self._parsed_default(),
            annotation=Annotated[self._parsed_type(), self._declaration(text)],
        )

    def _declaration(self, text: str) -> Any:
        if self.option.argument:
            return typer.Argument(help=text)
        stated = (self.option.spelling,) if self.option.spelling else ()
        return typer.Option(*stated, help=text)

    def _parsed_default(self) -> Any:
        if self.option.argument:
            return inspect.Parameter.empty
        return None if self.repeats or self.fixed else self.default

    def _parsed_type(self) -> Any:
        if self.repeats:
            return list[get_args(self.type)[0]] | None  # type: ignore[misc]
        return self.type | None if self.fixed else self.type


@cache
def flags_of(kind: type) -> dict[str, Flag]:
    """The flags of a class of options, by the names of their fields."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _flag(field, hints[field.name]) for field in fields(kind)}


def _flag(field: Field[Any], hint: Any) -> Flag:
    kind, option = get_args(hint)
    default = None if field.default is MISSING else field.default
    return Flag(name=field.name, type=kind, default=default, fixed=not field.init, option=option)
