"""JSON schemas, regular expressions and grammars: tried in a process with limits, then followed."""

import json
from contextlib import contextmanager

from fake_model import END_OF_TEXT, VOCAB_SIZE, ByteTokenizer
from mutation import changed_text, changed_value, json_bytes

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.errors import ConstraintFailed
from spiketrain.serving.request.constraint import Grammars

TARGET, BATCH, NEEDS = 100_000, 200, ("llguidance", "structlog")
MAX_TOKENS = 8
SCHEMAS = (
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": -3, "maximum": 9}}},
    {"type": "array", "items": {"enum": ["x", 1, None]}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"const": 7}, {"type": "string", "pattern": "^a+$", "maxLength": 4}]},
    {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"},
)
EXPRESSIONS = ("[a-z]+@x", "(a|b)*c{2,9}", r"\p{L}\d?[^\n]", "a{3,}|(b(c|d)+)?", r"\b(x)\w+$")
GRAMMARS = (
    'start: "a" rest\nrest: /[0-9]+/ | "(" rest ")"',
    "start: WORD+\nWORD: /[a-z]{1,5}/\n%ignore / /",
    'start: x{2,5}\nx: "ab" | %json {"type": "integer", "maximum": 12}',
)
WORDS = ("{0,99999}", "(?i)", "*", "+?", "|", "&", "~", "[^", "\\", "%json {}", '"\\u0000"', ".*")


def prepare(folder):
    return None


def make(chance, seeds):
    kind = chance.randrange(3)
    if kind == 0:
        source = json.dumps(changed_value(chance, chance.choice(SCHEMAS)))
        return json_bytes(["json_schema", source])
    field, seeds = (("regex", EXPRESSIONS), ("grammar", GRAMMARS))[kind - 1]
    return json_bytes([field, changed_text(chance, chance.choice(seeds), WORDS)])


@contextmanager
def open_calls(seeds):
    grammars = Grammars(ByteTokenizer(), VOCAB_SIZE, (END_OF_TEXT,))

    def call(data):
        constraint = grammars.compile(*json.loads(data))
        for step in range(MAX_TOKENS):
            tokens = constraint.allowed().nonzero()[0]
            if constraint.complete or not tokens.size:
                return
            constraint.push(int(tokens[31 * step % tokens.size]))

    try:
        yield call
    finally:
        grammars.close()


def allowed():
    return (RequestError, ConstraintFailed)
