"""Numbers in JSON schemas that llguidance cannot hold, refused by name before it sees them.

llguidance reads numbers as doubles and makes integer ranges of them. Where a range begins at the
least 64-bit integer it overflows and takes the process with it; integers beyond 2^53 are rounded.
"""

import json
import re
from typing import Any

from spiketrain.runtime.errors import RequestError

LEAST = -(2**63 - 1024)  # the least double above -2^63
MOST = 2**63 - 1
MOST_EXACT = 2**53
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
_JSON = re.compile(r"\A\s*")
_JSON_IN_GRAMMAR = re.compile(r"%json\s*(?=[{\[])")
_DIGITS = 40  # of an integer that is looked at exactly; longer ones are out of range anyway


def check_schema_numbers(field: str, source: str) -> None:
    """Refuse a schema, or the `%json` parts of a grammar, for such a number. Raises RequestError.

    What is no JSON is left for llguidance to refuse.
    """
    decoder = json.JSONDecoder(parse_int=_integer)
    begin = {"json_schema": _JSON, "grammar": _JSON_IN_GRAMMAR}.get(field)
    for match in begin.finditer(source) if begin else ():
        try:
            schema, _ = decoder.raw_decode(source, match.end())
        except (ValueError, RecursionError):
            continue
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
        elif name in _NAMED and isinstance(value, dict):
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
    elif isinstance(value, int | float) and not -MOST_EXACT <= value <= MOST_EXACT:
        raise RequestError(field, f"hold numbers from -2^53 to 2^53 in {name}", value)
