import json
from types import SimpleNamespace

import numpy as np
import pytest
from fake_model import END_OF_TEXT, VOCAB_SIZE, ByteTokenizer

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.errors import ConstraintFailed
from spiketrain.serving.isolation.confinement import Confinement, Died
from spiketrain.serving.request.constraint import Grammars

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ann", "Bo"]}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


LEAST = -(2**63)
CRASHES = [  # llguidance 1.9.1 ends the process on each
    ("json_schema", {"const": LEAST}),
    ("json_schema", {"const": LEAST + 1}),
    ("json_schema", {"enum": ["a", LEAST]}),
    ("json_schema", {"const": {"a": [LEAST]}}),
    ("json_schema", {"type": "integer", "minimum": LEAST, "maximum": LEAST}),
    ("json_schema", {"type": "integer", "minimum": -1e300, "maximum": -1e300}),
    ("json_schema", {"allOf": [{"type": "integer", "minimum": LEAST}, {"maximum": LEAST}]}),
    ("json_schema", {"properties": {"const": {"items": {"const": LEAST}}}}),
    ("json_schema", {"$defs": {"x": {"const": LEAST}}, "$ref": "#/$defs/x"}),
    ("grammar", {"const": LEAST}),
    ("grammar", {"anyOf": [{"type": "string"}, {"const": LEAST}]}),
]


def source_of(field, schema):
    text = json.dumps(schema)
    return text if field == "json_schema" else f'start: "x" | y\ny: %json {text}'


@pytest.fixture(scope="module")
def grammars():
    opened = Grammars(ByteTokenizer(), VOCAB_SIZE + 3, (END_OF_TEXT,))
    yield opened
    opened.close()


def walk(constraint, seed, longest=200):
    """A random text that the constraint allows, and whether it ended by itself."""
    chance = np.random.default_rng(seed)
    written = bytearray()
    while not constraint.complete and len(written) < longest:
        token = int(chance.choice(np.flatnonzero(constraint.allowed())))
        constraint.push(token)
        if token == END_OF_TEXT:
            break
        written.append(token)
    return bytes(written)


@pytest.mark.parametrize("seed", range(5))
def test_every_allowed_text_of_a_json_schema_obeys_it(grammars, seed):
    value = json.loads(walk(grammars.compile("json_schema", json.dumps(SCHEMA)), seed, 2000))
    assert value["name"] in ("Ann", "Bo")
    assert isinstance(value["age"], int)
    assert value["age"] <= 99


@pytest.mark.parametrize("seed", range(5))
def test_a_regex_holds_for_the_whole_text(grammars, seed):
    assert walk(grammars.compile("regex", "[0-9]{3}-(a|b)"), seed)[3:] in (b"-a", b"-b")


def test_a_grammar_allows_what_its_start_rule_derives(grammars):
    source = 'start: pair ("," pair)?\npair: "x" | "y"'
    texts = {walk(grammars.compile("grammar", source), seed) for seed in range(40)}
    assert texts == {b"x", b"y", b"x,x", b"x,y", b"y,x", b"y,y"}


def test_the_end_of_text_is_allowed_where_the_text_may_end(grammars):
    constraint = grammars.compile("regex", "ab*")
    assert np.flatnonzero(constraint.allowed()).tolist() == [ord("a")]
    constraint.push(ord("a"))
    assert np.flatnonzero(constraint.allowed()).tolist() == [ord("b"), END_OF_TEXT]
    assert not constraint.complete


def test_padding_of_the_vocabulary_is_never_allowed(grammars):
    allowed = grammars.compile("regex", "(.|\\n)*").allowed()
    assert allowed.shape == (VOCAB_SIZE + 3,)
    assert not allowed[VOCAB_SIZE:].any()


def test_a_model_without_an_end_of_text_stops_where_nothing_may_follow():
    grammars = Grammars(ByteTokenizer(), VOCAB_SIZE, ())
    constraint = grammars.compile("regex", "a?b")
    grammars.close()
    assert constraint.allowed().shape == (VOCAB_SIZE,)
    constraint.push(ord("b"))
    assert constraint.complete


def test_a_copy_goes_its_own_way(grammars):
    first = grammars.compile("regex", "a(b|c)")
    first.push(ord("a"))
    second = first.copy()
    first.push(ord("b"))
    assert first.complete
    assert np.flatnonzero(second.allowed()).tolist() == [ord("b"), ord("c")]


@pytest.mark.parametrize(
    ("field", "source"),
    [
        ("json_schema", "{"),
        ("json_schema", '{"type": "wat"}'),
        ("json_schema", '{"$ref": "http://127.0.0.1:1/schema"}'),
        ("regex", "("),
        ("grammar", "start: ("),
        ("grammar", 'begin: "a"'),
    ],
)
def test_what_does_not_compile_is_refused_naming_the_field(grammars, field, source):
    with pytest.raises(RequestError, match="must compile") as caught:
        grammars.compile(field, source)
    assert caught.value.field == field


def test_a_token_against_the_constraint_is_an_error(grammars):
    constraint = grammars.compile("regex", "ab")
    with pytest.raises(ConstraintFailed):
        constraint.push(ord("z"))


def test_a_grammar_of_too_much_work_is_refused(grammars):
    source = 'start: z y{900}\ny: x{900}\nx: "a"\nz: /[a-z]{70}/'
    constraint = grammars.compile("grammar", source)

    def follow():
        for _ in range(100):
            constraint.push(int(constraint.allowed().argmax()))

    with pytest.raises(ConstraintFailed, match="Too many items"):
        follow()


@pytest.mark.parametrize(("field", "schema"), CRASHES)
def test_integers_that_end_the_library_are_refused_by_name(grammars, field, schema):
    with pytest.raises(RequestError, match=f"{field} must hold numbers from -") as caught:
        grammars.compile(field, source_of(field, schema))
    assert caught.value.field == field


@pytest.mark.parametrize(("field", "schema"), CRASHES)
def test_a_crash_that_nobody_foresaw_is_a_refusal(grammars, monkeypatch, field, schema):
    monkeypatch.setattr("spiketrain.serving.request.constraint.check_numbers", lambda *_: None)
    with pytest.raises(RequestError, match="crashes its library") as caught:
        grammars.compile(field, source_of(field, schema))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ('{"const": 1e400}', "const"),
        ('{"maximum": 1e400}', "maximum"),
        ('{"multipleOf": 1e19}', "multipleOf"),
        ('{"const": 9007199254740993}', "const"),  # rounded: another number would be written
        ('{"maximum": 9223372036854775808}', "maximum"),
        ('{"exclusiveMinimum": -9223372036854775808}', "exclusiveMinimum"),
        ('{"minItems": 1' + "0" * 5000 + "}", "minItems"),
        (' {"not": {"enum": [[1e30]]}}', "enum"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(grammars, schema, name):
    with pytest.raises(RequestError, match=f"hold numbers from .* in {name}"):
        grammars.compile("json_schema", schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"const": 2**53},
        {"type": "integer", "maximum": 2**63 - 1},
        {"default": 1e300, "examples": [LEAST], "const": 1},
        {"properties": {"const": {"maxItems": 2**63 - 1}, "minimum": {"type": "string"}}},
    ],
)
def test_numbers_that_fit_or_say_nothing_are_taken(grammars, schema):
    grammars.compile("json_schema", json.dumps(schema))


@pytest.mark.parametrize(
    ("field", "source"),
    [
        ("regex", "a{99999}"),
        ("regex", "b?(ab){16385,}"),
        ("regex", "a{1" + "0" * 5000 + "}"),
        ("grammar", 'start: x{600000}\nx: "a"'),
        ("grammar", "start: /b?a{ 99999}/"),
        ("json_schema", '{"type": "string", "pattern": "^b?a{99999}$"}'),
        ("json_schema", '{"patternProperties": {"a{99999}": {"type": "null"}}}'),
    ],
)
def test_repeats_that_make_one_token_slow_are_refused_by_name(grammars, field, source):
    with pytest.raises(RequestError, match=f"{field} must repeat at most 16384 times"):
        grammars.compile(field, source)


@pytest.mark.parametrize(
    ("field", "source"),
    [
        ("regex", "(a{200}){200}"),
        ("regex", "b(a{200}){200}"),
        ("json_schema", json.dumps({"const": "a" * 20_000})),
    ],
)
def test_long_stretches_without_a_choice_are_refused(grammars, field, source):
    with pytest.raises(RequestError, match="leaves no choice for more than 16384 bytes"):
        grammars.compile(field, source)


@pytest.mark.parametrize(
    ("field", "source"),
    [
        ("regex", "a{16384}"),
        ("regex", "a{1,99999}"),
        ("regex", r"\{99999\}"[:2] + "a"),
        ("json_schema", json.dumps({"const": "a" * 16_000, "description": "{99999}"})),
    ],
)
def test_repeats_within_bounds_are_taken(grammars, field, source):
    grammars.compile(field, source)


def test_the_first_mask_is_there_before_the_engine_asks(grammars, monkeypatch):
    constraint = grammars.compile("regex", "a{16384}")
    other = constraint.copy()
    for each in (constraint, other):  # neither can compute a mask any more
        monkeypatch.setattr(each, "_matcher", SimpleNamespace(is_error=lambda: False))
        assert np.flatnonzero(each.allowed()).tolist() == [ord("a")]


def test_a_constraint_that_passed_is_not_tried_again(grammars, monkeypatch):
    grammars.compile("regex", "passed")
    monkeypatch.setattr(grammars, "_confinement", lambda: pytest.fail("tried again"))
    grammars.compile("regex", "passed")


def test_a_constraint_that_takes_too_long_or_too_much_is_a_refusal(grammars, monkeypatch):
    def ask(*_):
        raise Died("takes more than 2 s of work")

    monkeypatch.setattr(Confinement, "ask", ask)
    with pytest.raises(RequestError, match=r"regex must compile \(takes more than 2 s of work"):
        grammars.compile("regex", "never seen")


def test_a_panic_of_the_library_is_a_failed_constraint(grammars, monkeypatch):
    class Panic(BaseException):
        pass

    def panic(*_):
        raise Panic("wat")

    constraint = grammars.compile("regex", "ab")
    broken = SimpleNamespace(compute_bitmask=panic, consume_token=panic, is_error=lambda: False)
    monkeypatch.setattr(constraint, "_matcher", broken)
    with pytest.raises(ConstraintFailed, match=r"its library fails \(wat\)"):
        constraint.push(ord("a"))
    with pytest.raises(ConstraintFailed, match=r"its library fails \(wat\)"):
        constraint.allowed()
