"""The options objects of convert: one flag a field, checked at birth, a command line and back."""

import json
import shlex
from pathlib import Path

import pytest
import typer
from hypothesis import assume, given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("transformers")

from command_in_process import call

import spiketrain.lm.families
from spiketrain.cli import load_command
from spiketrain.commands.convert import command as convert_command
from spiketrain.commands.convert.flag import flags_of
from spiketrain.commands.convert.gguf_options import MAX_K, MIN_K, GgufToSpiking
from spiketrain.commands.convert.kinds import (
    CHECKPOINTS,
    KINDS,
    RECIPES,
    all_flags,
    options_from,
)
from spiketrain.commands.convert.shared_flags import MAX_DIAL, MAX_SILENT
from spiketrain.lm.checkpoint import family_checkpoints
from spiketrain.lm.conversion.sparsity import MAX_QUIET
from spiketrain.runtime.dial import MAX_DIAL as RUNTIME_MAX_DIAL
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.families.spikingbrain import packing, spec

CONVERT = load_command("convert")
IDS = [kind.__name__ for kind in KINDS]
FORMATS = st.sampled_from(["float32", "bfloat16", "int8", "int4"])
RULED = {  # values of flags whose rule plain values of their type would mostly break
    "weights": FORMATS,
    "head_weights": FORMATS,
    "semantics": st.sampled_from(["spikegpt", "rwkv4"]),
    "choose": st.builds("{}={}".format, st.text(), st.integers() | st.floats(allow_nan=False)),
    "down_proj": st.sampled_from(["published", "spiked"]),
    "window_cache": st.sampled_from(["float32", "bfloat16", "int8"]),
    "max_memory": st.builds("{}{}".format, st.integers(1, 1 << 30), st.sampled_from("KMGkmg")),
    "window_keys": st.integers(1, 1 << 40),
    "target_sparsity": st.floats(1e-9, 0.97),
    "max_dial": st.floats(1.001, 16),
    "k": st.floats(MIN_K, MAX_K),
    "dead_zone": st.floats(0, MAX_K),
    "variant": st.sampled_from(["projections", "projections", "of its own"]),
}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
PLAIN = {
    str: TEXT,
    Path: TEXT.map(Path),
    bool: st.booleans(),
    (str | None): TEXT,
    (Path | None): TEXT.map(Path),
    tuple[str, ...]: TEXT,
    tuple[Path, ...]: TEXT.map(Path),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Kind -> a path that is known as a source of it; there is nothing to convert."""
    folder = tmp_path_factory.mktemp("sources")
    for name, model_type in (("directory", "egru"), ("rwkv4", "rwkv"), ("published", "gla_swa")):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "run" / "model").mkdir(parents=True)
    (folder / "run" / "checkpoint.pt").touch()
    for name in ("egru.cpt", "egru.config.yaml", "spikegpt.pth"):
        (folder / name).touch()
    names = ("run", "directory", "egru.cpt", "spikegpt.pth", "rwkv4", "published")
    paths = dict(zip(CHECKPOINTS, (folder / name for name in names), strict=True))
    (folder / "network.gguf").touch()
    gguf = {GgufToSpiking: folder / "network.gguf"}
    return paths | dict.fromkeys(RECIPES, Path("-a run")) | gguf


def values_of(kind):
    """A strategy for values by field, defaults among them."""
    return st.fixed_dictionaries(
        {name: field for name, flag in flags_of(kind).items() for field in [_values(flag)]}
    )


def _values(flag):
    if flag.fixed or flag.name == "source":
        return st.none()
    one = RULED.get(flag.name, PLAIN.get(flag.type))
    if flag.repeats:
        return st.lists(one, max_size=3).map(tuple)
    return one if flag.option.argument else st.just(flag.default) | one


def born(kind, source, values):
    """The options object; an example that the object itself refuses is no example."""
    flags = flags_of(kind)
    free = {name: value for name, value in values.items() if not flags[name].fixed}
    if kind in RECIPES:
        free["calib"] = free["calib"] or Path("text.txt")
    try:
        return kind(**{**free, "source": source})
    except typer.BadParameter:
        assume(False)


def parsed(command):
    """The options that the command line makes of a command."""
    program, name, *words = shlex.split(command)
    assert (program, name) == ("spiketrain", "convert")
    seen = []

    class Unused:
        def check_inputs(self):
            """The files of an example are nowhere."""

        def convert(self):
            """Nor is its source."""

    def note(values):
        seen.append(options_from(values))
        return Unused()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(convert_command, "options_from", note)
        CONVERT.main(words, "convert", standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_the_command_of_any_options_is_parsed_to_the_same_options(sources, kind):
    @given(values_of(kind))
    def check(values):
        options = born(kind, sources[kind], values)
        assert parsed(options.command()) == options

    check()


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_the_recorded_command_leaves_out_what_is_about_one_attempt_alone(sources, kind):
    needed = {"calib": Path("text.txt")} if kind in RECIPES else {}
    attempt = {n: True for n, flag in flags_of(kind).items() if flag.option.of_attempt}
    assert "force" in attempt
    common = {"source": sources[kind], "target": Path("p"), "licence": "MIT", **needed}
    options = kind(**common, **attempt)
    recorded = options.provenance()
    assert parsed(recorded["command"]) == kind(**common)
    assert recorded["licence"] == "MIT"
    assert recorded["source"] == sources[kind].name


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_a_flag_that_a_kind_of_source_does_not_have_is_refused_by_name(sources, kind):
    fixed = {name: flag.default for name, flag in flags_of(kind).items() if flag.fixed}
    nothing = dict.fromkeys(all_flags()) | {"source": sources[kind], "target": Path("p")} | fixed
    lacking = all_flags().keys() - flags_of(kind).keys() - {"recipe"}
    assert lacking
    for name in lacking:
        with pytest.raises((typer.BadParameter, SpiketrainError)) as caught:
            options_from(nothing | {name: ("x=1",)})
        hint = getattr(caught.value, "param_hint", None)
        assert all_flags()[name].spelling in f"{hint} {caught.value}"


def test_a_flag_says_the_same_in_every_kind():
    for name, flag in all_flags().items():
        for kind in KINDS:
            other = flags_of(kind).get(name, flag)
            assert (other.spelling, other.option.help) == (flag.spelling, flag.option.help)
            assert other.type == flag.type
            assert other.default == flag.default or flag.fixed


def test_the_help_has_every_flag_with_the_kinds_that_have_it(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "250")
    assert call(monkeypatch, "convert", "--help") == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for flag in all_flags().values():
        assert flag.option.argument or f"{flag.spelling} " in text
    assert "--rescaled" in text
    assert "undo its scaling. For RWKV-4 directories." in text
    assert "write nothing. For checkpoints and GGUF files." in text
    assert "else --calib. For --recipe." in text


def test_every_kind_of_checkpoint_that_a_family_reads_has_options():
    readers = {
        r.name for name in spiketrain.lm.families.NAMES for r in family_checkpoints(name).READERS
    }
    assert readers | {"run", "directory"} == {kind.reader for kind in CHECKPOINTS}


def test_bounds_that_are_written_again_are_the_same():
    assert (MAX_DIAL, MAX_SILENT) == (RUNTIME_MAX_DIAL, MAX_QUIET)
    assert (MIN_K, MAX_K) == (packing.MIN_K, spec.MAX_K)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_options_are_checked_when_they_are_made(sources, kind):
    paths = {"source": sources[kind], "target": Path("p"), "calib": Path("text.txt")}
    wrong = {"weights": "int3", "target_sparsity": 1.0, "max_dial": 1.0, "window_keys": 0,
             "max_memory": "lots", "choose": ("width",), "down_proj": "both"}  # fmt: skip
    known = flags_of(kind)
    for name, value in wrong.items():
        if name in known:
            values = {key: x for key, x in paths.items() if key in known} | {name: value}
            with pytest.raises(typer.BadParameter, match="must ") as caught:
                kind(**values)
            assert caught.value.param_hint == known[name].spelling


def test_an_unknown_recipe_is_told_all_recipes(tmp_path, monkeypatch, capsys):
    arguments = ("--recipe", "lstm-to-egru", "--calib", "x")
    assert call(monkeypatch, "convert", tmp_path, tmp_path / "p", *arguments) == 1
    errors = capsys.readouterr().err
    assert "recipe must be one of" in errors
    for name in ("gru-to-egru", "rwkv-to-spikegpt", "transformer-to-spiking"):
        assert name in errors
