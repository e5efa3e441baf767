"""From a tiny Llama's run to a spiking package, on the command line."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from command_in_process import call
from corpus_text import corpus_text
from tiny_llama import TEACHER, llama_directory

from spiketrain import runtime


@pytest.mark.slow
def test_a_llama_becomes_a_package_that_measures_as_reported(tmp_path, monkeypatch, capsys):
    text = tmp_path / "tales.txt"
    text.write_text(corpus_text(8))
    (tmp_path / "recipe.toml").write_text(TEACHER.replace("12_000", "6_000"))
    teacher, package = tmp_path / "teacher", tmp_path / "package"
    assert call(monkeypatch, "train", tmp_path / "recipe.toml", "--out", teacher) == 0
    arguments = ("--recipe", "transformer-to-spiking", "--calib", text, "--target-sparsity", "0.3")
    assert call(monkeypatch, "convert", teacher, package, *arguments, "--weights", "int4") == 0
    report = json.loads((package / "report.json").read_text())
    stages = {stage["stage"]: stage for stage in report["stages"]}
    assert list(stages)[:4] == ["teacher", "mapped", "spiking", "sparse"]
    config = json.loads((package / "config.json").read_text())
    assert config["spiketrain"]["weights"]["body"] == "int4-go"
    assert config["spiketrain"]["fidelity"] == "approximate"
    model = runtime.load_model(package)
    assert model.tokenizer.decode(model.tokenizer.encode("The hen")) == "The hen"
    capsys.readouterr()
    assert call(monkeypatch, "eval", "ppl", package, "--data", text, "--json") == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    # the package carries its state on, the report starts each context from nothing
    wanted = stages["int4"]["bits_per_byte"]
    assert measured["bits_per_byte"] == pytest.approx(wanted, rel=0.25)


@pytest.mark.slow
def test_a_directory_becomes_a_package_that_ends_texts_where_its_config_says(tmp_path, monkeypatch):
    source, recipe = llama_directory(tmp_path)
    package = tmp_path / "package"
    options = ("--weights", "int4", "--window-cache", "int8")
    assert call(monkeypatch, "convert", source, package, *recipe, *options) == 0
    model = runtime.load_model(package)
    assert model.new_state().arrays()["keys.1"].dtype.name == "int8"
    assert model.eos_token_ids == (7,)
    assert model.tokenizer.decode(model.tokenizer.encode("The hen")) == "The hen"


def test_a_directory_without_a_recipe_is_told_which_it_needs(tmp_path, monkeypatch, capsys):
    source, _ = llama_directory(tmp_path)
    assert call(monkeypatch, "convert", source, tmp_path / "package") == 1
    assert "needs --recipe transformer-to-spiking" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "options", "code", "message"),
    [
        (None, ("--target-sparsity", "0.98"), 2, "must be between 0 and 0.98, got 0.98"),
        ("tokenizer.model", (), 1, "tokenizer.model: must be a readable tokenizer"),
        ("text.txt", (), 1, "text.txt: must have text, is empty"),
        ("vocabulary", (), 1, "the tokenizer must have at most the model's 61 tokens, got 256"),
    ],
)
def test_what_a_directory_cannot_be_converted_with_is_said(
    tmp_path, monkeypatch, capsys, change, options, code, message
):
    source, recipe = llama_directory(tmp_path, 61 if change == "vocabulary" else 256)
    if change == "tokenizer.model":
        (source / "tokenizer.json").rename(source / change).write_text("junk")
    if change == "text.txt":
        (tmp_path / change).write_text("")
    assert call(monkeypatch, "convert", source, tmp_path / "package", *recipe, *options) == code
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "package").exists()
