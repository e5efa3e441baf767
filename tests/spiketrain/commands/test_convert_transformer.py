"""From a tiny Llama's run to a spiking package, on the command line."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from command_in_process import call  # noqa: E402
from tiny_llama import TEACHER  # noqa: E402

import runtime  # noqa: E402


def test_a_llama_becomes_a_package_that_measures_as_reported(tmp_path, monkeypatch, capsys):
    sentence = "The hen and the fox went to the well, and saw the moon in it."
    words = sentence.split()
    tales = [" ".join(words[i:] + words[:i]) + f"\n\nEnd {i}.\n" for i in range(12)]
    text = tmp_path / "tales.txt"
    text.write_text("".join(tale + "<|endoftext|>\n" for tale in tales) * 8)
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
