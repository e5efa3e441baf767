"""Rules for the values of flags: a rule returns what a value must be, or None for a good value."""

import json
import re
from collections.abc import Callable
from typing import Any

Rule = Callable[[Any], str | None]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_BYTES = re.compile(r"(\d{1,12})([KMG]?)B?")


def one_of(*values: str) -> Rule:
    """The value is one of these."""
    return lambda value: None if value in values else f"must be one of {', '.join(values)}"


def at_least(least: int) -> Rule:
    """The number is not below `least`."""
    return lambda value: None if value >= least else f"must be at least {least}"


def between(low: float, high: float) -> Rule:
    """The number is above `low` and below `high`."""
    return lambda value: None if low < value < high else f"must be between {low:g} and {high:g}"


def within(low: float, high: float) -> Rule:
    """The number is neither below `low` nor above `high`."""
    rule = f"must be in [{low:g}, {high:g}]"
    return lambda value: None if low <= value <= high else rule


def above_up_to(low: float, high: float) -> Rule:
    """The number is above `low` and not above `high`."""
    rule = f"must be above {low:g} and at most {high:g}"
    return lambda value: None if low < value <= high else rule


def number_of_bytes(value: str) -> str | None:
    """The text is a positive number of bytes, with K, M or G."""
    return None if _bytes(value) else "must be a number of bytes such as 4G"


def bytes_of(text: str) -> int:
    """Bytes of a text that keeps the rule `number_of_bytes`."""
    return _bytes(text)


def name_and_value(text: str) -> str | None:
    """The text is NAME=VALUE with a value in JSON."""
    _, equals, value = text.partition("=")
    try:
        json.loads(value)
    except ValueError:
        equals = ""
    return None if equals else "must read NAME=VALUE"


def value_by_name(texts: tuple[str, ...]) -> dict[str, Any]:
    """The names and values of texts that keep the rule `name_and_value`."""
    pairs = (text.partition("=") for text in texts)
    return {name: json.loads(value) for name, _, value in pairs}


def _bytes(text: str) -> int:
    """Bytes of a number with K, M or G; 0 for any other text."""
    match = _BYTES.fullmatch(text.upper())
    return int(match[1]) * _UNITS[match[2]] if match else 0
