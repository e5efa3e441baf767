"""Settings of `spiketrain serve`: flags over the environment over a file.

A file is TOML with the names of the flags (`max_batch_size = 8`); a variable is SPIKETRAIN_ and the
name in capitals (SPIKETRAIN_MAX_BATCH_SIZE=8). Unknown names and values of another type are
ConfigErrors that say where they stand.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from spiketrain.serving.config import ServingConfig
from spiketrain.serving.errors import ConfigError
from spiketrain.serving.toml_file import read_toml

PREFIX = "SPIKETRAIN_"
NOT_SETTINGS = frozenset({"SPIKETRAIN_ISA", "SPIKETRAIN_DATA", "SPIKETRAIN_REQUIRE_TORCH"})
LOG_LEVELS = ("debug", "info", "warning", "error")
_NAMES = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model is served and how it is loaded; None leaves the choice to the command."""

    model: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    threads: int = 1
    table_bytes: int | None = None
    log_level: str = "info"

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
        if self.table_bytes is not None and self.table_bytes < 0:
            raise ConfigError(f"table_bytes must be at least 0, got {self.table_bytes}")
        if self.log_level not in LOG_LEVELS:
            rule = f"one of {', '.join(LOG_LEVELS)}"
            raise ConfigError(f"log_level must be {rule}, got {self.log_level!r}")


def read_settings(
    file: str | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[ModelSettings, ServingConfig]:
    """Merge what each source says; a flag that is None says nothing.

    Raises ConfigError naming source, setting, rule and value.
    """
    values = {} if file is None else _from_file(file)
    values |= _from_environment(environment)
    values |= {name: value for name, value in flags.items() if value is not None}
    return (
        ModelSettings(**{name: values[name] for name in _types(ModelSettings) if name in values}),
        ServingConfig(**{name: values[name] for name in _types(ServingConfig) if name in values}),
    )


def _types(settings: type) -> dict[str, type]:
    """Each field's type, that of `X | None` being X."""
    hints = get_type_hints(settings)
    names = [field.name for field in dataclasses.fields(settings)]
    return {name: next(iter(get_args(hints[name])), hints[name]) for name in names}


def _known() -> dict[str, type]:
    return {**_types(ModelSettings), **_types(ServingConfig)}


def _from_file(path: str) -> dict[str, Any]:
    known, values = _known(), read_toml(path)
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{path}: {name} is unknown")
        exact = type(value) is known[name] or (known[name] is float and type(value) is int)
        if not exact:
            raise ConfigError(f"{path}: {name} must be {_NAMES[known[name]]}, got {value!r:.100}")
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known, values = _known(), {}
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known:
            raise ConfigError(f"environment: {variable} is unknown")
        values[name] = _parse(variable, environment[variable], known[name])
    return values


def _parse(variable: str, text: str, kind: type) -> Any:
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ConfigError(
            f"environment: {variable} must be {_NAMES[kind]}, got {text!r:.100}"
        ) from None
