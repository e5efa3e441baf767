"""Refuses by name the numbers in constraints that llguidance cannot hold or that make it slow.

llguidance reads numbers of a schema as doubles and builds integer ranges from them. A range that
begins at the least 64-bit integer overflows and ends the process. Integers beyond 2^53 are rounded.
llguidance works out the required repeats as a whole for a single token.
"""

import json
import re
from contextlib import suppress
from typing import Any

from spiketrain.runtime.errors import RequestError

LEAST = -(2**63 - 1024)  # the least double above -2^63
MOST = 2**63 - 1
MAX_EXACT = 2**53
MAX_REPEATS = 16384  # that have to be there: some 20 ms for the token before them
# fmt: off
_BOUNDS = frozenset((
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems",
    "maxItems", "minLength", "maxLength", "minProperties", "maxProperties", "minContains",
    "maxContains",
))
# fmt: on
_VALUES = frozenset(("const", "enum"))
_NAMED = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
_NOTES = frozenset(("default", "examples", "title", "description", "$comment"))
_MIN_COUNT = re.compile(r"\{\s*(\d+)")  # of a repeat
_JSON = re.compile(r"\A\s*")
_JSON_IN_GRAMMAR = re.compile(r"%json\s*(?=[{\[])")
_DIGITS = 40  # of an integer that is looked at exactly; longer ones are out of range anyway


def check_numbers(field: str, source: str) -> None:
    """Refuse a constraint for such a number. Raises RequestError naming its field.

    Looks at schemas, at `%json` parts of grammars, and at least counts of repeats in grammars,
    regular expressions and the patterns of schemas. What is no JSON is left for llguidance.
    """
    if field != "json_schema":
        _check_repeats(field, source)
    decoder = json.JSONDecoder(parse_int=_integer)
    begin = {"json_schema": _JSON, "grammar": _JSON_IN_GRAMMAR}.get(field)
    for match in begin.finditer(source) if begin else ():
        try:
            schema, _ = decoder.raw_decode(source, match.end())
        except (ValueError, RecursionError):
            continue
        with suppress(RecursionError):  # which is too deep for llguidance as well
            _check_schema(field, schema)


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _check_schema(field: str, schema: Any) -> None:
    """Check a schema and those inside it; as deep as the JSON decoder goes."""
    if isinstance(schema, list):
        for part in schema:
            _check_schema(field, part)
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if name in _VALUES:
            _check_value(field, name, value)
        elif name == "pattern" and isinstance(value, str):
            _check_repeats(field, value)
        elif name in _NAMED and isinstance(value, dict):
            if name == "patternProperties":
                _check_repeats(field, "\n".join(value))
            _check_schema(field, list(value.values()))
        elif name in _BOUNDS and isinstance(value, int | float):
            if not LEAST <= value <= MOST:
                rule = f"hold numbers from {LEAST} to {MOST} in {name}"
                raise RequestError(field, rule, value)
        elif name not in _NOTES:
            _check_schema(field, value)


def _check_value(field: str, name: str, value: Any) -> None:
    """Check what a text has to be equal to."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            _check_value(field, name, part)
    elif isinstance(value, int | float) and not -MAX_EXACT <= value <= MAX_EXACT:
        raise RequestError(field, f"hold numbers from -2^53 to 2^53 in {name}", value)


def _check_repeats(field: str, pattern: str) -> None:
    for match in _MIN_COUNT.finditer(pattern):
        digits = match[1].lstrip("0")
        if len(digits) > len(str(MAX_REPEATS)) or int(digits or "0") > MAX_REPEATS:
            raise RequestError(field, f"repeat at most {MAX_REPEATS} times", match[0][:40])
