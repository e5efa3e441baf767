"""What every family states, and that nothing outside its folder knows its name."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
from tiny import tiny_egru_package
from tiny_spikegpt import tiny_spikegpt_package
from tiny_spikingbrain import tiny_spikingbrain_package

from spiketrain.runtime import fields
from spiketrain.runtime.families import NAMES
from spiketrain.runtime.family import load_family
from spiketrain.runtime.fields import Choice, ListOf, Maybe, Number, Whole, check_flag
from spiketrain.runtime.package import read_package

ROOT = Path(__file__).parents[2]
MAKERS = {
    "egru": tiny_egru_package,
    "spikegpt": tiny_spikegpt_package,
    "spikingbrain": tiny_spikingbrain_package,
}
# `convert` and the reader of checkpoints know which kinds of source there are.
MAY_NAME_FAMILIES = ("spiketrain/commands/convert", "lm/checkpoint.py")


def test_every_family_has_a_package_here():
    assert set(MAKERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_writes_the_config_that_it_was_read_from(tmp_path, name):
    package = read_package(MAKERS[name](tmp_path / "p"))
    written = package.spec.to_config(package.config["spiketrain"]["fidelity"])
    assert load_family(name).spec.from_config(written) == package.spec
    stated = package.config["spiketrain"]
    same = {key: stated[key] for key in ("format_version", "weights", "events", "fidelity")}
    assert written["spiketrain"] == same
    told = set(package.config) - {"spiketrain"}
    assert {key: written[key] for key in told} == {key: package.config[key] for key in told}


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_a_package_hold_each_tensor_once(tmp_path, name):
    package = read_package(MAKERS[name](tmp_path / "p"))
    entries = [entry for part in package.spec.parts.values() for entry in part]
    names = [tensor for entry in entries for tensor in entry.stored()]
    assert len(set(names)) == len(names)
    assert set(names) == set(package.tensors)
    assert package.spec.num_parameters == sum(entry.parameters for entry in entries)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_that_a_config_may_leave_out_has_a_good_default(tmp_path, name):
    package = read_package(MAKERS[name](tmp_path / "p", weights="float32"))
    spec = load_family(name).spec
    defaults = fields.defaults(spec)
    for key, rule in fields.rules(spec).items():
        if key in defaults:
            rule(key, defaults[key])
    config = {k: v for k, v in package.config.items() if k not in defaults}
    assert spec.from_config(config).vocab_size == package.spec.vocab_size


@pytest.mark.parametrize("name", ["other", "", None, 3, "../egru", "egru.spec"])
def test_a_name_that_is_no_family_is_refused_before_an_import(name):
    with pytest.raises(ValueError, match=r"model_type must be one of egru, .*, got"):
        load_family(name)


def test_no_part_but_a_family_compares_its_name():
    quoted = "|".join(NAMES)
    compares = re.compile(rf"""(==|!=|\bin)\s*[\[({{]?\s*["'](?:{quoted})["']""")
    found = []
    for part in ("lm", "runtime", "serving", "spiketrain", "training"):
        for file in (ROOT / part).rglob("*.py"):
            place = file.relative_to(ROOT).as_posix()
            if "/families/" in place or place.startswith(MAY_NAME_FAMILIES):
                continue
            found += [f"{place}: {line}" for line in file.read_text("utf-8").splitlines()
                      if compares.search(line)]  # fmt: skip
    assert found == []


@pytest.mark.parametrize(
    ("rule", "good", "bad", "message"),
    [
        (Whole(1, 9), [1, 9], [0, 10, True, 1.0, "1", None], r"a whole number in \[1, 9\], got"),
        (Whole(1), [1, 1 << 40], [0, True, 1.5], "at least 1, got"),
        (Number(0.5, 2), [0.5, 1, 2.0], [0.4, 3, True, "1", math.nan], r"number in \[0.5, 2\]"),
        (Number(0, 1, without_high=True), [0, 0.9], [1, math.nan], r"a number in \[0, 1\), got"),
        (Number(0.0, without_low=True), [0.1, 1e30], [0, math.inf], "finite and above 0, got"),
        (Number(0.0), [0, 7], [-1, math.inf, "x"], "finite and at least 0, got"),
        (Number(-math.inf), [-3, 4.5], [math.inf, -math.inf, None], "be finite, got"),
        (Choice(("a", "b")), ["a"], ["c", 1, None], r"one of \('a', 'b'\), got"),
        (ListOf("sizes"), [[], (1,)], [3, "x", None, {}], "a list of sizes, got"),
        (Maybe(Whole(1)), [None, 1], [0, "x"], "at least 1, got"),
        (check_flag, [True, False], [0, 1, "true", None], "true or false, got"),
    ],
)
def test_a_rule_takes_its_range_and_names_field_rule_and_value(rule, good, bad, message):
    for value in good:
        rule("field", value)
    for value in bad:
        with pytest.raises(ValueError, match=f"^field must be {message}|^field must .*{message}"):
            rule("field", value)


def test_derived_defaults_are_made_of_what_is_told_and_a_missing_field_is_named():
    @dataclasses.dataclass(kw_only=True)
    class Stated:
        width: int = fields.whole(1, 9)
        inner: int = fields.whole(1, 99, derived=lambda values: values.get("width"))
        names: tuple = fields.sequence("names", default=[])

    assert fields.completed(Stated, {"width": 3}) == {"width": 3, "inner": 3, "names": []}
    assert fields.completed(Stated, {"width": 3, "inner": 5})["inner"] == 5
    first, second = (fields.completed(Stated, {"width": 1})["names"] for _ in range(2))
    assert first is not second
    with pytest.raises(ValueError, match="width is missing"):
        fields.completed(Stated, {"inner": 5})
